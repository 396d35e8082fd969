"""Types of the native module (crates/python)."""
