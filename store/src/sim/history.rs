//! The history: what was in every block that was ever made, and what was folded. So it is known what a version vector
//! stands for, and a node is held against it: to join all of that to what it has must change nothing.

use std::collections::BTreeMap;

use super::plan::Plan;
use super::world::{Node, World};
use crate::model::ids::{Origin, Partition};
use crate::replica::fold::Fold;
use crate::replica::frame::{Body, Frame, REGISTRY, Run};
use crate::replica::version::{BLOCKS, VersionVector};
use crate::ring::{Ring, Stamps};

type Mark = (Partition, Origin, u64);

/// All blocks of samples.
#[derive(Debug, Default)]
pub(super) struct History {
    blocks: BTreeMap<Mark, Vec<Run>>,
    /// What stand-ins stand for.
    folds: BTreeMap<Origin, Vec<Mark>>,
}

impl History {
    /// A node made a frame.
    pub(super) fn made(&mut self, frame: Frame) {
        for block in frame.blocks {
            if let Body::Samples { runs, .. } = block.body {
                self.blocks.insert((block.partition, frame.origin, block.number), runs);
            }
        }
    }

    /// Origins are folded that were held like this.
    pub(super) fn folded(&mut self, fold: &Fold, held: &VersionVector) {
        let columns = || held.iter().filter(|(_, origin, _)| fold.origins.contains(origin)).collect();
        self.folds.entry(fold.stand_in()).or_insert_with(columns);
    }

    /// The blocks of samples that a vector counts.
    fn counted(&self, versions: &VersionVector) -> Result<Vec<&Run>, String> {
        let mut runs = Vec::new();
        let mut marks: Vec<_> = versions.iter().collect();
        while let Some((partition, origin, last)) = marks.pop() {
            if partition.0 >= BLOCKS || partition == REGISTRY {
                continue;
            }
            if let Some(folded) = self.folds.get(&origin) {
                marks.extend(folded.iter().filter(|mark| mark.0 == partition));
                continue;
            }
            for number in 1..=last {
                let block = self.blocks.get(&(partition, origin, number));
                runs.extend(block.ok_or(format!("counts block {number} of {origin}, which nobody made"))?);
            }
        }
        Ok(runs)
    }

    /// Whether rings hold what their vector counts, but for those that are `excused`.
    fn compare(
        &self,
        plan: &Plan,
        versions: &VersionVector,
        rings: &[Ring],
        excused: &[bool],
    ) -> Result<(), String> {
        for Run { series, stamp, samples } in self.counted(versions)? {
            let Some(topic) = plan.by_id(*series).filter(|topic| !excused[*topic]) else { continue };
            let (mut ring, mut changed) = (rings[topic].clone(), Vec::new());
            ring.join(samples, &Stamps::From(*stamp), &mut changed);
            if let Some(lacking) = changed.first() {
                let (time, held) = (samples.times[*lacking].0, super::disk::column(&rings[topic]));
                return Err(format!("counts sample {time} of series {topic}, but has {held:?}"));
            }
        }
        Ok(())
    }
}

impl World {
    /// Whether a node has what its vector counts. Where a clear or a change of `keep` came between, order matters.
    pub(super) fn compare_history(&self, at: usize) -> Result<(), String> {
        let Node { run: Some(run), .. } = &self.nodes[at] else { return Ok(()) };
        let compared = self.history.compare(&self.plan, run.replica.held(), &run.rings, &self.unlike);
        compared.map_err(|what| format!("node {at} {what}"))
    }
}
