//! Nodes at work: they start and are killed, and what their machines ask for is done.

use super::super::Rule;
use super::super::disk::{Disk, decode};
use super::super::node::{Promise, Run};
use super::super::plan::{MS, Plan, SECOND};
use super::{Bulk, Doom, Event, Node, TICK, World};
use crate::model::ids::{NodeId, Partition};
use crate::replica::message::Message;
use crate::replica::state::Effect;

impl World {
    /// Starts a node on the disk that it has.
    pub(in crate::sim) fn start(&mut self, at: usize) {
        self.runs += 1;
        let node = self.nodes[at].disk.node;
        let start = match self.broken {
            Some(Rule::FreshOrigin) => node.0 ^ 1,
            _ => self.dice.word(),
        };
        match Run::new(self.runs, start, &self.nodes[at].disk, &self.plan, self.broken) {
            Ok(run) => self.nodes[at].run = Some(run),
            Err(what) => return self.fail(format!("node {at} does not start: {what}")),
        }
        self.nodes[at].view.clear();
        self.nodes[at].links.clear();
        if let Err(what) = self.compare_history(at) {
            return self.fail(format!("at its start {what}"));
        }
        let run = self.runs;
        self.tell(|| format!("node {at} starts as {node}/{start:x}"));
        self.within(TICK, Event::Tick { at, run });
        self.within(5 * SECOND, Event::Joined { at, run });
    }

    /// A node is gone; its disk stays.
    pub(in crate::sim) fn kill(&mut self, at: usize) {
        self.count_run(at);
        self.counts.add("crashes", 1);
        let node = &mut self.nodes[at];
        if node.run.take().is_some_and(|run| run.replica.is_joining()) {
            self.broken_off = true;
            self.counts.add("snapshots broken off", 1);
        }
        let node = &mut self.nodes[at];
        (node.doom, node.hangs_until) = (None, 0);
        let links = std::mem::take(&mut node.links);
        self.tell(|| format!("node {at} is killed"));
        for (peer, link) in links {
            self.end_of_stream(peer, at, link.session);
        }
        let away = self.dice.between(50 * MS, 5 * SECOND);
        self.after(away, Event::Restart { at });
    }

    pub(super) fn count_run(&mut self, at: usize) {
        let Some(run) = &self.nodes[at].run else { return };
        self.counts.add("samples that came after their clear", run.kept_out);
        let counts = run.replica.counts();
        self.counts.add("wants", counts.wants);
        self.counts.add("rewinds", counts.rewinds);
        self.counts.add("snapshots", counts.snapshots);
        self.counts.add("snapshots broken off", counts.broken_off);
        self.counts.add("snapshots put off", counts.put_off);
        self.counts.add("folds", counts.folds);
        self.counts.add("origins folded", counts.origins_folded);
        self.counts.add("folds missed", counts.folds_missed);
    }

    /// What a node's clock shows, as stamps have it.
    pub(in crate::sim) fn clock(&self, at: usize) -> u64 {
        ((1 << 40) + self.now as i64 + self.nodes[at].skew) as u64
    }

    /// Lets a node's machine do something and carries out what follows.
    pub(in crate::sim) fn machine(
        &mut self,
        at: usize,
        act: impl FnOnce(&mut Run, &mut Disk, &Plan) -> Vec<Effect>,
    ) {
        let Node { run: Some(run), disk, .. } = &mut self.nodes[at] else { return };
        let effects = act(run, disk, &self.plan);
        for frame in std::mem::take(&mut run.made) {
            match decode(&frame) {
                Ok(frame) => self.history.made(frame),
                Err(what) => self.fail(what),
            }
        }
        self.perform(at, effects);
        let Some(run) = &mut self.nodes[at].run else { return };
        self.broken_off |= run.replica.counts().broken_off > 0;
        self.nudge(at);
    }

    /// Starts a commit when there is something to commit.
    pub(in crate::sim) fn nudge(&mut self, at: usize) {
        let Some(run) = &mut self.nodes[at].run else { return };
        if run.has_work() && !run.busy {
            run.busy = true;
            let run = run.number;
            self.within(5 * MS, Event::Commit { at, run });
        } else if run.is_open() && !run.sealing {
            run.sealing = true;
            let run = run.number;
            self.within(5 * MS, Event::Seal { at, run });
        }
    }

    /// A seal while the disk is busy.
    pub(super) fn seal(&mut self, at: usize) {
        let Some(run) = &mut self.nodes[at].run else { return };
        run.sealing = false;
        if run.busy && run.is_open() {
            self.counts.add("seals between commits", 1);
            self.machine(at, |run, _, plan| run.seal(plan));
        }
    }

    pub(super) fn perform(&mut self, at: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send(to, message) => self.send_to(at, to, message),
                Effect::Settle { frame, copies, fewer } => self.settle(at, frame, copies, fewer),
                Effect::Serve { to, origin, blocks } => {
                    let messages = Run::serve(&self.nodes[at].disk, origin, &blocks);
                    let relays = messages.iter().filter(|message| matches!(message, Message::Relay { .. }));
                    self.counts.add("relays", relays.count() as u64);
                    if let Some(Message::Trimmed { partitions, .. }) = messages.last() {
                        self.trimmed.insert((at, to, partitions.clone()), origin);
                    }
                    self.queue_bulk(at, to, messages.into_iter().map(Bulk::Ready));
                }
                Effect::Snapshot { to, partitions } => self.snapshot(at, to, partitions),
                Effect::Adopt(coverage) => {
                    self.tell(|| format!("node {at} has a snapshot whole"));
                    self.machine(at, |run, disk, _| run.adopt(coverage, disk));
                }
                Effect::Fold(fold) => {
                    if let Some(run) = &self.nodes[at].run {
                        self.history.folded(&fold, run.replica.durable());
                    }
                    self.tell(|| format!("node {at} folds {:?} into {}", fold.origins, fold.stand_in()));
                    self.machine(at, |run, _, _| run.fold(fold));
                }
                Effect::Stream(to) => self.schedule_pump(at, to),
            }
        }
    }

    pub(super) fn snapshot(&mut self, at: usize, to: NodeId, partitions: Vec<Partition>) {
        let Node { run: Some(run), disk, .. } = &mut self.nodes[at] else { return };
        let Some(read) = run.replica.begin_read(to, &partitions) else {
            return self.tell(|| format!("node {at} lets {to} wait for a snapshot"));
        };
        let asked = (at, to, partitions);
        // What a link's cursor lacks is the node's own.
        let origin = self.trimmed.get(&asked).or(self.trimmed.get(&(at, to, Vec::new())));
        let partitions = asked.2;
        let messages = match (self.broken, origin) {
            (Some(Rule::SnapshotAtOnce), _) => {
                let later = Bulk::Later { partitions, read, place: 0 };
                return self.queue_bulk(at, to, std::iter::once(later));
            }
            (Some(Rule::SnapshotWhole), Some(only)) => run.survivors(&self.plan, &partitions, read, *only),
            _ => match Run::snapshot(disk, &self.plan, &partitions, read) {
                Ok(messages) => messages,
                Err(what) => return self.fail(format!("node {at} cannot read a snapshot: {what}")),
            },
        };
        self.tell(|| format!("node {at} sends {to} a snapshot of {} parts", messages.len() - 1));
        self.queue_bulk(at, to, messages.into_iter().map(Bulk::Ready));
    }

    pub(super) fn settle(&mut self, at: usize, frame: u64, copies: u8, fewer: bool) {
        let Some(run) = &mut self.nodes[at].run else { return };
        let later = run.waiting.split_off(&(frame + 1));
        let settled = std::mem::replace(&mut run.waiting, later);
        for promise in settled.into_values().flatten() {
            match promise {
                Promise::Sample(number, ack) => self.witness.acknowledged(number, ack, copies),
                Promise::Clear(number, heard) => self.witness.clear_acknowledged(number, heard, copies),
                Promise::Room(number, made) => self.witness.rooms.acknowledged(number, made, copies),
                Promise::Retained(number, made) => {
                    self.witness.retained.acknowledged(number, made, copies);
                }
            }
            if fewer {
                self.counts.add("acknowledged with fewer copies", 1);
            }
        }
        self.tell(|| format!("node {at} acknowledges frame {frame} with {copies} copies"));
    }

    pub(super) fn commit(&mut self, at: usize) {
        self.counts.add("commits", 1);
        self.machine(at, Run::commit);
        let slow = self.dice.chance(30);
        let time = if slow { 10 * self.plan.commit } else { self.plan.commit };
        let Some(run) = &self.nodes[at].run else { return };
        let run = run.number;
        self.within(time, Event::Durable { at, run });
    }

    pub(super) fn durable(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let Some(run) = &mut node.run else { return };
        run.busy = false;
        match node.doom.filter(|_| run.is_committing()) {
            Some(Doom::BeforeSync) => {
                self.counts.add("crashes before the sync", 1);
                self.kill(at);
            }
            Some(Doom::AfterSync) => {
                run.synced(&mut node.disk);
                self.counts.add("crashes after the sync", 1);
                self.kill(at);
            }
            None => self.machine(at, |run, disk, _| run.committed(disk)),
        }
    }
}
