//! Members that were linked and are not, and whether their processes still run: where one listened,
//! the system refuses connections once it has ended. Silence may be a cut. Pure; the time is an
//! argument.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::NodeId;

/// Absent members, by where they listened.
#[derive(Debug, Default)]
pub struct Absent {
    members: HashMap<SocketAddr, Absence>,
}

#[derive(Debug)]
struct Absence {
    member: NodeId,
    /// Since when every attempt to connect there has been refused.
    refusing: Option<Instant>,
}

impl Absent {
    /// A member that listened at `address` is linked no more, and did not say goodbye.
    pub fn lost(&mut self, address: SocketAddr, member: NodeId) {
        let refusing = None;
        self.members.insert(address, Absence { member, refusing });
    }

    /// Somebody is linked who listens there.
    pub fn found(&mut self, address: SocketAddr) {
        self.members.remove(&address);
    }

    /// An attempt to connect to `address` was refused by its system (or came to something else).
    /// Returns the member whose process has ended, once that has been so for `long`.
    pub fn tried(
        &mut self,
        address: SocketAddr,
        refused: bool,
        now: Instant,
        long: Duration,
    ) -> Option<NodeId> {
        let absence = self.members.get_mut(&address)?;
        if !refused {
            absence.refusing = None;
            return None;
        }
        let since = *absence.refusing.get_or_insert(now);
        if now.duration_since(since) < long {
            return None;
        }
        self.members.remove(&address).map(|absence| absence.member)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(5);

    fn rig() -> (Absent, SocketAddr, Instant) {
        let mut absent = Absent::default();
        let address = ([127, 0, 0, 1], 1).into();
        absent.lost(address, NodeId::new("a", 1));
        (absent, address, Instant::now())
    }

    #[test]
    fn only_refusals_for_long_without_a_break_prove_an_end() {
        let (mut absent, address, now) = rig();
        let mut tried = |seconds, refused| {
            let at = now + Duration::from_secs(seconds);
            absent.tried(address, refused, at, LONG)
        };
        assert_eq!(tried(0, true), None);
        assert_eq!(tried(4, true), None);
        assert_eq!(tried(5, false), None, "no answer");
        assert_eq!(tried(6, true), None);
        assert_eq!(tried(10, true), None);
        assert_eq!(tried(11, true), Some(NodeId::new("a", 1)));
        assert_eq!(tried(20, true), None, "it is said once");
    }

    #[test]
    fn who_is_back_has_not_ended() {
        let (mut absent, address, now) = rig();
        absent.tried(address, true, now, LONG);
        absent.found(address);
        assert_eq!(absent.tried(address, true, now + 2 * LONG, LONG), None);
    }
}
