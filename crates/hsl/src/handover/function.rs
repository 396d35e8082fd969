//! The control channel to the function: one JSON object a line, both ways (docs/hsl.md).
//!
//! The agent tells the steps of a handover; the function says hello, and answers `export`,
//! `import` and, if its hello says so, `flows`. State itself does not pass through the agent.

use std::net::SocketAddr;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::endpoint::HoldId;
use crate::key::Parsed;
use crate::matching::Match;

/// The other instance of a handover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Other {
    /// Its number.
    pub instance: u32,
    /// Where its agent listens for streams.
    pub address: SocketAddr,
}

impl Other {
    fn to_json(self) -> Value {
        json!({ "instance": self.instance, "address": self.address.to_string() })
    }
}

/// What the function is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Tell {
    /// Flows that match are about to come or go.
    Prepare {
        /// The part of a handover.
        handover: HoldId,
        /// `source` or `destination`.
        role: &'static str,
        /// Which flows.
        matching: String,
        /// And which not.
        except: Vec<String>,
        /// The other instance.
        peer: Other,
    },
    /// No packet of these flows comes any more: work off what is there.
    Drain {
        /// The part.
        handover: HoldId,
    },
    /// The drain is over: their state must not change any more.
    Freeze {
        /// The part.
        handover: HoldId,
    },
    /// Give their state away.
    Export {
        /// The part.
        handover: HoldId,
        /// The flows that were served here, seen from upstream.
        flows: Vec<Parsed>,
        /// To whom.
        peer: Other,
        /// Milliseconds in which an answer must have come.
        deadline_ms: u64,
    },
    /// Take their state in.
    Import {
        /// The part.
        handover: HoldId,
        /// The flows that come, seen from upstream.
        flows: Vec<Parsed>,
        /// From whom.
        peer: Other,
        /// Milliseconds in which an answer must have come.
        deadline_ms: u64,
    },
    /// It is done: at the source the frozen state may go.
    Released {
        /// The part.
        handover: HoldId,
        /// `source` or `destination`.
        role: &'static str,
    },
    /// It is off: the source's state is its own again, the destination drops what it got.
    Aborted {
        /// The part.
        handover: HoldId,
        /// `source` or `destination`.
        role: &'static str,
        /// In a line.
        why: String,
    },
    /// Which flows do you have state of?
    Flows {
        /// To be quoted in the answer.
        request: u64,
        /// Those that match.
        matching: String,
    },
}

impl Tell {
    /// As it goes over the socket.
    pub fn to_json(&self) -> Value {
        let texts = |flows: &[Parsed]| flows.iter().map(Parsed::to_match).collect::<Vec<_>>();
        match self {
            Tell::Prepare {
                handover,
                role,
                matching,
                except,
                peer,
            } => json!({
                "event": "prepare", "handover": handover, "role": role, "match": matching,
                "except": except, "peer": peer.to_json(),
            }),
            Tell::Drain { handover } => json!({ "event": "drain", "handover": handover }),
            Tell::Freeze { handover } => json!({ "event": "freeze", "handover": handover }),
            Tell::Export {
                handover,
                flows,
                peer,
                deadline_ms,
            } => json!({
                "event": "export", "handover": handover, "flows": texts(flows),
                "peer": peer.to_json(), "deadline_ms": deadline_ms,
            }),
            Tell::Import {
                handover,
                flows,
                peer,
                deadline_ms,
            } => json!({
                "event": "import", "handover": handover, "flows": texts(flows),
                "peer": peer.to_json(), "deadline_ms": deadline_ms,
            }),
            Tell::Released { handover, role } => {
                json!({ "event": "released", "handover": handover, "role": role })
            }
            Tell::Aborted {
                handover,
                role,
                why,
            } => json!({ "event": "aborted", "handover": handover, "role": role, "why": why }),
            Tell::Flows { request, matching } => {
                json!({ "event": "flows", "request": request, "match": matching })
            }
        }
    }
}

/// What the function says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is there.
    Hello {
        /// Its name.
        name: String,
        /// It answers `flows`.
        lists_flows: bool,
        /// It serves flows that begin while state is on its way, and can give theirs back.
        new_flows: bool,
    },
    /// The state is out.
    Exported {
        /// The part.
        handover: HoldId,
        /// Bytes.
        bytes: u64,
    },
    /// The state is in.
    Imported {
        /// The part.
        handover: HoldId,
        /// Bytes.
        bytes: u64,
    },
    /// The flows that it has state of.
    Flows {
        /// Of the question.
        request: u64,
        /// Seen from upstream.
        flows: Vec<Parsed>,
    },
    /// The state did not get out.
    ExportFailed {
        /// The part.
        handover: HoldId,
        /// Why.
        error: String,
    },
    /// The state did not get in.
    ImportFailed {
        /// The part.
        handover: HoldId,
        /// Why.
        error: String,
    },
}

/// As it stands on the line; unknown fields are skipped.
#[derive(Deserialize)]
struct Line {
    hello: Option<String>,
    #[serde(default)]
    lists_flows: bool,
    #[serde(default)]
    new_flows: bool,
    done: Option<String>,
    failed: Option<String>,
    #[serde(default)]
    handover: HoldId,
    #[serde(default)]
    bytes: u64,
    #[serde(default)]
    request: u64,
    #[serde(default)]
    flows: Vec<String>,
    error: Option<String>,
}

impl Answer {
    /// Understand a line of the function's.
    ///
    /// # Errors
    /// One line that says what is wrong with it.
    pub fn read(line: &str) -> Result<Answer, String> {
        let line: Line =
            serde_json::from_str(line).map_err(|error| format!("not understood: {error}"))?;
        let (handover, bytes) = (line.handover, line.bytes);
        let error = line
            .error
            .unwrap_or_else(|| "it did not say why".to_owned());
        let error = error
            .chars()
            .filter(|c| !c.is_control())
            .take(300)
            .collect();
        match (line.hello, line.done.as_deref(), line.failed.as_deref()) {
            (Some(name), None, None) => Ok(Answer::Hello {
                name: name.chars().filter(|c| !c.is_control()).take(64).collect(),
                lists_flows: line.lists_flows,
                new_flows: line.new_flows,
            }),
            (None, Some("export"), None) => Ok(Answer::Exported { handover, bytes }),
            (None, Some("import"), None) => Ok(Answer::Imported { handover, bytes }),
            (None, Some("flows"), None) => {
                let keys = line.flows.iter().map(|text| {
                    let matching: Match = text.parse().map_err(|error| format!("{error}"))?;
                    matching
                        .flow()
                        .ok_or_else(|| format!("{text:?} is not one flow"))
                });
                Ok(Answer::Flows {
                    request: line.request,
                    flows: keys.collect::<Result<_, String>>()?,
                })
            }
            (None, None, Some("export")) => Ok(Answer::ExportFailed { handover, error }),
            (None, None, Some("import")) => Ok(Answer::ImportFailed { handover, error }),
            _ => Err("not understood: a line says hello, done or failed of a step".to_owned()),
        }
    }
}
