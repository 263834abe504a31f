//! What must hold at the end: all nodes are up and say that they hold the same, and they do, in memory and on disk.

use super::super::disk::{Answer, column};
use super::super::said::Said;
use super::World;

impl World {
    /// What every disk would answer.
    pub(in crate::sim) fn disks(&mut self) -> Vec<Answer> {
        let mut disks = Vec::new();
        for at in 0..self.nodes.len() {
            match self.nodes[at].disk.recover(&self.plan) {
                Ok(found) => {
                    let (rooms, retained) = (found.rooms, found.retained);
                    disks.push(Answer { rings: found.rings, rooms, retained });
                }
                Err(what) => {
                    self.fail(format!("the disk of node {at} cannot be read: {what}"));
                    let empty = |topic| Said::default().empty_ring(&self.plan, topic);
                    let rings = (0..self.plan.topics.len()).map(empty).collect();
                    disks.push(Answer { rings, ..Answer::default() });
                }
            }
        }
        disks
    }

    /// Whether all nodes are up, linked, idle, and say that they hold the same.
    pub(super) fn converged(&self) -> Result<(), String> {
        let mut root = None;
        for (at, node) in self.nodes.iter().enumerate() {
            let run = node.run.as_ref().ok_or(format!("node {at} is down"))?;
            if !run.is_idle() || run.replica.is_joining() {
                return Err(format!("node {at} is busy"));
            }
            if node.links.len() + 1 < self.nodes.len() {
                return Err(format!("node {at} lacks links"));
            }
            if !run.replica.is_caught_up() || !run.replica.is_handed_over() {
                return Err(format!("node {at} has not caught up, or handed over"));
            }
            let (held, durable) = (run.replica.held().root(), run.replica.durable().root());
            if held != durable || *root.get_or_insert(held) != held {
                return Err(format!("the vector of node {at} differs"));
            }
            if !run.waiting.is_empty() {
                return Err(format!("node {at} has not acknowledged frames {:?}", run.waiting.keys()));
            }
        }
        Ok(())
    }

    /// Whether no vector has more closed origins than it may.
    pub(super) fn is_tidy(&self) -> Result<(), String> {
        let first = self.nodes.iter().min_by_key(|node| node.disk.node);
        match first.and_then(|node| node.run.as_ref()) {
            Some(run) if !run.replica.is_tidy() => Err(format!("{} has much to fold", run.origin)),
            _ => Ok(()),
        }
    }

    /// Whether the disks would answer as memory does, where no scrub and no broken snapshot has added to memory.
    pub(super) fn compare_disks(&mut self) -> Result<(), String> {
        if self.broken_off || self.counts.get("scrub merges") > 0 {
            return Ok(());
        }
        let disks = self.disks();
        for (at, disk) in disks.iter().enumerate() {
            let Some(run) = &self.nodes[at].run else { continue };
            let differs = |topic: &usize| !self.unlike[*topic] && run.rings[*topic] != disk.rings[*topic];
            if let Some(topic) = (0..disk.rings.len()).find(differs) {
                let (memory, disk) = (column(&run.rings[topic]), column(&disk.rings[topic]));
                return Err(format!("node {at}, series {topic}: memory has {memory:?}, the disk {disk:?}"));
            }
            if run.rooms != disk.rooms {
                return Err(format!("node {at}: memory has {:?}, the disk {:?}", run.rooms, disk.rooms));
            }
            if run.retained != disk.retained {
                let (memory, disk) = (&run.retained, &disk.retained);
                return Err(format!("node {at}: memory has {memory:?}, the disk {disk:?}"));
            }
        }
        Ok(())
    }

    /// Whether all rings are equal.
    pub(super) fn compare_rings(&self) -> Result<(), String> {
        let rings: Vec<_> =
            self.nodes.iter().filter_map(|node| node.run.as_ref()).map(|run| &run.rings).collect();
        for (at, others) in rings.iter().enumerate() {
            for (topic, (ours, first)) in others.iter().zip(rings[0]).enumerate() {
                if ours != first {
                    let (ours, first) = (column(ours), column(first));
                    return Err(format!(
                        "series {topic} differs after a scrub: node {at} has {ours:?}, node 0 {first:?}"
                    ));
                }
            }
        }
        Ok(())
    }
}
