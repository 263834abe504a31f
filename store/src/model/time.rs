//! Sample time: when something was measured. It is data, never a clock.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Microseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SampleTime(pub i64);

/// Largest magnitude a time may have, in microseconds: up to here a JSON number of milliseconds (f64) still
/// names every microsecond.
pub const MAX_MICROS: i64 = 1 << 53;

impl SampleTime {
    /// The machine's wall clock, now.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(since.as_micros() as i64)
    }

    /// From milliseconds as the contract's `ts` gives them, rounded to the microsecond. `None` when not finite
    /// or beyond [`MAX_MICROS`].
    pub fn from_millis(ts: f64) -> Option<Self> {
        let micros = (ts * 1000.0).round();
        (micros.abs() <= MAX_MICROS as f64).then_some(Self(micros as i64))
    }

    /// Milliseconds as a float; exact to the microsecond within [`MAX_MICROS`].
    pub fn millis(self) -> f64 {
        self.0 as f64 / 1000.0
    }
}

impl fmt::Display for SampleTime {
    /// Milliseconds with up to three decimals, as `ts` is written in JSON and CSV: `1763661600000`, `2.778`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, micros) = (if self.0 < 0 { "-" } else { "" }, self.0.unsigned_abs());
        write!(f, "{sign}{}", micros / 1000)?;
        match micros % 1000 {
            0 => Ok(()),
            rest => f.write_str(format!(".{rest:03}").trim_end_matches('0')),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_round_to_the_microsecond_and_back() {
        for (ts, micros, shown) in [
            (0.0, 0, "0"),
            (2.778, 2_778, "2.778"),
            (1_763_661_600_000.0, 1_763_661_600_000_000, "1763661600000"),
            (1_763_661_600_000.5, 1_763_661_600_000_500, "1763661600000.5"),
            (-0.001, -1, "-0.001"),
            (2.777_777_8, 2_778, "2.778"),
        ] {
            assert_eq!(SampleTime::from_millis(ts), Some(SampleTime(micros)), "{ts}");
            assert_eq!(SampleTime(micros).to_string(), shown);
        }
        for bad in [f64::NAN, f64::INFINITY, 1e300, -1e300] {
            assert_eq!(SampleTime::from_millis(bad), None);
        }
    }

    #[test]
    fn every_microsecond_of_this_century_survives_a_float_of_milliseconds() {
        for micros in (1_763_661_600_000_000..).step_by(999_999_937).take(10_000) {
            assert_eq!(SampleTime::from_millis(SampleTime(micros).millis()), Some(SampleTime(micros)));
        }
    }
}
