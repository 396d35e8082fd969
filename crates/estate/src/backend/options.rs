//! How an instance joins: what [`Estate::open`](super::Estate::open) is told.

use crate::error::Error;
use std::path::PathBuf;
use std::time::Duration;

/// Who the instance is, and where the others are found.
#[derive(Clone, Debug)]
pub struct Options {
    /// The members of one cluster see each other; 1 to 255 bytes.
    pub cluster: String,
    /// The name of this instance, unique in its cluster; 1 to 255 bytes.
    pub node: String,
    /// `local`, `p2p`, `redis://HOST:PORT[/DB]`, `redis+unix:///PATH`, or
    /// `redis+cluster://HOST:PORT[,HOST:PORT…]`.
    pub backend: String,
    /// `p2p`: addresses to be reached at, `HOST:PORT`; port 0 takes a free one. None: any address.
    pub listen: Vec<String>,
    /// `p2p`: addresses of members or routers to begin with, `HOST:PORT`.
    pub peers: Vec<String>,
    /// `p2p`: also find members by multicast.
    pub scouting: bool,
    /// `p2p`: pass messages on between members that are linked to this one and cannot reach each
    /// other, as those of two sites.
    pub relay: bool,
    /// `p2p`: mutual authentication.
    pub tls: Option<Tls>,
    /// The most bytes that items may take in this process; none: no limit. Servers have their own.
    pub memory_limit: Option<usize>,
    /// A member not heard of for so long has failed.
    pub failure_after: Duration,
    /// How long a global operation may take unless it says so itself.
    pub timeout: Duration,
}

/// Files in PEM: who is believed, and who one is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Certificate of the authority that signs all members' certificates.
    pub ca: PathBuf,
    /// This member's certificate.
    pub certificate: PathBuf,
    /// The private key of it.
    pub key: PathBuf,
}

const NAME_MAX: usize = 255;

impl Options {
    /// The defaults: `p2p`, any address, no peers, failure after a second.
    pub fn new(cluster: &str, node: &str) -> Self {
        Self {
            cluster: cluster.to_owned(),
            node: node.to_owned(),
            backend: "p2p".to_owned(),
            listen: Vec::new(),
            peers: Vec::new(),
            scouting: false,
            relay: false,
            tls: None,
            memory_limit: None,
            failure_after: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
        }
    }

    /// Checks names and durations.
    ///
    /// # Errors
    /// [`Error::Options`] names the first that will not do.
    pub fn check(&self) -> Result<(), Error> {
        for (what, name) in [("cluster", &self.cluster), ("node", &self.node)] {
            if name.is_empty() || name.len() > NAME_MAX || name.chars().any(char::is_control) {
                return Err(Error::Options {
                    what,
                    given: crate::error::shown(name),
                    why: "a name has 1 to 255 bytes and no control characters".to_owned(),
                });
            }
        }
        for (what, duration) in [
            ("failure_after", self.failure_after),
            ("timeout", self.timeout),
        ] {
            if duration < Duration::from_millis(1) || duration > Duration::from_secs(3600) {
                return Err(Error::Options {
                    what,
                    given: format!("{duration:?}"),
                    why: "it has to be between 1 ms and 1 h".to_owned(),
                });
            }
        }
        Ok(())
    }
}
