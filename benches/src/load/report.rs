//! The report of a load run: Markdown for people, JSON for programs. It is written anew after each measurement, so that
//! a run that is broken off leaves what it had.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::Error;
use crate::figures::Summary;

/// What came of one measurement.
#[derive(Debug)]
pub struct Outcome {
    /// Its name.
    pub name: &'static str,
    /// What was measured, in a sentence.
    pub about: &'static str,
    /// Its figures, or why there are none.
    pub result: Result<Vec<Summary>, String>,
}

/// Writes `report.md` and `report.json` into `dir`; `command` is how the run was started.
pub fn write(dir: &Path, command: &str, outcomes: &[Outcome]) -> Result<(), Error> {
    let cores = std::thread::available_parallelism()?.get();
    let at = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    std::fs::write(dir.join("report.md"), markdown(command, cores, outcomes))?;
    let report = json!({
        "command": command,
        "cores": cores,
        "unix_time": at,
        "measurements": outcomes.iter().map(object).collect::<Vec<_>>(),
    });
    std::fs::write(dir.join("report.json"), serde_json::to_vec_pretty(&report)?)?;
    Ok(())
}

fn object(outcome: &Outcome) -> Value {
    let figure = |summary: &Summary| {
        json!({"label": summary.label, "median": summary.median(), "least": summary.least(),
               "most": summary.most(), "runs": summary.values})
    };
    match &outcome.result {
        Ok(summaries) => {
            json!({"name": outcome.name, "about": outcome.about,
                   "figures": summaries.iter().map(figure).collect::<Vec<_>>()})
        }
        Err(error) => json!({"name": outcome.name, "about": outcome.about, "error": error}),
    }
}

fn markdown(command: &str, cores: usize, outcomes: &[Outcome]) -> String {
    let mut text =
        format!("# Load run\n\n`{command}` on {cores} cores, which the generator shares with the node.\n");
    for outcome in outcomes {
        let _ = write!(text, "\n## {}\n\n{}\n\n", outcome.name, outcome.about);
        match &outcome.result {
            Ok(summaries) => {
                text.push_str("| figure | median | least | most | runs |\n|---|---:|---:|---:|---:|\n");
                for summary in summaries {
                    let (median, least, most) = (summary.median(), summary.least(), summary.most());
                    let (label, runs) = (summary.label, summary.values.len());
                    let _ = writeln!(text, "| {label} | {median:.2} | {least:.2} | {most:.2} | {runs} |");
                }
            }
            Err(error) => {
                let _ = writeln!(text, "Failed: {error}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_and_failures_stand_in_both_forms() {
        let dir = tempfile::tempdir().unwrap();
        let outcomes = [
            Outcome {
                name: "a",
                about: "A.",
                result: Ok(vec![Summary { label: "x/s", values: vec![1.0, 2.0, 4.0] }]),
            },
            Outcome { name: "b", about: "B.", result: Err("no node".into()) },
        ];
        write(dir.path(), "load", &outcomes).unwrap();
        let text = std::fs::read_to_string(dir.path().join("report.md")).unwrap();
        assert!(
            text.contains("| x/s | 2.00 | 1.00 | 4.00 | 3 |") && text.contains("Failed: no node"),
            "{text}"
        );
        let report: Value =
            serde_json::from_slice(&std::fs::read(dir.path().join("report.json")).unwrap()).unwrap();
        assert_eq!(report["measurements"][0]["figures"][0]["median"], 2.0);
        assert_eq!(report["measurements"][1]["error"], "no node");
    }
}
