//! Figures of a measurement, and several runs of it summed up: the median, and the spread from least to most.

use std::fmt;

/// What one run of a measurement gave: a label, with its unit, and a number.
pub type Run = Vec<(&'static str, f64)>;

/// One figure over all runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// What, and in which unit.
    pub label: &'static str,
    /// The values, ascending; never empty.
    pub values: Vec<f64>,
}

impl Summary {
    /// The smallest value.
    pub fn least(&self) -> f64 {
        self.values[0]
    }

    /// The value in the middle; of an even number of them the upper one.
    pub fn median(&self) -> f64 {
        self.values[self.values.len() / 2]
    }

    /// The largest value.
    pub fn most(&self) -> f64 {
        self.values[self.values.len() - 1]
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (median, least, most) = (self.median(), self.least(), self.most());
        write!(f, "{:44} median {median:14.2}   from {least:14.2} to {most:14.2}", self.label)
    }
}

/// Sums up runs of one measurement, figure by figure. A figure that a run does not have is left out of that run.
pub fn summarise(runs: &[Run]) -> Vec<Summary> {
    let labels = runs.first().map(|run| run.iter().map(|(label, _)| *label)).into_iter().flatten();
    labels
        .map(|label| {
            let of_run = |run: &Run| run.iter().find(|(other, _)| *other == label).map(|(_, value)| *value);
            let mut values: Vec<f64> = runs.iter().filter_map(of_run).collect();
            values.sort_by(f64::total_cmp);
            Summary { label, values }
        })
        .collect()
}

/// The value at `quantile` (0 to 1) of ascending values, 0 when there are none.
pub fn quantile(ascending: &[u64], quantile: f64) -> f64 {
    let last = ascending.len().saturating_sub(1);
    ascending.get((last as f64 * quantile) as usize).map_or(0.0, |value| *value as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_summed_up_figure_by_figure() {
        let runs = vec![vec![("a", 3.0), ("b", 1.0)], vec![("a", 1.0), ("b", 9.0)], vec![("a", 2.0)]];
        let summaries = summarise(&runs);
        assert_eq!(summaries.len(), 2);
        assert_eq!((summaries[0].least(), summaries[0].median(), summaries[0].most()), (1.0, 2.0, 3.0));
        assert_eq!(summaries[1].values, [1.0, 9.0]);
        assert!(summarise(&[]).is_empty());
    }

    #[test]
    fn quantiles_stand_on_values_that_were_measured() {
        let values: Vec<u64> = (0..=100).collect();
        assert_eq!(
            (quantile(&values, 0.5), quantile(&values, 0.99), quantile(&values, 1.0)),
            (50.0, 99.0, 100.0)
        );
        assert_eq!(quantile(&[], 0.5), 0.0);
    }
}
