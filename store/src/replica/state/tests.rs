//! Single steps of the machine; runs of many machines are in the simulation.

use super::snapshots::PATIENCE;
use super::*;
use crate::replica::frame::{Frame, FrameWriter};
use crate::replica::message::Coverage;

pub(super) const A: Origin = Origin { node: NodeId(1), start: 11 };
pub(super) const B: Origin = Origin { node: NodeId(2), start: 22 };
pub(super) const C: Origin = Origin { node: NodeId(3), start: 33 };
pub(super) const D: Origin = Origin { node: NodeId(4), start: 44 };
const TWO: Policy = Policy { ack_copies: 2, min_copies: 1 };

pub(super) fn replica() -> Replica {
    let mut replica = Replica::new(A, TWO, VersionVector::default(), false);
    for peer in [B, C] {
        replica.member(peer.node, true);
        replica.linked(peer.node, peer.start);
    }
    replica
}

fn resume(held: u64, durable: u64) -> Message {
    Message::Resume { held, durable }
}

/// Seals and commits an own frame; returns how it was settled at once.
fn write(replica: &mut Replica, frame: u64) -> Vec<Effect> {
    replica.sealed(frame);
    let effects = replica.committed(Some(frame), []);
    effects.into_iter().filter(|effect| matches!(effect, Effect::Settle { .. })).collect()
}

/// The log of B begins behind what is held.
pub(super) fn behind() -> Message {
    Message::Behind { frame: 9, blocks: vec![(Partition(5), 3)] }
}

/// A relay of block `number` of partition 5 of an origin that is not linked.
fn relay(replica: &mut Replica, number: u64) -> (Option<Taken>, Vec<Effect>) {
    let mut writer = FrameWriter::new(D, 100 + number);
    writer.samples(Partition(5), number, &[], &[]);
    let bytes = writer.finish();
    replica.relay(B.node, Frame::decode(&bytes).unwrap(), bytes.into())
}

fn vectors(last: u64) -> Message {
    Message::Vectors { answer: false, partitions: vec![(Partition(5), vec![(D, last)])] }
}

fn want(first: u64) -> Effect {
    Effect::Send(B.node, Message::Want { origin: D, blocks: vec![(Partition(5), first)] })
}

pub(super) fn coverage(last: u64) -> Coverage {
    Coverage { partitions: vec![(Partition(5), vec![(C, last)])], frames: Vec::new() }
}

pub(super) fn end(read: u64, parts: u64, last: u64) -> Message {
    Message::SnapshotEnd { read, parts, coverage: coverage(last) }
}

#[test]
fn a_frame_is_settled_when_it_is_durable_on_two_nodes_that_count() {
    let mut replica = replica();
    replica.message(B.node, resume(0, 0));
    assert_eq!(write(&mut replica, 3), []);
    assert_eq!(replica.next(B.node), Some(0));
    assert!(replica.sent(B.node, 0, 3));
    assert_eq!(replica.next(B.node), None);
    let settled = replica.message(B.node, Message::Ack { frame: 3 });
    assert_eq!(settled, [Effect::Settle { frame: 3, copies: 2, fewer: false }]);
    replica.member(B.node, false);
    assert_eq!(write(&mut replica, 4), [Effect::Settle { frame: 4, copies: 1, fewer: true }]);
}

#[test]
fn a_peer_that_was_wrongly_suspected_counts_again() {
    let mut replica = replica();
    replica.message(B.node, resume(0, 0));
    replica.member(B.node, false);
    replica.member(B.node, true);
    assert_eq!(write(&mut replica, 1), [], "it is linked and has everything, so its copy is waited for");
}

#[test]
fn a_slow_peer_that_says_again_where_it_stands_still_counts() {
    let mut replica = replica();
    replica.message(B.node, resume(0, 0));
    assert_eq!(write(&mut replica, 1), []);
    let settled = replica.message(B.node, resume(1, 0));
    assert_eq!(settled, [Effect::Stream(B.node)]);
}

#[test]
fn a_peer_whose_disk_was_set_back_counts_when_it_has_caught_up() {
    let mut replica = replica();
    replica.message(B.node, resume(0, 0));
    write(&mut replica, 1);
    replica.message(B.node, Message::Ack { frame: 1 });
    replica.message(B.node, resume(0, 0));
    assert_eq!(write(&mut replica, 2), [Effect::Settle { frame: 2, copies: 1, fewer: true }]);
}

#[test]
fn a_snapshot_that_breaks_off_lets_the_other_peers_go_on() {
    let mut replica = replica();
    let wanted = replica.message(B.node, behind());
    assert_eq!(wanted.len(), 1);
    assert_eq!(replica.message(C.node, behind()), []);
    let effects = replica.unlinked(B.node);
    assert!(effects.contains(&Effect::Send(C.node, resume(0, 0))), "{effects:?}");
}

#[test]
fn what_stands_still_is_said_again_at_a_tick() {
    let mut replica = replica();
    let effects = replica.tick();
    assert!(effects.contains(&Effect::Send(B.node, resume(0, 0))), "{effects:?}");
    let bytes = FrameWriter::new(B, 7).finish();
    let (taken, _) = replica.frame(B.node, 0, Frame::decode(&bytes).unwrap(), bytes.into());
    assert_eq!(taken.map(|taken| taken.frame), Some(Some(7)));
    let said = |effects: Vec<Effect>| effects.contains(&Effect::Send(B.node, resume(7, 0)));
    assert!(!said(replica.tick()), "a frame came since");
    assert!(said(replica.tick()));
}

#[test]
fn a_snapshot_counts_with_all_parts_of_one_read() {
    let mut replica = replica();
    replica.message(B.node, behind());
    assert!(replica.expects_part(B.node, 1, 0) && !replica.expects_part(C.node, 1, 0));
    assert_eq!(replica.part(B.node, 1, 0), []);
    assert_eq!(replica.part(B.node, 1, 0), [], "it came twice");
    assert_eq!(replica.message(B.node, end(1, 2, 10)), [], "a part is missing");
    assert!(!replica.expects_part(B.node, 2, 1), "of a later read, out of order");
    assert_eq!(
        replica.message(B.node, end(2, 2, 20)),
        [],
        "of a later read, which takes the place of the first"
    );
    assert!(!replica.expects_part(B.node, 1, 1) && !replica.expects_part(B.node, 2, 1));
    assert_eq!(replica.part(B.node, 2, 0), []);
    assert_eq!(replica.part(B.node, 2, 1), [Effect::Adopt(coverage(20))]);
    assert_eq!(replica.message(B.node, end(2, 2, 20)), [], "only once");
    assert!(!replica.is_taking_over(B.node));
    assert_eq!(replica.held().last(Partition(5), C), 0, "not before it is durable");
    replica.adopted(&coverage(20));
    assert_eq!(replica.durable().last(Partition(5), C), 20);
}

#[test]
fn a_snapshot_that_falls_silent_is_given_up() {
    let mut replica = replica();
    replica.message(B.node, behind());
    for _ in 0..PATIENCE {
        replica.tick();
    }
    replica.part(B.node, 1, 0);
    for _ in 0..PATIENCE {
        replica.tick();
    }
    assert!(replica.is_taking_over(B.node), "something came in between");
    let effects = replica.tick();
    assert!(!replica.is_taking_over(B.node));
    assert!(effects.contains(&Effect::Send(B.node, resume(0, 0))), "{effects:?}");
}

#[test]
fn blocks_that_are_on_their_way_are_not_asked_for_again() {
    let mut replica = replica();
    assert_eq!(replica.message(B.node, vectors(9)), [want(1)]);
    for number in 1..=4 {
        assert!(relay(&mut replica, number).0.is_some());
        replica.tick();
        assert_eq!(replica.message(B.node, vectors(9)), [], "they are coming");
    }
    assert_eq!(relay(&mut replica, 4), (None, vec![]), "it came twice, and there is nothing to commit");
    assert_eq!(relay(&mut replica, 6), (None, vec![want(5)]), "one was lost");
    assert_eq!(relay(&mut replica, 7), (None, vec![]), "it was asked for");
    replica.tick();
    assert_eq!(replica.message(B.node, vectors(9)), [], "asked for since the last tick");
    replica.tick();
    assert_eq!(replica.message(B.node, vectors(9)), [want(5)]);
    replica.unlinked(C.node);
    assert_eq!(
        replica.message(B.node, vectors(9)),
        [],
        "the link that they come over is not the one that broke"
    );
    for number in 5..=9 {
        relay(&mut replica, number);
    }
    assert_eq!(replica.message(B.node, vectors(10)), [want(10)], "all that was asked for has come");
}

#[test]
fn what_was_trimmed_but_is_no_longer_wanted_needs_no_snapshot() {
    let mut replica = replica();
    let trimmed = || Message::Trimmed { origin: D, partitions: vec![Partition(5)] };
    assert_eq!(replica.message(B.node, trimmed()), []);
    replica.message(B.node, vectors(1));
    relay(&mut replica, 1);
    assert_eq!(replica.message(B.node, trimmed()), [], "it came from somewhere else meanwhile");
    replica.message(B.node, vectors(2));
    let snapshot = Message::WantSnapshot { partitions: vec![Partition(5)] };
    assert_eq!(replica.message(C.node, trimmed()), [], "another was asked");
    assert_eq!(replica.message(B.node, trimmed()), [Effect::Send(B.node, snapshot)]);
}

#[test]
fn blocks_that_came_through_others_need_no_snapshot_of_their_origin() {
    let mut replica = replica();
    let block = |number| (Partition(5), B, number);
    replica.held.advance(Partition(5), B, 3);
    assert_eq!(replica.message(B.node, behind()), [], "held, but not durable yet");
    replica.committed(None, [block(3)]);
    assert_eq!(replica.message(B.node, behind()), [Effect::Send(B.node, resume(9, 9))]);
    let snapshot = Message::WantSnapshot { partitions: vec![Partition(6)] };
    let more = Message::Behind { frame: 12, blocks: vec![(Partition(5), 3), (Partition(6), 1)] };
    assert_eq!(replica.message(B.node, more), [Effect::Send(B.node, snapshot)], "only what is missing");
}
