//! What came of a demo: a table for people, the same in JSON, and the verdict as the last line.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::check::Verdict;
use super::round::Round;
use crate::tally::Summary;

/// Headings of the table, in two lines.
const HEADINGS: [[&str; 2]; 10] = [
    ["", "kill"],
    ["", "node"],
    ["devices", "of it"],
    ["their gap", "(ack)"],
    ["others' gap", "(ack)"],
    ["viewers elsewhere:", "its sensors"],
    ["viewers elsewhere:", "other sensors"],
    ["viewers", "on it"],
    ["samples", "acknowledged"],
    ["ready", "again"],
];

/// Everything that is known at the end.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// How many nodes.
    pub nodes: usize,
    /// How many sensors.
    pub sensors: usize,
    /// Of everything that was drawn by chance.
    pub seed: u64,
    /// Samples kept of each series.
    pub keep: u64,
    /// Each failure.
    pub kills: Vec<Round>,
    /// What the devices counted.
    pub devices: Summary,
    /// What the checker found.
    pub verdict: Verdict,
}

impl Report {
    /// Whether everything that was made was acknowledged, and everything acknowledged is everywhere, once.
    pub fn is_clean(&self) -> bool {
        self.verdict.is_clean() && self.devices.complete()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<_> = self.kills.iter().enumerate().map(|(at, round)| row(at + 1, round)).collect();
        let width = |column: usize| {
            let heads = HEADINGS[column].iter().map(|text| text.chars().count());
            heads.chain(rows.iter().map(|row| row[column].chars().count())).max().unwrap_or(0)
        };
        let line = |f: &mut fmt::Formatter<'_>, cell: &dyn Fn(usize) -> String| {
            let cells = (0..HEADINGS.len()).map(|column| format!("{:>1$}", cell(column), width(column)));
            writeln!(f, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())
        };
        line(f, &|column| HEADINGS[column][0].to_owned())?;
        line(f, &|column| HEADINGS[column][1].to_owned())?;
        for row in &rows {
            line(f, &|column| row[column].clone())?;
        }
        let Verdict { lost, doubled, .. } = self.verdict;
        write!(f, "lost {lost}, doubled {doubled}")
    }
}

fn row(number: usize, round: &Round) -> [String; HEADINGS.len()] {
    [
        number.to_string(),
        round.node.clone(),
        round.devices.to_string(),
        shown(round.its_devices),
        shown(round.other_devices),
        shown(round.its_sensors),
        shown(round.other_sensors),
        shown(round.its_viewers),
        thousands(round.acked),
        shown(round.ready_after),
    ]
}

/// As people read it: `87 ms`, `1.24 s`; a dash where there was nobody to notice.
pub fn shown(duration: Option<Duration>) -> String {
    match duration {
        None => "–".to_owned(),
        Some(duration) if duration < Duration::from_secs(1) => format!("{} ms", duration.as_millis()),
        Some(duration) => format!("{:.2} s", duration.as_secs_f64()),
    }
}

/// `1 234 567`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_lines_up_and_the_verdict_is_last() {
        let round = Round {
            node: "b".into(),
            failure: "SIGKILL",
            devices: 10,
            viewers: 0,
            its_devices: Some(Duration::from_millis(123)),
            other_devices: Some(Duration::from_micros(45_600)),
            its_sensors: Some(Duration::from_millis(1240)),
            other_sensors: None,
            its_viewers: None,
            acked: 1_234_567,
            ready_after: Some(Duration::from_millis(900)),
            exit: None,
        };
        let mut report = Report {
            nodes: 3,
            sensors: 30,
            seed: 1,
            keep: 1000,
            kills: vec![round.clone(), Round { node: "c".into(), acked: 5, ..round }],
            devices: Summary::default(),
            verdict: Verdict::default(),
        };
        let text = report.to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 5, "{text}");
        let widths: Vec<_> = lines[1..4].iter().map(|line| line.chars().count()).collect();
        assert!(widths.windows(2).all(|pair| pair[0].abs_diff(pair[1]) <= 1), "{text}");
        for word in ["1 234 567", "123 ms", "45 ms", "1.24 s", "–", "900 ms"] {
            assert!(lines[2].contains(word), "{word}: {text}");
        }
        assert_eq!(lines[4], "lost 0, doubled 0");
        assert!(report.is_clean());
        report.verdict.lost = 2;
        assert!(report.to_string().ends_with("lost 2, doubled 0") && !report.is_clean());
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["kills"][0]["its_devices"], 123.0);
        assert_eq!(json["verdict"]["lost"], 2);
    }
}
