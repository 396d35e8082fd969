//! Frames on a link: their codec, and the limits that a stranger is held to.
//!
//! A frame is the length of the rest (u32), its kind (u8) and its body. A link begins with
//! four: the dialer's `Hello`, the other's `Welcome` (or `Refuse`), and `Ready` from the one and then
//! from the other. Neither believes in the link before, so a connection that a stopped process finds
//! in its queue when it wakes up does not count as a member that came and went.

use std::net::SocketAddr;

use super::NodeId;
use crate::codec::{Malformed, Reader, put_bytes};

/// "FESM", and the version of everything below.
const MAGIC: u32 = 0x4645_534d;
const VERSION: u8 = 1;
/// Most bytes of a frame from an established member.
pub const FRAME_MAX: usize = 4 << 20;
/// Most bytes of a frame from anybody else.
pub const GREETING_MAX: usize = 64 << 10;
/// Most addresses that a greeting passes on.
pub const PEERS_MAX: usize = 1024;
/// Bytes before the body.
pub const HEAD: usize = 5;

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// The cluster.
    pub cluster: String,
    /// The member.
    pub node: NodeId,
    /// Where it can be dialled; an unspecified host stands for the one the connection comes from.
    pub listen: SocketAddr,
    /// Where its other members can be dialled.
    pub peers: Vec<SocketAddr>,
}

/// Why a peer is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Refusal {
    /// Its name belongs to another living node.
    NameTaken = 1,
    /// It dialled itself.
    Yourself = 2,
    /// It belongs to another cluster.
    Cluster = 3,
    /// Its certificate does not stand for its name.
    Certificate = 4,
}

/// Whom a member relays to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach<'a> {
    /// All that are linked to it, but the one that this is for.
    pub members: Vec<NodeId>,
    /// Whether those that are not among them any more have left, and not failed.
    pub left: bool,
    /// How they were lost.
    pub how: &'a str,
}

/// A frame, its bytes borrowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// The dialer introduces itself.
    Hello(Greeting),
    /// The other does, too.
    Welcome(Greeting),
    /// Understood: from here on the link is up.
    Ready,
    /// There will be no link.
    Refuse(Refusal, &'a str),
    /// Alive.
    Heartbeat,
    /// Show that you are alive.
    Ping,
    /// Alive, and I got your `Ping`: unlike a heartbeat, this was not sent by one who died since.
    Pong,
    /// A message of the engine.
    Message(&'a [u8]),
    /// Nothing more from me on this link; there is another one.
    Retire,
    /// Goodbye.
    Bye,
    /// I relay to these members, and to no other any more.
    Reach(Reach<'a>),
    /// A message of yours for these members, which you relay to.
    Relay(Vec<NodeId>, &'a [u8]),
    /// A message that this member has given me for you.
    Relayed(NodeId, &'a [u8]),
}

impl Frame<'_> {
    /// Appends the frame.
    pub fn emit(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; HEAD]);
        let kind = match self {
            Self::Hello(greeting) => {
                greeting.emit(out);
                1
            }
            Self::Welcome(greeting) => {
                greeting.emit(out);
                2
            }
            Self::Ready => 3,
            Self::Refuse(refusal, text) => {
                out.push(*refusal as u8);
                put_bytes(out, text.as_bytes());
                4
            }
            Self::Heartbeat => 5,
            Self::Ping => 6,
            Self::Message(bytes) => {
                out.extend_from_slice(bytes);
                7
            }
            Self::Retire => 8,
            Self::Bye => 9,
            Self::Pong => 10,
            Self::Reach(reach) => {
                put_members(out, &reach.members);
                out.push(u8::from(reach.left));
                put_bytes(out, reach.how.as_bytes());
                11
            }
            Self::Relay(to, bytes) => {
                put_members(out, to);
                out.extend_from_slice(bytes);
                12
            }
            Self::Relayed(from, bytes) => {
                from.emit(out);
                out.extend_from_slice(bytes);
                13
            }
        };
        let length = u32::try_from(out.len() - start - 4).expect("frames are bounded");
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
        out[start + 4] = kind;
    }

    /// The head of a message frame with `length` bytes of body.
    pub fn message_head(length: usize) -> [u8; HEAD] {
        let mut head = [0, 0, 0, 0, 7];
        let length = u32::try_from(length + 1).expect("frames are bounded");
        head[..4].copy_from_slice(&length.to_be_bytes());
        head
    }
}

impl<'a> Frame<'a> {
    /// The first frame in `bytes` and its length; none if it is not all there yet.
    ///
    /// # Errors
    /// [`Malformed`] if it is no frame or has more than `most` bytes.
    pub fn parse(bytes: &'a [u8], most: usize) -> Result<Option<(Self, usize)>, Malformed> {
        let Some(head) = bytes.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*head) as usize;
        let fault = |why| Malformed {
            what: "a frame's length",
            offset: 0,
            why,
        };
        if length == 0 {
            return Err(fault("it is 0"));
        }
        if length > most {
            return Err(fault("it is beyond the limit"));
        }
        let Some(rest) = bytes.get(4..4 + length) else {
            return Ok(None);
        };
        let (kind, body) = rest.split_first().expect("length is not 0");
        let mut reader = Reader::new(body);
        let frame = match kind {
            1 => Self::Hello(Greeting::parse(&mut reader)?),
            2 => Self::Welcome(Greeting::parse(&mut reader)?),
            3 => Self::Ready,
            4 => {
                let refusal = match reader.u8("a refusal")? {
                    1 => Refusal::NameTaken,
                    2 => Refusal::Yourself,
                    3 => Refusal::Cluster,
                    4 => Refusal::Certificate,
                    _ => return Err(reader.fault(0, "a refusal", "there is no such reason")),
                };
                Self::Refuse(refusal, reader.str("a refusal's text")?)
            }
            5 => Self::Heartbeat,
            6 => Self::Ping,
            7 => return Ok(Some((Self::Message(body), 4 + length))),
            8 => Self::Retire,
            9 => Self::Bye,
            10 => Self::Pong,
            11 => Self::Reach(Reach {
                members: members(&mut reader)?,
                left: reader.u8("whether it left")? != 0,
                how: reader.str("how it was lost")?,
            }),
            12 => Self::Relay(members(&mut reader)?, message(&mut reader)?),
            13 => Self::Relayed(member(&mut reader)?, message(&mut reader)?),
            _ => return Err(reader.fault(0, "a frame's kind", "there is no such kind")),
        };
        reader.end()?;
        Ok(Some((frame, 4 + length)))
    }
}

impl Greeting {
    fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&MAGIC.to_be_bytes());
        out.push(VERSION);
        put_bytes(out, self.cluster.as_bytes());
        put_bytes(out, self.node.name.as_bytes());
        out.extend_from_slice(&self.node.incarnation.to_be_bytes());
        put_bytes(out, self.listen.to_string().as_bytes());
        let peers = &self.peers[..self.peers.len().min(PEERS_MAX)];
        out.extend_from_slice(&(peers.len() as u16).to_be_bytes());
        for peer in peers {
            put_bytes(out, peer.to_string().as_bytes());
        }
    }

    fn parse(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        if reader.u32("a greeting's mark")? != MAGIC {
            return Err(reader.fault(0, "a greeting's mark", "this is not E-State"));
        }
        if reader.u8("a greeting's version")? != VERSION {
            return Err(reader.fault(4, "a greeting's version", "only version 1 is known"));
        }
        let cluster = name(reader, "a cluster's name")?.to_owned();
        let node = member(reader)?;
        let listen = address(reader)?;
        let count = reader.u16("the number of peers")? as usize;
        if count > PEERS_MAX {
            return Err(reader.fault(
                reader.offset() - 2,
                "the number of peers",
                "it is too large",
            ));
        }
        let peers = (0..count)
            .map(|_| address(reader))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            cluster,
            node,
            listen,
            peers,
        })
    }
}

fn name<'a>(reader: &mut Reader<'a>, what: &'static str) -> Result<&'a str, Malformed> {
    let start = reader.offset();
    let text = reader.str(what)?;
    match text.len() {
        1..=255 => Ok(text),
        _ => Err(reader.fault(start, what, "its length is not 1 to 255")),
    }
}

fn member(reader: &mut Reader<'_>) -> Result<NodeId, Malformed> {
    Ok(NodeId {
        name: name(reader, "a node's name")?.into(),
        incarnation: reader.u64("an incarnation")?,
    })
}

fn put_members(out: &mut Vec<u8>, members: &[NodeId]) {
    let count = u16::try_from(members.len()).expect("at most 65,535 members");
    out.extend_from_slice(&count.to_be_bytes());
    members.iter().for_each(|member| member.emit(out));
}

fn members(reader: &mut Reader<'_>) -> Result<Vec<NodeId>, Malformed> {
    let count = reader.u16("a number of members")?;
    (0..count).map(|_| member(reader)).collect()
}

fn message<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    reader.take("a message", reader.left())
}

fn address(reader: &mut Reader<'_>) -> Result<SocketAddr, Malformed> {
    let start = reader.offset();
    let text = reader.str("an address")?;
    text.parse()
        .map_err(|_| reader.fault(start, "an address", "it is not one"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greeting() -> Greeting {
        Greeting {
            cluster: "ids".into(),
            node: NodeId {
                name: "nf1".into(),
                incarnation: 7,
            },
            listen: "10.0.0.1:7000".parse().unwrap(),
            peers: vec!["[::1]:9".parse().unwrap()],
        }
    }

    fn reach() -> Reach<'static> {
        Reach {
            members: vec![greeting().node],
            left: true,
            how: "it left",
        }
    }

    fn all() -> Vec<Frame<'static>> {
        vec![
            Frame::Hello(greeting()),
            Frame::Welcome(greeting()),
            Frame::Ready,
            Frame::Refuse(Refusal::NameTaken, "taken"),
            Frame::Heartbeat,
            Frame::Ping,
            Frame::Pong,
            Frame::Message(b"xyz"),
            Frame::Retire,
            Frame::Bye,
            Frame::Reach(reach()),
            Frame::Relay(vec![greeting().node; 2], b"xyz"),
            Frame::Relayed(greeting().node, b"xyz"),
        ]
    }

    #[test]
    fn a_hello_has_these_bytes() {
        let mut bytes = Vec::new();
        Frame::Hello(greeting()).emit(&mut bytes);
        let golden = b"\0\0\0\x3f\x01FESM\x01\0\0\0\x03ids\0\0\0\x03nf1\0\0\0\0\0\0\0\x07\
            \0\0\0\x0d10.0.0.1:7000\0\x01\0\0\0\x07[::1]:9";
        assert_eq!(bytes[4..], golden[4..]);
        assert_eq!(bytes.len() - 4, bytes[3] as usize);
    }

    #[test]
    fn every_frame_comes_back_and_waits_for_its_last_byte() {
        for frame in all() {
            let mut bytes = Vec::new();
            frame.emit(&mut bytes);
            for cut in 0..bytes.len() {
                assert_eq!(
                    Frame::parse(&bytes[..cut], FRAME_MAX),
                    Ok(None),
                    "{frame:?}"
                );
            }
            let length = bytes.len();
            bytes.push(0xff);
            assert_eq!(Frame::parse(&bytes, FRAME_MAX), Ok(Some((frame, length))));
        }
    }

    #[test]
    fn a_body_cut_short_is_refused() {
        for frame in [
            Frame::Hello(greeting()),
            Frame::Refuse(Refusal::Cluster, "no"),
            Frame::Reach(reach()),
            Frame::Relay(vec![greeting().node; 2], b""),
            Frame::Relayed(greeting().node, b""),
        ] {
            let mut bytes = Vec::new();
            frame.emit(&mut bytes);
            for length in HEAD..bytes.len() {
                let mut cut = bytes[..length].to_vec();
                cut[..4].copy_from_slice(&(length as u32 - 4).to_be_bytes());
                assert!(Frame::parse(&cut, FRAME_MAX).is_err(), "{length} bytes");
            }
        }
    }

    #[test]
    fn a_frame_beyond_the_limit_is_refused_before_it_is_there() {
        let head = (GREETING_MAX as u32 + 1).to_be_bytes();
        assert!(Frame::parse(&head, GREETING_MAX).is_err());
        assert_eq!(Frame::parse(&head, FRAME_MAX), Ok(None));
    }

    #[test]
    fn the_head_of_a_message_is_the_same_either_way() {
        let mut bytes = Vec::new();
        Frame::Message(b"xyz").emit(&mut bytes);
        assert_eq!(bytes[..HEAD], Frame::message_head(3));
    }
}
