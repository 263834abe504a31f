//! Reading from a full ring of 100 000 samples: the newest 100, all, and all thinned to 1000 points.

use std::hint::black_box;

use benches::samples;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use store::Query;
use tokio::runtime::Builder;

/// Samples of the series.
const HELD: usize = 100_000;

fn bench(criterion: &mut Criterion) {
    let runtime = Builder::new_current_thread().build().expect("a runtime without drivers needs nothing");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = samples::store(dir.path(), HELD);
    let series = samples::series(&store, 1).remove(0);
    for round in 0..HELD / 1000 {
        runtime.block_on(store.append(vec![samples::batch(&series, round, 1000)])).expect("taken");
    }
    let mut group = criterion.benchmark_group("reads");
    let all = Query::newest(HELD);
    for (name, query) in [
        ("newest_100", Query::newest(100)),
        ("all", all),
        ("thinned_1000", Query { points: Some(1000), ..all }),
    ] {
        group.throughput(Throughput::Elements(query.limit as u64));
        group.bench_function(name, |bencher| bencher.iter(|| series.read(black_box(&query))));
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
