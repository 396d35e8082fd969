//! Flows with numbered packets, and where each of them was let on.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use flowferry_hsl::key::Side;

/// Flows that play.
pub const FLOWS: u16 = 4;

/// A packet of a flow as it arrives on `side`, with its number there.
pub fn frame(flow: u16, side: Side, number: u64) -> Vec<u8> {
    let client = (Ipv4Addr::new(10, 0, 0, 1), 1_000 + flow);
    let server = (Ipv4Addr::new(10, 0, 0, 2), 53);
    let (from, to) = match side {
        Side::Upstream => (client, server),
        Side::Downstream => (server, client),
    };
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
    frame.extend([0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0]);
    frame.extend(from.0.octets());
    frame.extend(to.0.octets());
    frame.extend(from.1.to_be_bytes());
    frame.extend(to.1.to_be_bytes());
    frame.extend([0; 4]);
    frame.extend(number.to_be_bytes());
    frame.extend(flow.to_be_bytes());
    frame.resize(60, 0);
    frame
}

/// Flow and number of a packet.
pub fn read(frame: &[u8]) -> (u16, u64) {
    let number = frame[42..50].try_into().expect("eight bytes");
    let flow = frame[50..52].try_into().expect("two bytes");
    (u16::from_be_bytes(flow), u64::from_be_bytes(number))
}

/// What was sent, and what reached a function.
#[derive(Default)]
pub struct Ledger {
    sent: BTreeMap<(u16, Side), u64>,
    reached: BTreeMap<(u16, Side), u64>,
    /// Which instance a flow's last packet reached, by side.
    pub at: BTreeMap<(u16, Side), usize>,
}

impl Ledger {
    /// The next packet of a flow on a side.
    pub fn send(&mut self, flow: u16, side: Side) -> Vec<u8> {
        let number = self.sent.entry((flow, side)).or_default();
        *number += 1;
        frame(flow, side, *number)
    }

    /// A packet reaches the function of an instance: it must be the flow's next one.
    pub fn reach(&mut self, instance: usize, side: Side, frame: &[u8]) -> Result<(), String> {
        let (flow, number) = read(frame);
        let last = self.reached.entry((flow, side)).or_default();
        if number != *last + 1 {
            return Err(format!(
                "flow {flow} {side}: packet {number} reached instance {instance} after {last}"
            ));
        }
        *last = number;
        self.at.insert((flow, side), instance);
        Ok(())
    }

    /// Everything that was sent has reached a function.
    pub fn check_complete(&self) -> Result<(), String> {
        match self.sent == self.reached {
            true => Ok(()),
            false => Err(format!("sent {:?}, reached {:?}", self.sent, self.reached)),
        }
    }
}
