//! The fuzz targets of this crate, on inputs by proptest; `fuzz/run` looks further.

include!("../../../fuzz/as_function.rs");

#[allow(unused_attributes)] // no_main
#[path = "../../../fuzz/fuzz_targets/hsl_key.rs"]
mod hsl_key;
#[allow(unused_attributes)] // no_main
#[path = "../../../fuzz/fuzz_targets/hsl_match.rs"]
mod hsl_match;
#[allow(unused_attributes)] // no_main
#[path = "../../../fuzz/fuzz_targets/hsl_record.rs"]
mod hsl_record;

use flowferry_hsl::key::{Key, Side};
use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #[test]
    fn keys_and_the_matches_that_name_them(frame in vec(any::<u8>(), 0..120)) {
        hsl_key::hold(&frame);
        if let Some(parsed) = Key::parse(&frame, Side::Upstream) {
            hsl_match::hold(&parsed.key.to_match());
        }
    }

    #[test]
    fn ip_frames(
        version in prop::sample::select(vec![[0x08, 0x00, 0x45], [0x86, 0xdd, 0x60]]),
        proto in prop::sample::select(vec![1_u8, 6, 17, 47, 58]),
        mut frame in vec(any::<u8>(), 60..120),
    ) {
        frame[12..15].copy_from_slice(&version);
        frame[if version[2] == 0x45 { 23 } else { 20 }] = proto;
        hsl_key::hold(&frame);
        let parsed = Key::parse(&frame, Side::Upstream).expect("long enough");
        hsl_match::hold(&parsed.key.to_match());
    }

    #[test]
    fn matches(text in "[a-z_]{0,9}(,[a-z_]{1,6}=[0-9a-fx.:/]{0,12}){0,3}") {
        hsl_match::hold(&text);
    }

    #[test]
    fn records(bytes in vec(any::<u8>(), 0..200)) {
        hsl_record::hold(&bytes);
    }
}
