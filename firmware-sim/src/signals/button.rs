//! A button that somebody presses now and then: texts, said when something changes.

use ingest::wire::message::Value;

use super::noise::Noise;
use super::{Signal, Spec};

/// How finely presses are timed, in microseconds.
const INTERVAL_US: i64 = 50_000;
/// Seconds between presses on average.
const PAUSE_S: f64 = 8.0;

/// `pressed` and `released` in turn, or `double` instead of `pressed`.
#[derive(Debug)]
pub struct Button {
    noise: Noise,
    /// Steps until it is let go; 0 while nobody presses.
    held: u32,
}

impl Button {
    /// Of the device with `seed`.
    pub fn new(seed: u64) -> Self {
        Self { noise: Noise::new(seed, "button"), held: 0 }
    }
}

impl Signal for Button {
    fn spec(&self) -> Spec {
        Spec::of("button", "button", INTERVAL_US, 500)
    }

    fn next(&mut self) -> Option<Value> {
        if self.held > 0 {
            self.held -= 1;
            return (self.held == 0).then(|| Value::Text("released".to_owned()));
        }
        if !self.noise.chance(INTERVAL_US as f64 * 1e-6 / PAUSE_S) {
            return None;
        }
        self.held = self.noise.between(2.0, 20.0) as u32;
        Some(Value::Text(if self.noise.chance(0.1) { "double" } else { "pressed" }.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pressed_is_released_before_it_is_pressed_again() {
        let mut button = Button::new(1);
        let events: Vec<_> = (0..20 * 600)
            .filter_map(|_| match button.next()? {
                Value::Text(text) => Some(text),
                other => panic!("{other:?}"),
            })
            .collect();
        assert!((80..240).contains(&events.len()), "{} in ten minutes", events.len());
        assert!(events.iter().enumerate().all(|(at, event)| (at % 2 == 1) == (event == "released")));
    }
}
