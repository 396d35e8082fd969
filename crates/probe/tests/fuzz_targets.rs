//! The fuzz target of this crate, on inputs by proptest; `fuzz/run` looks further.

include!("../../../fuzz/as_function.rs");

#[allow(unused_attributes)] // no_main
#[path = "../../../fuzz/fuzz_targets/probe_packet.rs"]
mod probe_packet;

use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #[test]
    fn any_bytes(payload in vec(any::<u8>(), 0..120)) {
        probe_packet::hold(&payload);
    }

    #[test]
    fn two_headers_and_what_follows(
        magics in vec(prop::sample::select(vec![[0xf1, 0xfe], [0xf1, 0xc0], [0xf1, 0xc1]]), 2),
        kind in 0_u8..7,
        version in 0_u8..3,
        low_end in any::<bool>(),
        mut payload in vec(any::<u8>(), 60..120),
    ) {
        payload[..4].copy_from_slice(&[magics[0][0], magics[0][1], kind, version]);
        let next = if magics[0][1] == 0xfe { 28 } else { 16 };
        payload[next..next + 2].copy_from_slice(&magics[1]);
        payload[next + 3] = 1;
        if magics[1][1] == 0xfe {
            payload[next + 2] = 0;
            payload[next + 12..next + 18].fill(if low_end { 0 } else { 0xff });
        }
        probe_packet::hold(&payload);
    }
}
