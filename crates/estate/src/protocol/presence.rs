//! Members come, go and die: what that means to all that waits for them.

use super::engine::{Action, Engine, Event, Now};
use super::member::{News, NodeId};
use crate::error::Error;
use crate::store::Store;

impl Engine {
    /// A member is there. Said again, it changes nothing.
    pub fn joined(&mut self, store: &Store, member: &NodeId, now: Now) -> Vec<Action> {
        self.enter(store, now);
        match self.members.joined(member) {
            News::Known | News::Stale => {}
            News::OurName => self
                .out
                .push(Action::Event(Event::NameTaken(member.clone()))),
            News::Joined => self.arrived(store, member),
            News::Restarted { before, was_live } => {
                self.departed(store, &before, was_live);
                self.arrived(store, member);
            }
        }
        self.finish()
    }

    /// A member has left, or cannot be reached any more.
    pub fn left(&mut self, store: &Store, member: &NodeId, now: Now) -> Vec<Action> {
        self.enter(store, now);
        if self.members.left(member) {
            self.departed(store, member, true);
        }
        self.finish()
    }

    /// The process of a member has ended, and its memory with it: it said goodbye, or nobody listens
    /// where it did. Moves that cannot be decided without it go by that; silence alone proves nothing.
    pub fn died(&mut self, store: &Store, member: &NodeId, now: Now) -> Vec<Action> {
        self.enter(store, now);
        if *member != self.own {
            let was_live = self.members.left(member);
            self.members.died(member);
            self.departed(store, member, was_live);
        }
        self.finish()
    }

    /// Somebody vouches that the process of a member that has gone has ended: no other proof of it
    /// will come. Returns how many moves waited for that.
    pub fn declare_dead(
        &mut self,
        store: &Store,
        name: &str,
        now: Now,
    ) -> (Result<u64, Error>, Vec<Action>) {
        if self.members.named(name).is_some() {
            let what = format!("{name} is a live member, and cannot be declared dead");
            let remedy = "its moves go on by themselves";
            return (Err(Error::Request { what, remedy }), Vec::new());
        }
        let Some(member) = self.members.absent(name) else {
            let absent: Vec<_> = self.members.absentees().collect();
            let error = Error::NoAbsentee {
                node: name.to_owned(),
                absent: if absent.is_empty() {
                    "none".to_owned()
                } else {
                    absent.join(", ")
                },
            };
            return (Err(error), Vec::new());
        };
        let waiting = self.departures_in_doubt(&member) + self.arrivals_in_doubt(&member);
        (Ok(waiting), self.died(store, &member, now))
    }

    fn arrived(&mut self, store: &Store, member: &NodeId) {
        self.out.push(Action::Event(Event::Joined(member.clone())));
        self.departures_back(member);
        self.arrivals_back(member);
        self.interests_of_arrived(store, member);
        self.watches_of_arrived();
        self.joints_of_arrived(member);
        self.settle_cuts(store);
    }

    fn departed(&mut self, store: &Store, member: &NodeId, was_live: bool) {
        if was_live {
            self.out.push(Action::Event(Event::Left(member.clone())));
            self.parts.departed(member);
            self.cuts_of_departed(store, member);
            self.calls_of_departed(member);
            self.interests_of_departed(store, member);
        }
        self.watches_of_departed(store, member);
        self.joints_of_departed(store, member);
        let dead = self.members.is_lost(member);
        self.departures_to(store, member, dead);
        self.arrivals_from(store, member, dead);
    }
}
