//! Control frames: out by a packet socket on each of the instance's own interfaces.
//!
//! The switches hand them to the controller, or to the instance that they are for. The sockets are opened before the
//! agent gives up its capabilities, and receive nothing: frames come in through the programs.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use flowferry_wire::address_of;

use crate::key::{ETHERTYPE_CONTROL, Side};

/// See the module's head.
pub struct Radio {
    sockets: [OwnedFd; 2],
    from: [u8; 6],
    /// Frames sent, and frames that no interface took.
    pub sent: u64,
    /// See `sent`.
    pub failed: u64,
}

impl Radio {
    /// Open the sockets; `interfaces`: upstream and downstream, by name. Needs CAP_NET_RAW.
    pub fn open(own: u32, interfaces: [&str; 2]) -> io::Result<Radio> {
        let [_, _, c, d] = own.to_be_bytes();
        let [up, down] = interfaces;
        Ok(Radio {
            sockets: [open(up)?, open(down)?],
            from: [0x02, 0xff, 0, 1, c, d],
            sent: 0,
            failed: 0,
        })
    }

    /// Ethernet addresses of frames to `instance`: destination, source.
    pub fn addresses(&self, instance: u32) -> ([u8; 6], [u8; 6]) {
        (address_of(instance), self.from)
    }

    /// Send a frame to the controller, on `side` or on the other one if that has gone.
    pub fn send(&mut self, side: Side, frame: &[u8]) {
        self.send_on(&[side, side.other()], frame);
    }

    /// Send a frame that means the side it goes by.
    pub fn send_by(&mut self, side: Side, frame: &[u8]) {
        self.send_on(&[side], frame);
    }

    fn send_on(&mut self, sides: &[Side], frame: &[u8]) {
        let mut sockets = sides.iter().map(|side| &self.sockets[side.index()]);
        match sockets.any(|socket| send(socket, frame).is_ok()) {
            true => self.sent += 1,
            false => self.failed += 1, // what matters is repeated
        }
    }
}

fn open(interface: &str) -> io::Result<OwnedFd> {
    let index = nix::net::if_::if_nametoindex(interface)?;
    let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers; the result is checked. Protocol 0: nothing is received.
    let socket = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given it to us.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: plain numbers, for which zero is a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = index as i32;
    let length = size_of_val(&address) as libc::socklen_t;
    // SAFETY: `address` lives through the call and is as long as `length` says.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    match bound {
        0 => Ok(socket),
        _ => Err(io::Error::last_os_error()),
    }
}

fn send(socket: &OwnedFd, frame: &[u8]) -> io::Result<()> {
    debug_assert_eq!(
        frame.get(12..14),
        Some(&ETHERTYPE_CONTROL.to_be_bytes()[..])
    );
    // SAFETY: the buffer lives through the call and is as long as its length says.
    let sent = unsafe { libc::send(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
    match sent {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
