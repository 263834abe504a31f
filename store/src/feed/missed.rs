//! What a follower that fell behind was not sent of a series, as spans of time in which the ring holds nothing that it was
//! sent: reading them makes up for all of it, and doubles nothing.
//!
//! Bound: half as many spans as the ring holds samples, since something that was sent lies between any two.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

use crate::model::time::SampleTime;
use crate::ring::Ring;

/// Samples of one series that were not sent.
#[derive(Debug, Default)]
pub(super) struct Missed {
    count: u64,
    /// First and last time; what the ring no longer holds is forgotten.
    spans: BTreeMap<SampleTime, SampleTime>,
}

impl Missed {
    /// Notes samples that have just come into the ring and are not sent.
    pub(super) fn note(&mut self, ring: &Ring, times: &[SampleTime]) {
        self.count += times.len() as u64;
        let mut times = times.to_vec();
        times.sort_unstable();
        let mut rest = times.as_slice();
        while let Some(first) = rest.first() {
            // As far as they lie side by side in the ring.
            let place = ring.position(*first);
            let beside = |(at, time): &(usize, &SampleTime)| {
                place + at < ring.len() && ring.time(place + at) == **time
            };
            let side_by_side = rest.iter().enumerate().take_while(beside).count().max(1);
            let (run, behind) = rest.split_at(side_by_side);
            if let Some(last) = run.last() {
                self.add(ring, *first, *last);
            }
            rest = behind;
        }
    }

    fn add(&mut self, ring: &Ring, mut from: SampleTime, mut to: SampleTime) {
        let joins = |earlier: SampleTime, later: SampleTime| {
            later <= earlier || ring.position(later) == ring.position(after(earlier))
        };
        if let Some((first, last)) = self.spans.range(..=from).next_back()
            && joins(*last, from)
        {
            (from, to) = (*first, to.max(*last));
        }
        while let Some((first, last)) = self.spans.range((Excluded(from), Unbounded)).next()
            && joins(to, *first)
        {
            let first = *first;
            to = to.max(*last);
            self.spans.remove(&first);
        }
        self.spans.insert(from, to);
        while let Some(oldest) = self.spans.first_entry()
            && ring.first().is_some_and(|first| *oldest.get() < first)
        {
            oldest.remove();
        }
    }

    /// How many samples were not sent.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Where in the ring they are, as far as it still holds them; ascending.
    pub(super) fn places<'a>(&'a self, ring: &'a Ring) -> impl Iterator<Item = std::ops::Range<usize>> + 'a {
        let places = self.spans.iter().map(|(from, to)| ring.position(*from)..ring.position(after(*to)));
        places.filter(|range| !range.is_empty())
    }
}

fn after(time: SampleTime) -> SampleTime {
    SampleTime(time.0.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::Stamp;
    use crate::model::value::{Shape, Values};
    use crate::ring::{Samples, Stamps};

    /// Times of a batch, and whether it is sent.
    fn batches(most: usize) -> impl Strategy<Value = Vec<(Vec<i64>, bool)>> {
        prop::collection::vec((prop::collection::vec(0..400i64, 1..20), any::<bool>()), 1..most)
    }

    fn played(keep: usize, batches: &[(Vec<i64>, bool)]) -> (Ring, Missed, BTreeSet<i64>) {
        let mut ring = Ring::new(keep, Shape::Numbers(1));
        let (mut missed, mut expected) = (Missed::default(), BTreeSet::new());
        for (batch, (times, sent)) in batches.iter().enumerate() {
            let samples = Samples {
                times: times.iter().map(|time| SampleTime(*time)).collect(),
                values: Values::Numbers { channels: 1, flat: vec![batch as f64; times.len()] },
            };
            let first = Stamp { time: 1 + 100 * batch as u64, author: 1 };
            let mut changed = Vec::new();
            ring.join(&samples, &Stamps::From(first), &mut changed);
            let changed: Vec<_> = changed.iter().map(|index| samples.times[*index]).collect();
            // Once behind, nothing is sent before it has caught up: a batch that is sent came before.
            if *sent && expected.is_empty() {
                continue;
            }
            expected.extend(changed.iter().map(|time| time.0));
            missed.note(&ring, &changed);
        }
        let held: BTreeSet<_> = (0..ring.len()).map(|index| ring.time(index).0).collect();
        expected.retain(|time| held.contains(time));
        (ring, missed, expected)
    }

    fn told(ring: &Ring, missed: &Missed) -> Vec<i64> {
        missed.places(ring).flatten().map(|index| ring.time(index).0).collect()
    }

    proptest! {
        #[test]
        fn exactly_what_was_missed_is_told_whatever_order_it_came_in(
            batches in batches(30), keep in prop::sample::select(vec![10usize, 50, 1000]),
        ) {
            let (ring, missed, expected) = played(keep, &batches);
            prop_assert_eq!(told(&ring, &missed), expected.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn there_are_no_more_spans_than_what_was_sent_keeps_apart() {
        let odd = |upto: i64| (0..upto).filter(|time| time % 2 == 1).collect::<Vec<_>>();
        let batches = [((0..2000).step_by(2).collect(), true), (odd(2000), false)];
        let (ring, missed, _) = played(10_000, &batches);
        assert_eq!((told(&ring, &missed), missed.spans.len()), (odd(2000), 1000));
        // A ring that keeps less forgets the rest.
        let (ring, missed, _) = played(500, &batches);
        assert_eq!((told(&ring, &missed).len(), missed.spans.len()), (250, 250));
    }
}
