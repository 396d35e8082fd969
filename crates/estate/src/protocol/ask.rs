//! The asking side of global reads.
//!
//! Who is expected is fixed when the read begins: all members that are live then. One that fails
//! meanwhile is missing from the view, never silently dropped. Who has not answered is asked again;
//! when the time is up, or nobody is left who could answer, the view says who is missing.
//!
//! A snapshot picks an instant a little ahead of all clocks, so that every member can still open a
//! cut at it. A member whose clock has passed it says so, and the read begins anew with twice the
//! margin.

use super::contribution::{Contribution, combine};
use super::engine::{Action, CallId, Engine, Now};
use super::interest::cached_age;
use super::member::NodeId;
use super::message::{Message, Refusal};
use crate::error::Error;
use crate::query::{Consistency, Query, View};
use crate::store::Store;
use crate::version::Stamp;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How far ahead of the clocks the first instant of a snapshot is, ms.
const MARGIN_MS: u64 = 2;
/// And the last; beyond it a snapshot keeps trying with this.
const MARGIN_MOST_MS: u64 = 1024;

/// A read that waits for answers.
#[derive(Debug)]
struct Call {
    query: Query,
    // The instant of a snapshot.
    at: Option<Stamp>,
    margin_ms: u64,
    expected: BTreeSet<NodeId>,
    // Invariant: of expected members only, all for the same instant.
    answers: BTreeMap<NodeId, Contribution>,
    pause: Duration,
    again: Now,
    ends: Now,
}

/// Reads under way.
#[derive(Debug, Default)]
pub(super) struct Calls {
    open: BTreeMap<u64, Call>,
}

impl Calls {
    pub fn due(&self) -> Option<Now> {
        self.open
            .values()
            .map(|call| call.again.min(call.ends))
            .min()
    }
}

impl Engine {
    /// Begins a global read; [`Action::Done`] ends it, at once if nobody else has to be asked.
    pub fn ask(&mut self, store: &Store, query: Query, now: Now) -> (CallId, Vec<Action>) {
        self.enter(store, now);
        let call = self.number();
        if let Err(error) = self.begin_call(store, call, query) {
            self.fail_call(call, error);
        }
        (CallId(call), self.finish())
    }

    fn begin_call(&mut self, store: &Store, number: u64, query: Query) -> Result<(), Error> {
        check(&query, self.settings.longest_query)?;
        if let Some(max_age) = cached_age(&query) {
            self.ask_replica(store, number, query, max_age);
            return Ok(());
        }
        let mut expected: BTreeSet<NodeId> = self.members.others().cloned().collect();
        expected.insert(self.own.clone());
        let pause = self.settings.retry.min(query.timeout / 4);
        let call = Call {
            at: None,
            margin_ms: MARGIN_MS,
            expected,
            answers: BTreeMap::new(),
            pause,
            again: self.now + pause,
            ends: self.now + query.timeout,
            query,
        };
        let snapshot = call.query.consistency == Consistency::Snapshot;
        if snapshot {
            self.calls.open.insert(number, call);
            return self.begin_snapshot(store, number, Stamp::ZERO);
        }
        let what = (&call.query.pattern, call.query.reducer);
        let said = self
            .moved
            .contribution(store, &self.own, self.now, what, None)?;
        self.calls.open.insert(number, call);
        self.ask_missing(number, true);
        let own = self.own.clone();
        self.answered(store, &own, number, None, said);
        Ok(())
    }

    fn begin_snapshot(&mut self, store: &Store, number: u64, passed: Stamp) -> Result<(), Error> {
        let Some(call) = self.calls.open.get_mut(&number) else {
            return Ok(());
        };
        let clock = store
            .clock()
            .max(passed)
            .max(Stamp::from_ms(store.now_ms()));
        let at = Stamp::from_ms(clock.ms() + call.margin_ms);
        call.margin_ms = (2 * call.margin_ms).min(MARGIN_MOST_MS);
        call.at = Some(at);
        call.answers.clear();
        call.again = self.now + call.pause;
        let (query, left) = (call.query.clone(), call.ends.saturating_sub(self.now));
        self.ask_missing(number, true);
        let own = self.own.clone();
        self.end_cuts(store, |(asker, of, _)| *asker == own && *of == number);
        let asker = (own, number, at);
        self.open_cut(store, asker, query.reducer, &query.pattern, left)?;
        self.settle_cuts(store);
        Ok(())
    }

    /// Asks those who have not answered; all others at once the first time.
    fn ask_missing(&mut self, number: u64, first: bool) {
        let Some(call) = self.calls.open.get(&number) else {
            return;
        };
        let silent = call.expected.iter().filter(|member| {
            **member != self.own && (first || !call.answers.contains_key(*member))
        });
        let to: Vec<NodeId> = silent
            .filter(|member| self.members.is_live(member))
            .cloned()
            .collect();
        let message = Message::Ask {
            call: number,
            at: call.at,
            left: call.ends.saturating_sub(self.now),
            reducer: call.query.reducer,
            pattern: call.query.pattern.clone(),
        };
        self.send(to, &message);
    }

    pub(super) fn answered(
        &mut self,
        _store: &Store,
        from: &NodeId,
        number: u64,
        at: Option<Stamp>,
        said: Contribution,
    ) {
        let Some(call) = self.calls.open.get_mut(&number) else {
            return;
        };
        if call.at != at
            || !call.expected.contains(from)
            || said.settled.reducer() != call.query.reducer
        {
            return;
        }
        call.answers.entry(from.clone()).or_insert(said);
        self.end_if_heard(number);
    }

    pub(super) fn refused(
        &mut self,
        store: &Store,
        from: &NodeId,
        number: u64,
        at: Option<Stamp>,
        refusal: Refusal,
    ) {
        let Some(call) = self.calls.open.get(&number) else {
            return;
        };
        if call.at != at || !call.expected.contains(from) {
            return;
        }
        let error = match refusal {
            Refusal::Passed(clock) => match self.begin_snapshot(store, number, clock) {
                Ok(()) => return,
                Err(error) => error,
            },
            Refusal::Failed(why) => Error::Remote {
                node: from.name.to_string(),
                why,
            },
        };
        self.end_cuts_of_call(store, number);
        self.fail_call(number, error);
    }

    /// Ends the call if nobody is left who has not answered and still could.
    fn end_if_heard(&mut self, number: u64) {
        let Some(call) = self.calls.open.get(&number) else {
            return;
        };
        let waits = call
            .expected
            .iter()
            .any(|member| !call.answers.contains_key(member) && self.members.is_live(member));
        if !waits {
            self.end_call(number);
        }
    }

    fn end_call(&mut self, number: u64) {
        let Some(call) = self.calls.open.remove(&number) else {
            return;
        };
        let none = BTreeMap::new();
        let result = view(&call.query, &call.expected, &call.answers, &none, None);
        self.out.push(Action::Done {
            call: CallId(number),
            result,
        });
    }

    pub(super) fn fail_call(&mut self, number: u64, error: Error) {
        self.calls.open.remove(&number);
        self.out.push(Action::Done {
            call: CallId(number),
            result: Err(error),
        });
    }

    fn end_cuts_of_call(&mut self, store: &Store, number: u64) {
        let own = self.own.clone();
        self.end_cuts(store, |(asker, of, _)| *asker == own && *of == number);
    }

    pub(super) fn calls_of_departed(&mut self, member: &NodeId) {
        let waiting: Vec<u64> = self
            .calls
            .open
            .iter()
            .filter(|(_, call)| call.expected.contains(member))
            .map(|(&number, _)| number)
            .collect();
        for number in waiting {
            self.end_if_heard(number);
        }
    }

    pub(super) fn calls_time(&mut self, store: &Store) {
        let due = |at: fn(&Call) -> Now, calls: &Calls, now: Now| -> Vec<u64> {
            let late = calls.open.iter().filter(|(_, call)| at(call) <= now);
            late.map(|(&number, _)| number).collect()
        };
        for number in due(|call| call.ends, &self.calls, self.now) {
            self.end_cuts_of_call(store, number);
            self.end_call(number);
        }
        for number in due(|call| call.again, &self.calls, self.now) {
            if let Some(call) = self.calls.open.get_mut(&number) {
                call.pause *= 2;
                call.again = self.now + call.pause;
            }
            self.ask_missing(number, false);
        }
    }
}

/// What the answers come to, or that they do not suffice. What is `stale` is in the value, but
/// counts as missing.
pub(super) fn view(
    query: &Query,
    expected: &BTreeSet<NodeId>,
    answers: &BTreeMap<NodeId, Contribution>,
    stale: &BTreeMap<NodeId, Contribution>,
    oldest: Option<Duration>,
) -> Result<View, Error> {
    let reduced = if stale.is_empty() {
        combine(query.reducer, answers)?
    } else {
        let all = answers.iter().chain(stale);
        let all = all.map(|(member, said)| (member.clone(), said.clone()));
        combine(query.reducer, &all.collect())?
    };
    let (answered, missing): (Vec<&NodeId>, Vec<&NodeId>) = expected
        .iter()
        .partition(|member| answers.contains_key(*member));
    let names = |members: &[&NodeId]| members.iter().map(|m| m.name.to_string()).collect();
    let view = View {
        value: reduced.value,
        items: reduced.items,
        answered: names(&answered),
        missing: names(&missing),
        complete: missing.is_empty(),
        oldest,
    };
    if query.require.met(answered.len(), expected.len()) {
        Ok(view)
    } else {
        Err(Error::Incomplete(Box::new(view)))
    }
}

fn check(query: &Query, longest: Duration) -> Result<(), Error> {
    let too_long = |what: &str, given: Duration| Error::Request {
        what: format!(
            "{what} of {given:?} is longer than {longest:?}, for which moved items are remembered"
        ),
        remedy: "shorten it, or raise longest_query at every member",
    };
    if query.timeout > longest {
        return Err(too_long("a time-out", query.timeout));
    }
    match query.consistency {
        Consistency::Cached { max_age } if max_age > longest => Err(too_long("an age", max_age)),
        Consistency::Cached { max_age } if max_age < Duration::from_millis(1) => {
            Err(Error::Request {
                what: format!("a replica cannot be kept {max_age:?} fresh"),
                remedy: "allow 1 ms at least, or read live",
            })
        }
        _ => Ok(()),
    }
}
