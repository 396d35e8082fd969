//! Any bytes as a frame from a packet socket: no panic, and a VLAN tag put back hides no probe packet.

#![no_main]

use flowferry_functions::frame::{TAG_LEN, VNET_LEN, Vnet, digest, probe_headers, restore_tag};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((front, frame)) = bytes.split_first_chunk::<VNET_LEN>() else {
        return;
    };
    let mut vnet = Vnet(*front);
    let found: Vec<_> = probe_headers(frame, &vnet).collect();
    digest(frame);
    if frame.len() < 14 {
        assert!(found.is_empty(), "no room for an EtherType");
        return;
    }
    let mut tagged = vec![0; TAG_LEN];
    tagged.extend(frame);
    restore_tag(&mut tagged, 0x8100, 7);
    vnet.shift_by_tag();
    assert_eq!(probe_headers(&tagged, &vnet).collect::<Vec<_>>(), found);
});
