//! Frames and beacons of the mesh: no input panics, and what is accepted comes back as it was.

#![no_main]

use flowferry_estate::fabric::mesh::Beacon;
use flowferry_estate::fabric::mesh::frame::{FRAME_MAX, Frame};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Some((frame, length))) = Frame::parse(bytes, FRAME_MAX) {
        assert!(length <= bytes.len());
        let mut again = Vec::new();
        frame.emit(&mut again);
        // Addresses may be written in more than one way, so values are compared.
        assert_eq!(
            Frame::parse(&again, FRAME_MAX),
            Ok(Some((frame, again.len())))
        );
    }
    if let Ok(beacon) = Beacon::parse(bytes) {
        let mut again = Vec::new();
        beacon.emit(&mut again);
        assert_eq!(Beacon::parse(&again), Ok(beacon));
    }
});
