//! Faults made on purpose, at places told in advance: pure, no clock, no I/O.
//!
//! A plan names the packets by number, so a test knows exactly what a counting sink must find:
//!
//! ```text
//! drop=every:100                 each 100th packet, from number 100 on
//! drop=3,17,20-25 dup=40         packets by number, the first is 1
//! swap=every:50                  each 50th packet leaves behind the packet after it
//! on=a                           only packets that come in at side a (or b; default: both, counted apart)
//! match=all                      count every frame; default: probe data and replies only
//! ```
//! Parts are separated by blanks or `;`. A packet named twice is dropped rather than doubled, and
//! doubled rather than swapped. A packet to swap while another one is held passes unswapped. One
//! held without a successor is let go after [`HOLD`].

use serde::Serialize;
use std::str::FromStr;

/// How long a packet waits for the one to swap with, ns.
pub const HOLD: u64 = 200_000_000;

/// Some packets, by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Selection {
    every: Vec<u64>,
    /// Inclusive, ascending.
    ranges: Vec<(u64, u64)>,
}

impl Selection {
    fn has(&self, number: u64) -> bool {
        self.every.iter().any(|n| number.is_multiple_of(*n))
            || self
                .ranges
                .iter()
                .any(|(from, to)| (*from..=*to).contains(&number))
    }
}

impl FromStr for Selection {
    type Err = String;

    fn from_str(text: &str) -> Result<Selection, String> {
        let number = |text: &str| match text.parse::<u64>() {
            Ok(number) if number > 0 => Ok(number),
            _ => Err(format!("{text:?} is no packet number (they begin at 1)")),
        };
        let mut selection = Selection::default();
        for part in text.split(',') {
            if let Some(every) = part.strip_prefix("every:") {
                selection.every.push(number(every)?);
            } else if let Some((from, to)) = part.split_once('-') {
                selection.ranges.push((number(from)?, number(to)?));
            } else {
                selection.ranges.push((number(part)?, number(part)?));
            }
        }
        Ok(selection)
    }
}

/// The side a frame comes in at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The first interface.
    A,
    /// The second.
    B,
}

/// Which faults to make; see the module's head for its text form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultPlan {
    drop: Selection,
    duplicate: Selection,
    swap: Selection,
    on: Option<Side>,
    all: bool,
}

impl FaultPlan {
    /// Whether the plan speaks of frames coming in at `side`.
    pub fn concerns(&self, side: Side) -> bool {
        self.on.is_none_or(|on| on == side)
    }

    /// Whether every frame counts, not only probe packets.
    pub fn counts_all(&self) -> bool {
        self.all
    }
}

impl FromStr for FaultPlan {
    type Err = String;

    fn from_str(text: &str) -> Result<FaultPlan, String> {
        let mut plan = FaultPlan::default();
        for part in text.split([' ', ';', '\t']).filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            match (name, value) {
                ("drop", _) => plan.drop = value.parse()?,
                ("dup", _) => plan.duplicate = value.parse()?,
                ("swap", _) => plan.swap = value.parse()?,
                ("on", "a") => plan.on = Some(Side::A),
                ("on", "b") => plan.on = Some(Side::B),
                ("on", "both") => plan.on = None,
                ("match", "all") => plan.all = true,
                ("match", "probe") => plan.all = false,
                _ => {
                    return Err(format!(
                        "{part:?} is no part of a fault plan: drop=, dup=, swap= (every:N or numbers), \
                         on=a|b|both, match=probe|all"
                    ));
                }
            }
        }
        Ok(plan)
    }
}

/// Faults made so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FaultCounts {
    /// Packets the plan counted.
    pub counted: u64,
    /// Dropped.
    pub dropped: u64,
    /// Sent twice.
    pub duplicated: u64,
    /// Sent behind their successor.
    pub swapped: u64,
}

/// Carries out a plan on a stream of `T`.
#[derive(Debug)]
pub struct Injector<T> {
    plan: FaultPlan,
    counts: FaultCounts,
    /// A packet to swap, and until when it waits.
    held: Option<(T, u64)>,
}

impl<T: Clone> Injector<T> {
    /// Nothing has come yet.
    pub fn new(plan: FaultPlan) -> Injector<T> {
        Injector {
            plan,
            counts: FaultCounts::default(),
            held: None,
        }
    }

    /// The plan.
    pub fn plan(&self) -> &FaultPlan {
        &self.plan
    }

    /// Take in a packet at time `now`; what leaves now is added to `out`. A packet that does not
    /// count passes untouched.
    pub fn push(&mut self, packet: T, counts: bool, now: u64, out: &mut Vec<T>) {
        if !counts {
            out.push(packet);
            return;
        }
        self.counts.counted += 1;
        let number = self.counts.counted;
        let dropped = self.plan.drop.has(number);
        if dropped {
            self.counts.dropped += 1;
        } else if self.plan.duplicate.has(number) {
            self.counts.duplicated += 1;
            out.extend([packet.clone(), packet]);
        } else if self.plan.swap.has(number) && self.held.is_none() {
            self.held = Some((packet, now + HOLD));
            return;
        } else {
            out.push(packet);
        }
        if let Some((held, _)) = self.held.take() {
            // Behind a dropped successor it has changed places with nobody.
            self.counts.swapped += u64::from(!dropped);
            out.push(held);
        }
    }

    /// Let go what has waited too long for a successor.
    pub fn expire(&mut self, now: u64, out: &mut Vec<T>) {
        if let Some((held, _)) = self.held.take_if(|(_, until)| *until <= now) {
            out.push(held);
        }
    }

    /// When [`Injector::expire`] has something to do.
    pub fn deadline(&self) -> Option<u64> {
        self.held.as_ref().map(|(_, until)| *until)
    }

    /// The packet held back.
    pub fn held_mut(&mut self) -> Option<&mut T> {
        self.held.as_mut().map(|(packet, _)| packet)
    }

    /// Faults made so far.
    pub fn counts(&self) -> FaultCounts {
        self.counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(plan: &str, packets: u64) -> (Vec<u64>, FaultCounts) {
        let mut injector = Injector::new(plan.parse().unwrap());
        let mut out = Vec::new();
        (1..=packets).for_each(|number| injector.push(number, true, 0, &mut out));
        injector.expire(HOLD, &mut out);
        (out, injector.counts())
    }

    #[test]
    fn each_fault_hits_the_packets_named() {
        assert_eq!(run("drop=every:3", 7).0, [1, 2, 4, 5, 7]);
        assert_eq!(run("drop=2,4-5", 6).0, [1, 3, 6]);
        assert_eq!(run("dup=every:4;drop=1", 4).0, [2, 3, 4, 4]);
        assert_eq!(run("swap=2", 4).0, [1, 3, 2, 4]);
    }

    #[test]
    fn the_rules_for_two_faults_at_once() {
        assert_eq!(
            run("swap=1 drop=2", 3).0,
            [1, 3],
            "the successor is dropped"
        );
        assert_eq!(run("swap=1,2", 3).0, [2, 1, 3], "a second swap is void");
        assert_eq!(run("drop=1 dup=1 swap=1", 2).0, [2]);
        assert_eq!(
            run("swap=2", 2),
            (
                vec![1, 2],
                FaultCounts {
                    counted: 2,
                    ..FaultCounts::default()
                }
            )
        );
    }

    #[test]
    fn what_does_not_count_passes() {
        let mut injector = Injector::new("drop=every:1".parse().unwrap());
        let mut out = Vec::new();
        injector.push(1, false, 0, &mut out);
        assert_eq!((out, injector.counts().counted), (vec![1], 0));
    }

    #[test]
    fn sides_and_wrong_words() {
        let plan: FaultPlan = "drop=1 on=b match=all".parse().unwrap();
        assert!(plan.concerns(Side::B) && !plan.concerns(Side::A) && plan.counts_all());
        for wrong in [
            "lose=1",
            "drop=0",
            "drop=",
            "drop=every:x",
            "on=c",
            "drop=5-x",
        ] {
            assert!(wrong.parse::<FaultPlan>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn every_packet_leaves_as_often_as_the_counts_say(
            drop in 1u64..20, dup in 1u64..20, swap in 1u64..20, packets in 0u64..200,
        ) {
            let (mut out, counts) = run(&format!("drop=every:{drop} dup=every:{dup} swap=every:{swap}"), packets);
            prop_assert_eq!(out.len() as u64, packets - counts.dropped + counts.duplicated);
            prop_assert_eq!(counts.dropped, packets / drop);
            out.sort();
            out.dedup();
            prop_assert_eq!(out.len() as u64, packets - counts.dropped);
        }
    }
}
