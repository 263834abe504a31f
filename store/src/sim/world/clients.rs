//! What clients do: they send samples, and again what they were not told of; operators change bounds, and clear.

use super::super::Rule;
use super::super::disk::column;
use super::super::node::Promise;
use super::super::plan::{MS, SECOND};
use super::super::witness::Ack;
use super::{Event, World};

impl World {
    /// A client sends a sample: mostly a new one, sometimes late, or one that was sent before.
    pub(super) fn client(&mut self) {
        if self.healing {
            return;
        }
        // Now and then clients rest, so that vectors become equal and rings can be compared.
        let rest = self.dice.chance(20);
        let (least, most) =
            if rest { (SECOND, 3 * SECOND) } else { (self.plan.pause / 4, 2 * self.plan.pause) };
        let pause = self.dice.between(least, most);
        self.after(pause, Event::Client);
        let topic = self.dice.index(self.plan.topics.len());
        let next = self.times[topic];
        let span = 3 * self.plan.topics[topic].keep as u64;
        let (time, twin) = match self.dice.between(0, 99) {
            0..12 => (next - self.dice.between(1, span) as i64, false),
            12..17 => (next - self.dice.between(1, 3) as i64, true),
            17..25 => (next + self.dice.between(0, span) as i64, false),
            _ => (next, false),
        };
        if time < next {
            self.counts.add(if twin { "samples at one time with two values" } else { "samples late" }, 1);
        }
        self.times[topic] = next.max(time + 1);
        let value = time as f64 + if twin { 0.5 } else { 0.0 };
        let sample = self.witness.send(topic, time, value);
        self.counts.add("samples sent", 1);
        let burst = self.dice.chance(150);
        self.offer(sample, value, 0);
        if burst {
            // The same to another node at once: a client that was told nothing and is in a hurry.
            self.offer(sample, value, 0);
        }
    }

    /// A client that was not told that a sample is kept sends it again, to some node.
    pub(super) fn resend(&mut self, sample: usize, tries: u8) {
        if self.healing || !self.witness.samples[sample].acks.is_empty() {
            return;
        }
        self.counts.add("samples sent again", 1);
        let value = self.witness.samples[sample].values[0];
        self.offer(sample, value, tries + 1);
    }

    pub(super) fn offer(&mut self, sample: usize, value: f64, tries: u8) {
        if tries < 8 {
            let patience = self.dice.between(100 * MS, 1500 * MS);
            self.after(patience, Event::Resend { sample, tries });
        }
        let now = self.now;
        let alive = |at: &usize| self.nodes[*at].run.is_some() && self.nodes[*at].hangs_until <= now;
        let alive: Vec<_> = (0..self.nodes.len()).filter(alive).collect();
        let Some(at) = self.dice.pick(&alive) else { return };
        let (topic, time) = (self.witness.samples[sample].topic, self.witness.samples[sample].time);
        let clock = self.clock(at);
        let Some(run) = &mut self.nodes[at].run else { return };
        if self.broken == Some(Rule::AppendedAgain) {
            let held = column(&run.rings[topic]);
            let same = held.get(&time).filter(|held| held.1.to_bits() == value.to_bits());
            if let Some((stamp, _)) = same {
                let ack = Ack::to_come(now, *stamp, run.rings[topic].cleared());
                return self.witness.acknowledged(sample, ack, 2);
            }
        }
        let heard = run.rings[topic].cleared();
        let stamp = run.append(topic, time, value, clock);
        run.waiting_open.push(Promise::Sample(sample, Ack::to_come(now, stamp, heard)));
        self.witness.taken(sample, stamp, value);
        if heard.is_some_and(|cleared| stamp <= cleared) {
            self.fail(format!("node {at} takes {value} at {time} of series {topic} behind its own clear"));
        }
        self.tell(|| format!("node {at} takes {value} at {time} of series {topic}"));
        self.nudge(at);
    }

    /// Raises the bound of a ring.
    pub(in crate::sim) fn raise_keep(&mut self, at: usize, topic: usize) {
        let clock = self.clock(at);
        let more = self.dice.between(1, 6) as usize;
        let Some(run) = &mut self.nodes[at].run else { return };
        let keep = run.rings[topic].keep() + more;
        run.raise_keep(topic, keep, &self.plan, clock);
        self.unlike[topic] = true;
        self.counts.add("keep changes", 1);
        self.tell(|| format!("node {at} raises keep of series {topic} to {keep}"));
        self.nudge(at);
    }

    /// Clears the sensor of a series. Afterwards its device may measure from the beginning again.
    pub(in crate::sim) fn clear(&mut self, at: usize, topic: usize) {
        let clock = self.clock(at);
        let sensor = self.plan.topics[topic].name.sensor.clone();
        let topics: Vec<_> = self.plan.of(&sensor).collect();
        let Some(run) = &mut self.nodes[at].run else { return };
        let held: usize = topics.iter().map(|topic| run.rings[*topic].len()).sum();
        let stamp = run.clear(&sensor, &self.plan, clock);
        let left: usize = topics.iter().map(|topic| run.rings[*topic].len()).sum();
        let number = self.witness.clear(topics.clone(), stamp);
        run.waiting_open.push(Promise::Clear(number, self.now));
        self.counts.add("clears", 1);
        self.counts.add("samples cleared", held as u64);
        self.tell(|| format!("node {at} clears {} with {stamp:?}", sensor.as_str()));
        if left > 0 {
            self.fail(format!("node {at} has cleared {} and still holds {left} samples", sensor.as_str()));
        }
        let again = self.dice.chance(500);
        for topic in topics {
            self.unlike[topic] = true;
            if again {
                self.times[topic] = 1000.max(self.times[topic] - 4 * self.plan.topics[topic].keep as i64);
            }
        }
        self.nudge(at);
    }
}
