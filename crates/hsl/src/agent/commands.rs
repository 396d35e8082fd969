//! Clients and their commands.

use serde_json::{Value, json};

use super::api::{self, Request};
use super::lines::Lines;
use super::{Agent, AgentError, Wait, now, strays, system};
use crate::endpoint::{HoldId, HoldState, Role, Spec};
use crate::key::Side;

impl Agent {
    /// Take in new clients, carry out what they ask, and send what they are owed.
    pub(super) fn answer_clients(&mut self) -> Result<(), AgentError> {
        while let Ok((stream, _)) = self.listener.accept() {
            let client = Lines::new(stream).map_err(system("cannot take in a client"))?;
            self.clients.insert(self.next_client, client);
            self.next_client += 1;
        }
        for id in self.clients.keys().copied().collect::<Vec<_>>() {
            // An earlier client's command may have shown that this one has gone.
            let Some(client) = self.clients.get_mut(&id) else {
                continue;
            };
            let lines = client.receive();
            for line in lines.iter().filter(|line| !line.is_empty()) {
                // What was captured until now is read before anything is called over.
                self.busy = true;
                let answer = match serde_json::from_str(line) {
                    Ok(request) => self.carry_out(id, request),
                    Err(error) => Some(api::failure(format!(
                        "not understood: {error}; docs/hsl.md lists the commands"
                    ))),
                };
                self.act()?;
                if let Some(answer) = answer {
                    self.send(id, &answer);
                }
            }
            if self
                .clients
                .get_mut(&id)
                .is_some_and(|client| client.has_gone())
            {
                self.drop_client(id);
            }
        }
        let time = now();
        let late =
            api::failure("the hold has not ended in time; `flowferry hsl holds` shows where it is");
        self.finish_waits(
            |wait| matches!(wait, Wait::Hold { deadline, .. } if *deadline < time),
            &late,
        );
        Ok(())
    }

    fn send(&mut self, client: u64, answer: &Value) {
        if self
            .clients
            .get_mut(&client)
            .is_some_and(|client| !client.send(answer))
        {
            self.drop_client(client);
        }
    }

    fn drop_client(&mut self, id: u64) {
        self.clients.remove(&id);
        self.waits.retain(|(client, _)| *client != id);
    }

    /// Answer and strike out the waits that `over` picks.
    pub(super) fn finish_waits(&mut self, over: impl Fn(&Wait) -> bool, answer: &Value) {
        let clients: Vec<u64> = self
            .waits
            .iter()
            .filter(|(_, wait)| over(wait))
            .map(|(client, _)| *client)
            .collect();
        self.waits.retain(|(_, wait)| !over(wait));
        for client in clients {
            self.send(client, answer);
        }
    }

    /// Tell everyone who listens.
    pub(super) fn publish(&mut self, event: &Value) {
        let listeners: Vec<u64> = self
            .clients
            .iter()
            .filter(|(_, client)| client.listens)
            .map(|(id, _)| *id)
            .collect();
        for id in listeners {
            self.send(id, event);
        }
    }

    /// The answer; `None` when it will come later.
    fn carry_out(&mut self, client: u64, request: Request) -> Option<Value> {
        let done = match request {
            Request::Status => Ok(self.status()),
            Request::Hold {
                id,
                role,
                matching,
                except,
                sides,
                peer,
            } => self.hold(id, role, &matching, &except, sides, peer),
            Request::Turn { id, role, peer } => self.turn(id, role, peer),
            Request::Release { id, flow: None } => self
                .endpoint
                .release(id, now())
                .map(|()| json!({}))
                .map_err(|error| error.to_string()),
            Request::Release {
                id,
                flow: Some(flow),
            } => api::flow(&flow).and_then(|flow| {
                let released = self.endpoint.release_flow(id, &flow);
                released
                    .map(|()| json!({}))
                    .map_err(|error| error.to_string())
            }),
            Request::Abort { id, why } => self
                .endpoint
                .abort(id, &why, now())
                .map(|()| json!({}))
                .map_err(|error| error.to_string()),
            Request::Wait { id, timeout_ms } => return self.wait(client, id, timeout_ms),
            Request::Holds => {
                Ok(json!({ "holds": self.endpoint.holds().map(api::describe).collect::<Vec<_>>() }))
            }
            Request::ForgetEnded => {
                self.endpoint.forget_ended();
                Ok(json!({}))
            }
            Request::Flows { limit } => Ok(self.flows(limit)),
            Request::Disown { flow } => api::flow(&flow).and_then(|flow| {
                // Else one that waits to be owned would be owned again.
                self.account(usize::MAX)
                    .map_err(|error| error.to_string())?;
                let gone = Side::ALL
                    .into_iter()
                    .try_for_each(|side| self.shim.disown(&flow.key.on(side)));
                gone.map(|()| json!({})).map_err(|error| error.to_string())
            }),
            Request::Alias {
                upstream,
                downstream,
            } => api::flow(&upstream).and_then(|upstream| {
                self.endpoint.set_alias(upstream, api::flow(&downstream)?);
                Ok(json!({}))
            }),
            Request::Unalias { upstream } => api::flow(&upstream).map(|upstream| {
                self.endpoint.drop_alias(&upstream.key);
                json!({})
            }),
            Request::Flush { side } => match self.flushes.begin(&mut *self.shim, side, now()) {
                Ok(id) => {
                    self.waits.push((client, Wait::Flush { id }));
                    return None;
                }
                Err(error) => Err(format!("cannot flush: {error}")),
            },
            Request::Events => {
                if let Some(client) = self.clients.get_mut(&client) {
                    client.listens = true;
                }
                Ok(json!({}))
            }
            Request::Stop { detach } => {
                self.begin_stop(detach);
                Ok(json!({}))
            }
        };
        Some(match done {
            Ok(fields) => api::success(fields),
            Err(error) => api::failure(error),
        })
    }

    fn hold(
        &mut self,
        id: Option<HoldId>,
        role: Role,
        matching: &str,
        except: &[String],
        sides: Vec<Side>,
        peer: Option<String>,
    ) -> Result<Value, String> {
        let parse = |text: &str| text.parse().map_err(|error| format!("{error}"));
        let spec = Spec {
            role,
            matching: parse(matching)?,
            except: except
                .iter()
                .map(|text| parse(text))
                .collect::<Result<_, String>>()?,
            sides,
        };
        let taken: std::collections::BTreeSet<HoldId> =
            self.endpoint.holds().map(|hold| hold.id).collect();
        let highest = taken.last().copied().unwrap_or(0);
        let free = || (highest.wrapping_add(1).max(1)..).find(|id| !taken.contains(id));
        let id = id.or_else(free).unwrap_or(1);
        if self.stopping.is_some() {
            return Err("the agent is ending; start it again first".to_owned());
        }
        self.reach(role, peer.as_deref())?;
        self.account_for(role)?;
        self.endpoint
            .hold(id, spec, now())
            .map_err(|error| error.to_string())?;
        self.peers.of_hold.extend(peer.map(|address| (id, address)));
        Ok(json!({ "id": id }))
    }

    fn turn(&mut self, id: HoldId, role: Role, peer: Option<String>) -> Result<Value, String> {
        self.reach(role, peer.as_deref())?;
        self.account_for(role)?;
        // First: what the endpoint sends on at once needs the address.
        let before = match peer {
            Some(address) => self.peers.of_hold.insert(id, address),
            None => None,
        };
        self.endpoint
            .turn(id, role)
            .map(|()| json!({}))
            .map_err(|error| {
                self.peers
                    .of_hold
                    .extend(before.map(|address| (id, address)));
                error.to_string()
            })
    }

    /// What is served here passes a hold that arms, so the accounts have to be right.
    fn account_for(&mut self, role: Role) -> Result<(), String> {
        let most = if role == Role::Arm { usize::MAX } else { 0 };
        self.account(most).map_err(|error| error.to_string())
    }

    /// Strays need somewhere to go, and nothing else does.
    fn reach(&mut self, role: Role, peer: Option<&str>) -> Result<(), String> {
        match (role, peer) {
            (Role::Stray, None) => Err("the role stray needs `peer`: where strays go".to_owned()),
            (Role::Stray, Some(address)) => self.connect(address),
            (_, Some(_)) => Err("`peer` goes with the role stray only".to_owned()),
            (_, None) => Ok(()),
        }
    }

    fn connect(&mut self, address: &str) -> Result<(), String> {
        if self.peers.senders.contains_key(address) {
            return Ok(());
        }
        let trust = self
            .trust
            .as_mut()
            .ok_or("strays are sent only with `keys` configured")?;
        let identity = self.peers.identity.as_ref();
        let sender = strays::Sender::connect(address, identity, &trust.keys, &mut trust.sealer)
            .map_err(|error| format!("cannot send strays to {address}: {error}"))?;
        self.peers.senders.insert(address.to_owned(), sender);
        Ok(())
    }

    fn wait(&mut self, client: u64, id: HoldId, timeout_ms: u64) -> Option<Value> {
        let Some(hold) = self.endpoint.holds().find(|hold| hold.id == id) else {
            return Some(api::failure(format!("there is no hold {id}")));
        };
        if !hold.is_live() {
            return Some(api::success(api::describe(hold)));
        }
        let deadline = now().saturating_add(timeout_ms.saturating_mul(1_000_000));
        self.waits.push((client, Wait::Hold { id, deadline }));
        None
    }

    fn flows(&self, limit: usize) -> Value {
        let mut flows = self.shim.flows();
        flows.sort_by_key(|(_, flow)| std::cmp::Reverse(flow.packets));
        let time = now();
        let list: Vec<Value> = flows
            .iter()
            .take(limit)
            .map(|(key, flow)| {
                json!({
                    "flow": key.to_match(),
                    "side": key.side(),
                    "packets": flow.packets,
                    "bytes": flow.bytes,
                    "idle_ms": time.saturating_sub(flow.last_ns) as f64 / 1e6,
                    "owned": true,
                })
            })
            .collect();
        json!({ "flows": list, "total": flows.len() })
    }

    /// Everything at a glance.
    pub fn status(&self) -> Value {
        let budget = self.endpoint.budget();
        let [held, straying, releasing] = self.endpoint.census();
        let mut holds = json!({ "holding": 0, "releasing": 0, "done": 0, "aborted": 0 });
        for hold in self.endpoint.holds() {
            let state = match hold.state {
                HoldState::Holding => "holding",
                HoldState::Releasing => "releasing",
                HoldState::Done => "done",
                HoldState::Aborted => "aborted",
            };
            holds[state] = json!(holds[state].as_u64().unwrap_or(0) + 1);
        }
        let counters = |side| self.shim.counters(side).ok();
        let opener = self.trust.as_ref().map(|trust| &trust.frames);
        json!({
            "instance": self.config.instance,
            "shim": self.config.shim,
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_ms": (now() - self.started_ns) as f64 / 1e6,
            "epoch": self.shim.epoch(),
            "tripped": self.shim.tripped(),
            "buffer": { "used": budget.used(), "limit": budget.limit },
            "flows": { "held": held, "straying": straying, "releasing": releasing },
            "holds": holds,
            "counters": { "upstream": counters(Side::Upstream), "downstream": counters(Side::Downstream) },
            "lost_packets": self.lost,
            "takeover_lost_packets": self.took_over,
            "control": {
                "misplaced": self.misplaced,
                "accepted": opener.map_or(0, |opener| opener.accepted()),
                "rejected": opener.map(|opener| {
                    opener.rejected().collect::<std::collections::BTreeMap<_, _>>()
                }),
            },
            "streams": self.peers.figures(),
            "transitions": self
                .endpoint
                .tally()
                .map(|(row, times)| (row.name(), times))
                .collect::<std::collections::BTreeMap<_, _>>(),
            "handovers": self.handovers.describe(),
            "control_sent": self.radio.as_ref().map_or(0, |radio| radio.sent),
            "cpus": self.flushes.cpus(),
            "audits": self.audit.flushes,
        })
    }
}
