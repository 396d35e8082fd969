//! Lists that take several frames: what is joined, and what is never joined.

use flowferry_wire::*;
use std::net::Ipv4Addr;

fn flows(count: u32) -> Vec<Flow> {
    let server = (Ipv4Addr::new(192, 0, 2, 1), 443);
    (0..count)
        .map(|n| Flow::ip4(Vlans::NONE, 6, (Ipv4Addr::from(n), 1024), server))
        .collect()
}

fn answer(count: u32, list: u32) -> Vec<Message> {
    let message = Message::new(Command::Ack, 7, CONTROLLER)
        .with(Tlv::Flows(flows(count)))
        .with(Tlv::InReplyTo(InReplyTo {
            command: Command::Prepare,
            sequence: 0,
        }));
    split(&message, DEFAULT_MTU, list).unwrap()
}

#[test]
fn a_hundred_ipv4_flows_take_one_frame_and_a_thousand_take_ten() {
    assert_eq!(answer(100, 1).len(), 1);
    assert_eq!(answer(1000, 1).len(), 10);
    assert!(answer(100, 1)[0].part().is_none());
}

#[test]
fn an_empty_list_is_a_list() {
    let parts = answer(0, 1);
    assert_eq!(parts[0].flows(), Some(&[][..]));
}

#[test]
fn more_parts_than_allowed_are_refused() {
    let message = Message::new(Command::Query, 7, 1).with(Tlv::Flows(flows(5000)));
    let tight = OVERHEAD + TLV_HEADER_LEN + TLV_HEADER_LEN + 8 + 14;
    let error = Unsendable::Unsplittable {
        command: Command::Query,
        mtu: tight,
    };
    assert_eq!(split(&message, tight, 1), Err(error));
    let fewer = Message::new(Command::Query, 7, 1).with(Tlv::Flows(flows(4096)));
    assert_eq!(split(&fewer, tight, 1).unwrap().len(), 4096);
}

#[test]
fn a_message_without_lists_cannot_be_split() {
    let message = Message::new(Command::Query, 7, 1).with(Tlv::Name("n".repeat(64)));
    assert!(matches!(
        split(&message, 100, 1),
        Err(Unsendable::Unsplittable { .. })
    ));
}

#[test]
fn parts_of_a_newer_list_replace_an_older_one() {
    let mut assembler = Assembler::new();
    let (old, new) = (answer(300, 1), answer(250, 2));
    assert_eq!(assembler.add(old[0].clone()), Ok(None));
    assert_eq!(assembler.add(new[0].clone()), Ok(None));
    assert_eq!(
        assembler.add(old[1].clone()),
        Err(PartError::Superseded {
            command: Command::Ack,
            from: 0,
            list: 1
        })
    );
    assert_eq!(assembler.add(new[2].clone()), Ok(None));
    let whole = assembler.add(new[1].clone()).unwrap().unwrap();
    assert_eq!(whole.flows(), Some(&flows(250)[..]));
}

#[test]
fn a_restarted_sender_may_number_its_lists_anew() {
    let mut assembler = Assembler::new();
    let mut parts = answer(200, 9);
    assert_eq!(assembler.add(parts[0].clone()), Ok(None));
    parts = answer(200, 0);
    for part in &mut parts {
        part.boot = 1;
    }
    assert_eq!(assembler.add(parts[0].clone()), Ok(None));
    assert!(assembler.add(parts[1].clone()).unwrap().is_some());
}

#[test]
fn a_list_that_changes_its_length_is_refused() {
    let mut assembler = Assembler::new();
    assembler.add(answer(300, 1)[0].clone()).unwrap();
    assert_eq!(
        assembler.add(answer(200, 1)[0].clone()),
        Err(PartError::Changed {
            command: Command::Ack,
            from: 0,
            expected: 3,
            found: 2
        })
    );
}

#[test]
fn the_two_sides_of_a_handover_are_joined_apart() {
    let mut assembler = Assembler::new();
    for side in [Side::Upstream, Side::Downstream] {
        let first = answer(200, 1)[0].clone().with(Tlv::Side(side));
        assert_eq!(assembler.add(first), Ok(None));
    }
    assert_eq!(assembler.pending(), 2);
    assembler.forget(7);
    assert_eq!(assembler.pending(), 0);
}
