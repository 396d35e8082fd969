//! Why the data plane could not be set up or asked.

use std::io;
use std::path::PathBuf;

use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError;

/// Why the programs could not be loaded, attached or asked.
#[derive(Debug, thiserror::Error)]
pub enum BpfError {
    /// An interface of the configuration does not exist.
    #[error("interface {name} not found in this network namespace; check `interfaces` and `netns`")]
    NoInterface {
        /// As configured.
        name: String,
    },
    /// The kernel refused the object, usually for want of rights.
    #[error(
        "the kernel refused the BPF programs: {0}; run as root on Linux 5.17 or later with BPF"
    )]
    Load(#[from] EbpfError),
    /// The kernel's verifier refused a program.
    #[error("the kernel refused the BPF program {name}: {source}; Linux 5.17 or later is needed")]
    Verify {
        /// The program.
        name: String,
        /// What the verifier said.
        source: ProgramError,
    },
    /// The kernel refused to attach a program.
    #[error("cannot attach to {name}: {source}")]
    Attach {
        /// The interface.
        name: String,
        /// What the kernel said.
        source: ProgramError,
    },
    /// A map operation failed.
    #[error("BPF map {map}: {source}")]
    Map {
        /// The map's name.
        map: &'static str,
        /// What the kernel said.
        source: MapError,
    },
    /// Pins cannot be kept there.
    #[error(
        "cannot keep pins in {path}: {source}; mount a BPF file system there (mount -t bpf bpf DIR)"
    )]
    Pin {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another agent has them.
    #[error(
        "another agent stands in front of these interfaces (it holds {path}); stop it first, or choose other `pins`"
    )]
    Taken {
        /// The directory.
        path: PathBuf,
    },
    /// The TAP could not be made.
    #[error("cannot make the TAP {name}: {source}; /dev/net/tun and CAP_NET_ADMIN are needed")]
    Tap {
        /// The device's name.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
}
