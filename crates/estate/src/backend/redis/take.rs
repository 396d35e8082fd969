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
        let members = self.live()?;
        if !members.iter().any(|member| member == source)
            && groups.values().all(|(_, keys)| keys.is_empty())
        {
            return Err(Error::NoMember {
                node: source.to_owned(),
                members: members.join(", "),
            });
        }
        let scripts: Vec<_> = groups
            .values()
            .map(|(any, keys)| {
                let mut places = vec![self.layout.moved(any, move_id)];
                for key in keys {
                    places.push(self.layout.item(source, key));
                    places.push(self.place(key));
                }
                let mut command = script(TAKE, &places);
                command.arg(REMEMBERED.as_millis() as u64);
                command
            })
            .collect();
        let moved: Vec<u64> = self.server.ask_all(&scripts)?;
        Ok(Taken {
            items: moved.iter().sum(),
        })
    }

    /// The source's selected keys by tag, and some key with that tag. What is selected and has no
    /// items yet is in it, too: it has to stay unmoved when this is repeated.
    fn groups(
        &self,
        selection: &Selection,
        source: &str,
    ) -> Result<BTreeMap<String, (String, Vec<String>)>, Error> {
        let mut groups: BTreeMap<String, (String, Vec<String>)> = BTreeMap::new();
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
