//! The transition table: nothing missing, nothing twice, nothing out of reach.

use std::collections::{BTreeMap, BTreeSet};

use flowferry_hsl::endpoint::table::{TRANSITIONS, as_dot, transition};
use flowferry_hsl::endpoint::{Duty, Event, State};

const STATES: [State; 4] = [
    State::Passing,
    State::Held,
    State::Straying,
    State::Releasing,
];

#[test]
fn packets_may_arrive_in_any_state() {
    for state in STATES {
        for event in [Event::Frame, Event::Follow] {
            assert!(transition(state, event).is_some(), "{state:?} {event:?}");
        }
    }
}

#[test]
fn every_flow_that_is_taken_can_be_taken_again_released_and_discarded() {
    for state in [State::Held, State::Straying, State::Releasing] {
        for event in [Event::Capture, Event::Stray, Event::Release, Event::Discard] {
            assert!(transition(state, event).is_some(), "{state:?} {event:?}");
        }
    }
    for event in [Event::Release, Event::Settled, Event::Discard] {
        assert!(transition(State::Passing, event).is_none(), "{event:?}");
    }
    for state in [State::Held, State::Straying] {
        assert!(
            transition(state, Event::Settled).is_none(),
            "{state:?} holds packets back"
        );
    }
}

#[test]
fn a_state_and_an_event_have_one_row_and_one_name() {
    let mut rows = BTreeMap::new();
    for row in TRANSITIONS {
        let other = rows.insert(row.name(), row);
        assert!(
            other.is_none(),
            "{} stands there twice: {row:?}, {other:?}",
            row.name()
        );
        assert_eq!(transition(row.from, row.event), Some(row));
    }
}

#[test]
fn every_state_is_reached_from_the_fast_path_and_leads_back() {
    let spread = |start: State, edge: fn((State, State)) -> (State, State)| {
        let mut found = vec![start];
        for at in 0..STATES.len() {
            let Some(from) = found.get(at).copied() else {
                break;
            };
            for row in TRANSITIONS {
                let (tail, head) = edge((row.from, row.to));
                if tail == from && !found.contains(&head) {
                    found.push(head);
                }
            }
        }
        found.len()
    };
    assert_eq!(spread(State::Passing, |edge| edge), STATES.len());
    assert_eq!(
        spread(State::Passing, |(from, to)| (to, from)),
        STATES.len()
    );
}

/// What is kept must not be left behind in a state that has no use for it.
#[test]
fn duties_fit_the_states_they_lead_to() {
    for row in TRANSITIONS {
        let fits = match row.duty {
            Duty::Keep | Duty::KeepStray => row.to == State::Held,
            Duty::WriteOut => row.to == State::Releasing,
            Duty::SendOn => row.to == State::Straying,
            Duty::Forget | Duty::Lose => row.to == State::Passing,
            Duty::None => row.from == row.to || row.from != State::Held,
        };
        assert!(fits, "{row:?}");
    }
}

#[test]
fn the_picture_shows_the_table() {
    let dot = as_dot();
    let edges: BTreeSet<&str> = dot.lines().filter(|line| line.contains("->")).collect();
    assert_eq!(edges.len(), TRANSITIONS.len());
    assert_eq!(
        dot,
        include_str!("table.dot"),
        "tests/table.dot is what docs/hsl.md draws"
    );
}
