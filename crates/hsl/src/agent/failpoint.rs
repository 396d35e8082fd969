//! Failpoints: end or stop this process at a chosen transition, for the crash tests.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::endpoint::table::TRANSITIONS;
use crate::endpoint::{Hook, Transition};

/// The hook for `text` (`TRANSITION:kill` or `TRANSITION:stop`, with `@N` for the Nth time).
pub fn parse(text: &str) -> Result<Hook, String> {
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
    if !TRANSITIONS.iter().any(|row| row.name() == name) {
        return Err(bad("no such transition; `flowferry hsl table` lists them"));
    }
    let name = name.to_owned();
    Ok(Box::new(move |row: &Transition| {
        if left > 0 && row.name() == name {
            left -= 1;
            if left == 0 {
                // The process ends or stops here; there is nobody to tell if it does not.
                let _ = kill(Pid::this(), signal);
            }
        }
    }))
}
