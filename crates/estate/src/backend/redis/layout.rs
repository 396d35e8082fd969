//! How items lie in a Redis: one string an item, under a key that carries cluster and node.
//!
//! ```text
//! estate:CLUSTER:{TAG}:i:NODE:KEY      an item of NODE
//! estate:CLUSTER:{TAG}:t:MOVE          what a move has done to the items with this tag
//! estate:CLUSTER:{}members             (a hash) name and lease of every member
//! ```
//!
//! CLUSTER and NODE are percent-encoded, so that they hold neither `:` nor anything that a glob
//! means; KEY is as it is. A Redis Cluster chooses the shard by TAG, four hex digits of a hash of the
//! item's key, or of its flow: the items of one key on all nodes are in one shard, and those of one
//! flow, so that a move of a flow is one atomic script. The number of nodes is not in the key,
//! nor has a name a fixed length: a scan by prefix finds them all.

use crate::flow::FlowKey;
use crate::pattern::Pattern;
use std::fmt::Write;

/// The keys of one cluster.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// `estate:CLUSTER:`
    pub prefix: String,
}

impl Layout {
    pub fn new(cluster: &str) -> Self {
        Self {
            prefix: format!("estate:{}:", encoded(cluster)),
        }
    }

    /// Where `node` has its item `key`.
    pub fn item(&self, node: &str, key: &str) -> String {
        format!("{}{{{}}}:i:{}:{key}", self.prefix, tag(key), encoded(node))
    }

    /// Where a move notes what it has done to the items that share a tag with `key`.
    pub fn moved(&self, key: &str, move_id: u64) -> String {
        format!("{}{{{}}}:t:{move_id:016x}", self.prefix, tag(key))
    }

    /// Where the members are.
    pub fn members(&self) -> String {
        format!("{}{{members}}", self.prefix)
    }

    /// A glob for Redis which finds all matching items, and others: of `node`, or of all nodes.
    ///
    /// Only the part of a pattern before its first sign is used. Redis's own globs are matched
    /// on bytes, where ours are on characters, and by backtracking.
    pub fn scan(&self, node: Option<&str>, pattern: &Pattern) -> String {
        let node = node.map_or("*".to_owned(), encoded);
        let mut glob = format!("{}{{????}}:i:{node}:", self.prefix);
        for c in literal_head(pattern).chars() {
            if matches!(c, '*' | '?' | '[' | ']' | '^' | '\\') {
                glob.push('\\');
            }
            glob.push(c);
        }
        glob.push('*');
        glob
    }

    /// Node and key of an item's place; none if it is another cluster's, or no item.
    pub fn parse<'a>(&self, place: &'a [u8]) -> Option<(String, &'a str)> {
        let rest = place.strip_prefix(self.prefix.as_bytes())?;
        let rest = rest.get(6..)?.strip_prefix(b":i:")?;
        let (node, key) = std::str::from_utf8(rest).ok()?.split_once(':')?;
        (!key.is_empty()).then(|| Some((decoded(node)?, key)))?
    }
}

/// What every matching key begins with.
fn literal_head(pattern: &Pattern) -> &str {
    let text = pattern.as_str();
    match pattern.kind() {
        "exact" => text,
        "glob" => &text[..text.find(['*', '?', '[', '\\']).unwrap_or(text.len())],
        _ => "",
    }
}

/// The four hex digits that choose a shard: FNV-1a of the flow's part of the key, or all of it.
pub(super) fn tag(key: &str) -> String {
    let placed = FlowKey::scope(key).unwrap_or(key);
    let hash = placed.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    format!("{:04x}", (hash >> 16) ^ (hash & 0xffff))
}

fn encoded(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.') {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02x}").expect("writing to a string does not fail");
        }
    }
    out
}

fn decoded(name: &str) -> Option<String> {
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first == b'%' {
            let hex = std::str::from_utf8(tail.get(..2)?).ok()?;
            out.push(u8::from_str_radix(hex, 16).ok()?);
            rest = &tail[2..];
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_item_is_found_under_its_place(
            cluster in ".{1,20}", node in ".{1,20}", key in "(?s).{1,40}"
        ) {
            let layout = Layout::new(&cluster);
            let place = layout.item(&node, &key);
            prop_assert_eq!(layout.parse(place.as_bytes()), Some((node, key.as_str())));
        }

        #[test]
        fn another_cluster_sees_nothing(cluster in ".{1,9}", other in ".{1,9}", key in ".{1,9}") {
            prop_assume!(cluster != other);
            let place = Layout::new(&cluster).item("n", &key);
            prop_assert_eq!(Layout::new(&other).parse(place.as_bytes()), None);
        }
    }

    #[test]
    fn a_flow_is_in_one_shard() {
        let keys = ["flow:a/packets", "flow:a/bytes", "flow:a/"];
        assert!(keys.iter().all(|key| tag(key) == tag(keys[0])));
        assert_ne!(tag("flow:a/packets"), tag("flow:b/packets"));
    }

    #[test]
    fn a_scan_takes_no_sign_of_a_key_for_its_own() {
        let layout = Layout::new("c");
        let scan = |pattern: &Pattern| layout.scan(Some("n*"), pattern);
        assert_eq!(
            scan(&Pattern::glob("a/b*c").unwrap()),
            "estate:c:{????}:i:n%2a:a/b*"
        );
        assert_eq!(
            scan(&Pattern::exact("a[b]")),
            r"estate:c:{????}:i:n%2a:a\[b\]*"
        );
        assert_eq!(
            scan(&Pattern::regex("ab").unwrap()),
            "estate:c:{????}:i:n%2a:*"
        );
    }
}
