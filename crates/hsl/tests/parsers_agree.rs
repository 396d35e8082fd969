//! The two parsers, `bpf/parse.h` and `src/key.rs`, give every frame the same key. Needs root.

mod frames;
mod rig;

use std::cell::OnceCell;

use flowferry_hsl::key::{ETHERTYPE_CONTROL, Key, Side};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRunner};
use rig::Rig;
use rig::wire::Wire;

/// The kernel runs programs on nothing shorter.
const ETHERNET: usize = 14;

/// What shows a packet's key is that it is to be captured; there is no TAP, so it passes.
fn capturing() -> Rig {
    let mut rig = Rig::new();
    rig.capture_all();
    rig
}

/// The kernel's test run refuses what is too short for the IP header that its EtherType promises.
/// Behind a VLAN tag it does not look, so that such frames are tested all the same.
fn is_refused(frame: &[u8]) -> bool {
    let header = match frame.get(12..14) {
        Some([0x08, 0x00]) => 20,
        Some([0x86, 0xdd]) => 40,
        _ => 0,
    };
    frame.len() < ETHERNET + header
}

/// What the programs make of a frame, or `None` if it is a control frame.
fn by_bpf(rig: &mut Rig, side: Side, frame: &[u8]) -> Option<Key> {
    rig.begin();
    let run = rig.arrive(side, frame);
    run.unwrap_or_else(|error| panic!("{frame:02x?} cannot be run: {error}"));
    let keys = rig.keyed();
    assert!(keys.len() <= 1, "{keys:?} of one frame");
    keys.first().copied()
}

fn agree(rig: &mut Rig, side: Side, frame: &[u8]) -> Result<(), String> {
    let parsed = Key::parse(frame, side);
    if parsed.is_some() != (frame.len() >= ETHERNET) {
        return Err(format!("{} bytes are {parsed:?}", frame.len()));
    }
    let Some(parsed) = parsed.filter(|_| !is_refused(frame)) else {
        return Ok(());
    };
    let expected = (parsed.ethertype != ETHERTYPE_CONTROL).then_some(parsed.key);
    let found = by_bpf(rig, side, frame);
    if found == expected {
        Ok(())
    } else {
        Err(format!(
            "{frame:02x?} is {expected:?} to Rust, {found:?} to the programs"
        ))
    }
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text
        .chars()
        .filter_map(|digit| digit.to_digit(16))
        .collect();
    digits
        .chunks(2)
        .map(|pair| (pair[0] << 4 | pair[1]) as u8)
        .collect()
}

const MACS: &str = "020000000002 020000000001";
const IP4: &str = "0a000001 0a000002";
const IP6: &str = "fd000000000000000000000000000001 fd000000000000000000000000000002";

/// Frames that have a trap of their own, with the flow that they belong to.
fn handmade() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let v4 = |head: &str, rest: &str| hex(&format!("{MACS} 0800 {head} {IP4} {rest}"));
    let v6 =
        |next: &str, rest: &str| hex(&format!("{MACS} 86dd 60000000 0000 {next} 40 {IP6} {rest}"));
    let ports = "0001 0002 00000000";
    let udp4 = "udp,nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_src=1,tp_dst=2";
    let udp4_whole = "udp,nw_src=10.0.0.1,nw_dst=10.0.0.2";
    let udp6 = "udp6,ipv6_src=fd00::1,ipv6_dst=fd00::2,tp_src=1,tp_dst=2";
    let udp6_whole = "udp6,ipv6_src=fd00::1,ipv6_dst=fd00::2";
    let untagged = v4("45000000 00000000 40110000", ports);
    let tagged = |tags: &str| {
        let mut frame = hex(&format!("{MACS} {tags}"));
        frame.extend(&untagged[12..]);
        frame
    };
    vec![
        ("plain", untagged.clone(), udp4),
        (
            "don't fragment",
            v4("45000000 00004000 40110000", ports),
            udp4,
        ),
        (
            "options",
            v4(
                "47000000 00000000 40110000",
                &format!("0101010101010101 {ports}"),
            ),
            udp4,
        ),
        (
            "first fragment",
            v4("45000000 00002000 40110000", ports),
            udp4_whole,
        ),
        (
            "later fragment",
            v4("45000000 00000010 40110000", ports),
            udp4_whole,
        ),
        (
            "cut before the ports",
            v4("45000000 00000000 40110000", "0001 00"),
            udp4_whole,
        ),
        (
            "sctp",
            v4("45000000 00000000 40840000", ports),
            "sctp,nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_src=1,tp_dst=2",
        ),
        (
            "icmp",
            v4("45000000 00000000 40010000", ports),
            "icmp,nw_src=10.0.0.1,nw_dst=10.0.0.2",
        ),
        (
            "esp",
            v4("45000000 00000000 40320000", ports),
            "ip,nw_proto=50,nw_src=10.0.0.1,nw_dst=10.0.0.2",
        ),
        (
            "broken header length",
            v4("44000000 00000000 40110000", ports),
            "l2_type=0x0800,dl_src=02:00:00:00:00:01,dl_dst=02:00:00:00:00:02",
        ),
        (
            "tag",
            tagged("8100 0005"),
            "udp,nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_src=1,tp_dst=2,dl_vlan=5",
        ),
        (
            "priority tag",
            tagged("8100 e000"),
            "udp,nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_src=1,tp_dst=2,dl_vlan=0",
        ),
        (
            "two tags",
            tagged("88a8 2005 8100 0006"),
            "udp,nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_src=1,tp_dst=2,dl_vlan=5,inner_vlan=6",
        ),
        (
            "three tags",
            tagged("88a8 0005 8100 0006 8100 0007"),
            "dl_type=0x8100,dl_src=02:00:00:00:00:01,dl_dst=02:00:00:00:00:02,dl_vlan=5,inner_vlan=6",
        ),
        ("IPv6", v6("11", ports), udp6),
        (
            "hop by hop",
            v6("00", &format!("11 00 000000000000 {ports}")),
            udp6,
        ),
        (
            "destination options",
            v6("3c", &format!("11 01 {} {ports}", "00".repeat(14))),
            udp6,
        ),
        (
            "authentication",
            v6("33", &format!("11 04 {} {ports}", "00".repeat(22))),
            udp6,
        ),
        (
            "atomic fragment",
            v6("2c", &format!("11 00 0000 00000001 {ports}")),
            udp6,
        ),
        (
            "first fragment, IPv6",
            v6("2c", &format!("11 00 0001 00000001 {ports}")),
            udp6_whole,
        ),
        (
            "later fragment, IPv6",
            v6("2c", &format!("11 00 0010 00000001 {ports}")),
            udp6_whole,
        ),
        (
            "header cut off, IPv6",
            hex(&format!("{MACS} 8100 0005 86dd 60000000 0000 11 40 fd00")),
            "l2_type=0x86dd,dl_src=02:00:00:00:00:01,dl_dst=02:00:00:00:00:02,dl_vlan=5",
        ),
        (
            "ARP",
            hex(&format!("{MACS} 0806 {}", "00".repeat(28))),
            "dl_type=0x0806,dl_src=02:00:00:00:00:01,dl_dst=02:00:00:00:00:02",
        ),
    ]
}

#[test]
fn handmade_frames_have_the_flows_they_belong_to() {
    let mut rig = capturing();
    for (name, frame, flow) in handmade() {
        for side in Side::ALL {
            let parsed = Key::parse(&frame, side).expect("Ethernet");
            assert_eq!(parsed.key.to_match(), flow, "{name}");
            agree(&mut rig, side, &frame).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
    let control = hex(&format!("{MACS} 821c 0000"));
    assert_eq!(by_bpf(&mut rig, Side::Upstream, &control), None);
    assert_eq!(
        rig.counters(Side::Upstream).control_lost,
        1,
        "there is no TAP to hand it to"
    );
}

/// Both directions of a flow, on one interface, are one flow.
#[test]
fn keys_have_no_direction() {
    let mut rig = capturing();
    let there = frames::frame(&[], 4, 17, (9, 5), (3, 7));
    let back = frames::frame(&[], 4, 17, (3, 7), (9, 5));
    let keys = [there, back].map(|frame| by_bpf(&mut rig, Side::Upstream, &frame));
    assert!(keys[0].is_some());
    assert_eq!(keys[0], keys[1]);
}

fn with_rig<S: Strategy>(
    cases: u32,
    frames: &S,
    test: impl Fn(&mut Rig, S::Value) -> Result<(), String>,
) {
    let rig = std::cell::RefCell::new(capturing());
    let cases = cases * Config::default().cases / 256; // PROPTEST_CASES for a longer run
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let run = TestRunner::new(config).run(frames, |value| {
        test(&mut rig.borrow_mut(), value).map_err(TestCaseError::fail)
    });
    match run {
        Ok(()) => {}
        Err(TestError::Fail(reason, _)) => panic!("{reason}"),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn any_frame_has_one_key() {
    with_rig(
        20_000,
        &(frames::any_frame(), 0..2usize),
        |rig, (frame, side)| agree(rig, Side::ALL[side], &frame),
    );
}

/// On the wire: the kernel takes the outer tag out of the frame, and how much of a packet is in one
/// piece must not matter, as the programs pull in what they look at.
#[test]
fn any_packet_from_the_wire_has_the_same_key() {
    let whole = frames::any_frame().prop_filter("Ethernet", |frame| frame.len() >= ETHERNET);
    let wire = OnceCell::new();
    with_rig(
        2_000,
        &(whole, ETHERNET..200usize),
        |rig, (frame, linear)| {
            let wire = wire.get_or_init(|| rig.wire());
            let parsed = Key::parse(&Wire::arriving(&frame), Side::Upstream).expect("Ethernet");
            if parsed.ethertype == ETHERTYPE_CONTROL {
                return Ok(());
            }
            rig.begin();
            wire.send(&frame, linear);
            let found = arrived(rig);
            if found == Some(parsed.key) {
                Ok(())
            } else {
                Err(format!(
                    "{frame:02x?}, {linear} in one piece, is {parsed:?}, found {found:?}"
                ))
            }
        },
    );
}

/// The flow of a packet that is on its way; the kernel may take its time to handle it.
fn arrived(rig: &mut Rig) -> Option<Key> {
    let deadline = rig::now() + 2_000_000_000;
    loop {
        match rig.keyed().pop() {
            None if rig::now() < deadline => std::thread::yield_now(),
            found => return found,
        }
    }
}

proptest! {
    #![proptest_config(Config::with_cases(4 * Config::default().cases))]

    /// What the agent writes to have a flow forgotten is of that flow.
    #[test]
    fn the_frame_of_a_key_has_that_key(frame in frames::any_frame(), side in 0..2usize) {
        if let Some(parsed) = Key::parse(&frame, Side::ALL[side]) {
            let again = Key::parse(&parsed.key.to_frame(), Side::ALL[side]);
            prop_assert_eq!(again.map(|again| again.key), Some(parsed.key));
        }
    }
}
