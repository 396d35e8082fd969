//! What the agent is told at its start (`flowferry hsl run --config FILE`, as JSON).

use std::path::PathBuf;

use flowferry_tls::{Files, Identity, TlsError, UnixTime};
use serde::Deserialize;

use super::strays::certificate_name;
use crate::shim::Attachment;
use crate::shim::bpf::Interfaces;

/// The agent's configuration. docs/hsl.md describes each field; the schema that `--check` uses
/// is `src/flowferry/hsl/config.schema.json`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Which instance this is.
    pub instance: Instance,
    /// Which shim.
    pub shim: Kind,
    /// Network namespace of the instance, by name; absent: the one the agent is started in.
    pub netns: Option<String>,
    /// The instance's interfaces.
    pub interfaces: Names,
    /// How the programs hang on the interfaces.
    #[serde(default)]
    pub attach: Attachment,
    /// Directory on a BPF file system for pins.
    pub pins: PathBuf,
    /// Where the agent takes commands.
    pub socket: PathBuf,
    /// The most bytes of packets that are kept.
    #[serde(default = "Config::default_buffer")]
    pub buffer_bytes: usize,
    /// Flows that can be accounted for, and flows that can be held.
    #[serde(default = "Config::default_table")]
    pub table_size: u32,
    /// After this silence of the agent the programs fail open.
    #[serde(default = "Config::default_timeout")]
    pub heartbeat_timeout_ms: u64,
    /// How long a flow keeps to the CPU of its last release.
    #[serde(default = "Config::default_settle")]
    pub settle_us: u64,
    /// Keys of control frames and of the stream between agents; the first one signs.
    #[serde(default)]
    pub keys: Vec<KeyFile>,
    /// Address and port where strays of other instances are taken in (needs `keys`).
    pub strays_listen: Option<String>,
    /// With it, streams to and from other agents go over TLS (needs `keys`).
    pub tls: Option<Tls>,
    /// Where the function, or an adapter for it, connects to take part in handovers.
    pub function_socket: Option<PathBuf>,
    /// How long a function behind the veth shim may take over its last packets.
    #[serde(default = "Config::default_quiet")]
    pub drain_quiet_us: u64,
    /// Packets a second that are released at most, both ways together; 0: as fast as the kernel takes them.
    #[serde(default)]
    pub release_rate: u64,
    /// For tests: `TRANSITION:kill`, `TRANSITION:stop`, with `@N` for the Nth time.
    pub failpoint: Option<String>,
    /// For tests: take a marker as it comes, without the flush (docs/design.md §5).
    #[serde(default)]
    pub trust_markers: bool,
    /// For tests: milliseconds that the agent does nothing after each 100,000 captured frames.
    #[serde(default)]
    pub stall_ms: u64,
}

/// An instance.
#[derive(Clone, Debug, Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Instance {
    /// Its name.
    pub name: String,
    /// Its number in control frames, from 1.
    pub id: u32,
}

/// The shims there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// In front of a function that the kernel itself forwards.
    Kernel,
    /// In front of an inner veth pair.
    Veth,
}

/// Names of interfaces.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Names {
    /// Faces the ingress switch.
    pub upstream: String,
    /// Faces the egress switch.
    pub downstream: String,
    /// The HSL's end of the inner pair, upstream.
    pub inner_upstream: Option<String>,
    /// The HSL's end of the inner pair, downstream.
    pub inner_downstream: Option<String>,
}

/// A key of the deployment.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyFile {
    /// Its number in control frames.
    pub id: u16,
    /// File with the secret in hexadecimal digits.
    pub file: PathBuf,
}

/// Certificates, in PEM.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The instance's certificate; it stands for `instance-N`, N being the instance's `id`.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Who signs the other instances' certificates.
    pub ca: PathBuf,
}

impl Tls {
    /// Who that is to others. All that they would refuse it for, were it `instance`, is found now.
    pub fn identity(&self, instance: Option<u32>) -> Result<Identity, TlsError> {
        let identity = Identity::load(&Files {
            ca: self.ca.clone(),
            certificate: self.cert.clone(),
            key: self.key.clone(),
        })?;
        if let Some(instance) = instance {
            identity.check(&certificate_name(instance), UnixTime::now())?;
        }
        Ok(identity)
    }
}

impl Config {
    fn default_buffer() -> usize {
        256 << 20
    }

    fn default_table() -> u32 {
        65_536
    }

    fn default_timeout() -> u64 {
        1_000
    }

    fn default_settle() -> u64 {
        200
    }

    fn default_quiet() -> u64 {
        1_000
    }

    /// The interfaces of both sides, TAPs included; or what is missing.
    pub fn wiring(&self) -> Result<[Interfaces; 2], String> {
        let names = &self.interfaces;
        let inner = match (self.shim, &names.inner_upstream, &names.inner_downstream) {
            (Kind::Kernel, None, None) => [None, None],
            (Kind::Veth, Some(up), Some(down)) => [Some(up.clone()), Some(down.clone())],
            (Kind::Kernel, ..) => {
                return Err("the kernel shim has no inner interfaces; remove \
                            `interfaces.inner_…` or choose `shim: veth`"
                    .to_owned());
            }
            (Kind::Veth, ..) => {
                return Err("the veth shim needs `interfaces.inner_upstream` and \
                            `interfaces.inner_downstream`"
                    .to_owned());
            }
        };
        let [up, down] = inner;
        let tap = |letter| format!("ff{}{letter}", self.instance.id);
        Ok([
            Interfaces {
                outer: names.upstream.clone(),
                inner: up,
                tap: tap('u'),
            },
            Interfaces {
                outer: names.downstream.clone(),
                inner: down,
                tap: tap('d'),
            },
        ])
    }
}
