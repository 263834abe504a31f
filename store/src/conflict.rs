//! Two sides of a partition may both take the first sample of a series, and take it for different kinds. Afterwards all
//! nodes settle on one of the two, and nothing that was taken is lost: a series of texts holds numbers as their text.
//! A series that was cleared is of the kind that comes next.

use std::fmt::Write as _;

use crate::config::Config;
use crate::model::kind::Kind;
use crate::model::value::{Shape, Values};
use crate::replica::frame::Run;
use crate::ring::{Samples, Stamps};
use crate::series::{Series, State, keep_of};

/// The kind that both sides settle on: a kind of texts before one of numbers, then the later in the list of kinds.
fn settled(a: Kind, b: Kind) -> Kind {
    let rank = |kind: Kind| (kind.is_text(), kind);
    if rank(a) >= rank(b) { a } else { b }
}

/// Settles the kind of a series that a block names, unless all that the block has of it is void.
pub(crate) fn named(config: &Config, series: &Series, kind: Kind, runs: &[Run]) {
    let mut state = series.lock();
    let last = |run: &Run| run.stamp.plus(run.samples.times.len().saturating_sub(1));
    let void = |cleared| runs.iter().filter(|run| run.series == series.id()).all(|run| last(run) <= cleared);
    if !state.ring.cleared().is_some_and(void) {
        reconcile(config, &mut state, kind);
    }
}

/// Settles the kind of a series that another node knows as `kind`.
pub(crate) fn reconcile(config: &Config, state: &mut State, kind: Kind) {
    if state.is_gone() {
        state.restart(config, kind, if kind.is_text() { Shape::Text } else { Shape::Numbers(1) });
        return;
    }
    let settled = settled(state.kind, kind);
    if settled == state.kind {
        return;
    }
    tracing::warn!(
        held = state.kind.name(),
        other = kind.name(),
        "a series has two kinds; {} stays",
        settled.name()
    );
    let keep = keep_of(config, settled, state.keeps.greatest(), state.rate_hz.val);
    if settled.is_text() && !state.kind.is_text() {
        let held = state.ring.len();
        let samples = conform(settled, state.ring.copy(0..held));
        let stamps = Stamps::Each(state.ring.copy_stamps(0..held));
        state.replace_ring(keep, Shape::Text);
        state.ring.join(&samples, &stamps, &mut Vec::new());
        state.soil(&samples);
    } else {
        state.ring.set_keep(keep);
    }
    state.kind = settled;
    state.recorded = false;
}

/// The samples as a series of `kind` holds them.
pub(crate) fn conform(kind: Kind, samples: Samples) -> Samples {
    match &samples.values {
        Values::Numbers { channels, flat } if kind.is_text() => {
            let texts = flat.chunks((*channels).max(1)).map(text).collect();
            Samples { times: samples.times, values: Values::Texts(texts) }
        }
        Values::Texts(texts) if !kind.is_text() => {
            // Only until the kind is settled; the texts are in the log of their origin.
            let flat = texts.iter().map(|text| text.parse().unwrap_or(f64::NAN)).collect();
            Samples { times: samples.times, values: Values::Numbers { channels: 1, flat } }
        }
        _ => samples,
    }
}

fn text(channels: &[f64]) -> Box<str> {
    let number = |out: &mut String, number: f64| {
        // Writing to a string does not fail.
        let _ = if number.is_nan() { write!(out, "null") } else { write!(out, "{number}") };
    };
    let mut out = String::new();
    if let [one] = channels {
        number(&mut out, *one);
    } else {
        for (index, channel) in channels.iter().enumerate() {
            out.push(if index == 0 { '[' } else { ',' });
            number(&mut out, *channel);
        }
        out.push(']');
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_meeting_does_not_matter() {
        for a in Kind::ALL {
            for b in Kind::ALL {
                assert_eq!(settled(*a, *b), settled(*b, *a));
            }
        }
        assert_eq!(settled(Kind::Number, Kind::Text), Kind::Text);
    }

    #[test]
    fn numbers_become_their_text() {
        assert_eq!(&*text(&[36.6]), "36.6");
        assert_eq!(&*text(&[1.0, f64::NAN]), "[1,null]");
    }
}
