//! The TAP through which captured packets leave the kernel and released ones return.
//!
//! Frames carry a `virtio_net_hdr` and offloads are on, so that super-packets and partial
//! checksums survive user space. No queueing discipline: a full queue then refuses a packet in
//! the very call that hands it over, and the program in front counts that loss to the packet.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::net::if_::if_nametoindex;

/// Frames that wait for a stalled reader. At 500,000 packets/s this is 131 ms.
pub const QUEUE_LENGTH: i32 = 65_536;

/// Bytes of the `virtio_net_hdr` in front of every frame (virtio 1.2 §5.1.6, legacy form).
pub const VNET_HEADER: usize = 10;

/// The longest read: a 64 KiB super-packet, its Ethernet header with two tags, and the header above.
pub const MAX_READ: usize = VNET_HEADER + 22 + 65_536;

const MTU: i32 = 65_521;
const TUN_F_CSUM: u32 = 0x01;
const TUN_F_TSO4: u32 = 0x02;
const TUN_F_TSO6: u32 = 0x04;
const TUN_F_TSO_ECN: u32 = 0x08;
const TUN_F_USO4: u32 = 0x20;
const TUN_F_USO6: u32 = 0x40;

mod request {
    //! `TUNSETOFFLOAD` and `TUNSETIFF` of linux/if_tun.h.
    #![allow(missing_docs)]
    nix::ioctl_write_int!(tun_set_offload, b'T', 208);
    nix::ioctl_write_ptr!(tun_set_iff, b'T', 202, libc::c_int);
}
use request::{tun_set_iff, tun_set_offload};

/// An open TAP; closing it removes the device.
#[derive(Debug)]
pub struct Tap {
    file: File,
    /// Device name.
    pub name: String,
    /// Interface index in the namespace of the thread that made it.
    pub index: u32,
}

impl Tap {
    /// Create the device `name` in the calling thread's network namespace, up, silent and with
    /// offloads on.
    pub fn create(name: &str) -> io::Result<Tap> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open("/dev/net/tun")?;
        let mut request = interface_request(name)?;
        request.ifr_ifru.ifru_flags =
            (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
        // SAFETY: `request` is a valid ifreq that outlives the call; the request code says `int`
        // for historic reasons but the kernel reads an ifreq.
        unsafe { tun_set_iff(file.as_raw_fd(), (&raw const request).cast()) }?;
        let basic = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
        // SAFETY: takes its argument by value.
        unsafe { tun_set_offload(file.as_raw_fd(), (basic | TUN_F_USO4 | TUN_F_USO6).into()) }
            // Kernels before 6.2 have no UDP segmentation; they cut such packets beforehand.
            // SAFETY: as above.
            .or_else(|_| unsafe { tun_set_offload(file.as_raw_fd(), basic.into()) })?;
        // Without this the device would speak (neighbour discovery) as soon as it is up.
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
        let socket = control_socket()?;
        let mut set = interface_request(name)?;
        set.ifr_ifru.ifru_metric = QUEUE_LENGTH;
        interface_ioctl(&socket, libc::SIOCSIFTXQLEN, &mut set)?;
        set.ifr_ifru.ifru_mtu = MTU;
        interface_ioctl(&socket, libc::SIOCSIFMTU, &mut set)?;
        let index = if_nametoindex(name)?;
        set.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_NOARP) as libc::c_short;
        interface_ioctl(&socket, libc::SIOCSIFFLAGS, &mut set)?;
        drop_queueing(index)?;
        Ok(Tap {
            file,
            name: name.to_owned(),
            index,
        })
    }

    /// Whether the device still is there under its name, and up.
    pub fn is_alive(&self) -> bool {
        let flags = || -> io::Result<libc::c_short> {
            let mut request = interface_request(&self.name)?;
            interface_ioctl(&control_socket()?, libc::SIOCGIFFLAGS, &mut request)?;
            // SAFETY: SIOCGIFFLAGS filled this member in.
            Ok(unsafe { request.ifr_ifru.ifru_flags })
        };
        if_nametoindex(self.name.as_str()).is_ok_and(|index| index == self.index)
            && flags().is_ok_and(|flags| libc::c_int::from(flags) & libc::IFF_UP != 0)
    }

    /// Read one frame with its header into `buffer`; `None` when none is waiting.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match nix::unistd::read(&self.file, buffer) {
            Ok(length) => Ok(Some(length)),
            Err(nix::Error::EAGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Write one frame with its header. The kernel handles it before this returns.
    pub fn write(&self, frame: &[u8]) -> io::Result<()> {
        nix::unistd::write(&self.file, frame)?;
        Ok(())
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn interface_request(name: &str) -> io::Result<libc::ifreq> {
    let name = CString::new(name)?;
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let bytes = name.as_bytes_with_nul();
    if bytes.len() > libc::IFNAMSIZ {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "interface name over 15 bytes",
        ));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    Ok(request)
}

fn control_socket() -> io::Result<std::os::fd::OwnedFd> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    Ok(socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?)
}

fn interface_ioctl(
    socket: &impl AsRawFd,
    code: libc::Ioctl,
    request: &mut libc::ifreq,
) -> io::Result<()> {
    // SAFETY: `request` is a valid ifreq for the whole call, and these codes take one.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), code, std::ptr::from_mut(request)) };
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Replace the device's root queueing discipline by `noqueue`.
fn drop_queueing(index: u32) -> io::Result<()> {
    let mut tc = TcMessage::default();
    tc.header.family = AddressFamily::Unspec;
    tc.header.index = index as i32;
    tc.header.parent = TcHandle::ROOT;
    tc.attributes.push(TcAttribute::Kind("noqueue".to_owned()));
    let mut message = NetlinkMessage::from(RouteNetlinkMessage::NewQueueDiscipline(tc));
    message.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    let socket = Socket::new(NETLINK_ROUTE)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&bytes, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let answer =
        NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).map_err(io::Error::other)?;
    match answer.payload {
        NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
        _ => Ok(()),
    }
}
