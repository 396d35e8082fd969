//! The structs of the header, field for field.

use crate::ItemHandle;
use crate::backend::{Estate, Watch};
use std::ffi::{c_char, c_int, c_void};

/// `estate`.
pub struct CEstate(pub Estate);
/// `estate_item`.
pub struct CItem(pub ItemHandle);
/// `estate_watch`.
pub struct CWatch(pub Watch);

/// `estate_text`. Behind what the library gives stands a NUL.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct CText {
    pub data: *const c_char,
    pub size: usize,
}

/// `estate_value`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct CValue {
    pub kind: c_int,
    pub integer: i64,
    pub number: f64,
    pub bytes: CText,
}

/// `estate_entry`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct CEntry {
    pub key: CText,
    pub node: CText,
    pub value: CValue,
    pub version: u64,
    pub expires_ms: u64,
}

/// `estate_options`.
#[repr(C)]
pub struct COptions {
    pub size: usize,
    pub cluster: *const c_char,
    pub node: *const c_char,
    pub backend: *const c_char,
    pub listen: *const c_char,
    pub peers: *const c_char,
    pub scouting: c_int,
    pub relay: c_int,
    pub tls_ca: *const c_char,
    pub tls_certificate: *const c_char,
    pub tls_key: *const c_char,
    pub memory_limit: usize,
    pub failure_after_ms: u64,
    pub timeout_ms: u64,
}

/// `estate_write`.
#[repr(C)]
pub struct CWrite {
    pub size: usize,
    pub ttl_ms: u64,
    pub after: CText,
}

/// `estate_part`.
#[repr(C)]
pub struct CPart {
    pub key: CText,
    pub op: c_int,
    pub value: CValue,
}

impl CPart {
    pub const SET: c_int = 0;
    pub const ADD: c_int = 1;
    pub const DELETE: c_int = 2;
}

/// `estate_texts`.
#[repr(C)]
pub struct CTexts {
    pub count: usize,
    pub texts: *const CText,
}

/// `estate_reducer`.
pub type CReducer = unsafe extern "C" fn(*mut c_void, *const CEntry, usize, *mut CValue) -> c_int;

/// `estate_query`.
#[repr(C)]
pub struct CQuery {
    pub size: usize,
    pub pattern: *const c_char,
    pub pattern_size: usize,
    pub kind: c_int,
    pub reduce: *const c_char,
    pub reducer: Option<CReducer>,
    pub context: *mut c_void,
    pub consistency: c_int,
    pub max_age_ms: u64,
    pub timeout_ms: u64,
    pub require: c_int,
}

/// `estate_view`.
#[repr(C)]
pub struct CView {
    pub found: c_int,
    pub value: CValue,
    pub item_count: usize,
    pub items: *const CEntry,
    pub answered_count: usize,
    pub answered: *const CText,
    pub missing_count: usize,
    pub missing: *const CText,
    pub complete: c_int,
    pub oldest_us: i64,
    pub history: CText,
}

/// `estate_event`.
#[repr(C)]
pub struct CEvent {
    pub item: CEntry,
    pub gone: c_int,
}

/// `estate_read_hook`.
pub type CReadHook = unsafe extern "C" fn(*mut c_void, CText, CText);

/// `estate_figure`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct CFigure {
    pub name: CText,
    pub value: u64,
}

/// `estate_statistics`.
#[repr(C)]
pub struct CStatistics {
    pub count: usize,
    pub figures: *const CFigure,
}
