//! Global reads: what is asked, and the view that comes back (E-State §III-A).

use crate::item::Item;
use crate::pattern::Pattern;
use crate::reduce::Reducer;
use crate::value::Value;
use std::time::Duration;

/// How consistent a global read is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Consistency {
    /// Every member is asked now, and each answers with what it has when it is asked.
    #[default]
    Live,
    /// A view that is kept here, no older than this while its owners can be reached.
    Cached {
        /// The oldest that will do.
        max_age: Duration,
    },
    /// Every member answers as of one instant: a consistent cut.
    Snapshot,
}

/// How many of the expected members have to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Require {
    /// All of them.
    #[default]
    All,
    /// More than half.
    Quorum,
    /// So many, or all if there are fewer.
    AtLeast(usize),
}

impl Require {
    /// Whether `answered` of `expected` will do.
    pub fn met(self, answered: usize, expected: usize) -> bool {
        answered
            >= match self {
                Self::All => expected,
                Self::Quorum => expected / 2 + 1,
                Self::AtLeast(least) => least.min(expected),
            }
    }
}

/// A global read.
#[derive(Clone, Debug)]
pub struct Query {
    /// The items that it is about.
    pub pattern: Pattern,
    /// What becomes of them.
    pub reducer: Reducer,
    /// How consistent the answer is to be.
    pub consistency: Consistency,
    /// How long to wait for members that do not answer.
    pub timeout: Duration,
    /// How many have to answer.
    pub require: Require,
}

impl Query {
    /// A live read that wants all answers within a second.
    pub fn new(pattern: Pattern, reducer: Reducer) -> Self {
        Self {
            pattern,
            reducer,
            consistency: Consistency::default(),
            timeout: Duration::from_secs(1),
            require: Require::default(),
        }
    }
}

/// What a global read found, and who said so.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    /// The value; none if nobody has a matching item, or for `collect`.
    pub value: Option<Value>,
    /// All items for `collect`, the siblings for `causal`; by key, then node.
    pub items: Vec<Item>,
    /// Members whose items are in it, by name.
    pub answered: Vec<String>,
    /// Members that were expected and have not answered, by name.
    pub missing: Vec<String>,
    /// Whether nobody is missing.
    pub complete: bool,
    /// How old the oldest part of it may be; none for an answer given now.
    pub oldest: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quorum_is_more_than_half() {
        let met = |answered, expected| Require::Quorum.met(answered, expected);
        assert!(met(2, 3) && met(1, 1) && met(3, 4));
        assert!(!met(1, 2) && !met(2, 4) && !met(0, 1));
    }

    #[test]
    fn more_than_there_are_is_all() {
        assert!(Require::AtLeast(5).met(3, 3));
        assert!(!Require::AtLeast(2).met(1, 3));
        assert!(Require::AtLeast(0).met(0, 3));
    }
}
