//! Two sites and a member between them that relays: those of one site are never told the addresses
//! of the other.

use std::path::Path;

use flowferry_estate::fabric::{Fabric, FabricError, NodeId, Why};

use crate::rig::{Member, Running, eventually};
use crate::tls::{folder, issue};

fn id(members: &[NodeId], name: &str) -> Vec<NodeId> {
    let found = members.iter().filter(|member| *member.name == *name);
    found.cloned().collect()
}

fn sends(from: &Running, to: &str, bytes: &[u8]) {
    from.mesh.send(&id(&from.mesh.members(), to), bytes);
}

fn sites() -> (Running, Running, Running) {
    let relay = Member::new("r").relay().start();
    let one = Member::new("a").peer(&relay).start();
    let other = Member::new("b").peer(&relay).start();
    eventually("a sees b", || one.names() == ["b", "r"]);
    eventually("b sees a", || other.names() == ["a", "r"]);
    (relay, one, other)
}

#[test]
fn members_that_know_only_the_relay_talk_through_it_in_order() {
    let (relay, one, other) = sites();
    let lengths = [0, 1, 70_000, 3, 3_000_000, 64];
    for (n, length) in lengths.iter().enumerate() {
        sends(&one, "b", &vec![n as u8; *length]);
        sends(&other, "a", &vec![n as u8; *length]);
    }
    for (to, from) in [(&other, "a"), (&one, "b")] {
        eventually("all are there", || to.heard(from).len() == lengths.len());
        for (n, bytes) in to.heard(from).iter().enumerate() {
            assert_eq!(*bytes, vec![n as u8; lengths[n]]);
        }
    }
    assert!(relay.heard("a").is_empty(), "it is not addressed");
    assert_eq!(one.mesh.statistics().links, 1, "there is no link but to r");
}

#[test]
fn who_does_not_relay_passes_addresses_on_instead() {
    let first = Member::new("r").start();
    let one = Member::new("a").peer(&first).start();
    let other = Member::new("b").peer(&first).start();
    eventually("a sees b", || one.names() == ["b", "r"]);
    eventually("they are linked", || other.mesh.statistics().links == 2);
}

#[test]
fn a_member_beyond_the_relay_that_leaves_or_fails_is_reported() {
    let (relay, one, other) = sites();
    other.mesh.close();
    eventually("it has left", || one.names() == ["r"]);
    assert_eq!(one.lost(), [("b".to_owned(), Why::Left)]);
    let silent = crate::strangers::Puppet::greet(&relay.address(), "mute");
    eventually("it is taken for a member", || one.names() == ["mute", "r"]);
    drop(silent);
    eventually("its end is seen", || one.names() == ["r"]);
    let lost = one.lost();
    assert!(
        matches!(&lost[1], (name, Why::Failed(why)) if name == "mute" && why.contains("says r")),
        "{lost:?}"
    );
}

#[test]
fn with_the_relay_all_beyond_it_are_gone_and_they_come_back_with_it() {
    let (relay, one, other) = sites();
    let address = relay.address();
    relay.mesh.close();
    eventually("nobody is left", || {
        one.names().is_empty() && other.names().is_empty()
    });
    let lost: Vec<_> = one.lost().into_iter().map(|(name, _)| name).collect();
    assert_eq!(lost.len(), 2, "each is reported once: {lost:?}");
    drop(relay);
    let _again = Member::new("r")
        .incarnation(2)
        .listen(&address)
        .relay()
        .start();
    eventually("b is back", || one.names() == ["b", "r"]);
    sends(&one, "b", b"again");
    eventually("they talk again", || other.heard("a") == [b"again"]);
}

#[test]
fn a_second_relay_takes_over() {
    let (relay, one, other) = sites();
    let address = [one.address(), other.address()];
    let second = Member::new("s").relay().peers(&address).start();
    eventually("it sees all", || second.names() == ["a", "b", "r"]);
    // What it relays is said before what it says itself.
    for (to, name) in [(&one, "a"), (&other, "b")] {
        eventually("it is heard", || {
            sends(&second, name, b"hello");
            !to.heard("s").is_empty()
        });
    }
    relay.mesh.close();
    eventually("the first has gone", || one.names() == ["b", "s"]);
    assert_eq!(one.lost(), [("r".to_owned(), Why::Left)]);
    sends(&one, "b", b"still");
    eventually("they talk on", || other.heard("a") == [b"still"]);
}

#[test]
fn a_link_of_ones_own_is_preferred_and_no_second_arrival() {
    let (relay, one, _other) = sites();
    let near = Member::new("c").peer(&relay).peer(&one).start();
    eventually("c is linked to both", || near.mesh.statistics().links == 2);
    sends(&near, "a", b"direct");
    eventually("it is there", || one.heard("c") == [b"direct"]);
    relay.mesh.close();
    eventually("only b is lost", || one.names() == ["c"]);
    let lost = one.lost();
    assert!(lost.iter().all(|(name, _)| name != "c"), "{lost:?}");
}

#[test]
fn a_name_is_unique_across_the_relay() {
    let (relay, _one, _other) = sites();
    let twin = Member::new("a").incarnation(9).peer(&relay).try_start();
    assert!(matches!(twin.err(), Some(FabricError::NameTaken { node, .. }) if node == "a"));
}

#[test]
fn links_to_the_relay_are_encrypted_on_both_sides() {
    let files = folder("relay");
    issue(&files, &["a", "b", "r"]);
    let with = |name: &str, files: &Path| Member::new(name).tls(files, name);
    let relay = with("r", &files).relay().start();
    let one = with("a", &files).peer(&relay).start();
    let other = with("b", &files).peer(&relay).start();
    eventually("a sees b", || one.names() == ["b", "r"]);
    sends(&one, "b", b"secret");
    eventually("it is there", || other.heard("a") == [b"secret"]);
    let plain = Member::new("c").peer(&relay).try_start();
    assert!(matches!(plain.err(), Some(FabricError::Refused { .. })));
}
