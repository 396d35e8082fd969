//! What the programs decide about single packets: rules, treatments, owned flows, what is
//! outstanding, and when they fail open. Needs root.

mod frames;
mod rig;

use std::cell::RefCell;
use std::collections::HashSet;
use std::os::fd::AsFd;

use flowferry_hsl::endpoint::Treatment;
use flowferry_hsl::key::{Key, Parsed, Side};
use flowferry_hsl::matching::Match;
use flowferry_hsl::shim::Write;
use flowferry_hsl::shim::batch::read_all;
use flowferry_hsl::shim::shared::{Count, Recent};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rig::{Rig, SETTLE_NS, now};

/// linux/pkt_cls.h
const ON: u32 = u32::MAX; // TC_ACT_UNSPEC
const SHOT: u32 = 2;
const REDIRECT: u32 = 7;

/// So few that rules, treatments and packets meet.
const MATCHES: [&str; 10] = [
    "*",
    "udp",
    "tcp,nw_src=10.0.0.1",
    "ip,nw_src=10.0.0.0/31",
    "ip,nw_dst=10.0.0.2",
    "udp,nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_src=1,tp_dst=2",
    "ipv6,ipv6_dst=fd00::2/127",
    "dl_type=0x88cc",
    "dl_vlan=1",
    "dl_vlan=none,tcp6,tp_dst=1",
];

fn matching(index: usize) -> Match {
    MATCHES[index].parse().expect("written above")
}

fn treatment() -> impl Strategy<Value = Treatment> {
    prop::sample::select(vec![Treatment::Pass, Treatment::Capture, Treatment::Arm])
}

fn packet() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop::sample::select(vec![2u8, 4, 4, 6]);
    let proto = prop::sample::select(vec![6u8, 17]);
    (
        vec(0..2u16, 0..2),
        kind,
        proto,
        (0..3u8, 1..3u16),
        (0..3u8, 1..3u16),
    )
        .prop_map(|(vlans, kind, proto, src, dst)| frames::frame(&vlans, kind, proto, src, dst))
}

/// The rules of `hold()`: the flow's own treatment, else the first rule, else pass; armed rules
/// leave alone what is served here.
fn expected(
    packet: &Parsed,
    rules: &[(Match, Treatment)],
    exact: Option<Treatment>,
    owned: bool,
) -> bool {
    let first = rules.iter().find(|(matching, _)| matching.covers(packet));
    match exact.or(first.map(|(_, treatment)| *treatment)) {
        None | Some(Treatment::Pass) => false,
        Some(Treatment::Capture) => true,
        Some(Treatment::Arm) => !owned,
    }
}

#[test]
fn a_packet_is_captured_exactly_when_the_rules_say_so() {
    let rig = RefCell::new(Rig::new());
    let rule = (0..MATCHES.len(), treatment());
    let rules = vec(
        rule.prop_map(|(index, treatment)| (matching(index), treatment)),
        0..8,
    );
    let exact = prop::option::weighted(0.3, treatment());
    let owned = prop::option::of(0..2usize);
    let inputs = (0..2usize, rules, packet(), exact, owned);
    let cases = 12 * Config::default().cases;
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    TestRunner::new(config)
        .run(&inputs, |(side, rules, frame, exact, owned)| {
            let mut rig = rig.borrow_mut();
            let side = Side::ALL[side];
            let packet = Key::parse(&frame, side).expect("Ethernet");
            rig.clear();
            rig.set_rules(side, &rules);
            if let Some(treatment) = exact {
                rig.set_mode(packet.key, treatment);
            }
            if let Some(on) = owned {
                rig.own(packet.key.on(Side::ALL[on])); // on either side
            }
            let expected = expected(&packet, &rules, exact, owned.is_some());
            prop_assert_eq!(
                rig.would_capture(side, &frame),
                expected,
                "{:?} {:?}",
                packet,
                rules
            );
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn every_row_of_the_table_is_looked_at_and_no_row_beyond() {
    let mut rig = Rig::new();
    let frame = frames::frame(&[], 4, 17, (1, 1), (2, 2));
    let miss = (matching(2), Treatment::Capture);
    let hit = (matching(1), Treatment::Capture);
    let mut rules = vec![miss.clone(); 63];
    rules.push(hit.clone());
    rig.set_rules(Side::Upstream, &rules);
    assert!(rig.would_capture(Side::Upstream, &frame));
    assert!(
        !rig.would_capture(Side::Downstream, &frame),
        "that is the other side's table"
    );
    rig.set_rules(Side::Upstream, &[hit]);
    rig.set_rules(Side::Upstream, &[miss]); // its bank still holds the 63 below
    assert!(!rig.would_capture(Side::Upstream, &frame));
}

/// One flow upstream, no rules.
fn counted(count: Count) -> (Rig, Key, Vec<u8>) {
    let mut rig = Rig::new();
    let frame = frames::frame(&[], 4, 17, (1, 1), (2, 2));
    let key = Key::parse(&frame, Side::Upstream).expect("Ethernet").key;
    rig.set_count(key, count);
    (rig, key, frame)
}

/// Pin this thread to the first CPU, and return that and another one's number.
fn two_cpus() -> (u32, u32) {
    let mut only = CpuSet::new();
    only.set(0).expect("there is a CPU 0");
    sched_setaffinity(Pid::from_raw(0), &only).expect("a thread may stay on CPU 0");
    (0, 1)
}

#[test]
fn while_packets_are_outstanding_others_stay_behind_them() {
    let (here, _) = two_cpus();
    let (rig, _, frame) = counted(Count {
        outstanding: 1,
        cpu: here,
        ..Count::default()
    });
    assert!(rig.would_capture(Side::Upstream, &frame));
}

#[test]
fn after_the_last_release_a_flow_keeps_to_its_cpu_for_a_while() {
    let (here, other) = two_cpus();
    let (mut rig, key, frame) = counted(Count::default());
    let mut captured = |released_ns, cpu| {
        rig.set_count(
            key,
            Count {
                released_ns,
                cpu,
                ..Count::default()
            },
        );
        rig.would_capture(Side::Upstream, &frame)
    };
    assert!(captured(now(), other), "it could overtake on another CPU");
    assert!(!captured(now(), here), "the same queue keeps the order");
    assert!(
        !captured(now().saturating_sub(2 * SETTLE_NS), other),
        "long ago"
    );
}

#[test]
fn what_could_not_be_captured_is_not_outstanding() {
    let (mut rig, key, frame) = counted(Count::default());
    rig.set_mode(key, Treatment::Capture);
    assert!(rig.would_capture(Side::Upstream, &frame));
    let count = rig.counts.get(&key, 0).expect("there is one");
    assert_eq!((count.outstanding, count.captured), (0, 0));
    assert_eq!(rig.accounted(), [key], "it went on to the function");
}

#[test]
fn without_a_heartbeat_everything_passes_until_a_new_epoch() {
    let (mut rig, key, frame) = counted(Count::default());
    rig.set_mode(key, Treatment::Capture);
    let failed_open = |rig: &Rig| rig.counters(Side::Upstream).failed_open;
    rig.control.set_active(true);
    rig.control
        .begin_epoch(now() - 20_000_000, 1_000_000, SETTLE_NS);
    assert_eq!(rig.arrive(Side::Upstream, &frame).unwrap(), ON);
    assert_eq!((failed_open(&rig), rig.control.tripped()), (1, true));
    rig.control.beat(now());
    assert_eq!(rig.arrive(Side::Upstream, &frame).unwrap(), ON);
    assert_eq!(
        failed_open(&rig),
        2,
        "a heartbeat does not bring back what has been overtaken"
    );
    let hash = rig.counts.get(&key, 0).unwrap().hash;
    assert_eq!(hash, 0, "nothing was tried");
}

#[test]
fn at_rest_nothing_is_captured_whatever_the_tables_say() {
    let (mut rig, key, frame) = counted(Count {
        outstanding: 1,
        ..Count::default()
    });
    rig.set_mode(key, Treatment::Capture);
    rig.begin();
    rig.control.set_active(false);
    assert_eq!(rig.arrive(Side::Upstream, &frame).unwrap(), ON);
    assert_eq!(rig.counters(Side::Upstream).failed_open, 0);
}

const CAPTURED: u32 = 0x1111_0001;
const RELEASED: u32 = 0x1111_0002;

#[test]
fn the_second_pass_takes_a_packet_off_the_count_and_lets_it_on() {
    let (mut rig, key, frame) = counted(Count {
        outstanding: 2,
        ..Count::default()
    });
    rig.control.set_marks(CAPTURED, RELEASED);
    rig.set_mode(key, Treatment::Capture);
    rig.begin();
    let before = now();
    assert_eq!(
        rig.run(Side::Upstream, "ff_ingress", &frame, RELEASED)
            .unwrap(),
        ON
    );
    let count = rig.counts.get(&key, 0).unwrap();
    assert_eq!((count.outstanding, count.released), (1, 1));
    assert!(
        count.released_ns >= before,
        "the clock of the settling time"
    );
    assert_eq!(rig.counters(Side::Upstream).released, 1);
    assert_eq!(rig.accounted(), [key]);
}

#[test]
fn forgotten_packets_are_taken_off_the_count() {
    let (rig, key, _) = counted(Count {
        outstanding: 5,
        ..Count::default()
    });
    rig.control.announce(Side::Upstream, Write::Forget, 3);
    let write = rig.run(Side::Upstream, "ff_tap_ingress", &key.to_frame(), 0);
    assert_eq!(
        write.unwrap(),
        SHOT,
        "the frame names the flow, it is no packet"
    );
    assert_eq!(rig.counts.get(&key, 0).unwrap().outstanding, 2);
}

#[test]
fn a_write_after_failing_open_is_discarded() {
    let (rig, key, frame) = counted(Count {
        outstanding: 1,
        ..Count::default()
    });
    rig.begin();
    rig.control.trip();
    rig.control.announce(Side::Upstream, Write::Captured, 0);
    assert_eq!(
        rig.run(Side::Upstream, "ff_tap_ingress", &frame, 0)
            .unwrap(),
        SHOT
    );
    assert_eq!(
        rig.control.outcome(Side::Upstream),
        flowferry_hsl::shim::Outcome::Discarded
    );
    assert_eq!(rig.counters(Side::Upstream).discarded, 1);
    assert_eq!(
        rig.counts.get(&key, 0).unwrap().outstanding,
        1,
        "still to be counted as lost"
    );
}

#[test]
fn the_tap_carries_nothing_but_what_was_captured() {
    let (rig, _, frame) = counted(Count::default());
    rig.control.set_marks(CAPTURED, RELEASED);
    for (mark, verdict) in [(0, SHOT), (RELEASED, SHOT), (7, SHOT), (CAPTURED, ON)] {
        let run = rig.run(Side::Upstream, "ff_tap_egress", &frame, mark);
        assert_eq!(run.unwrap(), verdict, "mark {mark:#x}");
    }
    assert_eq!(rig.counters(Side::Upstream).foreign, 3);
}

#[test]
fn control_frames_of_functions_are_not_believed() {
    let (rig, _, frame) = counted(Count::default());
    let mut control = frame.clone();
    control[12..14].copy_from_slice(&[0x82, 0x1c]);
    for (frame, verdict) in [(frame, REDIRECT), (control, SHOT)] {
        let run = rig.run(Side::Downstream, "ff_inner_ingress", &frame, 0);
        assert_eq!(run.unwrap(), verdict);
    }
}

/// Packets of a flow that are accounted for, those that wait in a slot included.
fn accounted(rig: &Rig, key: &Key) -> u64 {
    let slots = rig.recent.get(&Recent::slot(key), 0).expect("in the array");
    let waiting = slots.iter().filter(|slot| slot.key == *key);
    let flow = rig.flows.get(key, 0).expect("accounted at once");
    flow.packets + waiting.map(|slot| u64::from(slot.packets)).sum::<u64>()
}

/// Between two ticks packets are counted where Rust looks for them.
#[test]
fn packets_of_one_tick_are_found_in_their_slot() {
    let rig = Rig::new();
    for port in 1..=300 {
        let frame = frames::frame(&[], 4, 17, (1, port), (2, 7));
        let key = Key::parse(&frame, Side::Downstream).expect("Ethernet").key;
        for _ in 0..3 {
            assert_eq!(rig.arrive(Side::Downstream, &frame).expect("runs"), ON);
        }
        assert_eq!(accounted(&rig, &key), 3, "{key:?}");
    }
}

/// A flow whose packets find their slot is looked up again in the next tick.
#[test]
fn a_flow_that_goes_on_is_seen_again() {
    let rig = Rig::new();
    let frame = frames::frame(&[], 4, 17, (1, 3), (2, 7));
    let key = Key::parse(&frame, Side::Upstream).expect("Ethernet").key;
    let seen = || {
        rig.arrive(Side::Upstream, &frame).expect("runs");
        rig.flows.get(&key, 0).expect("accounted at once").last_ns
    };
    let (first, deadline) = (seen(), now() + 2_000_000_000);
    while seen() == first {
        assert!(now() < deadline, "two seconds of packets are one moment");
    }
}

/// The slot is chosen by addresses and ports; the rest of the key tells flows apart there.
#[test]
fn flows_that_share_a_slot_are_counted_apart() {
    let rig = Rig::new();
    let vlans: [&[u16]; 4] = [&[], &[5], &[6], &[5, 6]];
    let frames: Vec<Vec<u8>> = vlans
        .iter()
        .flat_map(|vlans| [6, 17].map(|proto| frames::frame(vlans, 4, proto, (1, 3), (2, 7))))
        .collect();
    let mut sent = vec![0; frames.len()];
    for one in 0..frames.len() {
        for at in (0..frames.len()).flat_map(|other| [one, other]) {
            rig.arrive(Side::Upstream, &frames[at]).expect("runs");
            sent[at] += 1;
            let key = Key::parse(&frames[at], Side::Upstream).expect("Ethernet");
            assert_eq!(accounted(&rig, &key.key), sent[at], "{:?}", key.key);
        }
    }
}

#[test]
fn a_table_of_many_batches_is_read_whole_and_each_entry_once() {
    let mut rig = Rig::new();
    let mut put = HashSet::new();
    for number in 0..20_000u16 {
        let frame = frames::frame(&[], 4, 17, (1, number), (2, 7));
        let key = Key::parse(&frame, Side::Upstream).expect("a frame").key;
        rig.counts.insert(key, Count::default(), 0).expect("room");
        put.insert(key);
    }
    let read = read_all::<Key, Count>(rig.pinned("ff_counts").fd().as_fd())
        .expect("the kernel has batches");
    assert_eq!(read.len(), put.len());
    let read: HashSet<Key> = read.into_iter().map(|(key, _)| key).collect();
    assert_eq!(read, put);
}
