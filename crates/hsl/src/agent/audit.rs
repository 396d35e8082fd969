//! Which captured packets will never come back from the kernel; pure.
//!
//! A count that stands still proves nothing: the CPU that the packets wait for may be busy. What
//! was written before a flush has come in when that is through ([`super::flush`]); what a flow's
//! count still says is outstanding then, and has not moved since before the flush, is lost.

use std::collections::HashMap;

use crate::key::{Key, Side};
use crate::shim::shared::Count;

/// A count that stands still for this long is worth a flush.
const STILL_NS: u64 = 50_000_000;
/// How long a flush may take, failures included, before the counts are believed without it.
const PATIENCE_NS: u64 = 2_000_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Still,
    WantsFlush,
    Flushing(u64),
    Through,
}

#[derive(Clone, Copy, Debug)]
struct Watch {
    captured: u64,
    released: u64,
    outstanding: i64,
    since_ns: u64,
    /// Since when a flush is wanted, whatever has become of those before.
    asked_ns: Option<u64>,
    stage: Stage,
}

/// What a look at a flow says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// Nothing yet.
    Wait,
    /// A flush on its side would tell.
    Flush,
    /// So many packets of it are lost.
    Lost(u32),
}

/// The flows whose counts stand still.
#[derive(Debug, Default)]
pub(super) struct Audit {
    watches: HashMap<Key, Watch>,
    /// One flush a side at a time, for however many flows.
    under_way: [Option<u64>; 2],
    /// Flushes begun so far.
    pub(super) flushes: u64,
}

impl Audit {
    /// Look at a flow of which packets are outstanding though none is kept or waits to be read, by
    /// the programs' account.
    ///
    /// A packet counts as captured once it can be read. So what a look sees has been read and
    /// written by the next one, and a flush after that is behind it.
    pub(super) fn look(&mut self, key: Key, count: &Count, time: u64) -> Finding {
        let fresh = Watch {
            captured: count.captured,
            released: count.released,
            outstanding: count.outstanding,
            since_ns: time,
            asked_ns: None,
            stage: Stage::Still,
        };
        let watch = self.watches.entry(key).or_insert(fresh);
        if (watch.captured, watch.released) != (count.captured, count.released) {
            *watch = fresh;
        }
        // One that is being captured just now is outstanding, and not captured yet.
        watch.outstanding = watch.outstanding.min(count.outstanding);
        let asked_ns = watch.asked_ns;
        let patient = asked_ns.is_none_or(|asked_ns| time.saturating_sub(asked_ns) <= PATIENCE_NS);
        if watch.stage == Stage::Through || !patient {
            let lost = u32::try_from(watch.outstanding).unwrap_or(0);
            self.watches.remove(&key);
            return Finding::Lost(lost);
        }
        if watch.stage == Stage::Still && time - watch.since_ns > STILL_NS {
            watch.stage = Stage::WantsFlush;
            watch.asked_ns = asked_ns.or(Some(time));
        }
        match watch.stage {
            Stage::WantsFlush if self.under_way[key.side().index()].is_none() => Finding::Flush,
            _ => Finding::Wait,
        }
    }

    /// A flush has begun; it is for all flows of the side that want one. To begin it took so long:
    /// a CPU may have kept us, and is not to be held against the packets that wait there.
    pub(super) fn begun(&mut self, side: Side, flush: u64, took_ns: u64) {
        self.under_way[side.index()] = Some(flush);
        self.flushes += 1;
        for watch in self.waiting(side) {
            watch.stage = Stage::Flushing(flush);
            watch.asked_ns = watch.asked_ns.map(|asked_ns| asked_ns + took_ns);
        }
    }

    /// A flush could not begin: not now.
    pub(super) fn put_off(&mut self, side: Side, time: u64) {
        for watch in self.waiting(side) {
            (watch.stage, watch.since_ns) = (Stage::Still, time);
        }
    }

    fn waiting(&mut self, side: Side) -> impl Iterator<Item = &mut Watch> {
        let waits = move |(key, watch): &(&Key, &mut Watch)| {
            key.side() == side && watch.stage == Stage::WantsFlush
        };
        self.watches
            .iter_mut()
            .filter(waits)
            .map(|(_, watch)| watch)
    }

    /// A flush is through, or has been given up.
    pub(super) fn ended(&mut self, flush: u64, through: bool) {
        for under_way in &mut self.under_way {
            under_way.take_if(|it| *it == flush);
        }
        for watch in self.watches.values_mut() {
            if watch.stage == Stage::Flushing(flush) {
                watch.stage = if through {
                    Stage::Through
                } else {
                    Stage::WantsFlush
                };
            }
        }
    }

    /// Nothing of this flow is outstanding any more.
    pub(super) fn forget(&mut self, key: &Key) {
        self.watches.remove(key);
    }

    /// Nothing is outstanding any more.
    pub(super) fn clear(&mut self) {
        self.watches.clear();
        self.under_way = [None; 2];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn count(captured: u64, released: u64) -> Count {
        Count {
            captured,
            released,
            outstanding: captured as i64 - released as i64,
            ..Count::default()
        }
    }

    /// An audit of a flow of upstream whose count has stood still since 0.
    fn suspect() -> (Audit, Key) {
        let (mut audit, key) = (Audit::default(), Key::EMPTY);
        assert_eq!(audit.look(key, &count(9, 4), 0), Finding::Wait);
        assert_eq!(audit.look(key, &count(9, 4), 40 * MS), Finding::Wait);
        assert_eq!(audit.look(key, &count(9, 4), 60 * MS), Finding::Flush);
        audit.begun(Side::Downstream, 6, 0); // for nothing that is seen here
        assert_eq!(audit.look(key, &count(9, 4), 61 * MS), Finding::Flush);
        (audit, key)
    }

    #[test]
    fn what_is_outstanding_behind_a_flush_is_lost() {
        let (mut audit, key) = suspect();
        audit.begun(Side::Upstream, 7, 0);
        assert_eq!(audit.look(key, &count(9, 4), 500 * MS), Finding::Wait);
        audit.ended(6, true); // somebody else's, begun before
        assert_eq!(audit.look(key, &count(9, 4), 600 * MS), Finding::Wait);
        audit.ended(7, true);
        assert_eq!(audit.look(key, &count(9, 4), 601 * MS), Finding::Lost(5));
        assert_eq!(audit.look(key, &count(9, 4), 602 * MS), Finding::Wait);
    }

    #[test]
    fn flows_that_come_while_a_flush_is_under_way_share_the_next() {
        let (mut audit, first) = suspect();
        audit.begun(Side::Upstream, 7, 0);
        let others = [1, 2].map(|vlan| Key {
            vlan: [vlan, 0],
            ..Key::EMPTY
        });
        for key in others {
            assert_eq!(audit.look(key, &count(9, 8), 61 * MS), Finding::Wait);
            assert_eq!(audit.look(key, &count(9, 8), 120 * MS), Finding::Wait);
        }
        audit.ended(7, true);
        assert_eq!(audit.look(first, &count(9, 4), 121 * MS), Finding::Lost(5));
        assert_eq!(
            audit.look(others[0], &count(9, 8), 121 * MS),
            Finding::Flush
        );
        audit.begun(Side::Upstream, 8, 0);
        audit.ended(8, true);
        for key in others {
            assert_eq!(audit.look(key, &count(9, 8), 122 * MS), Finding::Lost(1));
        }
    }

    #[test]
    fn what_comes_back_late_is_not_lost() {
        let (mut audit, key) = suspect();
        audit.begun(Side::Upstream, 7, 0);
        assert_eq!(audit.look(key, &count(9, 5), 90 * MS), Finding::Wait);
        audit.ended(7, true);
        assert_eq!(audit.look(key, &count(9, 5), 91 * MS), Finding::Wait);
        assert_eq!(audit.look(key, &count(9, 8), 92 * MS), Finding::Wait);
        assert_eq!(audit.look(key, &count(9, 8), 141 * MS), Finding::Wait);
        assert_eq!(audit.look(key, &count(9, 8), 143 * MS), Finding::Flush);
    }

    #[test]
    fn a_packet_that_is_just_being_captured_is_not_lost() {
        let (mut audit, key) = suspect();
        audit.begun(Side::Upstream, 7, 0);
        audit.ended(7, true);
        let mut now = count(9, 4);
        now.outstanding += 1;
        assert_eq!(audit.look(key, &now, 62 * MS), Finding::Lost(5));
    }

    #[test]
    fn a_flush_that_fails_is_repeated_and_the_counts_believed_in_the_end() {
        let (mut audit, key) = suspect(); // it asked at 60 ms
        audit.begun(Side::Upstream, 7, 0);
        audit.ended(7, false);
        assert_eq!(audit.look(key, &count(9, 4), 2_059 * MS), Finding::Flush);
        assert_eq!(audit.look(key, &count(9, 4), 2_061 * MS), Finding::Lost(5));
    }

    #[test]
    fn one_that_cannot_begin_is_put_off_and_the_counts_believed_in_the_end() {
        let (mut audit, key) = suspect();
        audit.put_off(Side::Upstream, 61 * MS);
        assert_eq!(audit.look(key, &count(9, 4), 110 * MS), Finding::Wait);
        assert_eq!(audit.look(key, &count(9, 4), 112 * MS), Finding::Flush);
        assert_eq!(audit.look(key, &count(9, 4), 2_061 * MS), Finding::Lost(5));
    }

    #[test]
    fn the_time_that_it_took_to_ask_is_nobodys_fault() {
        let (mut audit, key) = suspect();
        audit.begun(Side::Upstream, 7, 3_000 * MS);
        assert_eq!(audit.look(key, &count(9, 4), 3_061 * MS), Finding::Wait);
    }

    #[test]
    fn a_look_of_long_ago_is_no_reason_to_believe_the_counts() {
        let (mut audit, key) = (Audit::default(), Key::EMPTY);
        assert_eq!(audit.look(key, &count(9, 8), 0), Finding::Wait);
        // Held, read, and written meanwhile.
        assert_eq!(audit.look(key, &count(9, 8), 9_000 * MS), Finding::Flush);
        audit.begun(Side::Upstream, 7, 0);
        assert_eq!(audit.look(key, &count(9, 8), 9_001 * MS), Finding::Wait);
    }
}
