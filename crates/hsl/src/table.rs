//! Transition tables: everything that may happen to what is in one of a few states.

use std::fmt::Debug;

/// One row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
pub struct Transition<State, Event, Duty> {
    /// Before.
    pub from: State,
    /// What happens.
    pub event: Event,
    /// After.
    pub to: State,
    /// What is done.
    pub duty: Duty,
}

impl<State: Debug, Event: Debug, Duty> Transition<State, Event, Duty> {
    /// `from+event`, as failpoints name it.
    pub fn name(&self) -> String {
        format!("{:?}+{:?}", self.from, self.event).to_lowercase()
    }
}

/// A row, as tables are written.
pub(crate) const fn row<State: Copy, Event: Copy, Duty: Copy>(
    from: State,
    event: Event,
    to: State,
    duty: Duty,
) -> Transition<State, Event, Duty> {
    Transition {
        from,
        event,
        to,
        duty,
    }
}

/// The row for `event` in `from`, if that may happen.
pub(crate) fn find<State: PartialEq, Event: PartialEq, Duty>(
    table: &'static [Transition<State, Event, Duty>],
    from: State,
    event: Event,
) -> Option<&'static Transition<State, Event, Duty>> {
    table
        .iter()
        .find(|row| row.from == from && row.event == event)
}

/// Rows as a Graphviz graph, for the documentation.
pub(crate) fn as_dot<'a, State: Debug + 'a, Event: Debug + 'a, Duty: Debug + 'a>(
    name: &str,
    rows: impl Iterator<Item = &'a Transition<State, Event, Duty>>,
) -> String {
    let mut dot = format!("digraph {name} {{\n  rankdir=LR;\n  node [shape=box, style=rounded];\n");
    for row in rows {
        dot += &format!(
            "  {:?} -> {:?} [label=\"{:?}\\n{:?}\"];\n",
            row.from, row.to, row.event, row.duty
        );
    }
    dot + "}\n"
}
