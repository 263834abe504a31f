//! Joining batches into a full ring: in order, out of order, and again.

use std::hint::black_box;

use benches::samples;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use store::ring::{Ring, Stamps};
use store::{Samples, Shape, Stamp};

/// Samples that the ring keeps.
const KEEP: usize = 10_000;
/// Samples of a batch.
const BATCH: usize = 100;

fn of(first: i64, count: usize) -> Samples {
    let (times, values) = samples::run(first, count);
    Samples { times, values }
}

/// Every second sample from `first` on, the newest first.
fn scattered(first: i64, count: usize) -> Samples {
    let indices = || (0..count as i64).rev().map(|index| first + 2 * index);
    let values = store::Values::Numbers { channels: 1, flat: indices().map(samples::value).collect() };
    Samples { times: indices().map(samples::time).collect(), values }
}

fn stamps(first: u64) -> Stamps {
    Stamps::From(Stamp { time: first, author: 1 })
}

fn bench(criterion: &mut Criterion) {
    let mut full = Ring::new(KEEP, Shape::Numbers(1));
    full.join(&of(0, KEEP), &stamps(1), &mut Vec::new());
    // Half of its times are free for what comes late.
    let mut sparse = Ring::new(KEEP, Shape::Numbers(1));
    let even: Vec<_> = (0..KEEP as i64).map(|index| samples::time(2 * index)).collect();
    sparse.join(&Samples { times: even, values: of(0, KEEP).values }, &stamps(1), &mut Vec::new());

    let mut group = criterion.benchmark_group("ring_join");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("in_order", |bencher| {
        let (mut ring, mut next, mut changed) = (full.clone(), KEEP, Vec::new());
        bencher.iter_batched(
            || {
                next += BATCH;
                (of((next - BATCH) as i64, BATCH), stamps(next as u64))
            },
            |(batch, stamps)| {
                changed.clear();
                ring.join(black_box(&batch), &stamps, &mut changed)
            },
            BatchSize::SmallInput,
        );
    });
    let cases = [
        ("out_of_order", &sparse, scattered(KEEP as i64 + 1, BATCH)),
        ("out_of_order_few", &sparse, scattered(KEEP as i64 + 1, 10)),
        ("duplicates", &full, of((KEEP / 2) as i64, BATCH)),
    ];
    for (name, ring, batch) in cases {
        group.throughput(Throughput::Elements(batch.times.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter_batched_ref(
                || (ring.clone(), Vec::new()),
                |(ring, changed)| ring.join(black_box(&batch), &stamps(KEEP as u64 * 2), changed),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
