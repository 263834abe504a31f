//! The ring is a lattice, and the two ways into it (one by one, merged in a pass) agree with a plain model.

use std::collections::BTreeMap;

use crdts::{CmRDT, CvRDT};
use proptest::prelude::*;
use store::ring::{Join, Joined, Ring, RingError, Samples, Stamps};
use store::{SampleTime, Shape, Stamp, Values};

type Row = (i64, u64, u32, f64);

fn rows(most: usize) -> impl Strategy<Value = Vec<Row>> {
    prop::collection::vec((0..60i64, 0..8u64, 0..3u32, prop::sample::select(vec![0.0, 1.5, -2.0])), 0..most)
}

fn join_of(rows: &[Row]) -> Join {
    Join {
        samples: Samples {
            times: rows.iter().map(|row| SampleTime(row.0)).collect(),
            values: Values::Numbers { channels: 1, flat: rows.iter().map(|row| row.3).collect() },
        },
        stamps: Stamps::Each(rows.iter().map(|row| Stamp { time: row.1, author: row.2 }).collect()),
    }
}

fn ring_of(keep: usize, rows: &[Row]) -> Ring {
    let mut ring = Ring::new(keep, Shape::Numbers(1));
    ring.apply(join_of(rows));
    ring
}

fn merged(mut a: Ring, b: &Ring) -> Ring {
    a.validate_merge(b).expect("rings of one keep merge");
    a.merge(b.clone());
    a
}

/// A sample, or the time of a clear.
type Event = Result<Row, u64>;

fn stamp(time: u64) -> Stamp {
    Stamp { time, author: 1 }
}

fn events(most: usize) -> impl Strategy<Value = Vec<Event>> {
    let row = rows(2).prop_filter_map("one row", |rows| rows.first().copied());
    prop::collection::vec(prop_oneof![9 => row.prop_map(Ok), 1 => (0..8u64).prop_map(Err)], 0..most)
}

fn shuffled_events(most: usize) -> impl Strategy<Value = (Vec<Event>, Vec<Event>)> {
    events(most).prop_flat_map(|events| (Just(events.clone()), Just(events).prop_shuffle()))
}

fn after(mut ring: Ring, events: &[Event]) -> Ring {
    for event in events {
        match event {
            Ok(row) => ring.apply(join_of(std::slice::from_ref(row))),
            Err(time) => drop(ring.clear(stamp(*time))),
        }
    }
    ring
}

/// The rows that a clear leaves.
fn valid(rows: &[Row], cleared: Option<u64>) -> Vec<Row> {
    rows.iter().copied().filter(|row| cleared.is_none_or(|time| (row.1, row.2) > (time, 1))).collect()
}

/// What a ring must hold, said in the plainest way.
fn model(keep: usize, rows: &[Row]) -> Vec<(i64, u64, u32, u64)> {
    let mut newest: BTreeMap<i64, (u64, u32, u64)> = BTreeMap::new();
    for (time, stamp, author, value) in rows {
        let entry = (*stamp, *author, value.to_bits());
        newest.entry(*time).and_modify(|held| *held = entry.max(*held)).or_insert(entry);
    }
    let skip = newest.len().saturating_sub(keep);
    newest.into_iter().skip(skip).map(|(time, (stamp, author, bits))| (time, stamp, author, bits)).collect()
}

fn content(ring: &Ring) -> Vec<(i64, u64, u32, u64)> {
    let samples = ring.copy(0..ring.len());
    let Values::Numbers { flat, .. } = samples.values else { panic!("numbers went in") };
    let stamps = ring.copy_stamps(0..ring.len());
    samples
        .times
        .iter()
        .zip(stamps)
        .zip(flat)
        .map(|((t, s), v)| (t.0, s.time, s.author, v.to_bits()))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn join_is_what_the_model_says(keep in 1..20usize, rows in rows(120)) {
        prop_assert_eq!(content(&ring_of(keep, &rows)), model(keep, &rows));
    }

    #[test]
    fn every_split_and_order_gives_the_same_ring(keep in 1..20usize, rows in rows(80), cut in 0..80usize) {
        let whole = ring_of(keep, &rows);
        let cut = cut.min(rows.len());
        let mut parts = ring_of(keep, &rows[cut..]);
        parts.apply(join_of(&rows[..cut]));
        prop_assert_eq!(&parts, &whole);
        let mut single = Ring::new(keep, Shape::Numbers(1));
        for row in rows.iter().rev() {
            single.apply(join_of(std::slice::from_ref(row)));
        }
        prop_assert_eq!(single, whole);
    }

    #[test]
    fn merge_is_associative_commutative_idempotent(keep in 1..15usize, a in rows(40), b in rows(40), c in rows(40)) {
        let (a, b, c) = (ring_of(keep, &a), ring_of(keep, &b), ring_of(keep, &c));
        prop_assert_eq!(merged(a.clone(), &b), merged(b.clone(), &a));
        prop_assert_eq!(merged(merged(a.clone(), &b), &c), merged(a.clone(), &merged(b.clone(), &c)));
        prop_assert_eq!(merged(merged(a.clone(), &b), &b), merged(a.clone(), &b));
        prop_assert_eq!(merged(a.clone(), &a), a);
    }

    #[test]
    fn every_sample_is_counted_once(
        keep in 1..20usize,
        first in rows(60),
        second in rows(60),
        clear in prop::option::of(0..8u64),
    ) {
        let mut ring = ring_of(keep, &first);
        clear.map(|time| ring.clear(stamp(time)));
        let (before, op, mut changed) = (ring.len(), join_of(&second), Vec::new());
        let joined = ring.join(&op.samples, &op.stamps, &mut changed);
        let Joined { stored, duplicate, replaced, outdated, late, cleared, evicted } = joined;
        prop_assert_eq!(stored + duplicate + replaced + outdated + late + cleared, second.len());
        let void = second.iter().filter(|row| clear.is_some_and(|time| (row.1, row.2) <= (time, 1))).count();
        prop_assert_eq!(cleared, void);
        prop_assert_eq!(before + stored - evicted, ring.len());
        prop_assert!(changed.is_sorted());
        // What is reported as changed and still held is held with just that value, unless a later one won.
        for index in changed {
            let held = content(&ring).into_iter().find(|row| row.0 == second[index].0);
            prop_assert!(held.is_none_or(|row| (row.1, row.2) >= (second[index].1, second[index].2)));
        }
    }

    /// As long as none was evicted, a clear is a join by max, and it and samples come in any order.
    #[test]
    fn clears_and_samples_come_in_any_order((events, shuffled) in shuffled_events(80)) {
        let ring = after(Ring::new(60, Shape::Numbers(1)), &events);
        prop_assert_eq!(&after(Ring::new(60, Shape::Numbers(1)), &shuffled), &ring);
        let cleared = events.iter().filter_map(|event| event.err()).max();
        prop_assert_eq!(ring.cleared(), cleared.map(stamp));
        let rows: Vec<_> = events.iter().filter_map(|event| event.ok()).collect();
        prop_assert_eq!(content(&ring), model(60, &valid(&rows, cleared)));
        // One after the other or in one batch: a clear that came first keeps out just what one that came last removes.
        let mut first = Ring::new(60, Shape::Numbers(1));
        cleared.map(|time| first.clear(stamp(time)));
        first.apply(join_of(&rows));
        prop_assert_eq!(first, ring);
    }

    /// With evictions it is not so; but whatever each replica saw, and in which order, once each has been joined with
    /// each other, the clear is everywhere, and once more, they are equal: that is what the scrub does.
    #[test]
    fn joined_pairwise_all_rings_are_equal_whatever_they_saw(
        keep in 1..15usize,
        seen in prop::collection::vec(events(60), 2..5),
    ) {
        let mut rings: Vec<_> =
            seen.iter().map(|events| after(Ring::new(keep, Shape::Numbers(1)), events)).collect();
        let before: Vec<_> = rings.iter().flat_map(content).collect();
        for _ in 0..2 {
            for a in 0..rings.len() {
                for b in 0..a {
                    let (ours, theirs) = (rings[a].clone(), rings[b].clone());
                    rings[a].merge(theirs);
                    rings[b].merge(ours);
                }
            }
        }
        let cleared = seen.iter().flatten().filter_map(|event| event.err()).max();
        for ring in &rings {
            prop_assert_eq!(ring.cleared(), cleared.map(stamp));
            let content = content(ring);
            prop_assert!(content.iter().all(|row| cleared.is_none_or(|time| (row.1, row.2) > (time, 1))));
            prop_assert_eq!(ring, &rings[0]);
            prop_assert!(content.len() <= keep && content.iter().all(|row| before.contains(row)));
        }
    }

    #[test]
    fn a_wider_ring_agrees_with_a_narrow_one(rows in rows(30)) {
        let mut wide = ring_of(100, &rows);
        wide.widen(3);
        prop_assert_eq!(merged(ring_of(100, &rows), &wide), wide);
    }
}

#[test]
fn rings_that_do_not_go_together_say_so() {
    let (small, large) = (Ring::new(5, Shape::Numbers(1)), Ring::new(6, Shape::Numbers(1)));
    assert_eq!(small.validate_merge(&large), Err(RingError::Keep(5, 6)));
    assert_eq!(small.validate_merge(&Ring::new(5, Shape::Text)), Err(RingError::Shape));
}

/// What a clear and eviction do to each other, and how it heals.
#[test]
fn a_ring_that_lacks_what_it_evicted_before_a_clear_takes_it_back() {
    let old: Vec<Row> = (10..13).map(|time| (time, 1, 0, 0.0)).collect();
    let kept: Row = (5, 3, 0, 1.5);
    let mut late = ring_of(3, &old);
    late.apply(join_of(&[kept]));
    late.clear(stamp(2));
    assert!(late.is_empty(), "it was older than the whole ring");
    let mut early = ring_of(3, &old);
    assert_eq!(early.clear(stamp(2)), Some(SampleTime(10)));
    early.apply(join_of(&[kept]));
    assert_eq!(content(&early).len(), 1);
    assert_eq!(merged(late, &early), early);
}

/// The clear goes with a ring wherever it goes, also through a merge in one pass.
#[test]
fn a_clear_outlives_large_batches() {
    let mut ring = Ring::new(40, Shape::Numbers(1));
    ring.clear(stamp(4));
    let rows: Vec<Row> = (0..60).rev().map(|time| (time, 3 + time as u64 % 3, 0, 0.0)).collect();
    let mut changed = Vec::new();
    let op = join_of(&rows);
    let joined = ring.join(&op.samples, &op.stamps, &mut changed);
    assert_eq!((joined.cleared, joined.stored, ring.len()), (40, 20, 20));
    assert!(changed.iter().all(|index| rows[*index].1 == 5) && changed.len() == 20);
    ring.apply(op);
    assert_eq!((ring.cleared(), ring.len()), (Some(stamp(4)), 20));
}

#[test]
fn texts_and_many_channels_keep_their_values() {
    let mut texts = Ring::new(2, Shape::Text);
    for (time, text) in [(3, "c"), (1, "a"), (2, "b"), (3, "d")] {
        let samples = Samples { times: vec![SampleTime(time)], values: Values::Texts(vec![text.into()]) };
        texts.join(&samples, &Stamps::From(Stamp { time: 9 + time as u64, author: 0 }), &mut Vec::new());
    }
    assert_eq!(texts.copy(0..2).values, Values::Texts(vec!["b".into(), "d".into()]));

    let mut wide = Ring::new(3, Shape::Numbers(3));
    let samples = Samples {
        times: vec![SampleTime(2), SampleTime(1)],
        values: Values::Numbers { channels: 2, flat: vec![2.0, 2.5, 1.0, 1.5] },
    };
    wide.join(&samples, &Stamps::From(Stamp { time: 1, author: 0 }), &mut Vec::new());
    let Values::Numbers { channels: 3, flat } = wide.copy(0..2).values else { panic!("three channels") };
    assert_eq!(flat[..2], [1.0, 1.5]);
    assert!(flat[2].is_nan() && flat[5].is_nan());
}

#[test]
fn memory_stays_within_32_bytes_a_sample() {
    for keep in [1000, 10_000] {
        let mut ring = Ring::new(keep, Shape::Numbers(1));
        for time in 0..3 * keep as i64 {
            let samples = Samples {
                times: vec![SampleTime(time)],
                values: Values::Numbers { channels: 1, flat: vec![0.5] },
            };
            ring.join(&samples, &Stamps::From(Stamp { time: time as u64, author: 1 }), &mut Vec::new());
            assert!(ring.bytes() <= 32 * ring.len() + 28 * 16, "{} bytes for {}", ring.bytes(), ring.len());
        }
        assert_eq!(ring.bytes(), 28 * keep);
    }
}
