//! Replay protection: a sliding window per sender (RFC 4303 §3.4.3, RFC 6479).
//!
//! As in RFC 6479 the window is a ring of words and only whole words are cleared when it moves; the
//! ring has one word more than the window needs, so that the word the front stands in is never the
//! one the back stands in. Unlike there, a sender may start again from any sequence number under a
//! greater boot id, and everything from an older boot is stale for ever.

/// Sequence numbers below the greatest one seen that are still told apart.
pub const WINDOW: u64 = 1024;

const WORD: u64 = 64;
const WORDS: usize = (WINDOW / WORD) as usize + 1;

/// What a window says of a sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replay {
    /// Not seen before; it is marked as seen now.
    Fresh,
    /// Seen before.
    Replayed,
    /// Too old to tell, or of an older boot.
    Stale,
}

/// What has been seen of one sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayWindow {
    boot: u64,
    // Greatest sequence number seen in this boot.
    top: u64,
    // Bit s % 64 of word (s / 64) % WORDS is set when s was seen; it speaks of s only while
    // top - WINDOW < s <= top.
    seen: [u64; WORDS],
}

impl ReplayWindow {
    /// The window after a sender's first message.
    pub fn new(boot: u64, sequence: u64) -> Self {
        let mut window = Self {
            boot,
            top: sequence,
            seen: [0; WORDS],
        };
        window.mark(sequence);
        window
    }

    /// The window after a restart of the receiver: everything up to `sequence` counts as seen.
    pub fn resume(boot: u64, sequence: u64) -> Self {
        let mut window = Self {
            boot,
            top: sequence,
            seen: [u64::MAX; WORDS],
        };
        // What is above the front has not been seen, also where it shares the front's word.
        window.seen[word(sequence)] = u64::MAX >> (WORD - 1 - sequence % WORD);
        window
    }

    /// Boot id and greatest sequence number seen: what to keep for [`resume`](Self::resume).
    pub fn position(&self) -> (u64, u64) {
        (self.boot, self.top)
    }

    /// Judge a message whose tag has been verified, and remember it if it is fresh.
    pub fn accept(&mut self, boot: u64, sequence: u64) -> Replay {
        if boot < self.boot {
            return Replay::Stale;
        }
        if boot > self.boot {
            *self = Self::new(boot, sequence);
            return Replay::Fresh;
        }
        if sequence > self.top {
            self.advance(sequence);
        } else if self.top - sequence >= WINDOW {
            return Replay::Stale;
        } else if self.seen[word(sequence)] & bit(sequence) != 0 {
            return Replay::Replayed;
        }
        self.mark(sequence);
        Replay::Fresh
    }

    fn mark(&mut self, sequence: u64) {
        self.seen[word(sequence)] |= bit(sequence);
    }

    fn advance(&mut self, sequence: u64) {
        let from = self.top / WORD;
        let steps = (sequence / WORD - from).min(WORDS as u64);
        for step in 1..=steps {
            // `step` is at most WORDS; only `from` can be great, so no overflow is near.
            self.seen[((from + step) % WORDS as u64) as usize] = 0;
        }
        self.top = sequence;
    }
}

fn word(sequence: u64) -> usize {
    ((sequence / WORD) % WORDS as u64) as usize
}

fn bit(sequence: u64) -> u64 {
    1 << (sequence % WORD)
}
