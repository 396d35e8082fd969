//! The fuzz target of this crate, on inputs by proptest; `fuzz/run` looks further.

include!("../../../fuzz/as_function.rs");

#[allow(unused_attributes)] // no_main
#[path = "../../../fuzz/fuzz_targets/forwarder_frame.rs"]
mod forwarder_frame;

use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #[test]
    fn any_bytes(bytes in vec(any::<u8>(), 0..120)) {
        forwarder_frame::hold(&bytes);
    }

    #[test]
    fn udp_frames(
        tags in vec(prop::sample::select(vec![[0x81, 0x00], [0x88, 0xa8]]), 0..4),
        ip in prop::sample::select(vec![[0x08, 0x00, 0x45], [0x86, 0xdd, 0x60]]),
        mut front in vec(any::<u8>(), 22),
        mut packet in vec(any::<u8>(), 1..140),
        magic in prop::sample::select(vec![[0xf1, 0xfe], [0xf1, 0xc0]]),
        segment in 0_u8..64,
    ) {
        front[4..6].copy_from_slice(&u16::from(segment).to_ne_bytes());
        front.extend(tags.iter().flat_map(|tag| [tag[0], tag[1], 0, 7]));
        front.extend(&ip[..2]);
        packet[0] = ip[2];
        let (proto, payload) = if ip[2] == 0x45 { (9, 28) } else { (6, 48) };
        if let Some(byte) = packet.get_mut(proto) {
            *byte = 17;
        }
        if let Some(bytes) = packet.get_mut(payload..payload + 2) {
            bytes.copy_from_slice(&magic);
        }
        front.extend(packet);
        forwarder_frame::hold(&front);
    }
}
