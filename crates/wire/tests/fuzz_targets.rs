//! The fuzz targets of this crate, on inputs by proptest; `fuzz/run` looks further.

include!("../../../fuzz/as_function.rs");

#[allow(unused_attributes)] // no_main
#[path = "../../../fuzz/fuzz_targets/wire.rs"]
mod wire;

use proptest::prelude::*;
use proptest::sample::Index;
use std::path::Path;

/// The frames in `golden/`.
fn golden() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    std::fs::read_dir(folder)
        .expect("the golden frames are there")
        .map(|entry| {
            let text = std::fs::read_to_string(entry.expect("a file").path()).expect("text");
            text.lines()
                .filter_map(|line| line.split('#').next())
                .flat_map(str::split_whitespace)
                .map(|octet| u8::from_str_radix(octet, 16).expect("hexadecimal"))
                .collect()
        })
        .collect()
}

#[test]
fn golden_frames() {
    golden().iter().for_each(|frame| wire::hold(frame));
}

proptest! {
    #[test]
    fn golden_frames_with_octets_changed(
        which: Index,
        changes in prop::collection::vec(any::<(Index, u8)>(), 1..4),
    ) {
        let mut frame = which.get(&golden()).clone();
        for (at, octet) in changes {
            *at.get_mut(&mut frame) = octet;
        }
        wire::hold(&frame);
    }
}
