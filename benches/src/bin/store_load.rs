//! The store under load, without a network: unpaced, paced, reads while writing, recovery, memory, file size.
//!
//! `cargo run --release -p benches --bin store_load -- --help`. Ratios are against a raw append + fdatasync measured
//! in the same run, on the same disk.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use benches::figures::{Run, quantile, summarise};
use benches::process::Process;
use benches::samples::{batch, series, store as open};
use clap::Parser;
use store::{Query, Series, Store};

/// Drives the store and prints a line of figures a measurement.
#[derive(Parser)]
struct Options {
    /// Directory for the data files; emptied between measurements.
    #[arg(long, default_value = "target/store-load")]
    dir: PathBuf,
    /// Series in flight.
    #[arg(long, default_value_t = 1000)]
    series: usize,
    /// Samples of one append.
    #[arg(long, default_value_t = 100)]
    batch: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Runs of each measurement; the median and the spread are printed.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Samples a second of the paced run.
    #[arg(long, default_value_t = 500_000)]
    rate: u64,
    /// Only these: raw, unpaced, paced, generator, reads, recovery, memory, bounded.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Fill a store, say so, and wait to be killed (the recovery measurement starts this program so).
    #[arg(long, hide = true)]
    fill: bool,
}

const RECOVERED_SAMPLES: usize = 10_000_000;

fn main() -> std::io::Result<()> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if options.fill {
        fill(&options, &runtime, RECOVERED_SAMPLES);
        return Ok(());
    }
    let wanted = |name: &str| options.only.is_empty() || options.only.iter().any(|only| only == name);
    let mut out = std::io::stdout();
    let measures: [(&str, Measure); 8] = [
        ("raw", raw),
        ("unpaced", unpaced),
        ("paced", paced),
        ("generator", generator),
        ("reads", reads),
        ("recovery", recovery),
        ("memory", memory),
        ("bounded", bounded),
    ];
    for (name, measure) in measures {
        if !wanted(name) {
            continue;
        }
        let mut figures: Vec<Run> = Vec::new();
        for _ in 0..options.runs {
            let _ = std::fs::remove_dir_all(&options.dir);
            std::fs::create_dir_all(&options.dir)?;
            figures.push(measure(&options, &runtime));
        }
        for summary in summarise(&figures) {
            writeln!(out, "{name:9} {summary}")?;
        }
    }
    Ok(())
}

type Measure = fn(&Options, &tokio::runtime::Runtime) -> Run;

/// CPU seconds that this process has used.
fn cpu() -> f64 {
    Process::this().cpu().expect("Linux tells of a process that runs")
}

/// Raw append + fdatasync of 9 bytes a sample, at 1000 and at 10 000 samples a batch.
fn raw(options: &Options, _: &tokio::runtime::Runtime) -> Run {
    let mut rates = Vec::new();
    for (label, size) in [("samples/s at 1000 a batch", 1000), ("samples/s at 10000 a batch", 10_000)] {
        let mut file = std::fs::File::create(options.dir.join("raw")).expect("a file");
        let bytes = vec![7u8; 9 * size];
        let (began, mut batches) = (Instant::now(), 0);
        while began.elapsed() < Duration::from_secs(options.seconds.min(5)) {
            file.write_all(&bytes).and_then(|()| file.sync_data()).expect("the disk writes");
            batches += 1;
        }
        rates.push((label, (batches * size) as f64 / began.elapsed().as_secs_f64()));
    }
    rates
}

/// As fast as it goes: tasks that append and keep 16 batches each on their way.
fn unpaced(options: &Options, runtime: &tokio::runtime::Runtime) -> Run {
    let store = open(&options.dir, 1000);
    let all = Arc::new(series(&store, options.series));
    let stop = Arc::new(AtomicBool::new(false));
    let (began, cpu_before) = (Instant::now(), cpu());
    let durable = runtime.block_on(async {
        let tasks: Vec<_> = (0..8)
            .map(|task| {
                let (store, all, stop, size) = (store.clone(), all.clone(), stop.clone(), options.batch);
                tokio::spawn(async move {
                    let mut tickets = std::collections::VecDeque::new();
                    let mut kept = 0;
                    for round in 0.. {
                        for series in all.iter().skip(task).step_by(8) {
                            let appended =
                                store.append(vec![batch(series, round, size)]).await.expect("taken");
                            tickets.push_back(appended.ticket);
                            if tickets.len() >= 256 {
                                tickets.pop_front().expect("256 of them").kept().await.expect("kept");
                                kept += size;
                            }
                        }
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                    }
                    for ticket in tickets {
                        ticket.kept().await.expect("kept");
                        kept += size;
                    }
                    kept
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_secs(options.seconds)).await;
        stop.store(true, Ordering::Relaxed);
        let mut durable = 0;
        for task in tasks {
            durable += task.await.expect("no panic");
        }
        durable as f64
    });
    let seconds = began.elapsed().as_secs_f64();
    let stats = store.stats();
    vec![
        ("samples/s durable", durable / seconds),
        ("ns of CPU a sample", (cpu() - cpu_before) * 1e9 / durable),
        ("bytes written a sample", stats.written_bytes as f64 / durable),
        ("samples a commit", durable / stats.commits as f64),
        ("file MiB", stats.disk_bytes as f64 / 1_048_576.0),
    ]
}

/// At a fixed rate, every append with its acknowledgement timed.
fn paced(options: &Options, runtime: &tokio::runtime::Runtime) -> Run {
    let store = open(&options.dir, 1000);
    let all = series(&store, options.series);
    let (began, cpu_before) = (Instant::now(), cpu());
    let (sent, mut latencies) = runtime.block_on(drive(Some(&store), &all, options));
    let stats = store.stats();
    let seconds = began.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let at = |part: f64| quantile(&latencies, part) / 1000.0;
    vec![
        ("samples/s", sent as f64 / seconds),
        ("% of one core (with the generator)", (cpu() - cpu_before) / seconds * 100.0),
        ("bytes written a sample", stats.written_bytes as f64 / sent as f64),
        ("acknowledgement p50, ms", at(0.5)),
        ("acknowledgement p99, ms", at(0.99)),
        ("acknowledgement max, ms", at(1.0)),
        ("commits/s", stats.commits as f64 / seconds),
        ("file MiB", stats.disk_bytes as f64 / 1_048_576.0),
    ]
}

/// Appends at the rate for the time (or, without a store, only makes the batches); returns samples sent and the latency of each acknowledgement in µs.
async fn drive(store: Option<&Store>, all: &[Series], options: &Options) -> (usize, Vec<u64>) {
    let every = Duration::from_secs_f64(options.batch as f64 / options.rate as f64);
    let (waiting, mut done) = tokio::sync::mpsc::unbounded_channel::<(Instant, store::Ticket)>();
    let latencies = tokio::spawn(async move {
        let mut latencies = Vec::new();
        while let Some((sent, ticket)) = done.recv().await {
            ticket.kept().await.expect("kept");
            latencies.push(sent.elapsed().as_micros() as u64);
        }
        latencies
    });
    let (began, mut appends) = (Instant::now(), 0usize);
    let until = Duration::from_secs(options.seconds);
    while began.elapsed() < until {
        let due = (began.elapsed().as_secs_f64() / every.as_secs_f64()) as usize;
        while appends < due {
            let series = &all[appends % all.len()];
            let (sent, batch) = (Instant::now(), batch(series, appends / all.len(), options.batch));
            appends += 1;
            let Some(store) = store else {
                std::hint::black_box(batch);
                continue;
            };
            let appended = store.append(vec![batch]).await.expect("taken");
            waiting.send((sent, appended.ticket)).expect("the reader lives");
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop(waiting);
    (appends * options.batch, latencies.await.expect("no panic"))
}

/// What the paced run costs without its appends.
fn generator(options: &Options, runtime: &tokio::runtime::Runtime) -> Run {
    let store = open(&options.dir, 1000);
    let all = series(&store, options.series);
    let (began, cpu_before) = (Instant::now(), cpu());
    runtime.block_on(drive(None, &all, options));
    vec![("% of one core", (cpu() - cpu_before) / began.elapsed().as_secs_f64() * 100.0)]
}

/// The newest 100 of a series, inside the store, while others write.
fn reads(options: &Options, runtime: &tokio::runtime::Runtime) -> Run {
    let store = open(&options.dir, 1000);
    let all = series(&store, options.series);
    let stop = Arc::new(AtomicBool::new(false));
    let reader = {
        let (all, stop) = (all.clone(), stop.clone());
        std::thread::spawn(move || {
            let mut nanos = Vec::new();
            for index in (0..all.len()).cycle() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let began = Instant::now();
                std::hint::black_box(all[index].read(&Query::newest(100)));
                nanos.push(began.elapsed().as_nanos() as u64);
                std::thread::sleep(Duration::from_micros(200));
            }
            nanos
        })
    };
    runtime.block_on(drive(Some(&store), &all, options));
    stop.store(true, Ordering::Relaxed);
    let mut nanos = reader.join().expect("no panic");
    nanos.sort_unstable();
    let at = |part: f64| quantile(&nanos, part) / 1000.0;
    vec![
        ("newest 100, p50 µs", at(0.5)),
        ("newest 100, p99 µs", at(0.99)),
        ("newest 100, p99.9 µs", at(0.999)),
    ]
}

/// 10 M samples held by a process that is killed; then the time to open what it left.
fn recovery(options: &Options, _: &tokio::runtime::Runtime) -> Run {
    let program = std::env::current_exe().expect("this program has a path");
    let mut child = Command::new(program)
        .args(["--fill", "--series", &options.series.to_string(), "--dir"])
        .arg(&options.dir)
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program starts");
    let mut line = String::new();
    std::io::BufReader::new(child.stdout.take().expect("it is piped"))
        .read_line(&mut line)
        .expect("it says when");
    child.kill().and_then(|()| child.wait()).expect("it is killed");
    let began = Instant::now();
    let store = open(&options.dir, RECOVERED_SAMPLES / options.series);
    let seconds = began.elapsed().as_secs_f64();
    let stats = store.stats();
    vec![
        ("seconds to ready", seconds),
        ("M samples held", stats.samples as f64 / 1e6),
        ("log MiB", stats.log_bytes as f64 / 1_048_576.0),
        ("file MiB", stats.disk_bytes as f64 / 1_048_576.0),
    ]
}

/// Fills every ring, says so on standard output, and goes on writing until it is killed.
fn fill(options: &Options, runtime: &tokio::runtime::Runtime, samples: usize) {
    let store = open(&options.dir, samples / options.series);
    let all = series(&store, options.series);
    runtime.block_on(async {
        for round in 0.. {
            let mut last = None;
            for series in &all {
                last = Some(store.append(vec![batch(series, round, 1000)]).await.expect("taken").ticket);
            }
            last.expect("some").kept().await.expect("kept");
            if (round + 1) * 1000 == samples / options.series {
                let _ = writeln!(std::io::stdout(), "filled");
            }
        }
    });
}

/// What a sample and a series cost in memory.
fn memory(options: &Options, runtime: &tokio::runtime::Runtime) -> Run {
    let resident = || Process::this().resident().expect("Linux tells of a process that runs");
    let before = resident();
    let keep = 10_000;
    let store = open(&options.dir, keep);
    let all = series(&store, 1000);
    runtime.block_on(async {
        for round in 0..12 {
            for series in &all {
                store.append(vec![batch(series, round, 1000)]).await.expect("taken").ticket.is_kept();
            }
        }
    });
    let stats = store.stats();
    let taken = resident() - before;
    vec![
        ("ring bytes a sample held", stats.memory_bytes as f64 / stats.samples as f64),
        ("MiB resident beside the rings", (taken - stats.memory_bytes as f64) / 1_048_576.0),
    ]
}

/// File size after 5 and after 20 turnovers of every ring.
fn bounded(options: &Options, runtime: &tokio::runtime::Runtime) -> Run {
    let store = open(&options.dir, 10_000);
    let all = series(&store, options.series);
    let mut sizes = Vec::new();
    runtime.block_on(async {
        for turnover in 0..20 {
            for part in 0..10 {
                for series in &all {
                    let round = turnover * 10 + part;
                    store.append(vec![batch(series, round, 1000)]).await.expect("taken");
                }
            }
            sizes.push(store.stats().disk_bytes as f64 / 1_048_576.0);
        }
    });
    vec![("file MiB after 5 turnovers", sizes[4]), ("file MiB after 20 turnovers", sizes[19])]
}
