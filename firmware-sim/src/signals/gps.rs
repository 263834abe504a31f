//! A walk, as a receiver of satellite positions tells it: position, accuracy, height, speed and heading agree.

use ingest::wire::message::Value;

use super::noise::{Drift, Noise};
use super::{Signal, Spec, numbers, rounded};

/// Between two fixes, in microseconds.
const INTERVAL_US: i64 = 1_000_000;
/// Metres in a degree of latitude (mean earth radius of 6371 km).
const DEGREE_M: f64 = 111_194.93;
/// Where walks start: within 2 km of here.
const START: (f64, f64) = (48.1374, 11.5755);

/// Latitude, longitude, accuracy, height, speed, heading.
#[derive(Debug)]
pub struct Walk {
    noise: Noise,
    pace: Drift,
    turning: Drift,
    error: [Drift; 2],
    slope: Drift,
    latitude: f64,
    longitude: f64,
    height: f64,
    heading: f64,
}

impl Walk {
    /// Of the walker with `seed`.
    pub fn new(seed: u64) -> Self {
        let mut noise = Noise::new(seed, "walk");
        let latitude = START.0 + noise.between(-2000.0, 2000.0) / DEGREE_M;
        let longitude = START.1 + noise.between(-2000.0, 2000.0) / (DEGREE_M * START.0.to_radians().cos());
        let drift = |what, deviation, memory| Drift::new(Noise::new(seed, what), deviation, memory, 1.0);
        Self {
            pace: drift("pace", 0.15, 20.0),
            turning: drift("turning", 3.0, 8.0),
            error: [drift("north", 1.5, 30.0), drift("east", 1.5, 30.0)],
            slope: drift("slope", 0.02, 60.0),
            latitude,
            longitude,
            height: noise.between(500.0, 540.0),
            heading: noise.between(0.0, 360.0),
            noise,
        }
    }
}

impl Signal for Walk {
    fn spec(&self) -> Spec {
        Spec::of("geolocation", "geolocation", INTERVAL_US, 3600)
    }

    fn next(&mut self) -> Option<Value> {
        let speed = (1.4 + self.pace.step()).max(0.0);
        self.heading = (self.heading + self.turning.step()).rem_euclid(360.0);
        let (sin, cos) = self.heading.to_radians().sin_cos();
        let east_degree = DEGREE_M * self.latitude.to_radians().cos();
        self.latitude += speed * cos / DEGREE_M;
        self.longitude += speed * sin / east_degree;
        self.height += speed * self.slope.step();
        let [north, east] = &mut self.error;
        let (north, east) = (north.step(), east.step());
        let accuracy = 4.0 + self.noise.normal(0.5).abs() + 0.5 * north.hypot(east);
        Some(numbers(&[
            rounded(self.latitude + north / DEGREE_M, 7),
            rounded(self.longitude + east / east_degree, 7),
            rounded(accuracy, 1),
            rounded(self.height + self.noise.normal(0.3), 1),
            rounded(speed, 2),
            // Rounding up must not give the 360 that is called 0.
            rounded(self.heading, 1) % 360.0,
        ]))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{mean, take};
    use super::*;

    #[test]
    fn the_walker_goes_as_far_as_the_speed_says() {
        let fixes = take(&mut Walk::new(4), 600);
        let mean_speed = mean(fixes.iter().map(|fix| fix[4]));
        assert!((1.0..1.8).contains(&mean_speed), "{mean_speed}");
        for pair in fixes.windows(2) {
            let north = (pair[1][0] - pair[0][0]) * DEGREE_M;
            let east = (pair[1][1] - pair[0][1]) * DEGREE_M * pair[0][0].to_radians().cos();
            let error = (north.hypot(east) - pair[1][4]).abs();
            assert!(error < 2.5, "a jump of {error} m");
            assert!((0.0..360.0).contains(&pair[1][5]) && pair[1][2] >= 4.0);
        }
        // Over a minute the errors of single fixes hardly matter.
        let (first, last) = (&fixes[0], &fixes[60]);
        let way = ((last[0] - first[0]) * DEGREE_M)
            .hypot((last[1] - first[1]) * DEGREE_M * first[0].to_radians().cos());
        let walked: f64 = fixes[1..=60].iter().map(|fix| fix[4]).sum();
        assert!(way < walked + 10.0, "{way} m as the crow flies, {walked} m walked");
    }
}
