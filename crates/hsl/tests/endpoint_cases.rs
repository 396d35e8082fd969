//! Cases that a random run meets too seldom, each for what would go wrong without it.

use flowferry_hsl::endpoint::{Action, Disposition, Endpoint, Part, Role, Spec, State, Treatment};
use flowferry_hsl::key::{Key, Parsed, Side};
use flowferry_hsl::matching::Match;

const BOTH: [Side; 2] = Side::ALL;
const UP: [Side; 1] = [Side::Upstream];

fn spec(role: Role, matching: &str, except: &[&str], sides: &[Side]) -> Spec {
    let parse = |text: &str| text.parse::<Match>().unwrap();
    Spec {
        role,
        matching: parse(matching),
        except: except.iter().map(|text| parse(text)).collect(),
        sides: sides.to_vec(),
    }
}

/// A packet of the `number`th of many flows.
fn packet(number: u32, side: Side) -> (Parsed, Vec<u8>) {
    let [a, b, c, d] = number.to_be_bytes();
    let mut key = Key {
        proto: 17,
        kind: 4,
        ..Key::EMPTY
    };
    key.low[..4].copy_from_slice(&[10 + a, b, c, d]);
    key.high[..4].copy_from_slice(&[192, 168, 0, 1]);
    let frame = key.to_frame();
    (Key::parse(&frame, side).unwrap(), frame)
}

fn flows(actions: &[Action]) -> Vec<(Key, Option<Treatment>)> {
    let flow = |action: &Action| match action {
        Action::Flow(key, treatment) => Some((*key, *treatment)),
        _ => None,
    };
    actions.iter().filter_map(flow).collect()
}

/// The first position of an action that `is`.

#[test]
fn ever_so_many_flows_taken_again_cost_no_stack() {
    let mut endpoint = Endpoint::new(1 << 30);
    endpoint
        .hold(1, spec(Role::Capture, "*", &[], &UP), 1)
        .unwrap();
    for number in 0..30_000 {
        let (packet, frame) = packet(number, Side::Upstream);
        assert_eq!(endpoint.on_frame(&packet, &frame, 2), Disposition::Kept);
    }
    endpoint.release(1, 3).unwrap();
    endpoint
        .hold(2, spec(Role::Capture, "*", &[], &UP), 4)
        .unwrap();
    assert_eq!(endpoint.next_write(), None);
}

#[test]
fn a_flow_with_kept_packets_does_not_settle() {
    let mut endpoint = Endpoint::new(1 << 20);
    let (packet, frame) = packet(1, Side::Upstream);
    endpoint
        .hold(1, spec(Role::Capture, "*", &[], &UP), 1)
        .unwrap();
    endpoint.on_follower(&packet, &frame, 2);
    endpoint.release(1, 3).unwrap();
    assert!(
        endpoint.settled(packet.key).is_err(),
        "the stray would be forgotten"
    );
    assert!(endpoint.next_write().is_some());
    assert_eq!(endpoint.next_write(), None);
    endpoint.settled(packet.key).unwrap();
    assert_eq!(endpoint.budget().used(), 0);
}

#[test]
fn strays_that_nobody_fetches_stay_within_the_budget() {
    let mut endpoint = Endpoint::new(1_000);
    endpoint
        .hold(1, spec(Role::Stray, "*", &[], &UP), 1)
        .unwrap();
    let (packet, frame) = packet(1, Side::Upstream);
    let cost = frame.len() + 64;
    for _ in 0..1_000 / cost {
        assert_eq!(endpoint.on_frame(&packet, &frame, 2), Disposition::SendOn);
    }
    assert_eq!(endpoint.on_frame(&packet, &frame, 2), Disposition::Lost);
    assert_eq!(endpoint.holds().next().unwrap().figures.lost_packets, 1);
    endpoint.next_stray().unwrap();
    assert_eq!(endpoint.on_frame(&packet, &frame, 2), Disposition::SendOn);
}

#[test]
fn only_a_full_buffer_loses_and_what_it_loses_is_counted() {
    let mut endpoint = Endpoint::new(1_000);
    endpoint
        .hold(1, spec(Role::Capture, "*", &[], &UP), 1)
        .unwrap();
    let (packet, frame) = packet(1, Side::Upstream);
    let room = 1_000 / (frame.len() + 64);
    let came = 2 * room;
    let mut lost = 0;
    for _ in 0..came {
        // Half full the hold lets go; nobody writes what it lets go, and more comes.
        lost += usize::from(endpoint.on_frame(&packet, &frame, 2) == Disposition::Lost);
        assert!(endpoint.budget().used() <= 1_000);
    }
    assert_eq!(lost, came - room);
    let hold = endpoint.holds().next().unwrap();
    assert!(hold.error.as_ref().unwrap().contains("half full"));
    assert_eq!(hold.figures.lost_packets, lost as u64);
    let written = std::iter::from_fn(|| endpoint.next_write()).count();
    assert_eq!(written, room);
}

#[test]
fn packets_of_a_flow_that_is_taken_again_go_where_the_new_hold_sends_them() {
    let mut endpoint = Endpoint::new(1 << 20);
    let (packet, frame) = packet(1, Side::Upstream);
    endpoint
        .hold(1, spec(Role::Capture, "*", &[], &UP), 1)
        .unwrap();
    endpoint.on_follower(&packet, &frame, 2);
    endpoint.on_frame(&packet, &frame, 2);
    endpoint.on_frame(&packet, &frame, 2);
    endpoint.release(1, 3).unwrap();
    endpoint
        .hold(2, spec(Role::Stray, "*", &[], &UP), 4)
        .unwrap();
    endpoint.on_follower(&packet, &frame, 5);
    endpoint.on_frame(&packet, &frame, 5);
    let strays: Vec<_> = std::iter::from_fn(|| endpoint.next_stray()).collect();
    let parts: Vec<Part> = strays.iter().map(|stray| stray.part).collect();
    let (stray, captured) = (Part::Stray, Part::Captured);
    assert_eq!(parts, [stray, captured, captured, stray, captured]);
    assert!(
        strays.iter().all(|stray| stray.hold == 2),
        "they go where hold 2 sends them"
    );
}

#[test]
fn an_exception_is_no_business_of_other_holds() {
    let mut endpoint = Endpoint::new(1 << 20);
    let first = spec(
        Role::Capture,
        "udp,nw_src=10.0.0.1",
        &["udp,tp_dst=53"],
        &UP,
    );
    endpoint.hold(1, first, 1).unwrap();
    let second = spec(Role::Capture, "udp,nw_src=10.0.0.2", &[], &UP);
    endpoint.hold(2, second, 2).unwrap();
    let dns: Match = "udp,nw_src=10.0.0.2,nw_dst=10.9.0.1,tp_src=1,tp_dst=53"
        .parse()
        .unwrap();
    let (flow, actions) = (dns.flow().unwrap(), endpoint.take_actions());
    let rules = actions.iter().rev().find_map(|action| match action {
        Action::Rules(Side::Upstream, rules) => Some(rules),
        _ => None,
    });
    let first = rules
        .unwrap()
        .iter()
        .find(|(matching, _)| matching.covers(&flow));
    assert_eq!(first.unwrap().1, Treatment::Capture);
}

#[test]
fn a_downstream_key_belongs_to_the_flow_named_last() {
    let mut endpoint = Endpoint::new(1 << 20);
    let (one, two) = (packet(1, Side::Upstream).0, packet(2, Side::Upstream).0);
    let (behind, frame) = packet(9, Side::Downstream);
    endpoint.set_alias(one, behind);
    endpoint.set_alias(two, behind);
    endpoint.drop_alias(&one.key);
    let of_two = format!("ip,nw_proto=17,nw_src={},nw_dst=192.168.0.1", "10.0.0.2");
    endpoint
        .hold(1, spec(Role::Capture, &of_two, &[], &BOTH), 1)
        .unwrap();
    assert_eq!(
        flows(&endpoint.take_actions()),
        [(behind.key, Some(Treatment::Capture))]
    );
    assert_eq!(endpoint.on_frame(&behind, &frame, 2), Disposition::Kept);
}

/// A match has a direction, and so have a flow's two faces.
#[test]
fn an_alias_is_taken_by_a_match_of_its_direction_alone() {
    let (upstream, (behind, _)) = (packet(1, Side::Upstream).0, packet(9, Side::Downstream));
    for (matching, treated) in [("ip,nw_src=10.0.0.1", true), ("ip,nw_dst=10.0.0.1", false)] {
        let mut endpoint = Endpoint::new(1 << 20);
        endpoint.set_alias(upstream, behind);
        let held = spec(Role::Capture, matching, &[], &BOTH);
        assert_eq!(endpoint.covers(&held, &behind), treated, "{matching}");
        endpoint.hold(1, held, 1).unwrap();
        let capture = (behind.key, Some(Treatment::Capture));
        let found = flows(&endpoint.take_actions()).contains(&capture);
        assert_eq!(found, treated, "{matching}");
    }
}

/// One side was let go by its own headers; a hold on the other side looks at the alias again.
#[test]
fn a_new_hold_leaves_what_another_has_let_go_under_an_alias() {
    let mut endpoint = Endpoint::new(1 << 20);
    let (upstream, (behind, frame)) = (packet(1, Side::Upstream).0, packet(9, Side::Downstream));
    let of_it = |sides: &[Side]| spec(Role::Capture, "ip,nw_src=10.0.0.1", &[], sides);
    endpoint.set_alias(upstream, behind);
    endpoint.hold(1, of_it(&[Side::Downstream]), 1).unwrap();
    endpoint.on_frame(&behind, &frame, 1);
    endpoint.release_side(1, behind.key).unwrap();
    endpoint.take_actions();
    endpoint.hold(2, of_it(&UP), 2).unwrap();
    let held = (behind.key, Some(Treatment::Capture));
    assert!(!flows(&endpoint.take_actions()).contains(&held));
}

#[test]
fn a_rule_does_not_take_the_flow_of_a_hold_that_ended() {
    // Hold 1 has the flow by its upstream headers; a rule of hold 2 matches its downstream ones.
    let mut endpoint = Endpoint::new(1 << 20);
    let (upstream, (behind, _)) = (packet(1, Side::Upstream).0, packet(9, Side::Downstream));
    endpoint.set_alias(upstream, behind);
    endpoint
        .hold(1, spec(Role::Capture, "ip,nw_src=10.0.0.1", &[], &BOTH), 1)
        .unwrap();
    // What comes in downstream from there goes there, as matches read.
    endpoint
        .hold(
            2,
            spec(
                Role::Capture,
                "ip,nw_src=192.168.0.1,nw_dst=10.0.0.9",
                &[],
                &BOTH,
            ),
            2,
        )
        .unwrap();
    endpoint.take_actions();
    endpoint.release(1, 3).unwrap();
    let last = flows(&endpoint.take_actions()).pop();
    assert_eq!(last, Some((behind.key, Some(Treatment::Pass))));
}

/// Two holds of opposite directions: the key of a flow, which has none, fits both.
fn of_both_directions() -> (Endpoint, Parsed, Vec<u8>) {
    let mut endpoint = Endpoint::new(1 << 20);
    let (packet, frame) = packet(1, Side::Upstream);
    for (id, from) in [(1, "ip,nw_src=10.0.0.1"), (2, "ip,nw_src=192.168.0.1")] {
        endpoint
            .hold(id, spec(Role::Capture, from, &[], &UP), 1)
            .unwrap();
    }
    endpoint.take_actions();
    (endpoint, packet, frame)
}

#[test]
fn a_flow_that_another_hold_has_is_not_released() {
    let (mut endpoint, packet, frame) = of_both_directions();
    endpoint.on_frame(&packet, &frame, 2);
    endpoint.take_actions();
    assert!(endpoint.release_flow(2, &packet).is_err());
    assert_eq!(endpoint.state(&packet.key), State::Held);
    assert!(endpoint.take_actions().is_empty());
}

#[test]
fn a_flow_that_two_holds_name_is_released_only_once_it_has_come() {
    let (mut endpoint, packet, frame) = of_both_directions();
    for id in [1, 2] {
        assert!(endpoint.release_flow(id, &packet).is_err());
        assert!(endpoint.release_side(id, packet.key).is_err());
    }
    assert!(endpoint.take_actions().is_empty());
    endpoint.on_frame(&packet, &frame, 2);
    assert!(endpoint.release_side(1, packet.key).is_ok());
}

#[test]
fn no_hold_begins_over_a_flow_that_another_one_has_let_go() {
    let mut endpoint = Endpoint::new(1 << 20);
    let (packet, frame) = packet(1, Side::Upstream);
    let (mine, others) = ("ip,nw_src=10.0.0.1", "ip,nw_src=192.168.0.1");
    endpoint
        .hold(1, spec(Role::Capture, mine, &[], &UP), 1)
        .unwrap();
    endpoint.on_frame(&packet, &frame, 2);
    endpoint.release_flow(1, &packet).unwrap();
    endpoint.take_actions();
    let other = || spec(Role::Capture, others, &[], &UP);
    assert!(endpoint.hold(2, other(), 3).is_err());
    assert!(endpoint.take_actions().is_empty());
    endpoint.release(1, 4).unwrap();
    assert!(endpoint.hold(2, other(), 5).is_ok());
}

#[test]
fn what_does_not_tell_its_flow_waits_for_the_state() {
    let mut endpoint = Endpoint::new(1 << 20);
    let all = spec(Role::Capture, "*", &[], &UP);
    endpoint.hold(1, all, 1).unwrap();
    let (fragment, _) = packet(1, Side::Upstream);
    let (mut listed, mut new) = (fragment.key, fragment.key);
    (listed.low_port, listed.high_port) = ([0, 7], [0, 53]);
    (new.low_port, new.high_port) = ([0, 8], [0, 53]);
    assert!(
        [fragment.key, listed, new]
            .iter()
            .all(|key| endpoint.awaits(1, key))
    );
    endpoint.await_listed(1, [listed].into()).unwrap();
    let waits = [fragment.key, listed, new].map(|key| endpoint.awaits(1, &key));
    assert_eq!(waits, [true, true, false]);
    endpoint.let_strays_go(1).unwrap();
    assert!(!endpoint.awaits(1, &listed));
}

#[test]
fn what_was_let_go_is_recalled_in_order() {
    let mut endpoint = Endpoint::new(1 << 20);
    endpoint
        .hold(1, spec(Role::Capture, "*", &[], &UP), 1)
        .unwrap();
    let (packet, frame) = packet(1, Side::Upstream);
    endpoint.on_frame(&packet, &frame, 2);
    endpoint.on_frame(&packet, &frame, 2);
    endpoint.release_side(1, packet.key).unwrap();
    assert!(endpoint.next_write().is_some());
    endpoint.take_actions();
    assert_eq!(endpoint.recall(1).unwrap(), [packet.key]);
    assert_eq!(flows(&endpoint.take_actions()), [(packet.key, None)]);
    assert_eq!(endpoint.state(&packet.key), State::Held);
    assert_eq!(endpoint.next_write(), None);
    endpoint.on_frame(&packet, &frame, 3);
    endpoint.turn(1, Role::Stray).unwrap();
    let strays = std::iter::from_fn(|| endpoint.next_stray()).count();
    assert_eq!(strays, 2);
}

#[test]
fn by_one_side_only_a_flow_that_has_come_is_let_go() {
    let mut endpoint = Endpoint::new(1 << 20);
    let (packet, frame) = packet(1, Side::Upstream);
    // It reads the other way round: the flow's key fits, its packets do not.
    let others = spec(Role::Arm, "ip,nw_src=192.168.0.1", &[], &BOTH);
    endpoint.hold(1, others, 1).unwrap();
    endpoint.take_actions();
    assert!(endpoint.release_side(1, packet.key).is_err());
    assert!(endpoint.release_flow(1, &packet).is_err());
    assert!(endpoint.take_actions().is_empty());
    endpoint.on_frame(&packet, &frame, 2);
    assert!(endpoint.release_side(1, packet.key).is_err());
}
