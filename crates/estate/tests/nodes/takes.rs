//! A take between processes, one of which is killed at a step of the protocol: before what it says
//! there, or after. The steps are those of `protocol::take::table`.

use crate::process::{Process, cluster, eventually};

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
