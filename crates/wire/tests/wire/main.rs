//! The wire format from outside: golden bytes, hostile bytes, properties, key and replay scenarios.

mod golden;
mod hostile;
mod parts;
mod properties;
mod samples;
mod security;
