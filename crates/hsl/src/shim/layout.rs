//! Which layout pinned maps have. It is part of the path of the pins, so that an agent never reads
//! maps that another version wrote: derived from the headers, nobody has to remember to raise it.
//! A comment changes it, too, which costs an upgrade behind a crash no more than a count.

use std::fs;
use std::path::{Path, PathBuf};

use aya::maps::{HashMap, Map, MapData};
use sha2::{Digest, Sha256};

use super::shared::Count;
use crate::key::Key;

/// All that decides what stands where in a map, and what it means.
const HEADERS: [&str; 4] = [
    include_str!("../../bpf/shared.h"),
    include_str!("../../bpf/maps.h"),
    include_str!("../../bpf/parse.h"),
    include_str!("../../bpf/account.h"),
];
/// A map that every layout has had: a directory with it holds pins of ours.
const SIGN: &str = "ff_control";

/// Where the pins of this version and this size of the tables are.
pub(super) fn directory(pins: &Path, table_size: u32) -> PathBuf {
    pins.join(format!("{}{table_size}", of_this_version()))
}

/// Directories with pins of any layout or size but the one in `own`.
pub(super) fn others(pins: &Path, own: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(pins).into_iter().flatten().flatten();
    all.map(|entry| entry.path())
        .filter(|path| path != own && path.join(SIGN).exists())
        .collect()
}

/// Packets that the agent which left these pins held, if they are of this version: lost.
pub(super) fn held(pins: &Path) -> Option<u64> {
    let name = pins.file_name()?.to_str()?;
    if !name.starts_with(&of_this_version()) {
        return None;
    }
    let map = Map::from_map_data(MapData::from_pin(pins.join("ff_counts")).ok()?).ok()?;
    let counts: HashMap<_, Key, Count> = map.try_into().ok()?;
    let counts = counts.iter().flatten();
    Some(counts.map(|(_, count)| count.late()).sum())
}

fn of_this_version() -> String {
    let digest = HEADERS.iter().fold(Sha256::new(), Digest::chain_update);
    let digest = digest.finalize();
    let short = digest.first_chunk().expect("32 bytes");
    format!("{:016x}-", u64::from_be_bytes(*short))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_header_is_left_out() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("bpf");
        let mut found = 0;
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|it| it == "h") {
                let text = fs::read_to_string(&path).unwrap();
                assert!(HEADERS.contains(&text.as_str()), "{}", path.display());
                found += 1;
            }
        }
        assert_eq!(found, HEADERS.len());
    }
}
