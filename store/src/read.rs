//! Reads: the newest samples of a span, thinned on request. They come from memory and never touch the disk.

use crate::model::time::SampleTime;
use crate::model::value::Values;
use crate::ring::Samples;
use crate::series::Series;

/// Which samples of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query {
    /// Not before this.
    pub from: Option<SampleTime>,
    /// Before this.
    pub to: Option<SampleTime>,
    /// The newest so many of them.
    pub limit: usize,
    /// Thinned to at most so many, where they are more: of each of equal spans of time, the samples in which a
    /// channel is least and greatest. Peaks stay.
    pub points: Option<usize>,
}

impl Query {
    /// The newest `limit` samples.
    pub fn newest(limit: usize) -> Self {
        Self { from: None, to: None, limit, points: None }
    }
}

impl Series {
    /// Reads samples, ascending.
    pub fn read(&self, query: &Query) -> Samples {
        let samples = {
            let state = self.lock();
            let ring = &state.ring;
            let start = query.from.map_or(0, |from| ring.position(from));
            let end = query.to.map_or(ring.len(), |to| ring.position(to)).max(start);
            ring.copy(start.max(end.saturating_sub(query.limit))..end)
        };
        match query.points {
            Some(points) if samples.times.len() > points => thin(&samples, points),
            _ => samples,
        }
    }
}

/// Keeps at most `points` of many samples.
fn thin(samples: &Samples, points: usize) -> Samples {
    let kept = match &samples.values {
        Values::Numbers { channels, flat } => extremes(&samples.times, flat, *channels, points),
        Values::Texts(_) => (0..points).map(|point| point * samples.times.len() / points).collect(),
    };
    samples.pick(&kept)
}

/// Indices of the least and greatest of every channel in each of equal spans of time. With fewer points than two for
/// each channel, the first channels decide.
fn extremes(times: &[SampleTime], flat: &[f64], channels: usize, points: usize) -> Vec<usize> {
    let watched = channels.min((points / 2).max(1));
    let buckets = (points / (2 * watched)).max(1) as i128;
    let (first, last) = (times[0].0, times[times.len() - 1].0);
    let width = i128::from(last) - i128::from(first) + 1;
    let bucket_of = |time: SampleTime| (i128::from(time.0) - i128::from(first)) * buckets / width;
    let mut kept = Vec::new();
    let mut start = 0;
    while start < times.len() {
        let bucket = bucket_of(times[start]);
        let length = times[start..].partition_point(|time| bucket_of(*time) == bucket);
        let mut chosen: Vec<usize> = (0..watched)
            .flat_map(|channel| {
                let value = |index: &usize| flat[index * channels + channel];
                let range = || (start..start + length).filter(|index| !value(index).is_nan());
                let least = range().min_by(|a, b| value(a).total_cmp(&value(b)));
                let greatest = range().max_by(|a, b| value(a).total_cmp(&value(b)));
                least.into_iter().chain(greatest)
            })
            .collect();
        chosen.sort_unstable();
        chosen.dedup();
        kept.extend(chosen);
        start += length;
    }
    kept.truncate(points);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinning_keeps_the_peaks_within_the_bound() {
        let times: Vec<_> = (0..10_000).map(SampleTime).collect();
        let flat: Vec<f64> =
            (0..10_000).flat_map(|i| [f64::from(i % 7), if i == 4321 { 99.0 } else { 0.0 }]).collect();
        let samples = Samples { times, values: Values::Numbers { channels: 2, flat } };
        for points in [2, 3, 4, 100, 999] {
            let thinned = thin(&samples, points);
            assert!(thinned.times.len() <= points, "{points}");
            assert!(thinned.times.is_sorted_by(|a, b| a < b));
            let Values::Numbers { flat, .. } = thinned.values else { panic!("numbers") };
            assert!(points < 4 || flat.contains(&99.0), "{points}");
        }
    }
}
