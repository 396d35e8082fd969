//! Flowferry hsl.
