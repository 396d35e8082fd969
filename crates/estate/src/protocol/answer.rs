//! The answering side of global reads. No side effects: a read changes nothing but the clock.

use super::engine::{Action, Engine, Now};
use super::member::NodeId;
use super::message::{Message, Refusal};
use super::take::table::State;
use crate::error::Error;
use crate::pattern::Pattern;
use crate::reduce::Reducer;
use crate::store::Store;
use crate::version::Stamp;
use std::collections::BTreeMap;
use std::time::Duration;

/// Who wants to know, and for which try.
pub(super) type Asker = (NodeId, u64, Stamp);

/// A cut that is open until what happened before its instant is decided.
#[derive(Debug)]
struct Cut {
    id: u64,
    // The last chain by which items had begun to come when it was opened.
    opened: u32,
    reducer: Reducer,
    ends: Now,
}

/// Reads as of an instant.
#[derive(Debug, Default)]
pub(super) struct Cuts {
    open: BTreeMap<Asker, Cut>,
    // Answers already given, for those who ask again: the cut cannot be opened again.
    given: BTreeMap<Asker, (Vec<u8>, Now)>,
}

impl Cuts {
    pub fn due(&self) -> Option<Now> {
        let open = self.open.values().map(|cut| cut.ends);
        open.chain(self.given.values().map(|(_, ends)| *ends)).min()
    }
}

impl Engine {
    #[allow(clippy::too_many_arguments)] // the fields of the message
    pub(super) fn asked(
        &mut self,
        store: &Store,
        from: &NodeId,
        call: u64,
        at: Option<Stamp>,
        left: Duration,
        reducer: Reducer,
        pattern: &Pattern,
    ) {
        self.out.push(Action::GloballyRead {
            pattern: pattern.as_str().to_owned(),
            by: from.clone(),
        });
        let Some(at) = at else {
            let said =
                self.moved
                    .contribution(store, &self.own, self.now, (pattern, reducer), None);
            let message = match said {
                Ok(said) => Message::Answer {
                    call,
                    at: None,
                    contribution: Box::new(said),
                },
                Err(error) => refuse(call, None, &error),
            };
            self.send_one(from, &message);
            return;
        };
        let asker = (from.clone(), call, at);
        if self.cuts.open.contains_key(&asker) {
            return;
        }
        if let Some((bytes, _)) = self.cuts.given.get(&asker) {
            let bytes = bytes.clone();
            self.send_bytes(vec![from.clone()], bytes);
            return;
        }
        if let Err(error) = self.open_cut(store, asker, reducer, pattern, left) {
            self.send_one(from, &refuse(call, Some(at), &error));
        }
        self.settle_cuts(store);
    }

    /// Opens a cut for `asker`, who may be ourselves.
    pub(super) fn open_cut(
        &mut self,
        store: &Store,
        asker: Asker,
        reducer: Reducer,
        pattern: &Pattern,
        left: Duration,
    ) -> Result<(), Error> {
        let at = asker.2;
        if self.moved.decided() > at {
            return Err(Error::CutPassed {
                node: self.own.name.to_string(),
                at,
                clock: store.clock(),
            });
        }
        let id = self.number();
        store.begin_cut(id, at, pattern)?;
        let ends = self.now + left.min(self.settings.longest_query);
        let opened = self.moved.cut_opened();
        let cut = Cut {
            id,
            opened,
            reducer,
            ends,
        };
        self.cuts.open.insert(asker, cut);
        Ok(())
    }

    /// Answers the cuts before whose instants nothing is undecided any more.
    pub(super) fn settle_cuts(&mut self, store: &Store) {
        let undecided = self.undecided();
        let ready: Vec<Asker> = self
            .cuts
            .open
            .keys()
            .filter(|(.., at)| undecided.is_none_or(|since| since > *at))
            .cloned()
            .collect();
        for asker in ready {
            let Some(cut) = self.cuts.open.remove(&asker) else {
                continue;
            };
            let (to, call, at) = asker.clone();
            let what = (cut.id, at, cut.opened);
            let said = self.moved.as_of(store, what, cut.reducer, None);
            store.end_cut(cut.id);
            self.moved.cut_closed();
            if to == self.own {
                match said {
                    Ok(said) => self.answered(store, &to, call, Some(at), said),
                    Err(error) => self.fail_call(call, error),
                }
                continue;
            }
            let message = match said {
                Ok(said) => Message::Answer {
                    call,
                    at: Some(at),
                    contribution: Box::new(said),
                },
                Err(error) => refuse(call, Some(at), &error),
            };
            let bytes = message.emit();
            self.cuts.given.insert(asker, (bytes.clone(), cut.ends));
            self.send_bytes(vec![to], bytes);
        }
    }

    /// The earliest instant at which something may have happened here that only others know of.
    fn undecided(&self) -> Option<Stamp> {
        let arrivals = self.arrivals.moves.values();
        let doubtful = arrivals.filter(|arrival| arrival.state == State::Doubt);
        let doubtful = doubtful.map(|arrival| arrival.ready_at);
        doubtful.chain(self.joints.undecided()).min()
    }

    pub(super) fn end_cuts(&mut self, store: &Store, of: impl Fn(&Asker) -> bool) {
        let moved = &mut self.moved;
        self.cuts.open.retain(|asker, cut| {
            let ends = of(asker);
            if ends {
                store.end_cut(cut.id);
                moved.cut_closed();
            }
            !ends
        });
    }

    pub(super) fn cuts_of_departed(&mut self, store: &Store, member: &NodeId) {
        self.end_cuts(store, |(asker, ..)| asker == member);
        self.cuts.given.retain(|(asker, ..), _| asker != member);
    }

    pub(super) fn cuts_time(&mut self, store: &Store) {
        let now = self.now;
        let late: Vec<Asker> = self
            .cuts
            .open
            .iter()
            .filter(|(_, cut)| cut.ends <= now)
            .map(|(asker, _)| asker.clone())
            .collect();
        self.end_cuts(store, |asker| late.contains(asker));
        self.cuts.given.retain(|_, (_, ends)| *ends > now);
    }
}

fn refuse(call: u64, at: Option<Stamp>, error: &Error) -> Message {
    let refusal = match error {
        Error::CutPassed { clock, .. } => Refusal::Passed(*clock),
        other => Refusal::Failed(other.to_string()),
    };
    Message::Refuse { call, at, refusal }
}
