//! Many devices at once, in real time: each has a connection of its own and sends a frame per signal every 100 to 500 ms.

mod scenario;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::batch::Batch;
use crate::client::{BadAddress, Client, ClientOptions, Device, GaveUp, Transport};
use crate::now_us;
use crate::signals::Signal;
use crate::signals::noise::{Noise, derive};
use crate::tally::{Progress, Summary, Tally};
pub use scenario::{Scenario, member};

/// Samples in a frame at most; a device that was stalled sends several.
const FRAME_SAMPLES: usize = 500;
/// Most devices in one process.
pub const MAX_SENSORS: usize = 10_000;
/// Shortest and longest time between two frames of a signal, in milliseconds; each device has its own.
const FRAME_MS: (f64, f64) = (100.0, 500.0);
/// Between two lines of progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// How large a fleet, and for how long.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to; devices take turns when there are several ways.
    pub transports: Vec<Transport>,
    /// How many devices.
    pub sensors: usize,
    /// Which.
    pub scenario: Scenario,
    /// Same seed, same measurements.
    pub seed: u64,
    /// How long they measure.
    pub duration: Duration,
    /// Give up when nothing was acknowledged for so long.
    pub patience: Duration,
    /// Token for nodes with authentication.
    pub token: Option<String>,
    /// Lines of progress on standard error.
    pub progress: bool,
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

    /// Measures for `duration`, handing over what was measured at every frame.
    async fn measure(&mut self, duration: Duration, client: &Client) -> Result<(), GaveUp> {
        let mut noise = Noise::new(self.seed, "frames");
        let every = Duration::from_secs_f64(noise.between(FRAME_MS.0, FRAME_MS.1) / 1000.0);
        let (start, start_us) = (Instant::now(), now_us() / 1000 * 1000);
        // Not all at once: the first frame comes somewhere within the first interval.
        let mut next = every.mul_f64(noise.between(0.0, 1.0));
        loop {
            next = next.min(duration);
            tokio::time::sleep_until(start + next).await;
            for batch in self.until(next.as_micros() as i64, start_us) {
                client.send(batch).await?;
            }
            if next == duration {
                return Ok(());
            }
            next += every;
        }
    }
}

/// Runs the fleet until all is acknowledged or given up.
pub async fn run(options: Options) -> Result<Report, BadAddress> {
    let began = Instant::now();
    let mut tallies = Vec::with_capacity(options.sensors);
    let mut members = JoinSet::new();
    for index in 0..options.sensors {
        let mut member = member(options.scenario, options.seed, index);
        let tally = Arc::new(Tally::default());
        tallies.push((member.device.sensor.clone(), Arc::clone(&tally)));
        let ways = options.transports.len().max(1);
        let Some(transport) = options.transports.get(index % ways) else { continue };
        let client = Client::start(
            member.device.clone(),
            ClientOptions {
                transport: transport.clone(),
                first: index / ways,
                patience: options.patience,
                acks: None,
                seed: derive(options.seed, "jitter", index as u64),
                token: options.token.clone(),
            },
            tally,
        )?;
        let duration = options.duration;
        members.spawn(async move {
            let measured = member.measure(duration, &client).await;
            measured.and(client.finish().await)
        });
    }
    let mut every = tokio::time::interval_at(began + PROGRESS_EVERY, PROGRESS_EVERY);
    while !members.is_empty() {
        // Both are cancel safe.
        tokio::select! {
            // Whoever gave up shows in the gaps.
            _ = members.join_next() => {}
            _ = every.tick(), if options.progress => {
                let elapsed = began.elapsed().as_secs();
                eprintln!("{elapsed} s, {} sensors: {}", members.len(), Progress(total(&tallies)));
            }
        }
    }
    let sensors = tallies
        .iter()
        .map(|(sensor, tally)| SensorReport { sensor: sensor.clone(), summary: tally.summary() });
    Ok(Report { total: total(&tallies), sensors: sensors.collect(), seconds: began.elapsed().as_secs_f64() })
}

fn total(tallies: &[(String, Arc<Tally>)]) -> Summary {
    let mut total = Summary::default();
    tallies.iter().for_each(|(_, tally)| total.add(&tally.summary()));
    total
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
