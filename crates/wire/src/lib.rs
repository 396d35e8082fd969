//! Flowferry wire.
