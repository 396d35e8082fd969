//! Failpoints: end or stop this process at a chosen transition, for the crash tests.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{endpoint, handover};

/// Where the process ends or stops.
pub enum Failpoint {
    /// In the life of one flow on one side.
    Endpoint(endpoint::Hook),
    /// In a part of a handover.
    Handover(handover::Hook),
}

/// The hook for `text` (`TRANSITION:kill` or `TRANSITION:stop`, with `@N` for the Nth time).
pub fn parse(text: &str) -> Result<Failpoint, String> {
    let bad = |problem: &str| {
        format!(
            "failpoint {text:?}: {problem}; write for instance held+release:kill or held+frame:stop@3"
        )
    };
    let (name, rest) = text.split_once(':').ok_or_else(|| bad("no action"))?;
    let (action, nth) = rest.split_once('@').unwrap_or((rest, "1"));
    let mut left: u64 = nth.parse().map_err(|_| bad("@N is no number"))?;
    let signal = match action {
        "kill" => Signal::SIGKILL,
        "stop" => Signal::SIGSTOP,
        _ => return Err(bad("the action is neither kill nor stop")),
    };
    let of_flow = endpoint::table::TRANSITIONS
        .iter()
        .any(|row| row.name() == name);
    let of_part = handover::table::TRANSITIONS
        .iter()
        .any(|row| row.name() == name);
    let name = name.to_owned();
    let mut strike = move |row: String| {
        if left > 0 && row == name {
            left -= 1;
            if left == 0 {
                // The process ends or stops here; there is nobody to tell if it does not.
                let _ = kill(Pid::this(), signal);
            }
        }
    };
    match (of_flow, of_part) {
        (true, _) => Ok(Failpoint::Endpoint(Box::new(move |row| strike(row.name())))),
        (_, true) => Ok(Failpoint::Handover(Box::new(move |row| strike(row.name())))),
        _ => Err(bad("no such transition; `flowferry hsl table` lists them")),
    }
}
