//! The agent's command language: one JSON object a line over a UNIX socket, one line back.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::endpoint::{Hold, HoldId, Role};
use crate::key::{Parsed, Side};
use crate::matching::Match;

/// A command. Flows are written as matches that name both ends, for instance
/// `udp,nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_src=1,tp_dst=2`.
#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Everything at a glance.
    Status,
    /// Begin to hold.
    Hold {
        /// Its name; absent: the next free number.
        id: Option<HoldId>,
        /// What becomes of the packets.
        #[serde(default = "capture")]
        role: Role,
        /// Which flows, as seen from upstream.
        #[serde(rename = "match")]
        matching: String,
        /// Flows that are left alone.
        #[serde(default)]
        except: Vec<String>,
        /// On which sides.
        #[serde(default = "both")]
        sides: Vec<Side>,
        /// Where strays go (`host:port` of another agent); needed for the role `stray`.
        peer: Option<String>,
    },
    /// Give a hold another role.
    Turn {
        /// The hold.
        id: HoldId,
        /// What becomes of its packets from now on.
        role: Role,
        /// Where strays go; needed for the role `stray`.
        peer: Option<String>,
    },
    /// Let everything of a hold, or one flow of it, go in order.
    Release {
        /// The hold.
        id: HoldId,
        /// Only this flow.
        flow: Option<String>,
    },
    /// Let everything go in order, and call the hold aborted.
    Abort {
        /// The hold.
        id: HoldId,
        /// Why.
        #[serde(default = "on_request")]
        why: String,
    },
    /// Answer when a hold has ended.
    Wait {
        /// The hold.
        id: HoldId,
        /// At the latest after this time.
        #[serde(default = "ten_seconds")]
        timeout_ms: u64,
    },
    /// All holds.
    Holds,
    /// Forget the holds that have ended.
    ForgetEnded,
    /// Flow accounting, busiest first.
    Flows {
        /// At most so many.
        #[serde(default = "thousand")]
        limit: usize,
    },
    /// Forget that a flow was served here.
    Disown {
        /// The flow.
        flow: String,
    },
    /// Say that a flow has other headers downstream.
    Alias {
        /// The flow as seen upstream.
        upstream: String,
        /// The flow as seen downstream.
        downstream: String,
    },
    /// Take an alias back.
    Unalias {
        /// The flow as seen upstream.
        upstream: String,
    },
    /// Answer when everything queued on every CPU has come through.
    Flush {
        /// Which side.
        side: Side,
    },
    /// From now on, a line for each event.
    Events,
    /// Let everything go in order and end.
    Stop {
        /// Also take the programs off the interfaces.
        #[serde(default)]
        detach: bool,
    },
}

fn capture() -> Role {
    Role::Capture
}

fn both() -> Vec<Side> {
    Side::ALL.to_vec()
}

fn on_request() -> String {
    "on request".to_owned()
}

fn ten_seconds() -> u64 {
    10_000
}

fn thousand() -> usize {
    1_000
}

/// A line that says what went wrong.
pub fn failure(error: impl std::fmt::Display) -> Value {
    json!({ "ok": false, "error": error.to_string() })
}

/// A line that says that it was done, with `fields`.
pub fn success(fields: impl Serialize) -> Value {
    let mut answer = json!({ "ok": true });
    if let (Some(answer), Ok(Value::Object(fields))) =
        (answer.as_object_mut(), serde_json::to_value(fields))
    {
        answer.extend(fields);
    }
    answer
}

/// The flow that `text` names.
pub fn flow(text: &str) -> Result<Parsed, String> {
    let matching: Match = text.parse().map_err(|error| format!("{error}"))?;
    matching.flow().ok_or_else(|| {
        format!("flow {text:?} leaves headers open; name protocol, both addresses and both ports")
    })
}

/// A hold as a JSON object.
pub fn describe(hold: &Hold) -> Value {
    let figures = &hold.figures;
    let mut value = serde_json::to_value(figures).expect("plain numbers");
    let ended = if figures.ended_ns > 0 {
        Some(figures.ended_ns - figures.began_ns)
    } else {
        None
    };
    let object = value.as_object_mut().expect("a struct");
    object.extend([
        ("id".to_owned(), json!(hold.id)),
        ("role".to_owned(), json!(hold.spec.role)),
        ("match".to_owned(), json!(hold.spec.matching.to_string())),
        (
            "except".to_owned(),
            json!(
                hold.spec
                    .except
                    .iter()
                    .map(Match::to_string)
                    .collect::<Vec<_>>()
            ),
        ),
        ("sides".to_owned(), json!(hold.spec.sides)),
        ("state".to_owned(), json!(hold.state)),
        ("error".to_owned(), json!(hold.error)),
        (
            "duration_ms".to_owned(),
            json!(ended.map(|ns| ns as f64 / 1e6)),
        ),
    ]);
    value
}
