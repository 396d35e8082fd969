//! Opening the UDP sockets of a run.

use crate::error::{Error, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrStorage, bind, connect, recv, setsockopt,
    socket, sockopt,
};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Index of the drop counter in what SO_MEMINFO returns (linux/sock_diag.h, SK_MEMINFO_DROPS).
const MEMINFO_DROPS: usize = 8;
/// Fields of SO_MEMINFO this kernel interface may return; newer kernels may add some.
const MEMINFO_FIELDS: usize = 16;

/// How a sink's socket is opened.
#[derive(Clone, Copy, Debug)]
pub struct SinkOptions {
    /// Address to bind; `None`: every address of both families.
    pub address: Option<IpAddr>,
    /// Receive buffer in bytes.
    pub buffer: usize,
    /// Ask the kernel for receive time stamps.
    pub stamps: bool,
}

/// Open a sink's socket on `port`.
pub fn open_sink(options: SinkOptions, port: u16) -> Result<OwnedFd> {
    let socket = match options.address {
        Some(address) => bind_to(SocketAddr::new(address, port), false)?,
        None => match bind_to(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port), false) {
            // A machine without IPv6 has no socket of that family, or no such address.
            Err(Error::System { source, .. })
                if matches!(
                    source.raw_os_error(),
                    Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
                ) =>
            {
                bind_to(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port), false)?
            }
            other => other?,
        },
    };
    receive_buffer(socket.as_fd(), options.buffer)?;
    if options.stamps {
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)
            .map_err(|e| Error::system("cannot turn on receive stamps", e, "use --stamps user"))?;
    }
    Ok(socket)
}

/// How a sender's socket is opened.
#[derive(Clone, Copy, Debug)]
pub struct SourceOptions {
    /// Address and port to send from.
    pub from: SocketAddr,
    /// Where all of its packets go, if it is one place.
    pub peer: Option<SocketAddr>,
    /// Send and receive buffer in bytes.
    pub buffer: usize,
    /// Ask the kernel for receive time stamps.
    pub stamps: bool,
    /// Payload of one packet, when the kernel is to cut messages into packets (UDP_SEGMENT).
    pub segment: Option<u16>,
}

/// Open a sender's socket.
pub fn open_source(options: SourceOptions) -> Result<OwnedFd> {
    let socket = bind_to(options.from, options.peer.is_some())?;
    let set = |result: nix::Result<()>| {
        result.map_err(|e| {
            Error::system(
                format!("cannot prepare the socket on {}", options.from),
                e,
                "see udp(7)",
            )
        })
    };
    // Errors of the path and of local queues are reported instead of swallowed, and no packet is cut
    // into fragments behind our back.
    match options.from {
        SocketAddr::V4(_) => {
            set(setsockopt(&socket, sockopt::Ipv4RecvErr, &true))?;
            set(set_int(
                socket.as_fd(),
                libc::IPPROTO_IP,
                libc::IP_MTU_DISCOVER,
                libc::IP_PMTUDISC_DO,
            ))?;
        }
        SocketAddr::V6(_) => {
            set(setsockopt(&socket, sockopt::Ipv6RecvErr, &true))?;
            set(set_int(
                socket.as_fd(),
                libc::IPPROTO_IPV6,
                libc::IPV6_MTU_DISCOVER,
                libc::IPV6_PMTUDISC_DO,
            ))?;
        }
    }
    if let Some(segment) = options.segment {
        set(setsockopt(
            &socket,
            sockopt::UdpGsoSegment,
            &i32::from(segment),
        ))?;
    }
    if options.stamps {
        set(setsockopt(&socket, sockopt::ReceiveTimestampns, &true))?;
    }
    // A send that blocks for ever could not be stopped.
    let patience = nix::sys::time::TimeVal::new(0, 100_000);
    set(setsockopt(&socket, sockopt::SendTimeout, &patience))?;
    receive_buffer(socket.as_fd(), options.buffer)?;
    if setsockopt(&socket, sockopt::SndBufForce, &options.buffer).is_err() {
        set(setsockopt(&socket, sockopt::SndBuf, &options.buffer))?;
    }
    if let Some(peer) = options.peer {
        connect(socket.as_raw_fd(), &SockaddrStorage::from(peer))
            .map_err(|e| no_way(peer, e.into()))?;
    }
    Ok(socket)
}

/// The error for an address that cannot be reached from here.
pub fn no_way(peer: SocketAddr, source: io::Error) -> Error {
    Error::system(
        format!("cannot send to {peer}"),
        source,
        "check the address and `ip route get` in that namespace",
    )
}

fn bind_to(address: SocketAddr, shared: bool) -> Result<OwnedFd> {
    let family = if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let opened = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).and_then(|fd| {
        if shared {
            // Several connected sockets of one run share a source port.
            setsockopt(&fd, sockopt::ReusePort, &true)?;
        }
        bind(fd.as_raw_fd(), &SockaddrStorage::from(address)).map(|()| fd)
    });
    opened.map_err(|e| {
        let remedy = match e {
            nix::Error::EADDRINUSE => {
                "choose another port, or end the program that holds it (`ss -ulpn`)"
            }
            nix::Error::EADDRNOTAVAIL => {
                "no interface in that namespace has the address (`ip address`)"
            }
            nix::Error::EACCES => "ports below 1024 need root",
            nix::Error::EMFILE => {
                "raise the limit of open files (`ulimit -n`), or use more --ports"
            }
            _ => "see ip(7)",
        };
        Error::system(format!("cannot bind UDP {address}"), e, remedy)
    })
}

/// As large as asked for with CAP_NET_ADMIN, else as large as net.core.rmem_max allows.
fn receive_buffer(socket: BorrowedFd<'_>, bytes: usize) -> Result<()> {
    setsockopt(&socket, sockopt::RcvBufForce, &bytes)
        .or_else(|_| setsockopt(&socket, sockopt::RcvBuf, &bytes))
        .map_err(|e| {
            Error::system(
                format!("cannot set a receive buffer of {bytes} bytes"),
                e,
                "use a smaller --buffer",
            )
        })
}

fn set_int(socket: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> nix::Result<()> {
    // SAFETY: the option takes an int, whose address and size are passed.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(&value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    nix::errno::Errno::result(result).map(drop)
}

/// Datagrams the kernel dropped at this socket because its buffer was full (or memory short).
pub fn dropped(socket: BorrowedFd<'_>) -> u64 {
    let mut fields = [0u32; MEMINFO_FIELDS];
    let mut len = size_of_val(&fields) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes into `fields` and updates `len`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            fields.as_mut_ptr().cast(),
            &mut len,
        )
    };
    if result == 0 {
        u64::from(fields[MEMINFO_DROPS])
    } else {
        0
    }
}

/// Take the ICMP errors off a socket's error queue; returns how many there were.
pub fn drain_errors(socket: BorrowedFd<'_>) -> u64 {
    let mut scrap = [0u8; 64];
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let mut count = 0;
    while recv(socket.as_raw_fd(), &mut scrap, flags).is_ok() {
        count += 1;
    }
    count
}

/// Let this process open `sockets` more files than the usual few, as far as its hard limit goes.
pub fn allow_files(sockets: usize) {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return;
    };
    let wanted = (sockets as u64 + 256).min(hard);
    if wanted > soft {
        // Refused, it shows where it matters: at the socket that cannot be opened.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, wanted, hard);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn an_overflow_is_counted_as_dropped() {
        let options = SinkOptions {
            address: Some(Ipv4Addr::LOCALHOST.into()),
            buffer: 4096,
            stamps: false,
        };
        let sink = UdpSocket::from(open_sink(options, 0).unwrap());
        let source = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..200 {
            source
                .send_to(&[0; 64], sink.local_addr().unwrap())
                .unwrap();
        }
        let mut read = 0;
        sink.set_nonblocking(true).unwrap();
        while sink.recv(&mut [0; 64]).is_ok() {
            read += 1;
        }
        assert_eq!(dropped(sink.as_fd()), 200 - read);
        assert!(read < 200);
    }

    #[test]
    fn a_port_in_use_says_so() {
        let options = SinkOptions {
            address: Some(Ipv4Addr::LOCALHOST.into()),
            buffer: 4096,
            stamps: false,
        };
        let held = UdpSocket::bind("127.0.0.1:0").unwrap();
        let error = open_sink(options, held.local_addr().unwrap().port())
            .unwrap_err()
            .to_string();
        assert!(error.contains("another port"), "{error}");
    }
}
