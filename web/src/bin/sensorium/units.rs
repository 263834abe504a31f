//! Values with units, as people write them: `512MiB`, `10m`. And bounded numbers. A value that parses is in bounds.

use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

/// Longest span that an option may say: a hundred years, so that no sum of times overflows.
const MAX_SPAN: Duration = Duration::from_secs(100 * 365 * 86_400);

/// A number of bytes: `1048576`, `512KiB`, `64MB`, `1.5GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Scalar")]
pub(crate) struct Size(pub(crate) u64);

/// A span of time: `500ms`, `30s`, `10m`, `12h`, `30d`; a bare number is seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Scalar")]
pub(crate) struct Span(pub(crate) Duration);

/// How many samples a series keeps: 1 to [`store::MAX_KEEP`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Scalar")]
pub(crate) struct Keep(pub(crate) usize);

/// A value in a TOML file: `"512MiB"` or `536870912`.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a number, or a number with its unit in quotes")]
enum Scalar {
    Number(u64),
    Text(String),
}

macro_rules! from_scalar {
    ($($name:ident),*) => {$(
        impl TryFrom<Scalar> for $name {
            type Error = String;

            fn try_from(scalar: Scalar) -> Result<Self, String> {
                match scalar {
                    Scalar::Number(number) => number.to_string().parse(),
                    Scalar::Text(text) => text.parse(),
                }
            }
        }
    )*};
}
from_scalar!(Size, Span, Keep);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected =
            || format!("{text:?} is not a size; expected a number with B, KB, MB, GB, KiB, MiB or GiB");
        let (number, unit) = split(text).ok_or_else(expected)?;
        let factor = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1.0,
            "k" | "kb" => 1e3,
            "m" | "mb" => 1e6,
            "g" | "gb" => 1e9,
            "t" | "tb" => 1e12,
            "kib" => 1024.0,
            "mib" => 1024.0 * 1024.0,
            "gib" => 1024.0 * 1024.0 * 1024.0,
            "tib" => 1024.0_f64.powi(4),
            _ => return Err(expected()),
        };
        let bytes = number * factor;
        (1.0..=1e18).contains(&bytes).then_some(Self(bytes as u64)).ok_or_else(expected)
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("{text:?} is not a span of time; expected a number with ms, s, m, h or d");
        let (number, unit) = split(text).ok_or_else(expected)?;
        let seconds = match unit {
            "ms" => 1e-3,
            "" | "s" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return Err(expected()),
        };
        match Duration::try_from_secs_f64(number * seconds) {
            Ok(span) if span <= MAX_SPAN => Ok(Self(span)),
            _ => Err(expected()),
        }
    }
}

impl FromStr for Keep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(keep) if (1..=store::MAX_KEEP).contains(&keep) => Ok(Self(keep)),
            _ => Err(format!("{text:?} is not a number of samples; expected 1 to {}", store::MAX_KEEP)),
        }
    }
}

/// A non-negative number and what follows it.
fn split(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_people_write_them() {
        for (text, bytes) in [
            ("1", 1),
            ("512MiB", 512 << 20),
            ("1.5 GiB", 3 << 29),
            ("64mb", 64_000_000),
            ("2k", 2000),
            ("3TiB", 3 << 40),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for text in ["", "MiB", "0", "-1", "1 parsec", "1e9", "9999999999999TiB", "1.2.3"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn spans_as_people_write_them() {
        for (text, millis) in
            [("10m", 600_000), ("250ms", 250), ("1.5s", 1500), ("7", 7000), ("30d", 2_592_000_000)]
        {
            assert_eq!(text.parse(), Ok(Span(Duration::from_millis(millis))), "{text}");
        }
        for text in ["", "m", "-1s", "10 years", "99999999d"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn keep_is_bounded() {
        assert_eq!("1000".parse(), Ok(Keep(1000)));
        for text in ["0", "100001", "-1", "many"] {
            assert!(text.parse::<Keep>().is_err(), "{text}");
        }
    }
}
