//! Any bytes as a probe packet: no panic, and what is understood is written as it was read.

#![no_main]

use flowferry_probe::packet::{
    COMPACT_LEN, Encoding, EndCounts, FULL_LEN, Header, Kind, make_reply,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|payload: &[u8]| {
    let Some(header) = Header::parse(payload) else {
        return;
    };
    let length = match header.encoding {
        Encoding::Full => FULL_LEN,
        Encoding::Compact => COMPACT_LEN,
    };
    let mut again = vec![0; length];
    header.emit(&mut again);
    assert_eq!(again, payload[..length]);
    // What came before it may have been anything as well.
    let near = Header::parse(&payload[length..]).map_or(u64::MAX, |other| other.seq);
    assert_eq!(header.full_seq(near) as u32, header.seq as u32);
    assert_eq!(header.full_time(near) << 24, header.time << 24);
    let mut reply = payload.to_vec();
    make_reply(&mut reply, header.encoding);
    let kind = Kind::Reply;
    assert_eq!(Header::parse(&reply), Some(Header { kind, ..header }));
    if header.kind == Kind::End
        && let Some(end) = EndCounts::parse(&header, payload)
    {
        assert_eq!(end.emit(header.run, header.time), payload);
    }
});
