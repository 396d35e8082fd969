//! Reducers: what becomes of all matching items of all instances (E-State §III-A.2).
//!
//! A named reducer runs where the items are; only its [`Partial`] travels. Partials merge in any
//! order and grouping with the same result, so it does not matter who answers first, and what is
//! under way between two instances can be a partial of its own. (Sums of floats are the one
//! exception: the order may change the last bits.)
//!
//! A custom reducer is [`Reducer::Collect`]: the items travel, and the caller's function runs at
//! the asker.

mod causal;
mod numbers;
mod partial;
mod sets;
mod travel;

pub use partial::{Partial, Reduced};

use crate::error::{Error, shown};
use std::fmt;

/// How items become one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Reducer {
    /// The value written last, by hybrid logical clock.
    Latest = 0,
    /// Ints or floats added up; an int sum that leaves i64 is an error.
    Sum = 1,
    /// The mean of ints or floats, a float.
    Avg = 2,
    /// The least value, all being of one type.
    Min = 3,
    /// The greatest value, all being of one type.
    Max = 4,
    /// How many items there are, an int.
    Count = 5,
    /// 1 if any value is neither 0 nor empty, else 0.
    Any = 6,
    /// 1 if no value is 0 or empty, else 0.
    All = 7,
    /// The union of sets: of the lines of a str, sorted; of the bits of an int or of bytes.
    Union = 8,
    /// All strs or all bytes one after another, in the order of keys, then nodes.
    Concat = 9,
    /// The value that no other has seen, by vector clocks; siblings are reported as items.
    Causal = 10,
    /// All items, in the order of keys, then nodes, for a function of the caller's.
    Collect = 11,
}

impl Reducer {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::Latest,
        Self::Sum,
        Self::Avg,
        Self::Min,
        Self::Max,
        Self::Count,
        Self::Any,
        Self::All,
        Self::Union,
        Self::Concat,
        Self::Causal,
        Self::Collect,
    ];

    /// The name that callers use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Latest => "latest",
            Self::Sum => "sum",
            Self::Avg => "avg",
            Self::Min => "min",
            Self::Max => "max",
            Self::Count => "count",
            Self::Any => "any",
            Self::All => "all",
            Self::Union => "union",
            Self::Concat => "concat",
            Self::Causal => "causal",
            Self::Collect => "collect",
        }
    }

    /// The reducer of that name.
    ///
    /// # Errors
    /// [`Error::Reducer`] if there is none.
    pub fn named(name: &str) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|reducer| reducer.name() == name)
            .ok_or_else(|| Error::Reducer { name: shown(name) })
    }

    /// The reducer with that number on the wire.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

impl fmt::Display for Reducer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
