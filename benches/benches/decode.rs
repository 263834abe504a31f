//! Reading what devices write into rows: WebSocket frames of 100 samples, and an MQTT payload of one.

use std::hint::black_box;

use benches::load::frames::{Encoding, Frames};
use benches::samples;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ingest::wire::read::{Format, read};
use ingest::wire::rows::Rows;
use ingest::wire::topic::read_series;
use store::SampleTime;

/// Samples of a frame.
const FRAME: usize = 100;

fn bench(criterion: &mut Criterion) {
    let evenly = |encoding| {
        let frames = Frames::new(encoding, "ecg", FRAME, samples::INTERVAL);
        frames.frame(1, SampleTime(samples::START)).into_data()
    };
    let sample = |index: i64| {
        format!(r#"{{"attribute":"ecg","ts":{},"value":{}}}"#, samples::time(index), samples::value(index))
    };
    let listed: Vec<_> = (0..FRAME as i64).map(sample).collect();
    let listed = format!(r#"{{"type":"samples","seq":1,"samples":[{}]}}"#, listed.join(","));
    let frames = [
        ("json_values", Format::Json, evenly(Encoding::Json)),
        ("cbor_values", Format::Cbor, evenly(Encoding::Cbor)),
        ("json_samples", Format::Json, listed.into_bytes().into()),
    ];
    let mut group = criterion.benchmark_group("decode");
    let mut rows = Rows::default();
    for (name, format, bytes) in frames {
        read(format, &bytes, &mut rows).expect("a frame of the protocol");
        assert_eq!(rows.len(), FRAME, "{name} is read");
        group.throughput(Throughput::Elements(FRAME as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| read(format, black_box(&bytes), &mut rows).map(|_| rows.len()));
        });
    }
    let payload = format!(r#"{{"ts":{},"value":36.6}}"#, samples::time(0));
    rows.clear();
    read_series(payload.as_bytes(), &mut rows).expect("a payload of the protocol");
    assert_eq!(rows.len(), 1, "the payload is read");
    group.throughput(Throughput::Elements(1));
    group.bench_function("mqtt_sample", |bencher| {
        bencher.iter(|| {
            rows.clear();
            read_series(black_box(payload.as_bytes()), &mut rows).map(|()| rows.len())
        });
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
