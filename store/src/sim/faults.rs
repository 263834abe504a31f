//! What goes wrong, and the household: checkpoints, backups, scrubs, changes of `keep`, clears.

use super::disk::Disk;
use super::plan::{MS, SECOND};
use super::world::{Doom, Event, World};
use crate::model::ids::NodeId;

impl World {
    /// One fault, and when the next one comes.
    pub(super) fn fault(&mut self) {
        if self.healing {
            return;
        }
        let next = self.dice.between(self.plan.calm / 4, 2 * self.plan.calm);
        self.after(next, Event::Fault);
        let at = self.dice.index(self.nodes.len());
        let other = (at + 1 + self.dice.index(self.nodes.len() - 1)) % self.nodes.len();
        let time = self.dice.between(100 * MS, 6 * SECOND);
        let is_up = self.nodes[at].run.is_some();
        match self.dice.index(100) {
            0..15 if is_up => self.nodes[at].doom = Some(Doom::BeforeSync),
            15..30 if is_up => self.nodes[at].doom = Some(Doom::AfterSync),
            30..40 if is_up => self.kill(at),
            40..42 => self.kill_all(),
            42..52 if is_up => self.hang(at, time),
            52..66 => self.partition(time),
            66..78 => {
                self.counts.add("one-way cuts", 1);
                self.tell(|| format!("nothing passes from {at} to {other} for {} ms", time / MS));
                self.cut(vec![(at, other)], time);
            }
            78..88 => self.suspect(at, other),
            88..94 => self.nodes[at].skew = self.dice.between(0, 6_000_000) as i64 - 3_000_000,
            _ => self.break_link(at, other),
        }
    }

    fn kill_all(&mut self) {
        self.counts.add("restarts of all", 1);
        for at in 0..self.nodes.len() {
            if self.nodes[at].run.is_some() {
                self.kill(at);
            }
        }
    }

    /// A node does nothing for a while; its peers lose patience.
    fn hang(&mut self, at: usize, time: u64) {
        self.counts.add("hangs", 1);
        self.tell(|| format!("node {at} hangs for {} ms", time / MS));
        self.nodes[at].hangs_until = self.now + time;
        let links = self.nodes[at].links.iter().map(|(peer, link)| (*peer, link.session));
        for (peer, session) in links.collect::<Vec<_>>() {
            let patience = self.dice.between(SECOND, 3 * SECOND);
            self.after(patience, Event::Silence { at: peer, peer: at, session });
        }
    }

    /// Two or three groups that do not hear each other.
    fn partition(&mut self, time: u64) {
        let groups = self.dice.between(2, 3);
        let group: Vec<_> = (0..self.nodes.len()).map(|_| self.dice.index(groups as usize)).collect();
        let all = (0..group.len()).flat_map(|a| (0..group.len()).map(move |b| (a, b)));
        let pairs: Vec<_> = all.filter(|(a, b)| group[*a] != group[*b]).collect();
        if !pairs.is_empty() {
            self.counts.add("partitions", 1);
            self.tell(|| format!("partition {group:?} for {} ms", time / MS));
            self.cut(pairs, time);
        }
    }

    fn suspect(&mut self, at: usize, other: usize) {
        let id = self.nodes[other].disk.node;
        if let Some(held) = self.nodes[at].view.get_mut(&id).filter(|held| held.0) {
            *held = (false, None);
            self.counts.add("wrong suspicions", 1);
            self.member(at, id, false);
        }
    }

    fn break_link(&mut self, at: usize, other: usize) {
        if let Some(session) = self.nodes[at].links.get(&other).map(|link| link.session) {
            self.unlink(at, other, session);
        }
    }

    /// A node comes back: mostly as it was, sometimes with an older copy of its disk, or with none.
    pub(super) fn restart(&mut self, at: usize) {
        if self.nodes[at].run.is_some() {
            return;
        }
        self.counts.add("restarts", 1);
        let sort = self.dice.index(10);
        let set_back = match sort {
            0 if !self.healing => Some(None),
            1..3 if !self.healing && self.nodes[at].backup.is_some() => Some(self.nodes[at].backup.clone()),
            _ => None,
        };
        if let Some(backup) = set_back {
            self.set_back(at, backup);
        }
        self.start(at);
    }

    /// The disk is lost, or an older copy takes its place, where the witness allows it.
    fn set_back(&mut self, at: usize, backup: Option<Disk>) {
        let disks = self.disks();
        if !self.witness.may_lose(&self.plan, &disks) {
            self.counts.add("disk losses put off", 1);
            return;
        }
        match backup {
            Some(backup) => {
                self.counts.add("backups restored", 1);
                self.tell(|| format!("node {at} gets the backup of its disk"));
                self.nodes[at].disk = backup;
            }
            None => {
                self.counts.add("disks lost", 1);
                self.tell(|| format!("node {at} loses its disk"));
                let id = NodeId(self.dice.word());
                self.ids.insert(id, at);
                (self.nodes[at].disk, self.nodes[at].backup) = (Disk::new(id), None);
            }
        }
        let disks = self.disks();
        self.witness.lost(&self.plan, &disks, self.now);
    }

    /// What nodes do by themselves, or are told by operators.
    pub(super) fn housekeeping(&mut self) {
        if self.healing {
            return;
        }
        let next = self.dice.between(20 * MS, 600 * MS);
        self.after(next, Event::Housekeeping);
        let at = self.dice.index(self.nodes.len());
        if self.nodes[at].run.is_none() || self.nodes[at].hangs_until > self.now {
            return;
        }
        match self.dice.index(100) {
            0..45 => {
                self.counts.add("checkpoints", 1);
                self.tell(|| format!("node {at} begins a checkpoint"));
                self.machine(at, |run, disk, _| {
                    run.begin_checkpoint(disk);
                    Vec::new()
                });
            }
            45..60 => self.nodes[at].backup = Some(self.nodes[at].disk.clone()),
            60..64 => {
                let topic = self.dice.index(self.plan.topics.len());
                self.raise_keep(at, topic);
            }
            64..67 if self.plan.clears => {
                let topic = self.dice.index(self.plan.topics.len());
                self.clear(at, topic);
            }
            67..95 => {
                for other in (0..self.nodes.len()).filter(|other| *other != at) {
                    self.scrub(at, other);
                }
            }
            _ => {}
        }
    }

    /// No more faults: links heal, nodes start. In half of the runs all nodes are killed first, so that what counts is
    /// on their disks.
    pub(super) fn heal_all(&mut self) {
        if self.dice.chance(500) {
            self.kill_all();
        }
        self.healing = true;
        self.tell(|| "all heals".into());
        for cut in self.cuts.iter().map(|cut| cut.number).collect::<Vec<_>>() {
            self.heal(cut);
        }
        for node in &mut self.nodes {
            (node.doom, node.hangs_until) = (None, self.now.min(node.hangs_until));
        }
        for at in 0..self.nodes.len() {
            if self.nodes[at].run.is_none() {
                self.within(SECOND, Event::Restart { at });
            }
        }
    }
}
