//! What a follower that fell behind was not sent of a series, as spans of time in which the ring holds nothing that it was
//! sent: reading them makes up for all of it, and doubles nothing.
//!
//! Bound: [`SPANS`] of a series. Beyond, the two that lie closest become one, and what lies between is sent twice.

use crate::model::time::SampleTime;
use crate::ring::Ring;

/// Spans kept for one series.
const SPANS: usize = 256;

/// Samples of one series that were not sent.
#[derive(Debug, Default)]
pub(super) struct Missed {
    count: u64,
    /// First and last time, ascending; in the ring something lies between any two.
    spans: Vec<(SampleTime, SampleTime)>,
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

    fn add(&mut self, ring: &Ring, from: SampleTime, to: SampleTime) {
        let touches = |earlier: SampleTime, later: SampleTime| between(ring, earlier, later) == 0;
        let before = self.spans.partition_point(|span| span.1 < from && !touches(span.1, from));
        let behind =
            before + self.spans[before..].partition_point(|span| span.0 <= to || touches(to, span.0));
        let joined = &self.spans[before..behind];
        let span = (
            joined.first().map_or(from, |span| span.0.min(from)),
            joined.last().map_or(to, |span| span.1.max(to)),
        );
        self.spans.splice(before..behind, [span]);
        if self.spans.len() > SPANS {
            let gap = |at: &usize| between(ring, self.spans[*at].1, self.spans[at + 1].0);
            if let Some(closest) = (0..self.spans.len() - 1).min_by_key(gap) {
                self.spans[closest].1 = self.spans.remove(closest + 1).1;
            }
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

/// Samples in the ring between two times, without these.
fn between(ring: &Ring, earlier: SampleTime, later: SampleTime) -> usize {
    ring.position(later).saturating_sub(ring.position(after(earlier)))
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
    fn beyond_the_bound_nothing_is_left_out() {
        let sent = (0..2000).step_by(2).collect();
        let missed: Vec<i64> = (0..2000).filter(|time| time % 2 == 1).collect();
        let (ring, spans, _) = played(10_000, &[(sent, true), (missed.clone(), false)]);
        let told = told(&ring, &spans);
        assert!(missed.iter().all(|time| told.contains(time)));
        assert!(told.is_sorted() && spans.spans.len() == SPANS);
    }
}
