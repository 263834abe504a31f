//! The program under load, over its sockets.

use std::io::Write;

use benches::figures::summarise;
use benches::load::Error;
use benches::load::measures::{MEASURES, Measure, Settings};
use benches::load::report::{self, Outcome};
use benches::process;
use clap::Parser;

/// Starts the release program as a child process, for each run a fresh one on free ports and an empty directory; drives
/// it; and writes what it measured as Markdown and JSON. Exit code 1 when a measurement failed.
#[derive(Parser)]
#[command(after_help = teach())]
struct Options {
    /// Only these, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "NAME", value_parser = known())]
    only: Vec<String>,
    /// Runs of each measurement; the median and the spread are reported
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    #[command(flatten)]
    settings: Settings,
}

fn known() -> clap::builder::PossibleValuesParser {
    MEASURES.iter().map(|measure| measure.name).collect::<Vec<_>>().into()
}

fn teach() -> String {
    let line = |Measure { name, about, .. }: &Measure| format!("  {name:12} {about}\n");
    let lines: String = MEASURES.iter().map(line).collect();
    format!("Measurements:\n{lines}\n")
        + "For instance:\n  cargo build --release -p web -p benches\n  target/release/load\n  \
            target/release/load --only ws-json,ws-cbor --runs 3 --seconds 10\n\n\
            The generator shares the cores with the node: \"cores used\" says how they divided them. Where both \
            together have used all, a faster generator would show a faster node; the CPU of the node a sample is the \
            figure to compare."
}

fn main() -> Result<(), Error> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut progress = std::io::stderr();
    writeln!(progress, "at most {} open files", process::raise_open_files())?;
    std::fs::create_dir_all(&options.settings.dir)?;
    let command = std::env::args().collect::<Vec<_>>().join(" ");
    let wanted =
        |measure: &&Measure| options.only.is_empty() || options.only.iter().any(|n| n == measure.name);
    let mut outcomes = Vec::new();
    for Measure { name, about, run } in MEASURES.iter().filter(wanted) {
        let mut runs = Vec::new();
        let mut failed = None;
        for number in 1..=options.runs {
            writeln!(progress, "{name}: run {number} of {}", options.runs)?;
            match run(&options.settings, &runtime) {
                Ok(figures) => runs.push(figures),
                Err(error) => {
                    failed = Some(error.to_string());
                    break;
                }
            }
        }
        let result = failed.map_or_else(|| Ok(summarise(&runs)), Err);
        match &result {
            Ok(summaries) => {
                summaries.iter().try_for_each(|summary| writeln!(progress, "{name:12} {summary}"))?;
            }
            Err(error) => writeln!(progress, "{name}: failed: {error}")?,
        }
        outcomes.push(Outcome { name, about, result });
        report::write(&options.settings.dir, &command, &outcomes)?;
    }
    let report = options.settings.dir.join("report.md");
    writeln!(progress, "the report is {}", report.display())?;
    if outcomes.iter().any(|outcome| outcome.result.is_err()) {
        return Err("a measurement failed".into());
    }
    Ok(())
}
