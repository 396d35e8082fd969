//! A veth pair in a network namespace of the test's thread, for what a test run cannot make:
//! tags that the kernel has taken out of the frame, and packets that are in pieces.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;

use aya::Ebpf;
use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// Above a page the kernel keeps a packet in pieces when it is asked to.
const LENGTH: usize = 5_000;
/// `struct virtio_net_hdr` of virtio 1.2, 5.1.6; `hdr_len` says how much is to be in one piece.
const VNET_HEADER: usize = 10;
const HEADER_LENGTH: usize = 2;

pub struct Wire {
    socket: OwnedFd,
}

impl Wire {
    /// Make the pair; `program` of `ebpf` sees what arrives at its far end.
    pub fn new(ebpf: &mut Ebpf, program: &str) -> Wire {
        unshare(CloneFlags::CLONE_NEWNET).expect("root may have a network namespace of its own");
        // A loop-back namespace has nobody to talk to; this keeps IPv6 from trying.
        std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").ok();
        for line in [
            "link add near mtu 9000 type veth peer name far mtu 9000",
            "link set far up",
            "link set near up", // last: it has its carrier then, and sends at once
        ] {
            let done = Command::new("ip").args(line.split(' ')).status();
            assert!(done.is_ok_and(|done| done.success()), "ip {line}");
        }
        let program: &mut SchedClassifier = ebpf
            .program_mut(program)
            .expect("declared")
            .try_into()
            .expect("a classifier");
        let options = TcAttachOptions::TcxOrder(LinkOrder::default());
        program
            .attach_with_options("far", TcAttachType::Ingress, options)
            .expect("attaches");
        Wire {
            socket: sender("near").expect("root may send raw frames"),
        }
    }

    /// Send a frame of which the first `linear` bytes are in one piece. It is lengthened with
    /// zeros, so that there is a second one.
    pub fn send(&self, frame: &[u8], linear: usize) {
        let mut bytes = vec![0; VNET_HEADER];
        bytes[HEADER_LENGTH..HEADER_LENGTH + 2].copy_from_slice(&(linear as u16).to_ne_bytes());
        bytes.extend(frame);
        bytes.resize(VNET_HEADER + LENGTH, 0);
        let sent = nix::unistd::write(&self.socket, &bytes).expect("the interface is up");
        assert_eq!(sent, bytes.len());
    }

    /// What arrives, since it is lengthened.
    pub fn arriving(frame: &[u8]) -> Vec<u8> {
        let mut bytes = frame.to_vec();
        bytes.resize(LENGTH, 0);
        bytes
    }
}

fn sender(interface: &str) -> io::Result<OwnedFd> {
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    let on: libc::c_int = 1;
    let size = |bytes: usize| bytes as libc::socklen_t;
    // SAFETY: `on` is a valid int for the whole call.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_VNET_HDR,
            (&raw const on).cast(),
            size(size_of::<libc::c_int>()),
        )
    };
    // SAFETY: all-zero is a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = if_nametoindex(interface)? as i32;
    // SAFETY: `address` is a valid sockaddr_ll of the size given, for the whole call.
    let bound = unsafe {
        let length = size(size_of::<libc::sockaddr_ll>());
        libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length)
    };
    if set < 0 || bound < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(socket)
}
