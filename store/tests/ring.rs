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
    fn every_sample_is_counted_once(keep in 1..20usize, first in rows(60), second in rows(60)) {
        let mut ring = ring_of(keep, &first);
        let (before, op, mut changed) = (ring.len(), join_of(&second), Vec::new());
        let joined = ring.join(&op.samples, &op.stamps, &mut changed);
        let Joined { stored, duplicate, replaced, outdated, late, evicted } = joined;
        prop_assert_eq!(stored + duplicate + replaced + outdated + late, second.len());
        prop_assert_eq!(before + stored - evicted, ring.len());
        prop_assert!(changed.is_sorted());
        // What is reported as changed and still held is held with just that value, unless a later one won.
        for index in changed {
            let held = content(&ring).into_iter().find(|row| row.0 == second[index].0);
            prop_assert!(held.is_none_or(|row| (row.1, row.2) >= (second[index].1, second[index].2)));
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
