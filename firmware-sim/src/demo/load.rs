//! Devices whose values are unique for their series and time, so that a sample that was lost, doubled or exchanged shows.

use ingest::wire::message::Value;

use crate::fleet::{Member, Scenario, member};
use crate::signals::{Signal, Spec};

/// Marks are multiples of this; with [`QUANTUM`] a marked value below 8192 is exact in a double.
const MARK: f64 = 1.0 / (1u64 << 39) as f64;
/// To what a value is cut, so that its mark stands below.
const QUANTUM: f64 = 1.0 / 1024.0;
/// Marks before they repeat: those that fit below the quantum. At 250 samples a second that is after 35 minutes.
const MARKS: u64 = 1 << 29;
/// Series of a fleet that have marks of their own.
const SERIES: u64 = 1024;
/// Attributes of a counting device.
const COUNTS: [&str; 8] =
    ["count", "count-2", "count-3", "count-4", "count-5", "count-6", "count-7", "count-8"];

/// A plausible signal whose last channel says, below what anybody would see, which series and which step it is of.
struct Marked {
    signal: Box<dyn Signal>,
    series: u64,
    step: u64,
}

impl Signal for Marked {
    fn spec(&self) -> Spec {
        self.signal.spec()
    }

    fn next(&mut self) -> Option<Value> {
        let mark = (self.step * SERIES + self.series) % MARKS;
        self.step += 1;
        let marked = |value: f64| (value / QUANTUM).floor() * QUANTUM + mark as f64 * MARK;
        Some(match self.signal.next()? {
            Value::Number(number) => Value::Number(marked(number)),
            Value::Numbers(mut numbers) => {
                if let Some(last) = numbers.iter_mut().flatten().last() {
                    *last = marked(*last);
                }
                Value::Numbers(numbers)
            }
            Value::Text(text) => Value::Text(format!("{text} {mark}")),
        })
    }
}

/// Chest straps, watches and motors in turn, each measuring something at 50 Hz at least; every value is unique.
pub fn plausible(sensors: usize, seed: u64, keep: u64) -> Vec<Member> {
    let model = |index: usize| match index % 3 {
        0 => member(Scenario::Wearables, seed, index / 3 * 2),
        1 => member(Scenario::Wearables, seed, index / 3 * 2 + 1),
        _ => member(Scenario::Machines, seed, index / 3),
    };
    (0..sensors)
        .map(|index| {
            let marked = |at: usize, signal| -> Box<dyn Signal> {
                let series = (index * COUNTS.len() + at) as u64 % SERIES;
                Box::new(Marked { signal, series, step: 0 })
            };
            model(index).map(marked).keeping(keep)
        })
        .collect()
}

/// A number that counts up.
struct Count {
    spec: Spec,
    next: u64,
}

impl Signal for Count {
    fn spec(&self) -> Spec {
        self.spec
    }

    fn next(&mut self) -> Option<Value> {
        self.next += 1;
        Some(Value::Number(self.next as f64))
    }
}

/// Devices for load: each of their (at most eight) series counts up from a number of its own.
pub fn counting(devices: usize, series: usize, rate_hz: u32, keep: u64) -> Vec<Member> {
    let interval_us = i64::from(1_000_000 / rate_hz.max(1));
    let count = |device: usize, at: usize| -> Box<dyn Signal> {
        let spec = Spec::of(COUNTS[at], "number", interval_us, keep);
        Box::new(Count { spec, next: ((device * COUNTS.len() + at) as u64) << 32 })
    };
    let signals = |device| (0..series.clamp(1, COUNTS.len())).map(|at| count(device, at)).collect();
    (0..devices)
        .map(|device| {
            Member::new(format!("load-{device}"), format!("Load {device}"), device as u64, signals(device))
        })
        .collect()
}

/// Every series of these devices: sensor and attribute.
pub fn series(members: &[Member]) -> Vec<(String, String)> {
    let of = |member: &Member| {
        let sensor = member.device.sensor.clone();
        member.attributes().map(|attribute| (sensor.clone(), attribute.to_owned())).collect::<Vec<_>>()
    };
    members.iter().flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn values(mut members: Vec<Member>, seconds: i64) -> Vec<String> {
        let batches = members.iter_mut().flat_map(|member| member.until(seconds * 1_000_000, 0));
        batches.flat_map(|batch| batch.samples).map(|(_, value)| format!("{value:?}")).collect()
    }

    #[test]
    fn no_value_comes_twice_in_any_series() {
        for members in [plausible(9, 1, 1000), counting(5, 3, 100, 1000)] {
            let mut names = series(&members);
            assert!(names.len() >= 15);
            names.sort();
            names.dedup();
            let devices = names.iter().map(|(sensor, _)| sensor).collect::<HashSet<_>>().len();
            assert_eq!(devices, members.len());
            let mut values = values(members, 20);
            let count = values.len();
            assert!(count >= 15 * 20);
            values.sort();
            values.dedup();
            assert_eq!(values.len(), count);
        }
    }

    #[test]
    fn marks_are_not_seen() {
        let mut plain = member(Scenario::Wearables, 1, 0);
        let mut marked = plausible(1, 1, 1000).remove(0);
        assert!(marked.interval() <= std::time::Duration::from_millis(20));
        for (plain, marked) in plain.until(1_000_000, 0).iter().zip(marked.until(1_000_000, 0)) {
            for ((_, plain), (_, marked)) in plain.samples.iter().zip(marked.samples) {
                let (Value::Number(plain), Value::Number(marked)) = (plain, marked) else { continue };
                assert!((plain - marked).abs() <= QUANTUM, "{plain} {marked}");
            }
        }
    }
}
