//! Where every packet is, and in which order they went. Most violations show up here.

use std::collections::HashMap;

use flowferry_hsl::endpoint::Part;
use flowferry_hsl::key::Key;

/// Where a packet is. It gets to each of the last three at most once, and to one of them in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Captured, or come from another instance, and not yet handed to the endpoint.
    Arriving,
    /// Kept by the endpoint, to be written or to be sent on.
    Endpoint,
    /// Taken from the endpoint; the kernel had no room for it yet.
    Retry,
    /// Written, not through.
    Backlog,
    /// Dropped by the kernel, which nobody has noticed yet.
    Vanished,
    /// The function has it.
    Delivered,
    /// It has gone to another instance.
    SentOn,
    /// Counted as lost.
    Lost,
}

impl Place {
    pub fn is_final(self) -> bool {
        matches!(self, Place::Delivered | Place::SentOn | Place::Lost)
    }
}

#[derive(Debug)]
pub struct Packet {
    pub key: Key,
    /// `Captured`: arrived here. `Stray`: followed from another instance.
    pub part: Part,
    pub place: Place,
    pub length: usize,
    /// A hold has counted it.
    pub attributed: bool,
    /// Strays that were kept: the arrivals that had been written by then, and so may go first.
    ahead: Option<Vec<usize>>,
}

#[derive(Debug, Default)]
pub struct Ledger {
    packets: Vec<Packet>,
    /// The last serial that went to each destination, by flow and part.
    last: HashMap<(Place, Key, bool), usize>,
}

impl Ledger {
    /// A new packet; its serial.
    pub fn born(&mut self, key: Key, part: Part, length: usize) -> usize {
        self.packets.push(Packet {
            key,
            part,
            place: Place::Arriving,
            length,
            attributed: false,
            ahead: None,
        });
        self.packets.len() - 1
    }

    pub fn next_serial(&self) -> usize {
        self.packets.len()
    }

    pub fn packets(&self) -> &[Packet] {
        &self.packets
    }

    pub fn attribute(&mut self, serial: usize) {
        self.packets[serial].attributed = true;
    }

    pub fn is_in(&self, serial: usize, place: Place) -> bool {
        self.packets[serial].place == place
    }

    pub fn undecided(&self) -> Vec<usize> {
        let packets = self.packets.iter().enumerate();
        packets
            .filter(|(_, packet)| !packet.place.is_final())
            .map(|(serial, _)| serial)
            .collect()
    }

    /// A packet gets from one of `from` to `to`.
    pub fn moves(&mut self, serial: usize, from: &[Place], to: Place) -> Result<(), String> {
        let packet = &mut self.packets[serial];
        if !from.contains(&packet.place) {
            return Err(format!(
                "packet {serial} of {:?} became {to:?}, but it was {:?}",
                packet.key, packet.place
            ));
        }
        packet.place = to;
        if to == Place::Endpoint && packet.part == Part::Stray {
            self.note_ahead(serial);
        }
        if matches!(to, Place::Delivered | Place::SentOn) {
            self.check_order(serial, to)?;
        }
        Ok(())
    }

    /// Packets of a flow side go in the order in which they came; strays among themselves.
    fn check_order(&mut self, serial: usize, to: Place) -> Result<(), String> {
        let packet = &self.packets[serial];
        let way = (to, packet.key, packet.part == Part::Stray);
        match self.last.insert(way, serial) {
            Some(earlier) if earlier > serial => Err(format!(
                "packet {serial} of {:?} was {to:?} after packet {earlier}",
                packet.key
            )),
            _ => Ok(()),
        }
    }

    fn note_ahead(&mut self, stray: usize) {
        let key = self.packets[stray].key;
        let written = [Place::Retry, Place::Backlog];
        let ahead = self.packets.iter().enumerate().filter(|(_, packet)| {
            packet.key == key && packet.part == Part::Captured && written.contains(&packet.place)
        });
        self.packets[stray].ahead = Some(ahead.map(|(serial, _)| serial).collect());
    }

    /// The strays of this flow side will not be delivered here.
    pub fn take_out_of_order(&mut self, key: &Key) {
        let of_key = self.packets.iter_mut().filter(|packet| packet.key == *key);
        of_key.for_each(|packet| packet.ahead = None);
    }

    /// A stray left the old instance before anything arrived here by the new path, so no arrival
    /// overtakes a stray that is kept, but for those that were on their way already.
    pub fn check_strays_first(&self, serial: usize) -> Result<(), String> {
        let arrival = &self.packets[serial];
        if arrival.part == Part::Stray {
            return Ok(());
        }
        let waiting = [Place::Endpoint, Place::Retry, Place::Backlog];
        let overtaken = self.packets.iter().enumerate().find(|(_, packet)| {
            packet.key == arrival.key
                && packet.part == Part::Stray
                && waiting.contains(&packet.place)
                && packet
                    .ahead
                    .as_ref()
                    .is_some_and(|ahead| !ahead.contains(&serial))
        });
        overtaken.map_or(Ok(()), |(stray, _)| {
            Err(format!(
                "packet {serial} of {:?} overtook the stray {stray}",
                arrival.key
            ))
        })
    }
}
