//! Statuses, and the text of a thread's last error.

use crate::error::Error;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a call gives, other than an error.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Outcome {
    Ok = 0,
    NotFound = 1,
    Timeout = 2,
    Ended = 3,
}

impl Outcome {
    /// Whether there was something.
    pub fn found(there: bool) -> Self {
        if there { Self::Ok } else { Self::NotFound }
    }
}

/// What is wrong.
pub enum Failure {
    /// NULL or out of range: says which argument.
    Argument(&'static str),
    /// The buffer is too small for so many bytes.
    TooSmall(usize),
    /// A reducer of the caller's returned this.
    Reducer(c_int),
    Error(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

pub type Result = std::result::Result<Outcome, Failure>;

const TEXTS: [(c_int, &CStr); 25] = [
    (0, c"done"),
    (1, c"no such item"),
    (2, c"no event within the time given"),
    (3, c"the watch has ended"),
    (-1, c"an argument is NULL or out of range"),
    (-2, c"not a key"),
    (-3, c"the value is too big"),
    (-4, c"the buffer is smaller than the value"),
    (-5, c"the item holds another type"),
    (-6, c"the sum leaves the range of 64 bits"),
    (-7, c"the memory limit is reached"),
    (-8, c"the item is being moved"),
    (-9, c"not a pattern"),
    (-10, c"no such reducer"),
    (-11, c"the items cannot be reduced"),
    (-12, c"fewer members answered than required"),
    (-13, c"no such member"),
    (-14, c"another member has this name"),
    (-15, c"the move or joint write did not take place"),
    (-16, c"the estate is closed, or was opened before a fork"),
    (-17, c"a server or the network failed"),
    (-18, c"this backend cannot do it"),
    (-19, c"a fault of the library"),
    (-20, c"the source of the move cannot be reached"),
    (-21, c"looking through all keys took too long"),
];
const UNKNOWN: &CStr = c"not a status of E-State";
const INTERNAL: c_int = -19;

impl Failure {
    fn status(&self) -> c_int {
        match self {
            Self::Argument(_) => -1,
            Self::TooSmall(_) => -4,
            Self::Reducer(_) => -11,
            Self::Error(error) => match error {
                Error::Key { .. } => -2,
                Error::ValueTooBig { .. } => -3,
                Error::Type { .. } => -5,
                Error::Overflow { .. } => -6,
                Error::MemoryFull { .. } => -7,
                Error::Frozen { .. } => -8,
                Error::Pattern { .. } => -9,
                Error::Reducer { .. } => -10,
                Error::Reduce { .. } => -11,
                Error::Incomplete(_) => -12,
                Error::NoMember { .. } | Error::NoAbsentee { .. } => -13,
                Error::NameTaken { .. } => -14,
                Error::Aborted { .. } | Error::NotJoined { .. } => -15,
                Error::Closed | Error::Forked => -16,
                Error::Unsupported { .. } => -18,
                Error::Undecided { .. } => -20,
                Error::ScanStopped { .. } => -21,
                Error::Options { .. } | Error::Request { .. } => -1,
                // What else there is comes from other members, servers and the network.
                _ => -17,
            },
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Argument(what) => format!("{what} is NULL or out of range: see estate.h"),
            Self::TooSmall(size) => format!("the value has {size} bytes: give a larger buffer"),
            Self::Reducer(status) => format!("the reducer returned {status}: see what it does"),
            Self::Error(error) => error.to_string(),
        }
    }
}

thread_local! {
    static LAST: RefCell<CString> = RefCell::default();
}

fn remember(text: String) {
    let mut bytes = text.into_bytes();
    // A NUL (of a key that is quoted, say) would end the text early.
    bytes.retain(|&byte| byte != 0);
    LAST.set(CString::new(bytes).unwrap_or_default());
}

/// Runs one function of the API: no panic gets out, and what went wrong is remembered.
#[inline]
pub fn run(f: impl FnOnce() -> Result) -> c_int {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(outcome)) => outcome as c_int,
        Ok(Err(failure)) => failed(&failure),
        Err(_) => panicked(),
    }
}

#[cold]
fn failed(failure: &Failure) -> c_int {
    remember(failure.text());
    failure.status()
}

#[cold]
fn panicked() -> c_int {
    remember("a fault of the library, which it printed: please report it".to_owned());
    INTERNAL
}

#[unsafe(no_mangle)]
extern "C" fn estate_strerror(status: c_int) -> *const c_char {
    let known = TEXTS.iter().find(|(number, _)| *number == status);
    known.map_or(UNKNOWN, |(_, text)| text).as_ptr()
}

#[unsafe(no_mangle)]
extern "C" fn estate_last_error() -> *const c_char {
    LAST.with_borrow(|text| text.as_ptr())
}

#[unsafe(no_mangle)]
extern "C" fn estate_version() -> *const c_char {
    const TEXT: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    TEXT.as_ptr().cast()
}
