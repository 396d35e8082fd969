//! Flowferry functions.
