//! The steps of a part of a handover: nothing twice, nothing out of reach, an end to everything.

use std::collections::BTreeSet;

use flowferry_hsl::endpoint;
use flowferry_hsl::handover::table::{TRANSITIONS, as_dot, transition};
use flowferry_hsl::handover::{Event, Phase};

fn reachable(from: &[Phase]) -> BTreeSet<Phase> {
    let mut found: BTreeSet<Phase> = from.iter().copied().collect();
    loop {
        let more = TRANSITIONS.iter().filter(|row| found.contains(&row.from));
        let larger: BTreeSet<Phase> = more
            .map(|row| row.to)
            .chain(found.iter().copied())
            .collect();
        if larger == found {
            return found;
        }
        found = larger;
    }
}

#[test]
fn every_phase_is_reached_from_a_prepare() {
    let found = reachable(&[Phase::Preparing, Phase::Arming]);
    assert_eq!(found, Phase::ALL.into_iter().collect());
}

#[test]
fn every_phase_comes_to_an_end_without_losing_what_is_held() {
    for phase in Phase::ALL {
        let mut found = BTreeSet::from([phase]);
        for _ in Phase::ALL {
            let rows = TRANSITIONS.iter().filter(|row| row.event != Event::Lost);
            let more: Vec<Phase> = rows
                .filter(|row| found.contains(&row.from))
                .map(|row| row.to)
                .collect();
            found.extend(more);
        }
        assert!(found.contains(&Phase::Over), "{phase:?}");
    }
}

#[test]
fn nothing_leads_out_of_the_end() {
    assert!(TRANSITIONS.iter().all(|row| row.from != Phase::Over));
}

#[test]
fn a_new_epoch_ends_every_part() {
    for phase in Phase::ALL.into_iter().filter(|phase| *phase != Phase::Over) {
        let row = transition(phase, Event::Lost).expect("whatever it is doing");
        assert_eq!(row.to, Phase::Over);
    }
}

/// The one point of no return (docs/hsl.md): state is never at both ends.
#[test]
fn what_has_imported_gives_nothing_back() {
    for phase in [Phase::Imported, Phase::Releasing, Phase::Released] {
        assert!(transition(phase, Event::Handback).is_none(), "{phase:?}");
    }
    // Thrown away, since the flows went on at the other end: not given back.
    let discards = TRANSITIONS.iter().filter(|row| row.event == Event::Discard);
    assert!(discards.into_iter().all(|row| row.to == Phase::Discarding));
    let thaws = TRANSITIONS
        .iter()
        .filter(|row| row.to == Phase::Resuming && row.from != row.to);
    assert!(thaws.into_iter().all(|row| row.event == Event::Returned));
}

#[test]
fn no_two_rows_are_for_one_event_and_no_name_is_taken_twice() {
    let mut names: Vec<String> = TRANSITIONS.iter().map(|row| row.name()).collect();
    names.extend(endpoint::table::TRANSITIONS.iter().map(|row| row.name()));
    let different: BTreeSet<&String> = names.iter().collect();
    assert_eq!(different.len(), names.len());
}

#[test]
fn the_picture_has_an_arrow_for_each_row() {
    let rows = TRANSITIONS.iter().filter(|row| row.event != Event::Lost);
    assert_eq!(as_dot().matches("->").count(), rows.count());
}
