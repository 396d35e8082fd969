//! A take between processes, one of which is killed at a step of the protocol: before what it says
//! there, or after. The steps are those of `protocol::take::table`.

use crate::process::{Process, cluster, eventually, patient_cluster};
use std::time::Duration;

const COUNT: u64 = 200;

/// Whose items they are in the end; all of them, with the values last acknowledged.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Home {
    Source,
    Destination,
    /// They died with their owner.
    Nobody,
}

fn homes(members: &mut [Process]) -> Vec<usize> {
    let has = |at: &usize| members[*at].say("count") != "0";
    (0..3).filter(has).collect()
}

/// `n0` has items and counts; `n1` takes them, and `n2` reads the sum of what there is.
fn killed_at(from: &str, event: &str, when: &str, who: usize, home: Home) {
    let mut members = cluster(3);
    for member in &mut members {
        eventually("all are members", || member.say("members") == "n0 n1 n2");
    }
    let peers: Vec<String> = members.iter().map(|m| m.address().to_owned()).collect();
    members[0].say(&format!("fill {COUNT}"));
    members[who].say(&format!("die {from} {event} {when}"));
    // It counts until the items are frozen: what it has acknowledged is what has to be there.
    members[0].order(&format!("hammer {COUNT}"));
    assert_eq!(members[0].reply(), "counting");
    members[1].order(&format!("take n0 7 {COUNT}"));
    let survivor = 1 - who;
    let acknowledged = (survivor == 0).then(|| members[0].reply());
    members[who].wait();
    // The same name without its memory proves the death.
    members[who] = Process::start(&format!("n{who}"), &peers);
    if survivor == 1 {
        members[1].reply();
    }
    let expected = match home {
        Home::Source => vec![0],
        Home::Destination => vec![1],
        Home::Nobody => vec![],
    };
    eventually(
        &format!("{when} {from}, {event}: {home:?} has them"),
        || homes(&mut members) == expected,
    );
    if home == Home::Nobody {
        return;
    }
    assert_eq!(members[survivor].say("count"), COUNT.to_string());
    let values = members[survivor].say(&format!("values {COUNT}"));
    if let Some(acknowledged) = acknowledged {
        assert_eq!(values, acknowledged);
    }
    let sum: i64 = values.split(' ').map(|v| v.parse::<i64>().unwrap()).sum();
    eventually("the sum is right", || {
        members[2].say("sum k* 9000") == format!("{sum} answered 3 missing -")
    });
}

#[test]
fn a_source_that_is_killed_at_a_step_leaves_the_items_whole_or_takes_them_along() {
    for (from, event, when, home) in [
        ("Copying", "Copied", "before", Home::Nobody),
        ("Frozen", "Ready", "before", Home::Destination),
        ("Frozen", "Ready", "after", Home::Destination),
        ("Given", "Owned", "before", Home::Destination),
        ("Given", "Owned", "after", Home::Destination),
    ] {
        killed_at(from, event, when, 0, home);
    }
}

#[test]
fn a_destination_that_is_killed_at_a_step_leaves_the_items_where_they_were_or_takes_them_along() {
    for (from, event, when, home) in [
        ("Fetching", "Complete", "before", Home::Source),
        ("Fetching", "Complete", "after", Home::Source),
        ("Doubt", "Commit", "before", Home::Source),
        ("Doubt", "Commit", "after", Home::Nobody),
        ("Owned", "Closed", "before", Home::Nobody),
        ("Owned", "Closed", "after", Home::Nobody),
    ] {
        killed_at(from, event, when, 1, home);
    }
}

/// How the survivor learns that the other one is dead and will not come back.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Proof {
    /// Where it listened, the system refuses connections.
    Refusals,
    /// Its host has gone, too, as far as the survivor can tell: somebody vouches for it.
    Word,
}

fn killed_for_good_at(from: &str, event: &str, who: usize, proof: Proof) {
    let patience = match proof {
        Proof::Refusals => Duration::from_secs(1),
        // Refusals for five times as long are a proof: this is beyond the test.
        Proof::Word => Duration::from_secs(600),
    };
    let mut members = patient_cluster(2, patience);
    for member in &mut members {
        eventually("both are members", || member.say("members") == "n0 n1");
    }
    members[0].say(&format!("fill {COUNT}"));
    members[who].say(&format!("die {from} {event} before"));
    members[1].order(&format!("take n0 7 {COUNT}"));
    members[who].wait();
    let survivor = 1 - who;
    if proof == Proof::Word {
        let mut witness = Process::start("n2", &[members[survivor].address().to_owned()]);
        let name = format!("n{survivor} n2");
        eventually("the dead one has gone", || witness.say("members") == name);
        if survivor == 0 {
            let live = members[0].say("declare n2");
            assert!(live.contains("n2 is a live member"), "{live}");
            assert_eq!(members[0].say("declare n1"), "1 decided");
            assert_eq!(members[0].say("declare n1"), "0 decided");
        }
    }
    if survivor == 1 {
        let told = members[1].reply();
        if proof == Proof::Word {
            assert!(told.contains("declare it dead"), "{told}");
            assert!(members[1].say("add k0").contains("held by"));
            assert_eq!(members[1].say("declare n0"), "1 decided");
            assert_eq!(members[1].say("declare n0"), "0 decided");
        }
    }
    eventually("the survivor has the items", || {
        members[survivor].say("count") == COUNT.to_string()
    });
    eventually("they are its own", || {
        members[survivor].say("add k0") == "1"
    });
}

#[test]
fn a_source_that_is_dead_for_good_leaves_the_items_to_the_destination() {
    killed_for_good_at("Frozen", "Ready", 0, Proof::Refusals);
}

#[test]
fn a_destination_that_is_dead_for_good_leaves_the_items_to_the_source() {
    killed_for_good_at("Doubt", "Commit", 1, Proof::Refusals);
}

#[test]
fn a_word_that_the_source_is_dead_decides_where_nothing_else_will() {
    killed_for_good_at("Frozen", "Ready", 0, Proof::Word);
}

#[test]
fn a_word_that_the_destination_is_dead_decides_where_nothing_else_will() {
    killed_for_good_at("Doubt", "Commit", 1, Proof::Word);
}

/// What each side has acknowledged is there: at the destination, and at the source what was written
/// there when the items had gone.
#[test]
fn a_writer_goes_on_where_the_items_have_gone() {
    let mut members = cluster(2);
    for member in &mut members {
        eventually("both are members", || member.say("members") == "n0 n1");
    }
    let numbers = |text: &str| -> Vec<i64> {
        let each = text.split(' ').map(|number| number.parse().unwrap_or(0));
        each.collect()
    };
    for id in 0..5 {
        members[0].say(&format!("fill {COUNT}"));
        members[0].order(&format!("tally {COUNT}"));
        assert_eq!(members[0].reply(), "counting");
        let written = members[1].say(&format!("continue n0 {id} {COUNT}"));
        assert!(!written.contains("error"), "{written}");
        let additions = numbers(&members[0].reply());
        let [there, here] = [0, 1].map(|at| numbers(&members[at].say(&format!("values {COUNT}"))));
        for key in 0..additions.len() {
            let expected = key as i64 + additions[key] + 1;
            assert_eq!(there[key] + here[key], expected, "move {id}, k{key}");
        }
        for member in &mut members {
            member.say(&format!("clear {COUNT}"));
        }
    }
}
