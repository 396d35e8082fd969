//! Any bytes as a record of another agent's, and as a line of the function's: no panic, and what is
//! understood is written as it was read.

#![no_main]

use flowferry_hsl::handover::function::Answer;
use flowferry_hsl::handover::record::Record;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match Record::read(bytes) {
        Ok(record) => assert_eq!(record.write(), bytes),
        Err(refusal) => assert!(!refusal.to_string().is_empty()),
    }
    if let Ok(line) = std::str::from_utf8(bytes)
        && let Err(refusal) = Answer::read(line)
    {
        assert!(!refusal.is_empty());
    }
});
