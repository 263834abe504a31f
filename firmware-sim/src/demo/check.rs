//! The checker: holds the log of acknowledgements against what every node answers over HTTP and what viewers saw. It
//! trusts no counter of anybody.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::fs::File;
use std::hash::{Hash, Hasher};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use ingest::wire::message::Value;
use serde::{Deserialize, Serialize};

use super::http::{self, HttpError};
use super::viewer::Seen;

/// The most samples that a node answers at once.
pub const MAX_SAMPLES: usize = 100_000;
/// Faults that a verdict shows one by one.
const MAX_EXAMPLES: usize = 12;
/// How often nodes that do not answer alike yet are asked again.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// There can be no verdict.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The log of acknowledgements.
    #[error("{path}, line {line}: {why}")]
    Log {
        /// The log.
        path: PathBuf,
        /// Where.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// A node does not answer.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// More was acknowledged than a ring holds: that some of it is gone would be no fault.
    #[error("{acked} samples of {series} were acknowledged, but only {keep} are kept: nothing can be said")]
    Evicted {
        /// Which series.
        series: String,
        /// How many were acknowledged.
        acked: usize,
        /// How many are kept.
        keep: usize,
    },
}

type SeriesName = (String, String);
type Samples = Vec<(i64, Value)>;

/// What was acknowledged, by series, in order of time; the values are those that were sent.
#[derive(Debug, Default)]
pub struct Acked(BTreeMap<SeriesName, Samples>);

impl Acked {
    /// Reads the log that the devices wrote.
    pub fn read(path: &Path) -> Result<Self, CheckError> {
        let wrong = |line, why: String| CheckError::Log { path: path.to_owned(), line: line + 1, why };
        let file = File::open(path).map_err(|error| wrong(0, error.to_string()))?;
        let mut series = BTreeMap::<SeriesName, Samples>::new();
        let mut lines = 0;
        for (at, line) in BufReader::new(file).lines().enumerate() {
            let line = line.map_err(|error| wrong(at, error.to_string()))?;
            let (sensor, attribute, samples): (String, String, Samples) =
                serde_json::from_str(&line).map_err(|error| wrong(at, error.to_string()))?;
            series.entry((sensor, attribute)).or_default().extend(samples);
            lines = at;
        }
        for ((sensor, attribute), samples) in &mut series {
            samples.sort_by_key(|(time, _)| *time);
            if let Some(pair) = samples.windows(2).find(|pair| pair[0].0 == pair[1].0) {
                let why = format!("{sensor}/{attribute}: {} was acknowledged twice", pair[0].0);
                return Err(wrong(lines, why));
            }
        }
        Ok(Self(series))
    }

    /// An error unless rings of `keep` samples hold everything that was acknowledged.
    pub fn fits(&self, keep: usize) -> Result<(), CheckError> {
        match self.0.iter().find(|(_, samples)| samples.len() > keep) {
            None => Ok(()),
            Some(((sensor, attribute), samples)) => Err(CheckError::Evicted {
                series: format!("{sensor}/{attribute}"),
                acked: samples.len(),
                keep,
            }),
        }
    }

    /// How many samples.
    pub fn samples(&self) -> u64 {
        self.0.values().map(|samples| samples.len() as u64).sum()
    }

    /// How many series.
    pub fn series(&self) -> usize {
        self.0.len()
    }

    /// The most samples of one series.
    pub fn fullest(&self) -> usize {
        self.0.values().map(Vec::len).max().unwrap_or(0)
    }

    /// Whether everything that was acknowledged is at most as new as what `newest` says of its series.
    pub fn reached_by<'a>(&self, newest: impl Iterator<Item = (&'a SeriesName, i64)>) -> bool {
        let newest: BTreeMap<_, _> = newest.collect();
        self.0.iter().all(|(series, samples)| {
            let seen = newest.get(series).copied().unwrap_or(i64::MIN);
            samples.last().is_none_or(|(time, _)| *time <= seen)
        })
    }
}

/// What the checker found. All counts but `series`, `nodes` and `viewers` are samples.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Acknowledged samples, each looked for on every node and at every viewer.
    pub samples: u64,
    /// In so many series.
    pub series: usize,
    /// Nodes asked.
    pub nodes: usize,
    /// Viewers compared.
    pub viewers: usize,
    /// Acknowledged, but a node or a viewer lacks them or has another value.
    pub lost: u64,
    /// Times that a node answered twice, or that came twice on one connection of a viewer with the same value.
    pub doubled: u64,
    /// Answered by some nodes and not by others.
    pub different: u64,
    /// Answered by a node, though no acknowledgement speaks of them.
    pub unasked: u64,
    /// The most samples of one series.
    pub fullest: usize,
    /// How long the nodes took until they answered alike.
    pub alike_after_ms: u64,
    /// Some of the faults.
    pub examples: Vec<String>,
}

impl Verdict {
    /// Whether every promise was kept.
    pub fn is_clean(&self) -> bool {
        self.lost == 0 && self.doubled == 0 && self.different == 0
    }

    fn fault(&mut self, what: impl FnOnce() -> String) {
        if self.examples.len() < MAX_EXAMPLES {
            self.examples.push(what());
        }
    }

    /// Compares what one node answered of a series with what was acknowledged.
    fn judge_node(&mut self, node: &str, series: &str, acked: &Samples, held: &Samples) {
        let doubled = held.windows(2).filter(|pair| pair[0].0 >= pair[1].0).count() as u64;
        if doubled > 0 {
            self.doubled += doubled;
            self.fault(|| format!("{node}: {series}: {doubled} times are not after the one before"));
        }
        let mut rest = held.iter().peekable();
        let mut found = 0;
        for (time, value) in acked {
            while rest.next_if(|(other, _)| other < time).is_some() {}
            match rest.peek() {
                Some((other, held)) if other == time && same(held, value) => found += 1,
                Some((other, held)) if other == time => {
                    self.lost += 1;
                    self.fault(|| {
                        format!("{node}: {series}: {time} is {held:?}, but {value:?} was acknowledged")
                    });
                }
                _ => {
                    self.lost += 1;
                    self.fault(|| format!("{node}: {series}: {time} was acknowledged and is not there"));
                }
            }
        }
        self.unasked += (held.len() as u64).saturating_sub(found + doubled);
    }

    /// Compares what a viewer saw with what was acknowledged.
    pub fn judge_viewer(&mut self, name: &str, acked: &Acked, seen: &Seen) {
        self.viewers += 1;
        for ((sensor, attribute), samples) in &acked.0 {
            let mut sightings =
                seen.series.get(&(sensor.clone(), attribute.clone())).cloned().unwrap_or_default();
            sightings.sort_unstable();
            let doubled = sightings.windows(2).filter(|pair| pair[0] == pair[1]).count() as u64;
            if doubled > 0 {
                self.doubled += doubled;
                self.fault(|| {
                    format!("{name}: {sensor}/{attribute}: {doubled} came twice on one connection")
                });
            }
            for (time, value) in samples {
                let from = sightings.partition_point(|sighting| sighting.time < *time);
                let expected = fingerprint(value);
                let mut of_time = sightings[from..].iter().take_while(|sighting| sighting.time == *time);
                if !of_time.any(|sighting| sighting.fingerprint == expected) {
                    self.lost += 1;
                    self.fault(|| {
                        format!("{name}: {sensor}/{attribute}: {time} was acknowledged and not seen")
                    });
                }
            }
        }
    }
}

/// Asks every node for every series, until all answer alike and hold what was acknowledged, at most for `within`.
pub async fn check(
    acked: &Acked,
    nodes: &[(String, SocketAddr)],
    within: Duration,
) -> Result<Verdict, CheckError> {
    acked.fits(MAX_SAMPLES)?;
    let began = Instant::now();
    let mut verdict = Verdict {
        samples: acked.samples(),
        series: acked.series(),
        nodes: nodes.len(),
        fullest: acked.fullest(),
        ..Verdict::default()
    };
    for ((sensor, attribute), samples) in &acked.0 {
        let name = format!("{sensor}/{attribute}");
        loop {
            let answers = try_join_all(nodes.iter().map(|(_, http)| held(*http, sensor, attribute))).await?;
            let mut found = verdict.clone();
            for ((node, _), answer) in nodes.iter().zip(&answers) {
                found.judge_node(node, &name, samples, answer);
            }
            for pair in answers.windows(2).filter(|pair| pair[0] != pair[1]) {
                let count = difference(&pair[0], &pair[1]);
                found.different += count;
                found.fault(|| format!("{name}: two nodes differ in {count} samples"));
            }
            let faults = |verdict: &Verdict| verdict.lost + verdict.doubled + verdict.different;
            let clean = faults(&found) == faults(&verdict);
            if clean || began.elapsed() > within {
                verdict = found;
                break;
            }
            // This far the nodes were not alike yet.
            tokio::time::sleep(LOOK_EVERY).await;
            verdict.alike_after_ms = began.elapsed().as_millis() as u64;
        }
    }
    Ok(verdict)
}

/// What a node holds of a series; nothing of one that it does not know.
pub async fn held(http: SocketAddr, sensor: &str, attribute: &str) -> Result<Vec<(i64, Value)>, HttpError> {
    #[derive(Deserialize)]
    struct Answer {
        samples: Vec<Sample>,
    }
    #[derive(Deserialize)]
    struct Sample {
        ts: f64,
        value: Value,
    }
    let path = format!("/api/v1/sensors/{sensor}/{attribute}/samples?limit={MAX_SAMPLES}");
    match http::json::<Answer>(http, &path).await {
        Err(HttpError::Status { status: 404, .. }) => Ok(Vec::new()),
        answer => {
            let sample = |Sample { ts, value }| ((ts * 1000.0).round() as i64, value);
            Ok(answer?.samples.into_iter().map(sample).collect())
        }
    }
}

/// Samples that are in one and not in the other.
fn difference(one: &Samples, other: &Samples) -> u64 {
    let times = |samples: &Samples| -> BTreeMap<i64, u64> {
        samples.iter().map(|(time, value)| (*time, fingerprint(value))).collect()
    };
    let (one, other) = (times(one), times(other));
    let only = |of: &BTreeMap<i64, u64>, not_in: &BTreeMap<i64, u64>| {
        of.iter().filter(|(time, value)| not_in.get(time) != Some(value)).count() as u64
    };
    only(&one, &other).max(only(&other, &one)).max(1)
}

/// A value as numbers: a node that gets fewer channels than a series has says that the others are missing.
fn channels(value: &Value) -> Option<&[Option<f64>]> {
    let Value::Numbers(numbers) = value else { return None };
    let present = numbers.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
    Some(&numbers[..present])
}

/// Whether they are the same measurement.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(number), Value::Numbers(_)) => channels(other) == Some(&[Some(*number)]),
        (Value::Numbers(_), Value::Number(_)) => same(other, one),
        (Value::Numbers(_), Value::Numbers(_)) => channels(one) == channels(other),
        _ => one == other,
    }
}

/// Tells values apart without keeping them: the same for [`same`] values.
pub(super) fn fingerprint(value: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    match value {
        Value::Number(number) => [Some(number.to_bits())].as_slice().hash(&mut hasher),
        Value::Numbers(_) => {
            let bits = |number: &Option<f64>| number.map(f64::to_bits);
            channels(value).unwrap_or_default().iter().map(bits).collect::<Vec<_>>().hash(&mut hasher);
        }
        Value::Text(text) => text.hash(&mut hasher),
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::viewer::Sighting;

    fn numbers(of: &[(i64, f64)]) -> Samples {
        of.iter().map(|(time, value)| (*time, Value::Number(*value))).collect()
    }

    fn judged(held: &[(i64, f64)]) -> (u64, u64, u64) {
        let mut verdict = Verdict::default();
        verdict.judge_node("a", "s/x", &numbers(&[(1, 0.1), (2, 0.2), (3, 0.3)]), &numbers(held));
        (verdict.lost, verdict.doubled, verdict.unasked)
    }

    #[test]
    fn channels_that_are_missing_at_the_end_make_no_difference() {
        let wide = |numbers: &[Option<f64>]| Value::Numbers(numbers.to_vec());
        let narrow = wide(&[None, Some(2.0)]);
        for (one, other, equal) in [
            (narrow.clone(), wide(&[None, Some(2.0), None, None]), true),
            (Value::Number(1.0), wide(&[Some(1.0), None]), true),
            (Value::Number(1.0), wide(&[None, Some(1.0)]), false),
            (narrow.clone(), wide(&[Some(2.0)]), false),
            (narrow.clone(), wide(&[None, Some(2.0), Some(0.0)]), false),
            (Value::Text("1".into()), Value::Number(1.0), false),
            (Value::Number(1.0), Value::Number(1.0), true),
        ] {
            assert_eq!((same(&one, &other), same(&other, &one)), (equal, equal), "{one:?} {other:?}");
            assert_eq!(fingerprint(&one) == fingerprint(&other), equal, "{one:?} {other:?}");
        }
    }

    #[test]
    fn a_node_is_held_against_what_was_acknowledged() {
        assert_eq!(judged(&[(1, 0.1), (2, 0.2), (3, 0.3)]), (0, 0, 0));
        assert_eq!(judged(&[(0, 9.0), (1, 0.1), (2, 0.2), (3, 0.3), (4, 9.0)]), (0, 0, 2));
        assert_eq!(judged(&[(1, 0.1), (3, 0.3)]), (1, 0, 0));
        assert_eq!(judged(&[(1, 0.1), (2, 0.25), (3, 0.3)]), (1, 0, 1), "another value");
        assert_eq!(judged(&[(1, 0.1), (2, 0.2), (2, 0.2), (3, 0.3)]), (0, 1, 0));
        assert_eq!(judged(&[]), (3, 0, 0));
    }

    #[test]
    fn a_viewer_is_held_against_what_was_acknowledged() {
        let name = ("s".to_owned(), "x".to_owned());
        let acked = Acked(BTreeMap::from([(name.clone(), numbers(&[(1, 0.1), (2, 0.2)]))]));
        let judged = |sightings: &[(i64, u32, f64)]| {
            let sighting = |(time, connection, value): &(i64, u32, f64)| Sighting {
                time: *time,
                connection: *connection,
                fingerprint: fingerprint(&Value::Number(*value)),
            };
            let mut seen = Seen::default();
            seen.series.insert(name.clone(), sightings.iter().map(sighting).collect());
            let mut verdict = Verdict::default();
            verdict.judge_viewer("v", &acked, &seen);
            (verdict.lost, verdict.doubled)
        };
        assert_eq!(judged(&[(2, 1, 0.2), (1, 1, 0.1)]), (0, 0));
        assert_eq!(judged(&[(2, 1, 0.2), (1, 1, 0.1), (2, 2, 0.2)]), (0, 0), "again after a move");
        assert_eq!(judged(&[(2, 1, 0.2), (1, 1, 0.1), (2, 1, 0.2)]), (0, 1));
        assert_eq!(judged(&[(2, 1, 0.25), (2, 1, 0.2)]), (1, 0), "a time may come again with a new value");
        assert_eq!(judged(&[]), (2, 0));
        assert!(!acked.reached_by([(&name, 1)].into_iter()) && acked.reached_by([(&name, 2)].into_iter()));
    }

    #[test]
    fn the_log_is_read_back_and_its_faults_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("acks");
        std::fs::write(&path, "[\"s\",\"x\",[[2,0.1],[1,[1,null]]]]\n[\"s\",\"x\",[[3,\"t\"]]]\n").unwrap();
        let acked = Acked::read(&path).unwrap();
        assert_eq!((acked.samples(), acked.series(), acked.fullest()), (3, 1, 3));
        assert_eq!(acked.0.values().next().unwrap()[0].0, 1);
        assert!(acked.fits(3).is_ok());
        assert!(matches!(acked.fits(2), Err(CheckError::Evicted { acked: 3, .. })));
        std::fs::write(&path, "[\"s\",\"x\",[[2,0.1]]]\n[\"s\",\"x\",[[2,0.1]]]\n").unwrap();
        let error = Acked::read(&path).unwrap_err().to_string();
        assert!(error.contains("s/x: 2 was acknowledged twice"), "{error}");
        std::fs::write(&path, "[\"s\",\"x\",[[1,1]]]\nhalf a li").unwrap();
        assert!(Acked::read(&path).unwrap_err().to_string().contains("line 2"));
    }
}
