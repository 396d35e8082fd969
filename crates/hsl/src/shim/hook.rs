//! How programs hang on interfaces: on kernels from 6.6 on TCX links, before that on a `clsact`
//! filter with fixed priority and handle; either is replaced in one step.

use std::fs;
use std::io;
use std::path::Path;

use aya::Ebpf;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::{
    NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact,
};
use aya::programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType};

use super::error::BpfError;

const NETLINK_PRIORITY: u16 = 50;
const NETLINK_HANDLE: TcHandle = TcHandle::new(0, 0x821c);

/// How programs hang on interfaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Attachment {
    /// TCX links where the kernel has them, filters elsewhere.
    #[default]
    Auto,
    /// `clsact` filters, as kernels before 6.6 need.
    Filter,
}

/// Attach `program` to `interface`; with `pin` it stays when this process ends, and what was
/// pinned there before is replaced in one step.
pub(super) fn hook(
    ebpf: &mut Ebpf,
    program: &str,
    interface: &str,
    direction: TcAttachType,
    pin: Option<&Path>,
    how: Attachment,
) -> Result<(), BpfError> {
    let failed = |source| BpfError::Attach {
        name: interface.to_owned(),
        source,
    };
    let program: &mut SchedClassifier = ebpf
        .program_mut(program)
        .expect("declared in hsl.bpf.c")
        .try_into()
        .map_err(failed)?;
    if let Some(pin) = pin
        && let Ok(pinned) = PinnedLink::from_pin(pin)
    {
        let link = SchedClassifierLink::try_from(FdLink::from(pinned)).ok();
        if let Some(Ok(id)) = link.map(|link| program.attach_to_link(link)) {
            return keep(program, id, None);
        }
        // The interface it hung on is gone; a new one of that name needs a new link.
        fs::remove_file(pin).map_err(|source| BpfError::Pin {
            path: pin.to_owned(),
            source,
        })?;
    }
    let id = match how {
        Attachment::Auto => hook_tcx(program, interface, direction),
        Attachment::Filter => hook_filter(program, interface, direction),
    }
    .map_err(failed)?;
    match pin {
        Some(pin) => keep(program, id, Some(pin)),
        None => Ok(()),
    }
}

type LinkId = aya::programs::tc::SchedClassifierLinkId;

fn hook_tcx(
    program: &mut SchedClassifier,
    interface: &str,
    direction: TcAttachType,
) -> Result<LinkId, ProgramError> {
    let tcx = TcAttachOptions::TcxOrder(LinkOrder::default());
    match program.attach_with_options(interface, direction, tcx) {
        Err(ProgramError::SyscallError(error)) if lacks_tcx(&error.io_error) => {
            hook_filter(program, interface, direction)
        }
        done => done,
    }
}

fn lacks_tcx(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP))
}

fn hook_filter(
    program: &mut SchedClassifier,
    interface: &str,
    direction: TcAttachType,
) -> Result<LinkId, ProgramError> {
    // Refused if it is there already, which is what we want.
    let _ = qdisc_add_clsact(interface);
    let options = NlOptions {
        priority: NETLINK_PRIORITY,
        handle: NETLINK_HANDLE,
        classid: None,
    };
    program
        .attach_with_options(interface, direction, TcAttachOptions::Netlink(options))
        .or_else(|_| {
            let there = SchedClassifierLink::attached(
                interface,
                direction,
                NETLINK_PRIORITY,
                NETLINK_HANDLE,
                None,
            )
            .map_err(|error| ProgramError::TcError(error.into()))?;
            program.attach_to_link(there)
        })
}

/// Let a link outlive this process. A TCX link needs a pin for that, a filter just must not be
/// detached when the handle is dropped.
fn keep(program: &mut SchedClassifier, id: LinkId, pin: Option<&Path>) -> Result<(), BpfError> {
    let link = program.take_link(id).expect("attached by the caller");
    if let (Ok(link), Some(pin)) = (TryInto::<FdLink>::try_into(link), pin) {
        link.pin(pin).map_err(|error| BpfError::Pin {
            path: pin.to_owned(),
            source: io::Error::other(error),
        })?;
    }
    Ok(())
}

/// Take a filter off, if this kernel had to use one. Links go with their pins.
pub(super) fn unhook(interface: &str) {
    let filter = SchedClassifierLink::attached(
        interface,
        TcAttachType::Ingress,
        NETLINK_PRIORITY,
        NETLINK_HANDLE,
        None,
    );
    drop(filter); // detaches it
}
