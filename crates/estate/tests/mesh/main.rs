//! Meshes of several members on loopback, in one process: joining, messages, failures, strangers, TLS.

mod relay;
mod rig;
mod strangers;
mod tls;

use std::time::Duration;

use flowferry_estate::fabric::{Fabric, FabricError, Why};
use rig::{Member, eventually};

#[test]
fn members_find_each_other_through_one_peer_and_talk() {
    let first = Member::new("a").start();
    let second = Member::new("b").peer(&first).start();
    let third = Member::new("c").peer(&first).start();
    for member in [&first, &second, &third] {
        eventually("three are linked", || member.mesh.members().len() == 2);
    }
    assert_eq!(third.names(), ["a", "b"]);
    third.mesh.send(&third.mesh.members(), b"hello");
    for member in [&first, &second] {
        eventually("the message is there", || member.heard("c") == [b"hello"]);
    }
    assert!(third.heard("c").is_empty());
}

#[test]
fn messages_come_in_order_and_whole_whatever_their_length() {
    let first = Member::new("a").start();
    let second = Member::new("b").peer(&first).start();
    let to = second.mesh.members();
    let lengths = [0, 1, 70_000, 3, 3_000_000, 0, 64, 1_000_000];
    for (n, length) in lengths.iter().enumerate() {
        second.mesh.send(&to, &vec![n as u8; *length]);
    }
    eventually("all are there", || first.heard("b").len() == lengths.len());
    for (n, bytes) in first.heard("b").iter().enumerate() {
        assert_eq!(*bytes, vec![n as u8; lengths[n]]);
    }
}

/// Its queue is for what it has not been sent yet: it is given up when that grows too long.
#[test]
fn what_is_repeated_to_a_slow_member_does_not_wait_behind_itself() {
    let first = Member::new("a").start();
    let second = Member::new("b").peer(&first).start();
    let to = first.mesh.members();
    let occupied = second.occupied();
    first.mesh.send(&to, b"first");
    eventually("it is being told", || {
        second.mesh.statistics().messages_received == 1
    });
    for _ in 0..100 {
        first.mesh.repeat(&to, &vec![7; 1 << 20]);
    }
    first.mesh.send(&to, b"last");
    drop(occupied);
    let last = || second.heard("a").last() == Some(&b"last".to_vec());
    eventually("what was sent is there", last);
    assert!(second.heard("a").len() < 50, "all repeats were sent");
    assert!(first.lost().is_empty() && second.lost().is_empty());
}

#[test]
fn all_dial_all_at_once_and_each_pair_keeps_one_link() {
    let members: Vec<_> = (0..8).map(|n| Member::new(&format!("m{n}"))).collect();
    let addresses: Vec<_> = members.iter().map(Member::address).collect();
    let starting: Vec<_> = members
        .into_iter()
        .map(|m| {
            let m = m.peers(&addresses);
            std::thread::spawn(move || m.start())
        })
        .collect();
    let members: Vec<_> = starting.into_iter().map(|t| t.join().unwrap()).collect();
    for member in &members {
        eventually("all are linked", || member.mesh.members().len() == 7);
    }
    for round in 0..50_u8 {
        for member in &members {
            member.mesh.send(&member.mesh.members(), &[round]);
        }
    }
    let expected: Vec<_> = (0..50).map(|n| vec![n]).collect();
    for member in &members {
        for from in members.iter().filter(|m| m.name() != member.name()) {
            let name = from.name();
            eventually("all rounds are there", || member.heard(name).len() == 50);
            let mut heard = member.heard(name);
            heard.sort();
            assert_eq!(heard, expected, "{} from {name}", member.name());
        }
        assert!(member.lost().is_empty(), "no link was taken for a failure");
    }
}

#[test]
fn a_member_that_closes_has_left_and_one_that_breaks_off_has_failed() {
    let first = Member::new("a").start();
    let second = Member::new("b").peer(&first).start();
    second.mesh.close();
    eventually("it is gone", || first.mesh.members().is_empty());
    assert_eq!(first.lost(), [("b".to_owned(), Why::Left)]);
}

#[test]
fn a_silent_member_has_failed_and_is_back_when_it_speaks() {
    // Greets like a member and then says nothing, as a stopped process does.
    let first = Member::new("a")
        .failure_after(Duration::from_millis(200))
        .start();
    let silent = strangers::Puppet::greet(&first.address(), "mute");
    eventually("it is taken for a member", || first.names() == ["mute"]);
    eventually("its silence is noticed", || first.mesh.members().is_empty());
    let lost = first.lost();
    assert!(
        matches!(&lost[..], [(name, Why::Failed(why))] if name == "mute" && why.contains("silent"))
    );
    drop(silent);
    let _again = strangers::Puppet::greet(&first.address(), "mute");
    eventually("it is back", || first.names() == ["mute"]);
}

#[test]
fn a_name_that_a_living_member_has_is_refused_and_the_member_is_unharmed() {
    let first = Member::new("a").start();
    let second = Member::new("b").peer(&first).start();
    // By a third party that knows the holder, and by the holder itself.
    for (impostor, peer) in [("b", &first), ("a", &first)] {
        let why = Member::new(impostor)
            .incarnation(9)
            .peer(peer)
            .try_start()
            .err();
        let Some(FabricError::NameTaken { node, cluster, .. }) = &why else {
            panic!("{impostor} got in: {why:?}");
        };
        assert_eq!((node.as_str(), cluster.as_str()), (impostor, "test"));
        assert!(why.unwrap().to_string().contains("choose another name"));
    }
    assert!(first.lost().is_empty() && second.lost().is_empty());
    second.mesh.send(&second.mesh.members(), b"still here");
    eventually("the first two still talk", || {
        first.heard("b") == [b"still here"]
    });
}

#[test]
fn the_name_of_a_dead_member_is_free_again_even_before_its_silence_is_noticed() {
    let first = Member::new("a")
        .failure_after(Duration::from_millis(600))
        .start();
    let _dead = strangers::Puppet::greet(&first.address(), "b");
    eventually("it is taken for a member", || first.names() == ["b"]);
    let second = Member::new("b").incarnation(9).peer(&first).start();
    eventually("the new one is in", || {
        first
            .mesh
            .members()
            .first()
            .is_some_and(|m| m.incarnation == 9)
    });
    assert_eq!(first.lost().len(), 1, "the old one was reported first");
    assert_eq!(second.names(), ["a"]);
}

#[test]
fn a_start_that_is_earlier_than_one_seen_before_is_refused() {
    let first = Member::new("a").start();
    let later = Member::new("b").incarnation(9).peer(&first).start();
    later.mesh.close();
    eventually("it has left", || first.mesh.members().is_empty());
    let why = Member::new("b").peer(&first).try_start().err();
    assert!(matches!(&why, Some(FabricError::NameTaken { node, .. }) if node == "b"));
    let text = why.unwrap().to_string();
    assert!(text.contains("clock") && text.contains("says"), "{text}");
    let _again = Member::new("b").incarnation(10).peer(&first).start();
    eventually("a later one gets in", || first.names() == ["b"]);
}

#[test]
fn a_peer_whose_name_is_anothers_does_not_keep_a_newcomer_out() {
    let first = Member::new("a").start();
    let second = Member::new("b").peer(&first).start();
    let twin = Member::new("b").incarnation(9).start();
    let peers = [first.address(), second.address(), twin.address()];
    let newcomer = Member::new("c").peers(&peers).start();
    eventually("one of both is linked", || newcomer.names() == ["a", "b"]);
}

#[test]
fn another_cluster_is_refused_by_name() {
    let first = Member::new("a").start();
    let why = Member::new("b")
        .cluster("other")
        .peer(&first)
        .try_start()
        .err()
        .unwrap();
    let text = why.to_string();
    assert!(
        text.contains("\"test\"") && text.contains("\"other\""),
        "{text}"
    );
    assert!(first.mesh.members().is_empty());
}

#[test]
fn a_peer_that_is_not_there_yet_is_found_when_it_comes() {
    let late = Member::new("late");
    let address = late.address();
    drop(late);
    let first = Member::new("a")
        .peers(std::slice::from_ref(&address))
        .start();
    assert!(first.mesh.members().is_empty());
    let _late = Member::new("late").listen(&address).start();
    eventually("it is found", || first.names() == ["late"]);
}

#[test]
fn a_node_that_is_told_to_join_itself_does_not() {
    let first = Member::new("a");
    let own = first.address();
    let first = first.peers(&[own]).start();
    assert!(first.mesh.members().is_empty());
}

#[test]
fn an_address_in_use_and_one_that_is_none_are_clear_errors() {
    let first = Member::new("a").start();
    let text = Member::try_new("b", &first.address())
        .err()
        .unwrap()
        .to_string();
    assert!(
        text.contains(&first.address()) && text.contains("listen="),
        "{text}"
    );
    let text = Member::try_new("b", "nonsense").err().unwrap().to_string();
    assert!(
        text.contains("nonsense") && text.contains("host:port"),
        "{text}"
    );
}

#[test]
fn scouts_find_each_other_without_any_peer() {
    let port = std::net::UdpSocket::bind("0.0.0.0:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let first = Member::new("a").scouting(port).start();
    let second = Member::new("b").scouting(port).start();
    eventually("they are linked", || {
        first.names() == ["b"] && second.names() == ["a"]
    });
}

#[test]
fn a_name_is_unique_among_those_that_find_each_other_by_scouting() {
    let port = std::net::UdpSocket::bind("0.0.0.0:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let first = Member::new("a").scouting(port).start();
    let second = Member::new("a").incarnation(9).scouting(port).try_start();
    assert!(matches!(second.err(), Some(FabricError::NameTaken { node, .. }) if node == "a"));
    assert!(first.mesh.members().is_empty());
}

#[test]
fn a_process_that_has_ended_is_told_from_one_that_is_silent() {
    // Both greet like members; nobody listens where the first said, and the second is mute.
    let first = Member::new("a")
        .failure_after(Duration::from_millis(100))
        .start();
    let ended = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for (name, listener) in [("ended", &ended), ("silent", &silent)] {
        let listen = listener.local_addr().unwrap();
        drop(strangers::Puppet::greet_from(
            &first.address(),
            name,
            listen,
        ));
    }
    drop(ended);
    eventually("its end is proved", || first.dead() == ["ended"]);
    eventually("the other is dialled", || silent.accept().is_ok());
    assert_eq!(first.dead(), ["ended"]);
}
