//! Three nodes against three servers of NATS JetStream: killed, hung, loaded and left alone in the same way, in one run.

use std::io::Write;
use std::path::PathBuf;

use benches::cluster::contender::{Contender, Start};
use benches::cluster::jetstream::JetStream;
use benches::cluster::ours::Ours;
use benches::cluster::settings::Settings;
use benches::cluster::table::{Comparison, Figure, Shown};
use benches::cluster::{catchup, failover, idle, latency, links, namespace, throughput};
use benches::load::Error;
use benches::process;
use clap::{Parser, ValueEnum};
use tokio::runtime::Runtime;

/// Starts a cluster of three release nodes, and one of three NATS servers, and measures them side by side; prints a table
/// and how each was set up. Exit code 1 when a part failed.
#[derive(Parser)]
#[command(
    after_help = "For instance:\n  cargo build --release -p web -p benches\n  apt-get install nats-server\n  \
    target/release/cluster_load --only failover --kills 20 --json failover.json\n\nEverything is on loopback; where it \
    may, the run has a network namespace of its own. Generator, nodes and servers share the cores."
)]
struct Options {
    /// Only these parts
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// Only these contenders
    #[arg(long, value_delimiter = ',')]
    contenders: Vec<Name>,
    /// Also writes the figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

/// The parts of the comparison.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Nodes killed, and hung, under their devices and viewers
    Failover,
    /// Acknowledged with two copies: frames of 100 samples, single messages
    Throughput,
    /// Acknowledgements at 5000 messages a second; from a device on one node to a viewer on another
    Latency,
    /// Bytes on a link for a sample
    Links,
    /// A node that lost its disk
    Catchup,
    /// A cluster that has nothing to do
    Idle,
}

/// Who takes part.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    Sensorium,
    Jetstream,
    JetstreamSynced,
}

impl Name {
    fn title(self) -> &'static str {
        match self {
            Self::Sensorium => "sensorium",
            Self::Jetstream => "JetStream",
            Self::JetstreamSynced => "JetStream, synced",
        }
    }
}

/// Figures, and how the cluster was set up that showed them.
type Measured = Result<(Vec<Figure>, String), Error>;

/// A part that is the same for every contender, on a cluster of its own.
fn on<C: Contender>(start: Start<C>, part: Part, settings: &Settings, runtime: &Runtime) -> Measured {
    let mut cluster = start(settings)?;
    let mut figures = Vec::new();
    match part {
        Part::Failover => {
            figures.extend(failover::kills(&mut cluster, settings, runtime)?);
            drop(cluster);
            cluster = start(settings)?;
            figures.extend(failover::hangs(&mut cluster, settings, runtime)?);
        }
        Part::Latency => {
            figures.extend(latency::acknowledgements(&mut cluster, settings, runtime)?);
            drop(cluster);
            cluster = start(settings)?;
            figures.extend(latency::live(&mut cluster, settings, runtime)?);
        }
        Part::Links => figures.extend(links::bytes(&mut cluster, settings, runtime)?),
        Part::Idle => figures.extend(idle::idle(&mut cluster, settings)?),
        Part::Throughput | Part::Catchup => return Err("each contender has its own".into()),
    }
    Ok((figures, cluster.configuration()))
}

fn measure(name: Name, part: Part, settings: &Settings, runtime: &Runtime) -> Measured {
    let servers = match name {
        Name::Sensorium => {
            return match part {
                Part::Throughput => throughput::ours(settings, runtime),
                Part::Catchup => catchup::ours(settings, runtime),
                _ => on(Ours::start, part, settings, runtime),
            };
        }
        Name::Jetstream => JetStream::start,
        Name::JetstreamSynced => JetStream::start_synced,
    };
    match part {
        Part::Throughput => throughput::jetstream(settings, runtime, servers),
        Part::Catchup => catchup::jetstream(settings, runtime, servers),
        _ => on(servers, part, settings, runtime),
    }
}

fn chosen<T: ValueEnum + PartialEq>(said: &[T]) -> impl Iterator<Item = &T> {
    T::value_variants().iter().filter(|value| said.is_empty() || said.contains(value))
}

fn title<T: ValueEnum>(value: &T) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

fn main() -> Result<(), Error> {
    let options = Options::parse();
    let mut progress = std::io::stderr();
    if !namespace::inside() {
        let reason = namespace::enter();
        writeln!(
            progress,
            "no namespace of its own ({reason}): others' traffic on loopback is not told apart"
        )?;
    }
    writeln!(progress, "at most {} open files", process::raise_open_files())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let command = std::env::args().collect::<Vec<_>>().join(" ");
    let mut comparison = Comparison::default();
    let mut failed = false;
    for part in chosen(&options.only) {
        for name in chosen(&options.contenders) {
            let part_name = title(part);
            writeln!(progress, "{part_name}: {}", name.title())?;
            let measured = measure(*name, *part, &options.settings, &runtime);
            let result = match measured {
                Ok((figures, configuration)) => {
                    comparison.configured(name.title(), configuration);
                    Ok(figures)
                }
                Err(error) => {
                    failed = true;
                    writeln!(progress, "{part_name}: {} failed: {error}", name.title())?;
                    Err(error.to_string())
                }
            };
            comparison.shown.push(Shown { name: name.title().to_owned(), part: part_name, result });
            // After each, so that a run that is broken off leaves what it had.
            if let Some(file) = &options.json {
                std::fs::write(file, serde_json::to_vec_pretty(&comparison.json(&command))?)?;
            }
        }
    }
    write!(std::io::stdout(), "{}", comparison.markdown(&command)?)?;
    if failed { Err("a part failed".into()) } else { Ok(()) }
}
