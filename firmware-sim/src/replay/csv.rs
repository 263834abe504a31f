//! Recordings as plain CSV: a header, `ts_ms` first, then a column per channel; `.` is the decimal point, an empty field
//! is a missing value. Numbers are read exactly, times to the microsecond.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Most rows taken; a longer recording is refused.
const MAX_ROWS: usize = 20_000_000;
/// Most columns taken; a wider recording is refused.
const MAX_COLUMNS: usize = 256;

/// Why a file is no recording.
#[derive(Debug, thiserror::Error)]
pub enum CsvError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not of the form.
    #[error("line {line}: {what}")]
    Form {
        /// Counted from 1.
        line: usize,
        /// What is wrong there.
        what: String,
    },
}

/// A recording: strictly ascending times, and a row of values for each. Never empty.
#[derive(Debug, Clone, PartialEq)]
pub struct Recording {
    columns: Vec<String>,
    times: Vec<i64>,
    /// Row after row.
    values: Vec<Option<f64>>,
}

impl Recording {
    /// The names of the columns, without that of the time.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Never: a file without rows is refused.
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// The time of a row in the file's microseconds.
    pub fn time(&self, row: usize) -> i64 {
        self.times[row]
    }

    /// The time of the first row.
    pub fn first(&self) -> i64 {
        self.times[0]
    }

    /// The time of the last row.
    pub fn last(&self) -> i64 {
        self.times[self.times.len() - 1]
    }

    /// Some rows, with their times.
    pub fn rows(&self, rows: Range<usize>) -> impl Iterator<Item = (i64, &[Option<f64>])> {
        let width = self.columns.len();
        let values = &self.values[rows.start * width..rows.end * width];
        self.times[rows].iter().copied().zip(values.chunks_exact(width))
    }

    /// Rows a second, where the recording is even enough for that to mean something.
    pub fn rate_hz(&self) -> Option<f64> {
        let intervals = self.len() as i64 - 1;
        let mean = (self.last() - self.first()).checked_div(intervals)?;
        let even = self.times.windows(2).all(|pair| (pair[1] - pair[0] - mean).abs() * 10 <= mean);
        even.then(|| (1e9 * intervals as f64 / (self.last() - self.first()) as f64).round() / 1000.0)
    }

    /// Forgets what comes after the first `duration`; the first row stays.
    pub fn keep_first(&mut self, duration: Duration) {
        let end = self.first().saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX));
        let rows = self.times.partition_point(|time| *time < end).max(1);
        self.times.truncate(rows);
        self.values.truncate(rows * self.columns.len());
    }
}

/// Reads a recording from a file.
pub fn read(path: &Path) -> Result<Recording, CsvError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| CsvError::Read { path: path.to_owned(), source })?;
    parse(&text)
}

/// Reads a recording from text.
pub fn parse(text: &str) -> Result<Recording, CsvError> {
    let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line));
    let columns = header(lines.next().map_or("", |(_, line)| line))?;
    let mut recording = Recording { columns, times: Vec::new(), values: Vec::new() };
    for (line, text) in lines.filter(|(_, text)| !text.is_empty()) {
        let form = |what| CsvError::Form { line, what };
        let mut fields = text.split(',');
        let time = microseconds(fields.next().unwrap_or_default()).map_err(form)?;
        if recording.times.last().is_some_and(|last| *last >= time) {
            return Err(form(format!("time {} ms is not after the one before", time as f64 / 1000.0)));
        }
        let before = recording.values.len();
        for field in fields {
            recording.values.push(number(field).map_err(form)?);
        }
        let found = recording.values.len() - before;
        if found != recording.columns.len() {
            return Err(form(format!("{found} values for {} columns", recording.columns.len())));
        }
        if recording.times.len() == MAX_ROWS {
            return Err(form(format!("more than {MAX_ROWS} rows")));
        }
        recording.times.push(time);
    }
    if recording.is_empty() {
        return Err(CsvError::Form { line: 1, what: "no row follows the header".to_owned() });
    }
    Ok(recording)
}

fn header(line: &str) -> Result<Vec<String>, CsvError> {
    let form = |what| Err(CsvError::Form { line: 1, what });
    let mut names = line.trim_start_matches('\u{feff}').split(',');
    let time = names.next().unwrap_or_default();
    if time != "ts_ms" {
        return form(format!("the first column is `{time}`, not `ts_ms`"));
    }
    let names: Vec<String> = names.map(str::to_owned).collect();
    if names.is_empty() || names.len() > MAX_COLUMNS {
        return form(format!("{} columns beside the time; 1 to {MAX_COLUMNS} are taken", names.len()));
    }
    for (at, name) in names.iter().enumerate() {
        if !crate::is_id(name) || names[..at].contains(name) {
            return form(format!("`{name}` cannot name a column, or names two"));
        }
    }
    Ok(names)
}

fn number(field: &str) -> Result<Option<f64>, String> {
    if field.is_empty() {
        return Ok(None);
    }
    match field.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(Some(number)),
        _ => Err(format!("`{field}` is no number")),
    }
}

/// Decimal milliseconds as microseconds, without going through a double; further digits round half up.
fn microseconds(field: &str) -> Result<i64, String> {
    let wrong = || format!("`{field}` is no time in milliseconds");
    let (negative, digits) = field.strip_prefix('-').map_or((false, field), |rest| (true, rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let milliseconds: i64 = whole.parse().map_err(|_| wrong())?;
    let digit = |at: usize| fraction.as_bytes().get(at).map_or(0, |byte| i64::from(byte - b'0'));
    let below = digit(0) * 100 + digit(1) * 10 + digit(2) + i64::from(digit(3) >= 5);
    let magnitude =
        milliseconds.checked_mul(1000).and_then(|whole| whole.checked_add(below)).ok_or_else(wrong)?;
    Ok(if negative { -magnitude } else { magnitude })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_exact_to_the_microsecond() {
        for (text, us) in [
            ("0", 0),
            ("2.778", 2778),
            ("1763661600000.001", 1_763_661_600_000_001),
            ("-1.5", -1500),
            ("0.0004", 0),
            ("0.9995", 1000),
        ] {
            assert_eq!(microseconds(text).unwrap(), us, "{text}");
        }
        for wrong in ["", "1e3", "x", ".5", "1.2.3", "--1", "99999999999999999999"] {
            assert!(microseconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_no_recording_is_refused_with_the_line() {
        for (text, line) in [
            ("", 1),
            ("time,a\n0,1\n", 1),
            ("ts_ms\n0\n", 1),
            ("ts_ms,a,a\n0,1,1\n", 1),
            ("ts_ms,a b\n0,1\n", 1),
            ("ts_ms,a\n", 1),
            ("ts_ms,a\n0,1\n0,2\n", 3),
            ("ts_ms,a\n0,1,2\n", 2),
            ("ts_ms,a\n0,NaN\n", 2),
        ] {
            match parse(text) {
                Err(CsvError::Form { line: found, .. }) => assert_eq!(found, line, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn the_recordings_beside_the_tests_are_read() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
        let ecg = read(&directory.join("ecg_mitbih_100.csv")).unwrap();
        assert_eq!((ecg.len(), ecg.columns().len(), ecg.rate_hz()), (600, 2, Some(360.0)));
        assert_eq!(
            (ecg.time(1), ecg.rows(0..1).next().unwrap().1),
            (2778, &[Some(-0.145), Some(-0.065)][..])
        );
        let mut imu = read(&directory.join("imu_watch.csv")).unwrap();
        assert_eq!((imu.columns().len(), imu.rate_hz()), (6, Some(50.0)));
        imu.keep_first(Duration::from_secs(1));
        assert_eq!((imu.len(), imu.rows(0..imu.len()).count()), (50, 50));
    }

    #[test]
    fn an_uneven_recording_has_no_rate() {
        assert_eq!(parse("ts_ms,a\n0,1\n1,1\n100,1\n").unwrap().rate_hz(), None);
        assert_eq!(parse("ts_ms,a\n0,1\n").unwrap().rate_hz(), None);
    }
}
