//! Multicast scouting: each node sends a beacon a second that says where it can be dialled. A beacon
//! is a hint and no more: who is there, the greeting tells, and the certificates prove.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::atomic::Ordering;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::{FabricError, NodeId, Order, Shared};
use crate::codec::{Malformed, Reader, put_bytes};

const MAGIC: u32 = 0x4645_5342; // "FESB"
const VERSION: u8 = 1;
const EVERY: Duration = Duration::from_secs(1);

/// Where beacons are sent and heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scouting {
    /// The multicast group and port.
    pub group: SocketAddrV4,
    /// The interface, by its address; unspecified: the system's choice.
    pub interface: Ipv4Addr,
}

impl Default for Scouting {
    fn default() -> Self {
        Self {
            group: SocketAddrV4::new(Ipv4Addr::new(239, 255, 82, 28), 8228),
            interface: Ipv4Addr::UNSPECIFIED,
        }
    }
}

/// Says where a node of a cluster can be dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beacon {
    /// The cluster.
    pub cluster: String,
    /// The node.
    pub node: NodeId,
    /// Where it listens; an unspecified host stands for the sender's.
    pub listen: SocketAddr,
}

impl Beacon {
    /// Appends the beacon.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&MAGIC.to_be_bytes());
        out.push(VERSION);
        put_bytes(out, self.cluster.as_bytes());
        put_bytes(out, self.node.name.as_bytes());
        out.extend_from_slice(&self.node.incarnation.to_be_bytes());
        put_bytes(out, self.listen.to_string().as_bytes());
    }

    /// Reads one.
    ///
    /// # Errors
    /// [`Malformed`] if it is none.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.u32("a beacon's mark")? != MAGIC || reader.u8("a beacon's version")? != VERSION {
            return Err(reader.fault(0, "a beacon's mark", "this is not a beacon of version 1"));
        }
        let cluster = reader.str("a cluster's name")?.to_owned();
        let name = reader.str("a node's name")?.into();
        let incarnation = reader.u64("an incarnation")?;
        let start = reader.offset();
        let listen = reader.str("an address")?.parse();
        let listen = listen.map_err(|_| reader.fault(start, "an address", "it is not one"))?;
        reader.end()?;
        Ok(Self {
            cluster,
            node: NodeId { name, incarnation },
            listen,
        })
    }
}

impl Scouting {
    pub(super) fn open(&self, shared: &Shared) -> Result<Scout, FabricError> {
        let socket = self.socket().map_err(|why| FabricError::System {
            node: shared.options.node.name.to_string(),
            what: "joining the multicast group of the scouts (set scouting off if there is none)",
            why: why.to_string(),
        })?;
        Ok(Scout {
            socket,
            group: self.group,
        })
    }

    fn socket(&self) -> std::io::Result<UdpSocket> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::V4(self.group).into())?;
        socket.join_multicast_v4(self.group.ip(), &self.interface)?;
        if !self.interface.is_unspecified() {
            socket.set_multicast_if_v4(&self.interface)?;
        }
        socket.set_multicast_ttl_v4(1)?;
        socket.set_multicast_loop_v4(true)?;
        socket.set_read_timeout(Some(EVERY / 4))?;
        Ok(socket.into())
    }
}

/// A socket in the group.
pub(super) struct Scout {
    socket: UdpSocket,
    group: SocketAddrV4,
}

impl Scout {
    pub(super) fn run(&self, shared: &Shared) {
        let mut beacon = Vec::new();
        Beacon {
            cluster: shared.options.cluster.clone(),
            node: shared.options.node.clone(),
            listen: shared.address,
        }
        .emit(&mut beacon);
        let mut buffer = [0; 2048];
        let mut next = std::time::Instant::now();
        while !shared.closed.load(Ordering::Acquire) {
            if std::time::Instant::now() >= next {
                // Without a network there is nobody to find; the next beacon may get through.
                let _ = self.socket.send_to(&beacon, self.group);
                next += EVERY;
            }
            let Ok((length, from)) = self.socket.recv_from(&mut buffer) else {
                continue;
            };
            let Ok(heard) = Beacon::parse(&buffer[..length]) else {
                shared.refused.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            if heard.cluster == shared.options.cluster
                && heard.node != shared.options.node
                && !shared.links.read().contains_key(&heard.node)
            {
                let mut address = heard.listen;
                if address.ip().is_unspecified() {
                    address.set_ip(from.ip());
                }
                shared.order(Order::Learn(address));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beacon_comes_back_whole_and_no_part_of_it_does() {
        let beacon = Beacon {
            cluster: "c".into(),
            node: NodeId {
                name: "n".into(),
                incarnation: 3,
            },
            listen: "0.0.0.0:9".parse().unwrap(),
        };
        let mut bytes = Vec::new();
        beacon.emit(&mut bytes);
        assert_eq!(
            bytes,
            b"FESB\x01\0\0\0\x01c\0\0\0\x01n\0\0\0\0\0\0\0\x03\0\0\0\x090.0.0.0:9"
        );
        assert_eq!(Beacon::parse(&bytes), Ok(beacon));
        for cut in 0..bytes.len() {
            assert!(Beacon::parse(&bytes[..cut]).is_err());
        }
    }
}
