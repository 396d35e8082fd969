//! Reports that are repeated until they are heard: frames may be lost.

use crate::key::Side;

/// The first repeat comes after this; a round trip takes a tenth of it.
const FIRST_NS: u64 = 20_000_000;
/// Each repeat comes after twice the time of the one before, until this.
const LONGEST_NS: u64 = 500_000_000;

/// What is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// The round that is under way on a side.
    Seen(Side),
    /// The state is in.
    Imported,
    /// The hold has ended.
    Released,
    /// Something is wrong: the controller is asked to call it off.
    Plea,
}

#[derive(Clone, Copy, Debug)]
struct Repeat {
    topic: Topic,
    times: u32,
    next_ns: u64,
}

/// What is repeated now.
#[derive(Clone, Debug, Default)]
pub struct Repeats(Vec<Repeat>);

impl Repeats {
    /// Begin with a topic, or begin it anew.
    pub fn begin(&mut self, topic: Topic, now: u64) {
        self.end(topic);
        self.0.push(Repeat {
            topic,
            times: 0,
            next_ns: now + FIRST_NS,
        });
    }

    /// It has been heard.
    pub fn end(&mut self, topic: Topic) {
        self.0.retain(|repeat| repeat.topic != topic);
    }

    /// Nothing is repeated any more.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// When the next repeat is due.
    pub fn next_due(&self) -> Option<u64> {
        self.0.iter().map(|repeat| repeat.next_ns).min()
    }

    /// The topics that are due, and how often they have been said.
    pub fn take_due(&mut self, now: u64) -> Vec<(Topic, u32)> {
        let mut due = Vec::new();
        for repeat in self.0.iter_mut().filter(|repeat| repeat.next_ns <= now) {
            repeat.times += 1;
            let wait = FIRST_NS << repeat.times.min(16);
            repeat.next_ns = now + wait.min(LONGEST_NS);
            due.push((repeat.topic, repeat.times));
        }
        due
    }
}
