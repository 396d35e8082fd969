//! Frames as a packet socket gives them: the VLAN tag the kernel took off, and probe packets inside.
//! Pure.

use flowferry_probe::packet::Header;

/// Length of the virtio header in front of every frame on the socket (linux/virtio_net.h).
pub const VNET_LEN: usize = 10;
/// Length of a VLAN tag.
pub const TAG_LEN: usize = 4;

const TAG_AT: usize = 12;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const TAGS: [u16; 2] = [0x8100, 0x88a8];
const UDP: u8 = 17;

const NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
/// VIRTIO_NET_HDR_GSO_UDP_L4.
const GSO_UDP_L4: u8 = 5;

/// The header that carries segmentation and checksum work across the socket: `flags u8, gso_type
/// u8, hdr_len u16, gso_size u16, csum_start u16, csum_offset u16`, in the machine's byte order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Vnet(pub [u8; VNET_LEN]);

impl Vnet {
    fn u16(&self, at: usize) -> u16 {
        u16::from_ne_bytes([self.0[at], self.0[at + 1]])
    }

    fn add(&mut self, at: usize, value: u16) {
        let sum = self.u16(at).wrapping_add(value);
        self.0[at..at + 2].copy_from_slice(&sum.to_ne_bytes());
    }

    /// A frame that stands for several: the kernel cuts it later.
    pub fn is_super(&self) -> bool {
        self.0[1] != GSO_NONE
    }

    /// Payload of each UDP datagram in a super-frame of them.
    pub fn udp_segment(&self) -> Option<usize> {
        (self.0[1] == GSO_UDP_L4 && self.u16(4) > 0).then(|| usize::from(self.u16(4)))
    }

    /// Offsets count from the front of the frame: move them behind a tag put in.
    pub fn shift_by_tag(&mut self) {
        if self.0[0] & NEEDS_CSUM != 0 {
            self.add(6, TAG_LEN as u16);
        }
        if self.is_super() {
            self.add(2, TAG_LEN as u16);
        }
    }
}

/// Put a tag back. `room` is [`TAG_LEN`] free bytes followed by the frame; it is all frame afterwards.
pub fn restore_tag(room: &mut [u8], protocol: u16, control: u16) {
    room.copy_within(TAG_LEN..TAG_LEN + TAG_AT, 0);
    room[TAG_AT..TAG_AT + 2].copy_from_slice(&protocol.to_be_bytes());
    room[TAG_AT + 2..TAG_AT + 4].copy_from_slice(&control.to_be_bytes());
}

/// The UDP payload of a frame, under any number of VLAN tags, over IPv4 or IPv6 without extension
/// headers; `None` for anything else and for fragments.
fn udp_payload(frame: &[u8]) -> Option<&[u8]> {
    let be16 = |at: usize| Some(u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?));
    let mut at = TAG_AT;
    while TAGS.contains(&be16(at)?) {
        at += TAG_LEN;
    }
    let ip = at + 2;
    let udp = match be16(at)? {
        IPV4 => {
            let first_and_whole = be16(ip + 6)? & 0x3fff == 0;
            let udp = *frame.get(ip + 9)? == UDP && first_and_whole;
            udp.then_some(ip + usize::from(frame[ip] & 0xf) * 4)?
        }
        IPV6 => (*frame.get(ip + 6)? == UDP).then_some(ip + 40)?,
        _ => return None,
    };
    frame.get(udp + 8..)
}

/// The probe packets in a frame: none, one, or those of a super-frame.
pub fn probe_headers<'a>(frame: &'a [u8], vnet: &Vnet) -> impl Iterator<Item = Header> + use<'a> {
    let payload = udp_payload(frame).unwrap_or(&[]);
    let segment = vnet.udp_segment().unwrap_or(payload.len()).max(1);
    payload.chunks(segment).map_while(Header::parse)
}

/// FNV-1a over the first 256 bytes: tells frames apart in a record, no more.
pub fn digest(frame: &[u8]) -> u64 {
    frame
        .iter()
        .take(256)
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowferry_probe::packet::{Encoding, FULL_LEN, Kind};
    use proptest::prelude::*;

    fn probe(flow: u32, seq: u64) -> (Header, Vec<u8>) {
        let header = Header {
            kind: Kind::Data,
            encoding: Encoding::Full,
            run: 1,
            flow,
            seq,
            time: 2,
        };
        let mut bytes = vec![0; FULL_LEN];
        header.emit(&mut bytes);
        (header, bytes)
    }

    fn frame(tags: &[u16], v6: bool, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![2; 12];
        for tag in tags {
            frame.extend(tag.to_be_bytes());
            frame.extend([0, 7]);
        }
        if v6 {
            frame.extend(IPV6.to_be_bytes());
            frame.extend([0x60, 0, 0, 0, 0, 0, UDP, 64]);
            frame.extend([0; 32]);
        } else {
            frame.extend(IPV4.to_be_bytes());
            frame.extend([0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, UDP]);
            frame.extend([0; 10]);
        }
        frame.extend([0; 8]);
        frame.extend(payload);
        frame
    }

    #[test]
    fn probe_packets_are_found_under_tags_and_in_super_frames() {
        let (header, bytes) = probe(3, 4);
        for tags in [&[][..], &[0x8100], &[0x88a8, 0x8100]] {
            for v6 in [false, true] {
                let found: Vec<Header> =
                    probe_headers(&frame(tags, v6, &bytes), &Vnet::default()).collect();
                assert_eq!(found, [header]);
            }
        }
        let (second, more) = probe(3, 5);
        let mut vnet = Vnet::default();
        vnet.0[1] = GSO_UDP_L4;
        vnet.add(4, FULL_LEN as u16);
        let super_frame = frame(&[], false, &[bytes, more].concat());
        assert_eq!(
            probe_headers(&super_frame, &vnet).collect::<Vec<_>>(),
            [header, second]
        );
    }

    #[test]
    fn a_fragment_is_not_read() {
        let (_, bytes) = probe(3, 4);
        let mut fragment = frame(&[], false, &bytes);
        fragment[14 + 6] = 0x20;
        assert_eq!(probe_headers(&fragment, &Vnet::default()).count(), 0);
    }

    #[test]
    fn a_restored_tag_stands_behind_the_addresses() {
        let bare = frame(&[0x8100], false, b"x");
        let mut room = vec![0; TAG_LEN];
        room.extend(&bare);
        restore_tag(&mut room, 0x88a8, 0x2064);
        assert_eq!(room[..12], bare[..12]);
        assert_eq!(room[12..16], [0x88, 0xa8, 0x20, 0x64]);
        assert_eq!(room[16..], bare[12..]);
    }

    #[test]
    fn offsets_follow_the_tag() {
        let mut vnet = Vnet::default();
        vnet.shift_by_tag();
        assert_eq!(vnet, Vnet::default(), "nothing to do, nothing moved");
        (vnet.0[0], vnet.0[1]) = (NEEDS_CSUM, 1);
        vnet.add(2, 54);
        vnet.add(6, 34);
        vnet.shift_by_tag();
        assert_eq!((vnet.u16(2), vnet.u16(6), vnet.u16(8)), (58, 38, 0));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120), kind: u8, size: u16) {
            let mut vnet = Vnet::default();
            vnet.0[1] = kind;
            vnet.add(4, size);
            let _ = probe_headers(&bytes, &vnet).count();
            let mut tagged = frame(&[0x8100], bytes.len() % 2 == 0, &bytes);
            tagged.truncate(bytes.len());
            let _ = probe_headers(&tagged, &vnet).count();
        }
    }
}
