//! Appending to a store on the disk: the call alone, and until the samples are kept.

use benches::samples;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tokio::runtime::Builder;

/// Series that take turns.
const SERIES: usize = 100;

fn bench(criterion: &mut Criterion) {
    let runtime = Builder::new_current_thread().build().expect("a runtime without drivers needs nothing");
    let mut group = criterion.benchmark_group("store_append");
    for size in [1, 100] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = samples::store(dir.path(), 1000);
        let all = samples::series(&store, SERIES);
        let mut calls = 0..;
        let mut next = || {
            let call: usize = calls.next().expect("it has no end");
            samples::batch(&all[call % SERIES], call / SERIES, size)
        };
        group.throughput(Throughput::Elements(size as u64));
        // The making of the batch is measured with it: the store waits when too much is on its way to the disk, so the
        // calls cannot be made up front.
        group.bench_function(format!("append/{size}"), |bencher| {
            bencher.iter(|| runtime.block_on(store.append(vec![next()])).expect("taken").outcome);
        });
        group.bench_function(format!("append_kept/{size}"), |bencher| {
            bencher.iter(|| {
                runtime.block_on(async {
                    let appended = store.append(vec![next()]).await.expect("taken");
                    appended.ticket.kept().await.expect("kept")
                })
            });
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
