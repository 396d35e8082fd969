//! Any text as a match: no panic, and what is understood means the same when it is read again,
//! alone or together with itself.

#![no_main]

use flowferry_hsl::key::Side;
use flowferry_hsl::matching::Match;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let matching = match text.parse::<Match>() {
        Ok(matching) => matching,
        Err(refusal) => {
            assert!(!refusal.to_string().is_empty());
            return;
        }
    };
    let again: Match = matching
        .to_string()
        .parse()
        .expect("it was understood before");
    assert_eq!(again, matching);
    let both = matching.and(&again).expect("every match overlaps itself");
    let spelled: Match = both.to_string().parse().expect("both parts are understood");
    for side in Side::ALL {
        assert_eq!(both.on(side), matching.on(side));
        assert_eq!(spelled.on(side), matching.on(side));
    }
    if let Some(flow) = matching.flow() {
        assert!(matching.covers(&flow));
        assert!(matching.covers_flow(&flow.key));
    }
});
