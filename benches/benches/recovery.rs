//! Opening a store that holds a million samples: after an orderly stop, all of them in its file.

use std::hint::black_box;

use benches::samples;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tokio::runtime::Builder;

const SERIES: usize = 100;
/// Samples of each series.
const KEEP: usize = 10_000;

fn bench(criterion: &mut Criterion) {
    let runtime = Builder::new_current_thread().build().expect("a runtime without drivers needs nothing");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = samples::store(dir.path(), KEEP);
    for series in samples::series(&store, SERIES) {
        for round in 0..KEEP / 1000 {
            runtime.block_on(store.append(vec![samples::batch(&series, round, 1000)])).expect("taken");
        }
    }
    runtime.block_on(store.close());
    drop(store);

    let mut group = criterion.benchmark_group("recovery");
    group.sample_size(10).throughput(Throughput::Elements((SERIES * KEEP) as u64));
    // One at a time: a file is open only once. The store is closed outside of what is measured.
    group.bench_function("open_1m", |bencher| {
        bencher.iter_batched(
            || (),
            |()| black_box(samples::store(dir.path(), KEEP)),
            BatchSize::PerIteration,
        );
    });
    group.finish();
    let reopened = samples::store(dir.path(), KEEP);
    assert_eq!(reopened.stats().samples, (SERIES * KEEP) as u64, "every sample came back");
}

criterion_group!(benches, bench);
criterion_main!(benches);
