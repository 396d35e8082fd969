//! Any bytes as a control frame: no panic, and whatever is understood means the same when it is
//! sent again.

#![no_main]

use flowferry_wire::{
    Assembler, Control, Ends, Flow, Frame, Key, KeyRing, Message, Opener, Sealer, Tlv, split,
};
use libfuzzer_sys::fuzz_target;

/// Emitting what was parsed and parsing it again must change nothing.
fn round_trip(message: &Message) {
    let bytes = message
        .emit(1, usize::MAX)
        .expect("what was parsed can be sent");
    let view = Control::new_checked(&bytes).expect("what was sent has valid lengths");
    assert_eq!(
        &Message::parse(&view).expect("what was sent is understood"),
        message
    );
}

/// Sealing, opening, splitting and joining must change nothing but the stamp.
fn seal_and_split(message: &Message) {
    let keys = KeyRing::new(1, Key::new(vec![7; 32]).expect("32 bytes are enough"));
    let mut sealed = message.clone();
    let payload = Sealer::new(message.from, message.boot)
        .seal_payload(&keys, &mut sealed, usize::MAX)
        .expect("what was parsed can be sealed");
    let mut opener = Opener::new(message.to);
    let opened = opener
        .open_payload(&keys, &payload)
        .expect("what was sealed opens");
    assert_eq!(*opened, sealed);
    assert!(
        opener.open_payload(&keys, &payload).is_err(),
        "a copy was let in"
    );

    let Ok(parts) = split(message, 400, 1) else {
        return;
    };
    let mut assembler = Assembler::new();
    let mut whole = None;
    for part in parts {
        assert!(part.payload_len() <= 400);
        whole = assembler.add(part).expect("parts of one list agree");
    }
    let mut expected = message.clone();
    expected.tlvs.retain(|tlv| !matches!(tlv, Tlv::Part(_)));
    assert_eq!(whole, Some(expected));
}

/// A list never holds a flow that another order of its ends would spell differently.
fn canonical(flow: &Flow) {
    let again = match flow.ends() {
        Ends::Ip4 {
            protocol,
            low,
            high,
        } => Flow::ip4(flow.vlans(), protocol, high, low),
        Ends::Ip6 {
            protocol,
            low,
            high,
        } => Flow::ip6(flow.vlans(), protocol, high, low),
        Ends::Link {
            ethertype,
            low,
            high,
        } => Flow::link(flow.vlans(), ethertype, high, low),
    };
    assert_eq!(again, *flow);
}

fuzz_target!(|data: &[u8]| {
    let Ok(frame) = Frame::new_checked(data) else {
        return;
    };
    let Ok(control) = Control::new_checked(frame.payload()) else {
        return;
    };
    let Ok(message) = Message::parse(&control) else {
        return;
    };
    round_trip(&message);
    seal_and_split(&message);
    message
        .flows()
        .unwrap_or_default()
        .iter()
        .for_each(canonical);
});
