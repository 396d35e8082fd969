//! Any bytes as a frame: no panic, and the key found is the key of what is made from it.

#![no_main]

use flowferry_hsl::key::{Key, Side};
use flowferry_hsl::matching::Match;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|frame: &[u8]| {
    for side in Side::ALL {
        let Some(parsed) = Key::parse(frame, side) else {
            assert!(frame.len() < 14, "every Ethernet frame has a key");
            return;
        };
        assert_eq!(parsed.key.canonical(), (parsed.key, false));
        let again = Key::parse(&parsed.key.to_frame(), side).expect("a frame");
        assert_eq!(again.key, parsed.key);
        let matching: Match = parsed
            .key
            .to_match()
            .parse()
            .expect("what is written is understood");
        assert!(matching.covers_flow(&parsed.key));
    }
});
