//! Recordings, sent as if they were measured. Values and times are those of the file to the last digit and microsecond;
//! only the origin of the clock moves, by [`TimeBase`].

mod csv;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ingest::wire::message::{Attribute, Value};
use tokio::time::Instant;

use crate::acks::AckLog;
use crate::batch::Batch;
use crate::client::{BadAddress, Client, ClientOptions, Device, GaveUp, Transport};
use crate::now_us;
use crate::tally::{Progress, Summary, Tally};
pub use csv::{CsvError, Recording};

/// Rows in a frame at full speed.
const FRAME_ROWS: usize = 500;
/// Time in a frame at the file's speed.
const FRAME_TIME: Duration = Duration::from_millis(200);
/// Between two lines of progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);

/// How fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speed {
    /// With the file's spacing; the first row is now.
    Real,
    /// As fast as the node acknowledges.
    Max,
}

/// What to replay, and where to.
#[derive(Debug, Clone)]
pub struct Options {
    /// The recording: `ts_ms`, then a column per channel.
    pub file: PathBuf,
    /// Where to.
    pub transport: Transport,
    /// As which sensor.
    pub sensor: String,
    /// All columns are the channels of this attribute; without it each column is an attribute.
    pub attribute: Option<String>,
    /// Of this kind; `number` where it is left out.
    pub kind: Option<String>,
    /// How fast.
    pub speed: Speed,
    /// At full speed: move the times so that the last row is now. At the file's speed the first row is now anyway.
    pub from_now: bool,
    /// Only so much of the recording, from its start.
    pub duration: Option<Duration>,
    /// Where acknowledged frames are noted.
    pub acks: Option<PathBuf>,
    /// Give up when nothing was acknowledged for so long.
    pub patience: Duration,
    /// Token for nodes with authentication.
    pub token: Option<String>,
    /// Lines of progress on standard error.
    pub progress: bool,
}

impl Options {
    /// At full speed, ending now, each column an attribute; patience of 30 s, no log, no lines of progress.
    pub fn new(file: impl Into<PathBuf>, sensor: impl Into<String>, transport: Transport) -> Self {
        Self {
            file: file.into(),
            transport,
            sensor: sensor.into(),
            attribute: None,
            kind: None,
            speed: Speed::Max,
            from_now: true,
            duration: None,
            acks: None,
            patience: Duration::from_secs(30),
            token: None,
            progress: false,
        }
    }
}

/// Why a replay could not start.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The recording.
    #[error(transparent)]
    Recording(#[from] CsvError),
    /// The addresses.
    #[error("address {0}")]
    Address(#[from] BadAddress),
    /// The log of acknowledgements.
    #[error("cannot open the log of acknowledgements: {0}")]
    Acks(#[source] std::io::Error),
}

/// A column group that goes into one frame.
struct Series {
    attribute: Arc<str>,
    columns: Vec<usize>,
}

/// Sends the whole recording and waits for its acknowledgements. What was not acknowledged is a gap in the summary,
/// and no error.
pub async fn replay(options: Options) -> Result<Summary, ReplayError> {
    let mut recording = csv::read(&options.file)?;
    if let Some(duration) = options.duration {
        recording.keep_first(duration);
    }
    let (series, attributes) = describe(&recording, options.attribute.as_deref(), options.kind.as_deref());
    let acks = match &options.acks {
        Some(path) => Some(Arc::new(AckLog::open(path).map_err(ReplayError::Acks)?)),
        None => None,
    };
    let tally = Arc::new(Tally::default());
    let device = Device { sensor: options.sensor.clone(), name: None, attributes };
    let client = Client::start(
        device,
        ClientOptions {
            transport: options.transport.clone(),
            first: 0,
            patience: options.patience,
            acks,
            seed: now_us() as u64,
            token: options.token.clone(),
        },
        Arc::clone(&tally),
    )?;
    let offset = match (options.speed, options.from_now) {
        (Speed::Real, _) => now_us() - recording.first(),
        (Speed::Max, true) => now_us() - recording.last(),
        (Speed::Max, false) => 0,
    };
    // What is left over when the client gives up is told from what the recording holds.
    let total = count(&recording, &series);
    let sending = async {
        let sent = match options.speed {
            Speed::Max => at_full_speed(&recording, &series, offset, &client).await,
            Speed::Real => at_its_speed(&recording, &series, offset, &client).await,
        };
        // A client that gave up says the same again, and the gaps say how much is missing.
        let finished = client.finish().await;
        sent.and(finished)
    };
    let outcome = watch(sending, &tally, total, options.progress).await;
    let mut summary = tally.summary();
    summary.gaps = total.saturating_sub(summary.acked);
    if let Err(gave_up) = outcome {
        *summary.complaints.entry(gave_up.to_string()).or_default() += 1;
    }
    Ok(summary)
}

async fn watch<T>(sending: impl Future<Output = T>, tally: &Tally, total: u64, progress: bool) -> T {
    let mut sending = std::pin::pin!(sending);
    let mut every = tokio::time::interval_at(Instant::now() + PROGRESS_EVERY, PROGRESS_EVERY);
    loop {
        // `sending` is pinned and polled on, so nothing of it is cancelled.
        tokio::select! {
            done = &mut sending => return done,
            _ = every.tick(), if progress => eprintln!("{} of {total}", Progress(tally.summary())),
        }
    }
}

fn describe(
    recording: &Recording,
    attribute: Option<&str>,
    kind: Option<&str>,
) -> (Vec<Series>, BTreeMap<String, Attribute>) {
    let kind = kind.unwrap_or("number");
    let rate_hz = recording.rate_hz();
    let names = recording.columns();
    let Some(attribute) = attribute else {
        let series = names
            .iter()
            .enumerate()
            .map(|(at, name)| Series { attribute: name.as_str().into(), columns: vec![at] });
        let described = names.iter().map(|name| {
            let unit = name.rsplit_once('_').map(|(_, unit)| unit.to_owned()).filter(|unit| !unit.is_empty());
            (name.clone(), Attribute { kind: Some(kind.to_owned()), unit, rate_hz, ..Attribute::default() })
        });
        return (series.collect(), described.collect());
    };
    // Kinds other than `number` name their channels themselves.
    let channels = (kind == "number" && names.len() > 1).then(|| names.to_vec());
    let described = Attribute { kind: Some(kind.to_owned()), rate_hz, channels, ..Attribute::default() };
    let series = Series { attribute: attribute.into(), columns: (0..names.len()).collect() };
    (vec![series], BTreeMap::from([(attribute.to_owned(), described)]))
}

/// The value of a row for `series`; `None` where the file has none.
fn value(row: &[Option<f64>], series: &Series) -> Option<Value> {
    match series.columns.as_slice() {
        [column] => row[*column].map(Value::Number),
        columns => {
            let values: Vec<_> = columns.iter().map(|column| row[*column]).collect();
            values.iter().any(Option::is_some).then_some(Value::Numbers(values))
        }
    }
}

fn count(recording: &Recording, series: &[Series]) -> u64 {
    let rows = recording.rows(0..recording.len());
    rows.map(|(_, row)| series.iter().filter(|series| value(row, series).is_some()).count() as u64).sum()
}

/// The batches of some rows, one per series.
fn batches(
    recording: &Recording,
    rows: std::ops::Range<usize>,
    series: &[Series],
    offset: i64,
) -> impl Iterator<Item = Batch> {
    series.iter().map(move |series| Batch {
        attribute: Arc::clone(&series.attribute),
        samples: recording
            .rows(rows.clone())
            .filter_map(|(time, row)| Some((time + offset, value(row, series)?)))
            .collect(),
    })
}

async fn at_full_speed(
    recording: &Recording,
    series: &[Series],
    offset: i64,
    client: &Client,
) -> Result<(), GaveUp> {
    for from in (0..recording.len()).step_by(FRAME_ROWS) {
        let rows = from..(from + FRAME_ROWS).min(recording.len());
        for batch in batches(recording, rows, series, offset) {
            client.send(batch).await?;
        }
    }
    Ok(())
}

/// Every frame goes out when its last row is due. After a stall the rows that came due meanwhile follow at once.
async fn at_its_speed(
    recording: &Recording,
    series: &[Series],
    offset: i64,
    client: &Client,
) -> Result<(), GaveUp> {
    let start = Instant::now();
    let first = recording.first();
    let mut from = 0;
    while from < recording.len() {
        let end = recording.time(from) + FRAME_TIME.as_micros() as i64;
        let to = (from..recording.len())
            .take(FRAME_ROWS)
            .find(|row| recording.time(*row) >= end)
            .unwrap_or((from + FRAME_ROWS).min(recording.len()));
        let due = recording.time(to - 1) - first;
        tokio::time::sleep_until(start + Duration::from_micros(due.unsigned_abs())).await;
        for batch in batches(recording, from..to, series, offset) {
            client.send(batch).await?;
        }
        from = to;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_attributes_with_the_headers_unit_or_channels_of_one() {
        let recording = csv::parse("ts_ms,ecg_mlii_mV,plain\n0,1,2\n4,3,\n").unwrap();
        let (series, attributes) = describe(&recording, None, None);
        assert_eq!(attributes["ecg_mlii_mV"].unit.as_deref(), Some("mV"));
        assert_eq!(attributes["ecg_mlii_mV"].rate_hz, Some(250.0));
        assert_eq!(attributes["plain"].unit, None);
        let sent: Vec<_> = batches(&recording, 0..2, &series, 10).collect();
        assert_eq!(sent[0].samples, [(10, Value::Number(1.0)), (4010, Value::Number(3.0))]);
        assert_eq!(sent[1].samples, [(10, Value::Number(2.0))], "a missing value is left out");
        assert_eq!(count(&recording, &series), 3);

        let (series, attributes) = describe(&recording, Some("both"), None);
        assert_eq!(attributes["both"].channels.as_deref().unwrap(), ["ecg_mlii_mV", "plain"]);
        let sent: Vec<_> = batches(&recording, 0..2, &series, 0).collect();
        assert_eq!(sent[0].samples[1], (4000, Value::Numbers(vec![Some(3.0), None])));
        let (_, attributes) = describe(&recording, Some("ecg"), Some("ecg"));
        assert_eq!(attributes["ecg"].channels, None);
    }
}
