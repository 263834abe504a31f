//! The tail of the log in memory: the own frames that links have not sent yet, mostly. Behind it they read the disk.
//!
//! Bounds: [`TAIL_BYTES`] of frames, and always the last one; the oldest go first.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;

/// Bytes of frames kept in memory.
const TAIL_BYTES: usize = 16 << 20;

/// The newest own frames.
#[derive(Debug, Default)]
pub(crate) struct Tail(Mutex<Frames>);

#[derive(Debug, Default)]
struct Frames {
    newest: VecDeque<(u64, Bytes, Instant)>,
    bytes: usize,
    /// The last frame that went.
    gone: u64,
}

/// What comes behind a frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// This one.
    Frame(u64, Bytes),
    /// It is on the disk, if anywhere.
    Older,
    /// None yet.
    Nothing,
}

impl Tail {
    pub(crate) fn push(&self, number: u64, frame: Bytes) {
        let mut tail = self.0.lock();
        tail.bytes += frame.len();
        tail.newest.push_back((number, frame, Instant::now()));
        while tail.bytes > TAIL_BYTES
            && tail.newest.len() > 1
            && let Some((number, frame, _)) = tail.newest.pop_front()
        {
            tail.bytes -= frame.len();
            tail.gone = number;
        }
    }

    /// The first frame behind number `previous`.
    pub(crate) fn after(&self, previous: u64) -> Next {
        let tail = self.0.lock();
        if previous < tail.gone {
            return Next::Older;
        }
        let at = tail.newest.partition_point(|frame| frame.0 <= previous);
        match tail.newest.get(at) {
            Some((number, frame, _)) => Next::Frame(*number, frame.clone()),
            None => Next::Nothing,
        }
    }

    /// Age of the first frame behind `previous`; that of the oldest in memory when it is older.
    pub(crate) fn age(&self, previous: u64) -> Option<Duration> {
        let tail = self.0.lock();
        let at = tail.newest.partition_point(|frame| frame.0 <= previous);
        tail.newest.get(at).map(|frame| frame.2.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_frames_go_and_are_told_apart_from_none() {
        let tail = Tail::default();
        assert_eq!(tail.after(0), Next::Nothing);
        let frame = Bytes::from(vec![0; TAIL_BYTES / 4]);
        for number in [3, 5, 6, 9, 10, 12] {
            tail.push(number, frame.clone());
        }
        assert_eq!(tail.after(0), Next::Older);
        assert_eq!(tail.after(4), Next::Older);
        assert_eq!(tail.after(5), Next::Frame(6, frame.clone()));
        assert_eq!(tail.after(10), Next::Frame(12, frame));
        assert_eq!(tail.after(12), Next::Nothing);
    }
}
