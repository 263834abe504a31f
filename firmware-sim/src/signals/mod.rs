//! Plausible measurements. The same seed gives the same bits, in any process at any time: a signal knows no clock, only
//! how many steps it has made.

pub mod battery;
pub mod button;
pub mod climate;
pub mod ecg;
pub mod gps;
pub mod heart;
pub mod imu;
pub mod machine;
pub mod noise;

use ingest::wire::message::{Attribute, Value};

/// What a signal is, as its device describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    /// Attribute, and usually the kind's name, so that it is understood without a description.
    pub attribute: &'static str,
    /// Kind: it fixes channels and units.
    pub kind: &'static str,
    /// Unit, where the kind fixes none.
    pub unit: Option<&'static str>,
    /// Between two steps, in microseconds.
    pub interval_us: i64,
    /// Samples worth keeping.
    pub keep: u64,
}

impl Spec {
    /// A signal of a kind that fixes its units.
    pub const fn of(attribute: &'static str, kind: &'static str, interval_us: i64, keep: u64) -> Self {
        Self { attribute, kind, unit: None, interval_us, keep }
    }

    /// Steps a second.
    pub fn rate_hz(&self) -> f64 {
        1e6 / self.interval_us as f64
    }

    /// For `hello`.
    pub fn describe(&self) -> Attribute {
        Attribute {
            kind: Some(self.kind.to_owned()),
            unit: self.unit.map(str::to_owned),
            rate_hz: (!matches!(self.kind, "button" | "event")).then(|| self.rate_hz()),
            keep: Some(self.keep),
            channels: None,
        }
    }
}

/// Something measured in even steps.
pub trait Signal: Send {
    /// What it is; always the same.
    fn spec(&self) -> Spec;
    /// The next step's value; `None` where nothing happened.
    fn next(&mut self) -> Option<Value>;
}

/// To `digits` decimals, as a sensor of limited resolution would say it.
fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

fn numbers(values: &[f64]) -> Value {
    Value::Numbers(values.iter().copied().map(Some).collect())
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// The numbers of `steps` steps, one list of channels each.
    pub fn take(signal: &mut dyn Signal, steps: usize) -> Vec<Vec<f64>> {
        (0..steps)
            .filter_map(|_| signal.next())
            .map(|value| match value {
                Value::Number(number) => vec![number],
                Value::Numbers(numbers) => numbers.into_iter().map(Option::unwrap).collect(),
                Value::Text(text) => panic!("a text: {text}"),
            })
            .collect()
    }

    pub fn mean(values: impl Iterator<Item = f64> + Clone) -> f64 {
        let count = values.clone().count() as f64;
        values.sum::<f64>() / count
    }

    pub fn deviation(values: impl Iterator<Item = f64> + Clone) -> f64 {
        let mean = mean(values.clone());
        self::mean(values.map(|value| (value - mean).powi(2))).sqrt()
    }
}
