//! Many devices at once, in real time: each has a connection of its own and sends a frame per signal every 100 to 500 ms,
//! or as often as its node advises.

mod scenario;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::acks::AckLog;
use crate::batch::Batch;
use crate::client::{BadAddress, Client, ClientOptions, Device, GaveUp, Transport};
use crate::now_us;
use crate::signals::Signal;
use crate::signals::noise::{Noise, derive};
use crate::tally::{Progress, Summary, Tally};
pub use scenario::{Scenario, member};

/// Samples in a frame at most; a device that was stalled sends several.
const FRAME_SAMPLES: usize = 500;
/// Texts that a series keeps at most.
const MAX_TEXTS: u64 = 1000;
/// Most devices in one process.
pub const MAX_SENSORS: usize = 10_000;
/// Shortest and longest time between two frames of a signal, in milliseconds; each device has its own.
const FRAME_MS: (f64, f64) = (100.0, 500.0);
/// Between two lines of progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// How a fleet sends.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to; devices take turns when there are several ways.
    pub transports: Vec<Transport>,
    /// Same seed, same jitter.
    pub seed: u64,
    /// How long they measure; without it until they are stopped.
    pub duration: Option<Duration>,
    /// Between two frames of a device, whatever nodes advise; without it each device has its own, and heeds advice.
    pub frame: Option<Duration>,
    /// Where every acknowledged sample is noted.
    pub acks: Option<PathBuf>,
    /// Give up when nothing was acknowledged for so long.
    pub patience: Duration,
    /// Token for nodes with authentication.
    pub token: Option<String>,
}

impl Options {
    /// Until stopped, patience of 30 s, no log.
    pub fn new(transports: Vec<Transport>, seed: u64) -> Self {
        let patience = Duration::from_secs(30);
        Self { transports, seed, duration: None, frame: None, acks: None, patience, token: None }
    }
}

/// Why a fleet could not start.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// The addresses.
    #[error("address {0}")]
    Address(#[from] BadAddress),
    /// The log of acknowledgements.
    #[error("cannot open the log of acknowledgements: {0}")]
    Acks(#[source] std::io::Error),
}

/// What came of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// All devices together.
    pub total: Summary,
    /// Each of them.
    pub sensors: Vec<SensorReport>,
    /// How long it took until the last acknowledgement.
    pub seconds: f64,
}

/// What came of one device.
#[derive(Debug, Clone, Serialize)]
pub struct SensorReport {
    /// Its id.
    pub sensor: String,
    /// Its counts.
    #[serde(flatten)]
    pub summary: Summary,
}

/// The signals of one device, and how far each has got. Knows no clock: time is passed in.
pub struct Member {
    /// Its id and name.
    pub device: Device,
    signals: Vec<(Arc<str>, Box<dyn Signal>, i64)>,
    seed: u64,
}

impl Member {
    /// A device of these signals.
    pub fn new(sensor: String, name: String, seed: u64, signals: Vec<Box<dyn Signal>>) -> Self {
        let attributes = signals
            .iter()
            .map(|signal| (signal.spec().attribute.to_owned(), signal.spec().describe()))
            .collect();
        let signals = signals.into_iter().map(|signal| (signal.spec().attribute.into(), signal, 0)).collect();
        Self { device: Device { sensor, name: Some(name), attributes }, signals, seed }
    }

    /// Declares the same `keep` for every attribute, as far as it may be declared.
    pub fn keeping(mut self, keep: u64) -> Self {
        for attribute in self.device.attributes.values_mut() {
            let is_text = matches!(attribute.kind.as_deref(), Some("text" | "button" | "event"));
            attribute.keep = Some(if is_text { keep.min(MAX_TEXTS) } else { keep });
        }
        self
    }

    /// Changes every signal, which is named with its place.
    pub fn map(mut self, change: impl Fn(usize, Box<dyn Signal>) -> Box<dyn Signal>) -> Self {
        self.signals = self
            .signals
            .into_iter()
            .enumerate()
            .map(|(at, (attribute, signal, steps))| (attribute, change(at, signal), steps))
            .collect();
        self
    }

    /// The attributes that it measures.
    pub fn attributes(&self) -> impl Iterator<Item = &str> {
        self.signals.iter().map(|(attribute, ..)| &**attribute)
    }

    /// Between two samples of its fastest signal.
    pub fn interval(&self) -> Duration {
        let fastest = self.signals.iter().map(|(_, signal, _)| signal.spec().interval_us).min();
        Duration::from_micros(fastest.unwrap_or(i64::MAX).unsigned_abs())
    }

    /// What was measured until `elapsed_us` after the start and not asked for yet; times are counted from `start_us`.
    pub fn until(&mut self, elapsed_us: i64, start_us: i64) -> Vec<Batch> {
        let mut batches = Vec::new();
        for (attribute, signal, steps) in &mut self.signals {
            let interval = signal.spec().interval_us;
            let mut samples = Vec::new();
            while *steps * interval < elapsed_us {
                let time = start_us + *steps * interval;
                *steps += 1;
                samples.extend(signal.next().map(|value| (time, value)));
                if samples.len() == FRAME_SAMPLES {
                    let samples = std::mem::take(&mut samples);
                    batches.push(Batch { attribute: Arc::clone(attribute), samples });
                }
            }
            if !samples.is_empty() {
                batches.push(Batch { attribute: Arc::clone(attribute), samples });
            }
        }
        batches
    }

    /// Measures until it is stopped or its time is over, handing over what was measured at every frame.
    async fn measure(
        &mut self,
        client: &Client,
        options: &Options,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), GaveUp> {
        let mut noise = Noise::new(self.seed, "frames");
        let own = Duration::from_secs_f64(noise.between(FRAME_MS.0, FRAME_MS.1) / 1000.0);
        let (advice, interval) = (client.advice(), self.interval());
        let every = || match options.frame {
            Some(frame) => frame,
            None => advice.borrow().map_or(own, |advice| advice.every(interval)),
        };
        let (start, start_us) = (Instant::now(), now_us() / 1000 * 1000);
        let end = options.duration.unwrap_or(Duration::MAX);
        // Not all at once: the first frame comes somewhere within the first interval.
        let mut next = every().mul_f64(noise.between(0.0, 1.0));
        loop {
            next = next.min(end);
            // Both are cancel safe; who lets go of a fleet without stopping it has stopped it.
            let stopped = tokio::select! {
                () = tokio::time::sleep_until(start + next) => false,
                _ = stop.wait_for(|stop| *stop) => true,
            };
            // What a stall held up goes in few frames.
            let until = start.elapsed().clamp(Duration::ZERO, end);
            let until = if stopped { until } else { until.max(next) };
            for batch in self.until(until.as_micros() as i64, start_us) {
                client.send(batch).await?;
            }
            if stopped || until == end {
                return Ok(());
            }
            next = until + every();
        }
    }
}

/// A running fleet. Dropped, its devices stop measuring and deliver what they have.
pub struct Fleet {
    tallies: Vec<(String, Arc<Tally>)>,
    members: JoinSet<Result<(), GaveUp>>,
    stop: watch::Sender<bool>,
    began: Instant,
}

impl Fleet {
    /// Starts the devices; needs a tokio runtime.
    pub fn start(members: Vec<Member>, options: &Options) -> Result<Self, FleetError> {
        let acks = match &options.acks {
            Some(path) => Some(Arc::new(AckLog::with_samples(path).map_err(FleetError::Acks)?)),
            None => None,
        };
        let (stop, stopping) = watch::channel(false);
        let mut fleet = Self {
            tallies: Vec::with_capacity(members.len()),
            members: JoinSet::new(),
            stop,
            began: Instant::now(),
        };
        let ways = options.transports.len().max(1);
        for (index, mut member) in members.into_iter().enumerate() {
            let tally = Arc::new(Tally::default());
            fleet.tallies.push((member.device.sensor.clone(), Arc::clone(&tally)));
            let Some(transport) = options.transports.get(index % ways) else { continue };
            let client = Client::start(
                member.device.clone(),
                ClientOptions {
                    transport: transport.clone(),
                    first: index / ways,
                    patience: options.patience,
                    acks: acks.clone(),
                    seed: derive(options.seed, "jitter", index as u64),
                    token: options.token.clone(),
                },
                tally,
            )?;
            let (options, stopping) = (options.clone(), stopping.clone());
            fleet.members.spawn(async move {
                let measured = member.measure(&client, &options, stopping).await;
                measured.and(client.finish().await)
            });
        }
        Ok(fleet)
    }

    /// Each device with its counts, in their order.
    pub fn tallies(&self) -> &[(String, Arc<Tally>)] {
        &self.tallies
    }

    /// All devices together, as it is now.
    pub fn total(&self) -> Summary {
        let mut total = Summary::default();
        self.tallies.iter().for_each(|(_, tally)| total.add(&tally.summary()));
        total
    }

    /// Devices that measure or wait for acknowledgements.
    pub fn running(&self) -> usize {
        self.members.len()
    }

    /// No device measures on; what they have is still delivered.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Waits until all is acknowledged or given up. Cancel safe.
    pub async fn ended(&mut self) {
        // Whoever gave up shows in the gaps.
        while self.members.join_next().await.is_some() {}
    }

    /// What came of it so far.
    pub fn report(&self) -> Report {
        let sensors = self
            .tallies
            .iter()
            .map(|(sensor, tally)| SensorReport { sensor: sensor.clone(), summary: tally.summary() });
        let seconds = self.began.elapsed().as_secs_f64();
        Report { total: self.total(), sensors: sensors.collect(), seconds }
    }
}

/// Runs a fleet to its end, or until `interrupted` resolves twice: at first it stops measuring, then it waits no longer for
/// acknowledgements.
pub async fn run<I: Future<Output = ()>>(
    members: Vec<Member>,
    options: &Options,
    progress: bool,
    interrupted: impl Fn() -> I,
) -> Result<Report, FleetError> {
    let mut fleet = Fleet::start(members, options)?;
    let began = fleet.began;
    let mut every = tokio::time::interval_at(began + PROGRESS_EVERY, PROGRESS_EVERY);
    let mut stopping = false;
    let mut interrupt = Box::pin(interrupted());
    loop {
        // All are cancel safe.
        tokio::select! {
            () = fleet.ended() => break,
            () = &mut interrupt => {
                fleet.stop();
                if std::mem::replace(&mut stopping, true) {
                    break;
                }
                interrupt.set(interrupted());
            }
            _ = every.tick(), if progress => {
                let elapsed = began.elapsed().as_secs();
                eprintln!("{elapsed} s, {} sensors: {}", fleet.running(), Progress(fleet.total()));
            }
        }
    }
    Ok(fleet.report())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(scenario: Scenario, seed: u64, cuts: &[i64]) -> Vec<Batch> {
        (0..6)
            .flat_map(|index| {
                let mut member = member(scenario, seed, index);
                cuts.iter().flat_map(|cut| member.until(*cut, 1_000_000)).collect::<Vec<_>>()
            })
            .collect()
    }

    fn samples(batches: &[Batch], attribute: &str) -> Vec<String> {
        let of = batches.iter().filter(|batch| &*batch.attribute == attribute);
        of.flat_map(|batch| &batch.samples).map(|sample| format!("{sample:?}")).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_bits_and_another_others() {
        for scenario in Scenario::ALL {
            let cut = [20_000_000];
            let once = all(scenario, 7, &cut);
            assert!(!once.is_empty());
            // Debug output of a double is exact, and so is comparing it.
            assert_eq!(format!("{once:?}"), format!("{:?}", all(scenario, 7, &cut)));
            assert_ne!(format!("{once:?}"), format!("{:?}", all(scenario, 8, &cut)));
        }
    }

    #[test]
    fn however_it_is_cut_into_frames_the_samples_are_the_same() {
        let whole = all(Scenario::Wearables, 3, &[5_000_000]);
        let parts = all(Scenario::Wearables, 3, &[1, 99_999, 1_000_000, 1_000_001, 4_999_999, 5_000_000]);
        for attribute in ["ecg", "imu", "heartrate"] {
            let sorted = |batches| {
                let mut all = samples(batches, attribute);
                all.sort();
                all
            };
            assert!(!sorted(&whole).is_empty());
            assert_eq!(sorted(&whole), sorted(&parts), "{attribute}");
        }
        assert!(whole.iter().all(|batch| (1..=FRAME_SAMPLES).contains(&batch.len())));
        assert!(whole.iter().all(|batch| batch.samples.windows(2).all(|pair| pair[0].0 < pair[1].0)));
    }
}
