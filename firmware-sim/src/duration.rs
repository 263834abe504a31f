//! Durations as people write them: `500ms`, `60s`, `5m`, `2h`; a bare number is seconds.

use std::time::Duration;

/// Longest duration taken: a year.
const MAX_SECONDS: f64 = 366.0 * 86_400.0;

/// Reads a duration; the error says what is wrong with it.
pub fn parse(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("`{unit}` is no unit of time; use ms, s, m or h")),
    };
    let number: f64 = number.parse().map_err(|_| format!("`{text}` is no duration such as 60s or 500ms"))?;
    let seconds = number * factor;
    if seconds > MAX_SECONDS {
        return Err(format!("`{text}` is longer than a year"));
    }
    Ok(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_and_nonsense_is_refused() {
        assert_eq!(parse("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(parse("1.5m").unwrap(), Duration::from_secs(90));
        assert_eq!(parse("7").unwrap(), Duration::from_secs(7));
        for wrong in ["", "s", "1d", "-1s", "1.2.3s", "99999999h"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
