//! Moves at a server: nothing travels, places change hands, flow by flow, each in one script.
//!
//! A source that has gone may be taken from: its items are still there. What a move has done is
//! remembered per flow (or key) for an hour, so that a repetition does nothing more.

use super::RedisBackend;
use super::layout::tag;
use super::script::TAKE;
use super::server::script;
use crate::backend::Taken;
use crate::error::Error;
use crate::flow::FlowKey;
use crate::pattern::Pattern;
use crate::store::Selection;
use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

/// How long a move is remembered.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// What is to move, by tag: some key with that tag, and the keys.
type Groups = BTreeMap<String, (String, Vec<String>)>;

impl RedisBackend {
    pub(super) fn take_from(
        &self,
        selection: &Selection,
        source: &str,
        move_id: u64,
    ) -> Result<Taken, Error> {
        if source == &*self.node {
            return Ok(Taken::default());
        }
        let groups = self.groups(selection, source)?;
        // All are looked at before any is moved: what stands in the way is found while nothing has
        // happened, unless it is written in between.
        let found = self.run(&groups, source, move_id, "look")?;
        if found.items == 0 {
            let members = self.live()?;
            if !members.iter().any(|member| member == source) {
                return Err(Error::NoMember {
                    node: source.to_owned(),
                    members: members.join(", "),
                });
            }
        }
        self.run(&groups, source, move_id, "move")
    }

    fn run(&self, groups: &Groups, source: &str, id: u64, what: &str) -> Result<Taken, Error> {
        let scripts: Vec<_> = groups
            .values()
            .map(|(any, keys)| {
                let mut places = vec![self.layout.moved(any, id)];
                for key in keys {
                    places.push(self.layout.item(source, key));
                    places.push(self.place(key));
                }
                let mut command = script(TAKE, &places);
                command.arg(REMEMBERED.as_millis() as u64).arg(what);
                command
            })
            .collect();
        let mut taken = Taken::default();
        let answers = self.server.ask_all::<i64>(&scripts)?;
        for (answer, (_, keys)) in answers.into_iter().zip(groups.values()) {
            match u64::try_from(answer) {
                Ok(moved) => taken.items += moved,
                Err(_) => {
                    let key = &keys[answer.unsigned_abs() as usize - 1];
                    return Err(Error::Aborted {
                        move_id: id,
                        source_node: source.to_owned(),
                        why: format!("key {key:?} is here already: delete it at one of both"),
                    });
                }
            }
        }
        Ok(taken)
    }

    /// The source's selected keys. What is selected and has no items yet is in it, too: it has to
    /// stay unmoved when this is repeated.
    fn groups(&self, selection: &Selection, source: &str) -> Result<Groups, Error> {
        let mut groups = Groups::new();
        match selection {
            Selection::Keys(keys) => {
                for key in keys.iter().collect::<HashSet<_>>() {
                    let group = groups
                        .entry(tag(key))
                        .or_insert_with(|| (key.clone(), Vec::new()));
                    group.1.push(key.clone());
                }
            }
            Selection::Flows(flows) => {
                let scopes: HashSet<&str> = flows.iter().map(FlowKey::as_str).collect();
                for flow in flows {
                    let any = flow.item("");
                    groups.entry(tag(&any)).or_insert((any, Vec::new()));
                }
                let flows = Pattern::glob("flow:*").expect("a plain glob");
                let mut seen = HashSet::new();
                self.server
                    .scan(&self.layout.scan(Some(source), &flows), |page| {
                        for place in page {
                            let Some((node, key)) = self.layout.parse(&place) else {
                                continue;
                            };
                            if node == source
                                && FlowKey::scope(key).is_some_and(|s| scopes.contains(s))
                                && seen.insert(key.to_owned())
                                && let Some(group) = groups.get_mut(&tag(key))
                            {
                                group.1.push(key.to_owned());
                            }
                        }
                        Ok(())
                    })?;
            }
        }
        Ok(groups)
    }
}
