//! A device's session on its WebSocket, as a value machine: frames and outcomes in, messages out. It knows no socket,
//! no store and no clock.
//!
//! Invariants: frames are taken in the order of their numbers, which count up by one; the error for a frame comes before
//! any ack that covers it; an ack covers only frames that are kept or were refused.

use std::collections::VecDeque;

use crate::error::Refused;
use crate::limits::{LATE_IN_A_ROW, MAX_FRAME_BYTES, MAX_OUTSTANDING, MAX_SAMPLES};
use crate::wire::message::{FromNode, Hello, Limits};
use crate::wire::read::{FromDevice, Unreadable};

/// What to do with a frame.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Describe the sensor, then say [`Session::greeted`].
    Greet(Box<Hello>),
    /// Take the rows, then say [`Session::taken`] or [`Session::refused`].
    Take {
        /// The frame.
        seq: u64,
        /// Whose the rows are that name no sensor.
        sensor: String,
        /// Of what the rows are that name no attribute.
        attribute: Option<String>,
    },
    /// Tell the device; the rows are not taken, and count as refused with this code.
    Refuse(Refused, FromNode),
    /// Nothing.
    Rest,
}

/// A frame whose fate is not yet told.
#[derive(Debug, Clone, PartialEq)]
struct Outstanding<T> {
    seq: u64,
    /// What to wait for; `None` when the frame was refused.
    ticket: Option<T>,
}

/// One connection's state. `T` is what a taken frame waits for.
#[derive(Debug)]
pub struct Session<T> {
    sensor: Option<String>,
    /// The last number used.
    seq: u64,
    outstanding: VecDeque<Outstanding<T>>,
    late: usize,
}

impl<T> Default for Session<T> {
    fn default() -> Self {
        Self { sensor: None, seq: 0, outstanding: VecDeque::new(), late: 0 }
    }
}

impl<T> Session<T> {
    /// Whose session it is, once greeted.
    pub fn sensor(&self) -> Option<&str> {
        self.sensor.as_deref()
    }

    /// Whether another frame may be read.
    pub fn has_room(&self) -> bool {
        self.outstanding.len() < MAX_OUTSTANDING
    }

    /// What the next ack waits for.
    pub fn waits_for(&self) -> Option<&T> {
        self.outstanding.iter().find_map(|frame| frame.ticket.as_ref())
    }

    /// Judges a frame that was read, or could not be.
    pub fn frame(&mut self, frame: Result<FromDevice, Unreadable>) -> Step {
        match frame {
            Ok(FromDevice::Hello(hello)) => Step::Greet(hello),
            Ok(FromDevice::Reply { .. }) => Step::Rest,
            Ok(FromDevice::Samples { seq, sensor, attribute }) => match self.number(seq) {
                Err(refused) => Self::refuse(Some(seq), refused),
                Ok(()) => match sensor.or_else(|| self.sensor.clone()).filter(|_| self.sensor.is_some()) {
                    Some(sensor) => Step::Take { seq, sensor, attribute },
                    None => {
                        self.outstanding.push_back(Outstanding { seq, ticket: None });
                        let what = "samples came before a good hello, which says whose they are";
                        Self::refuse(Some(seq), Refused::new("hello_expected", what))
                    }
                },
            },
            Err(Unreadable { seq: Some(seq), fault }) => match self.number(seq) {
                Err(gap) => Self::refuse(Some(seq), gap),
                Ok(()) => {
                    self.outstanding.push_back(Outstanding { seq, ticket: None });
                    Self::refuse(Some(seq), fault.into())
                }
            },
            Err(Unreadable { seq: None, fault }) => Self::refuse(None, fault.into()),
        }
    }

    /// Uses the number `seq`, if it is the next.
    fn number(&mut self, seq: u64) -> Result<(), Refused> {
        if seq != self.seq + 1 {
            let what = format!("seq {seq} came; expected {}", self.seq + 1);
            return Err(Refused::new("seq_gap", what));
        }
        self.seq = seq;
        Ok(())
    }

    fn refuse(seq: Option<u64>, refused: Refused) -> Step {
        let told = FromNode::Error { seq, code: refused.code.into(), message: refused.message.clone() };
        Step::Refuse(refused, told)
    }

    /// The `hello` of `sensor` was taken.
    pub fn greeted(&mut self, sensor: String, node: &str, nodes: Vec<String>) -> FromNode {
        self.sensor = Some(sensor);
        let limits = Limits { max_frame_bytes: MAX_FRAME_BYTES, max_samples_per_frame: MAX_SAMPLES };
        FromNode::Welcome { node: node.to_owned(), nodes, limits }
    }

    /// The rows of frame `seq` were taken, of which `late` of `samples` were older than their ring.
    pub fn taken(&mut self, seq: u64, ticket: T, late: usize, samples: usize) -> Option<FromNode> {
        self.outstanding.push_back(Outstanding { seq, ticket: Some(ticket) });
        if late < samples {
            self.late = 0;
            return None;
        }
        let before = self.late;
        self.late += late;
        (before < LATE_IN_A_ROW && self.late >= LATE_IN_A_ROW).then(|| FromNode::Notice {
            code: "clock_stepped".into(),
            message: format!(
                "the last {} samples are older than everything that is kept; they are not shown. Is the clock right?",
                self.late
            ),
        })
    }

    /// The rows of frame `seq` were refused.
    pub fn refused(&mut self, seq: u64, refused: &Refused) -> FromNode {
        self.outstanding.push_back(Outstanding { seq, ticket: None });
        FromNode::Error { seq: Some(seq), code: refused.code.into(), message: refused.message.clone() }
    }

    /// Acknowledges what `copies` says is kept, in order: on how many nodes, or `None` while a frame is not.
    pub fn acknowledge(&mut self, mut copies: impl FnMut(&T) -> Option<u8>) -> Option<FromNode> {
        let mut kept: Option<(u64, u8)> = None;
        while let Some(frame) = self.outstanding.front() {
            match &frame.ticket {
                // A refused frame was told; an ack of later ones covers it.
                None => kept = kept.map(|(_, least)| (frame.seq, least)),
                Some(ticket) => match copies(ticket) {
                    Some(copies) => {
                        kept = Some((frame.seq, kept.map_or(copies, |(_, least)| least.min(copies))));
                    }
                    None => break,
                },
            }
            self.outstanding.pop_front();
        }
        kept.map(|(seq, copies)| FromNode::Ack { seq, copies })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::rows::Fault;
    use proptest::prelude::*;

    fn samples(seq: u64) -> FromDevice {
        FromDevice::Samples { seq, sensor: None, attribute: None }
    }

    fn greeted() -> Session<u64> {
        let mut session = Session::default();
        session.greeted("s".into(), "a", Vec::new());
        session
    }

    #[test]
    fn samples_before_hello_are_refused_and_use_their_number() {
        let mut session = Session::<u64>::default();
        assert!(
            matches!(session.frame(Ok(samples(1))), Step::Refuse(refused, _) if refused.code == "hello_expected")
        );
        session.greeted("s".into(), "a", Vec::new());
        assert!(matches!(session.frame(Ok(samples(2))), Step::Take { seq: 2, .. }));
    }

    #[test]
    fn a_gap_uses_no_number_and_what_cannot_be_read_neither() {
        let mut session = greeted();
        assert!(matches!(session.frame(Ok(samples(1))), Step::Take { .. }));
        assert!(
            matches!(session.frame(Ok(samples(3))), Step::Refuse(refused, _) if refused.code == "seq_gap")
        );
        let noise = Err(Unreadable { seq: None, fault: Fault::Unreadable("noise".into()) });
        assert!(matches!(session.frame(noise), Step::Refuse(_, FromNode::Error { seq: None, .. })));
        let wrong = Err(Unreadable { seq: Some(2), fault: Fault::NotAValue("x".into()) });
        assert!(matches!(session.frame(wrong), Step::Refuse(_, FromNode::Error { seq: Some(2), .. })));
        assert!(matches!(session.frame(Ok(samples(3))), Step::Take { seq: 3, .. }));
    }

    #[test]
    fn a_clock_that_stepped_is_told_once() {
        let mut session = greeted();
        let told: Vec<bool> = (1..=4).map(|seq| session.taken(seq, seq, 60, 60).is_some()).collect();
        assert_eq!(told, [false, true, false, false]);
        assert!(session.taken(5, 5, 59, 60).is_none());
        assert!(session.taken(6, 6, 100, 100).is_some(), "anew after a sample in time");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever is refused and in whatever steps the disk comes along: acks rise, cover only what is settled, carry
        /// the lowest copies, and in the end cover every kept frame.
        #[test]
        fn acks_are_cumulative_and_honest(fates in prop::collection::vec(0..4u8, 1..40), steps in prop::collection::vec(0..40u64, 1..20)) {
            let mut session = greeted();
            let mut last_kept = 0;
            for (index, copies) in fates.iter().enumerate() {
                let seq = index as u64 + 1;
                prop_assert_eq!(session.frame(Ok(samples(seq))), Step::Take { seq, sensor: "s".into(), attribute: None });
                if *copies == 0 {
                    session.refused(seq, &Refused::new("bad_time", "x"));
                } else {
                    session.taken(seq, seq, 0, 1);
                    last_kept = seq;
                }
            }
            let mut acked = 0;
            let mut sorted = steps.clone();
            sorted.push(40);
            sorted.sort_unstable();
            for durable in sorted {
                let copies = |ticket: &u64| (*ticket <= durable).then(|| fates[*ticket as usize - 1]);
                if let Some(FromNode::Ack { seq, copies }) = session.acknowledge(copies) {
                    prop_assert!(seq > acked);
                    let covered = &fates[acked as usize..seq as usize];
                    prop_assert_eq!(covered.iter().copied().filter(|copies| *copies > 0).min(), Some(copies));
                    prop_assert!((acked + 1..=seq).all(|seq| seq <= durable || fates[seq as usize - 1] == 0));
                    acked = seq;
                }
            }
            prop_assert!(acked >= last_kept);
            prop_assert!(session.waits_for().is_none());
        }
    }
}
