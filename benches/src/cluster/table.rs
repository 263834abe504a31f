//! What came of the comparison: figures of each contender, side by side, for people and for programs.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::load::Error;

/// One figure of one contender.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// What, in words; the same words for each contender.
    pub what: String,
    /// Its unit; may be empty.
    pub unit: &'static str,
    /// What is wanted of ours.
    pub wanted: Option<&'static str>,
    /// Its values, ascending; never empty.
    values: Vec<f64>,
    spread: Spread,
}

/// What several values are.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Spread {
    /// Of so many events: median, 99 %, most.
    Events,
    /// Of so many runs of a measurement: median, least, most.
    Runs,
}

impl Figure {
    /// A single value.
    pub fn one(what: impl Into<String>, unit: &'static str, value: f64) -> Self {
        Self::runs(what, unit, vec![value])
    }

    /// A value of each event.
    pub fn events(what: impl Into<String>, unit: &'static str, values: Vec<f64>) -> Self {
        Self::new(what.into(), unit, values, Spread::Events)
    }

    /// A value of each run.
    pub fn runs(what: impl Into<String>, unit: &'static str, values: Vec<f64>) -> Self {
        Self::new(what.into(), unit, values, Spread::Runs)
    }

    fn new(what: String, unit: &'static str, mut values: Vec<f64>, spread: Spread) -> Self {
        values.sort_by(f64::total_cmp);
        Self { what, unit, wanted: None, values, spread }
    }

    /// With what is wanted of it.
    pub fn wanted(self, wanted: &'static str) -> Self {
        Self { wanted: Some(wanted), ..self }
    }

    /// The smallest value that at least this part of all reach (nearest rank), so that the 99 % of 20 is the largest.
    fn quantile(&self, part: f64) -> f64 {
        let rank = (self.values.len() as f64 * part).ceil() as usize;
        self.values.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }

    fn cell(&self) -> String {
        let at = |part| number(self.quantile(part));
        match (self.values.len(), self.spread) {
            (0, _) => "none".to_owned(),
            (1, _) => at(0.5),
            (count, Spread::Events) => format!("p50 {}, p99 {} (of {count})", at(0.5), at(0.99)),
            (_, Spread::Runs) => format!("{} ({} to {})", at(0.5), at(0.0), at(1.0)),
        }
    }
}

/// Three digits that mean something.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Figures for people, as Markdown, under a title.
pub fn markdown(title: &str, command: &str, figures: &[Figure]) -> Result<String, Error> {
    let mut text = format!("# {title}\n\n`{command}`\n\n| what | wanted | measured |\n|---|---|---|\n");
    for figure in figures {
        let unit = if figure.unit.is_empty() { String::new() } else { format!(", {}", figure.unit) };
        let wanted = figure.wanted.unwrap_or("");
        writeln!(text, "| {}{unit} | {wanted} | {} |", figure.what, figure.cell())?;
    }
    Ok(text)
}

/// What a contender showed in one part.
#[derive(Debug)]
pub struct Shown {
    /// The contender.
    pub name: String,
    /// The part of the comparison.
    pub part: String,
    /// Its figures, or why there are none.
    pub result: Result<Vec<Figure>, String>,
}

/// The comparison: how contenders were set up, and what they showed.
#[derive(Debug, Default)]
pub struct Comparison {
    /// Name and configuration.
    pub contenders: Vec<(String, String)>,
    /// In the order in which it was measured.
    pub shown: Vec<Shown>,
}

impl Comparison {
    /// Notes how a contender is set up; the first note stands.
    pub fn configured(&mut self, name: &str, configuration: String) {
        if !self.contenders.iter().any(|(held, _)| held == name) {
            self.contenders.push((name.to_owned(), configuration));
        }
    }

    /// For people, as Markdown.
    pub fn markdown(&self, command: &str) -> Result<String, Error> {
        let mut text = format!("# Clusters side by side\n\n`{command}`\n");
        for (name, configuration) in &self.contenders {
            write!(text, "\n{name}: {configuration}\n")?;
        }
        let names: Vec<&str> = self.contenders.iter().map(|(name, _)| name.as_str()).collect();
        write!(
            text,
            "\n| what | wanted | {} |\n|---|---|{}\n",
            names.join(" | "),
            "---|".repeat(names.len())
        )?;
        for (what, unit, wanted) in self.rows() {
            let unit = if unit.is_empty() { String::new() } else { format!(", {unit}") };
            write!(text, "| {what}{unit} | {} |", wanted.unwrap_or(""))?;
            for name in &names {
                let cell = self.find(name, &what).map(Figure::cell);
                write!(text, " {} |", cell.unwrap_or_default())?;
            }
            text.push('\n');
        }
        for shown in &self.shown {
            if let Err(reason) = &shown.result {
                write!(text, "\n{} failed at {}: {reason}\n", shown.name, shown.part)?;
            }
        }
        Ok(text)
    }

    /// For programs.
    pub fn json(&self, command: &str) -> Value {
        let figure = |figure: &Figure| {
            json!({"what": figure.what, "unit": figure.unit, "wanted": figure.wanted, "values": figure.values,
                   "p50": figure.quantile(0.5), "p99": figure.quantile(0.99), "max": figure.quantile(1.0)})
        };
        let shown = |shown: &Shown| match &shown.result {
            Ok(figures) => json!({"contender": shown.name, "part": shown.part,
                                  "figures": figures.iter().map(figure).collect::<Vec<_>>()}),
            Err(reason) => json!({"contender": shown.name, "part": shown.part, "error": reason}),
        };
        let contender =
            |(name, configuration): &(String, String)| json!({"name": name, "configuration": configuration});
        json!({"command": command,
               "contenders": self.contenders.iter().map(contender).collect::<Vec<_>>(),
               "shown": self.shown.iter().map(shown).collect::<Vec<_>>()})
    }

    /// Every figure that anyone has, in the order of its first appearance.
    fn rows(&self) -> Vec<(String, &'static str, Option<&'static str>)> {
        let mut rows: Vec<(String, &'static str, Option<&'static str>)> = Vec::new();
        for figure in self.shown.iter().filter_map(|shown| shown.result.as_ref().ok()).flatten() {
            if !rows.iter().any(|(what, ..)| *what == figure.what) {
                rows.push((figure.what.clone(), figure.unit, figure.wanted));
            }
        }
        rows
    }

    fn find(&self, name: &str, what: &str) -> Option<&Figure> {
        let of_it = self.shown.iter().filter(|shown| shown.name == name);
        of_it.filter_map(|shown| shown.result.as_ref().ok()).flatten().find(|figure| figure.what == what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_stand_side_by_side_and_failures_below() {
        let mut comparison = Comparison::default();
        for name in ["ours", "theirs", "ours"] {
            comparison.configured(name, format!("{name} as it is"));
        }
        let shown = |name: &str, result| Shown { name: name.into(), part: "p".into(), result };
        let gaps = Figure::events("gap", "ms", (1..=20).rev().map(f64::from).collect()).wanted("≤ 5");
        comparison
            .shown
            .push(shown("ours", Ok(vec![gaps, Figure::runs("rate", "", vec![3.0, 1.25, 200.4])])));
        comparison
            .shown
            .push(shown("theirs", Ok(vec![Figure::one("rate", "", 12.34), Figure::one("x", "", 7.0)])));
        comparison.shown.push(shown("theirs", Err("it fell over".into())));
        let text = comparison.markdown("cmd").unwrap();
        for line in [
            "| what | wanted | ours | theirs |",
            "| gap, ms | ≤ 5 | p50 10, p99 20 (of 20) |  |",
            "| rate |  | 3 (1.25 to 200) | 12.3 |",
            "| x |  |  | 7 |",
            "theirs failed at p: it fell over",
            "ours: ours as it is",
        ] {
            assert!(text.lines().any(|held| held == line), "{line} in\n{text}");
        }
        let value = comparison.json("cmd");
        assert_eq!(value["shown"][0]["figures"][0]["p99"], 20.0);
        assert_eq!(value["shown"][2]["error"], "it fell over");
        assert_eq!(value["contenders"].as_array().unwrap().len(), 2);
    }
}
