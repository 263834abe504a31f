//! Single steps of folding; runs of many nodes are in the simulation.

use super::*;
use crate::replica::frame::{Frame, FrameWriter};
use crate::replica::message::Coverage;
use crate::replica::state::Policy;
use crate::replica::version::VersionVector;

const A: Origin = Origin { node: NodeId(1), start: 11 };
const B: Origin = Origin { node: NodeId(2), start: 22 };
const C: Origin = Origin { node: NodeId(3), start: 33 };
const HERE: Partition = Partition(5);

/// Run `start` of node B, long ago.
fn closed(start: u64) -> Origin {
    Origin { node: B.node, start }
}

/// Has five blocks of each of three closed origins, of which two may stay; linked with B and C.
fn replica() -> Replica {
    let mut durable = VersionVector::default();
    (1..=3).for_each(|start| durable.advance(HERE, closed(start), 5));
    let mut replica = Replica::new(A, Policy { ack_copies: 2, min_copies: 1 }, durable, false);
    replica.set_closed(2);
    for peer in [B, C] {
        replica.linked(peer.node, peer.start);
        replica.speaks_of_folds(peer.node);
    }
    replica
}

/// The fold of what such a replica has.
fn fold() -> Fold {
    Fold::new((1..=3).map(closed).collect(), replica().durable())
}

fn said(fold: &Fold, folded: bool) -> Message {
    Message::Closed { fold: fold.clone(), folded }
}

fn vectors(entries: &[(Origin, u64)]) -> Message {
    Message::Vectors { answer: false, partitions: vec![(HERE, entries.to_vec())] }
}

fn want(from: Origin, origin: Origin) -> Effect {
    Effect::Send(from.node, Message::Want { origin, blocks: vec![(HERE, 1)] })
}

fn asks(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Send(_, Message::Closed { folded: false, .. })))
}

#[test]
fn what_all_have_alike_is_folded() {
    let (mut replica, fold) = (replica(), fold());
    let effects = replica.tick();
    assert!(effects.contains(&Effect::Send(B.node, said(&fold, false))), "{effects:?}");
    assert!(effects.contains(&Effect::Send(C.node, said(&fold, false))), "{effects:?}");
    assert_eq!(replica.message(B.node, Message::Alike(fold.clone())), []);
    assert_eq!(replica.message(B.node, Message::Alike(fold.clone())), [], "C has not answered");
    assert_eq!(replica.message(C.node, Message::Alike(fold.clone())), [Effect::Fold(fold.clone())]);
    let effects = replica.folded(&fold);
    assert!(effects.contains(&Effect::Send(C.node, said(&fold, true))), "{effects:?}");
    assert_eq!(replica.durable().entries(HERE), [(fold.stand_in(), 1)]);
    assert_eq!(replica.durable(), replica.held());
    assert!(replica.is_tidy() && !asks(&replica.tick()));
    replica.linked(B.node, B.start);
    let told = replica.speaks_of_folds(B.node);
    assert_eq!(told, [Effect::Send(B.node, said(&fold, true))], "it may have missed it");
}

#[test]
fn a_fold_of_a_peer_is_followed_where_the_same_is_held() {
    let (mut replica, fold) = (replica(), fold());
    assert_eq!(
        replica.message(C.node, said(&fold, false)),
        [Effect::Send(C.node, Message::Alike(fold.clone()))]
    );
    assert_eq!(replica.message(C.node, said(&fold, true)), [Effect::Fold(fold.clone())]);
    assert_eq!(
        replica.message(C.node, vectors(&[(fold.stand_in(), 1)])),
        [],
        "its stand-in is there in a moment"
    );
    replica.folded(&fold);
    assert_eq!(replica.message(C.node, said(&fold, true)), [], "once");
}

#[test]
fn who_has_less_or_more_asks_for_the_stand_in() {
    for last in [4, 6] {
        let mut other = VersionVector::default();
        (1..=2).for_each(|start| other.advance(HERE, closed(start), 5));
        other.advance(HERE, closed(3), last);
        let fold = Fold::new((1..=3).map(closed).collect(), &other);
        let mut replica = replica();
        assert_eq!(replica.message(C.node, said(&fold, false)), []);
        assert_eq!(replica.message(C.node, said(&fold, true)), []);
        assert_eq!(replica.counts().folds_missed, 1);
        let stand_in = fold.stand_in();
        assert_eq!(replica.message(C.node, vectors(&[(stand_in, 1)])), [want(C, stand_in)]);
        assert!(!replica.is_caught_up());
    }
}

#[test]
fn what_is_on_its_way_is_not_folded() {
    let (mut replica, fold) = (replica(), fold());
    replica.tick();
    replica.message(B.node, Message::Alike(fold.clone()));
    replica.held.advance(HERE, closed(3), 6);
    assert_eq!(replica.message(C.node, Message::Alike(fold.clone())), [], "all agree, too late");
    assert_eq!(replica.message(C.node, said(&fold, true)), []);
}

#[test]
fn an_origin_that_writes_is_not_folded() {
    let mut replica = replica();
    replica.linked(B.node, 2);
    replica.speaks_of_folds(B.node);
    assert!(replica.is_tidy(), "two are closed");
    assert_eq!(replica.message(C.node, said(&fold(), true)), []);
}

#[test]
fn a_peer_of_the_version_before_keeps_all_from_folding() {
    let mut replica = replica();
    replica.linked(B.node, B.start);
    assert!(!asks(&replica.tick()));
    replica.speaks_of_folds(B.node);
    assert!(asks(&replica.tick()));
}

#[test]
fn twice_as_many_stay_while_a_node_is_away() {
    let mut replica = replica();
    replica.unlinked(B.node);
    assert!(!asks(&replica.tick()));
    (4..=5).for_each(|start| {
        replica.held.advance(HERE, closed(start), 5);
        replica.durable.advance(HERE, closed(start), 5);
    });
    assert!(asks(&replica.tick()));
}

#[test]
fn a_peer_that_folds_later_is_asked_for_what_it_has_more_only() {
    let (mut replica, fold) = (replica(), fold());
    replica.message(C.node, said(&fold, true));
    replica.folded(&fold);
    assert_eq!(replica.message(B.node, vectors(&[(closed(1), 5)])), []);
    replica.message(C.node, vectors(&[]));
    assert!(replica.is_caught_up(), "it holds that under another name");
    assert_eq!(replica.message(B.node, vectors(&[(closed(1), 6)])), [want(B, closed(1))]);
    let late = Coverage { partitions: vec![(HERE, vec![(closed(2), 5)])], frames: Vec::new() };
    replica.adopted(&late);
    assert_eq!(replica.durable().entries(HERE), [(fold.stand_in(), 1)], "it adds nothing");
    (0..=PATIENCE).for_each(|_| drop(replica.tick()));
    assert_eq!(replica.message(B.node, vectors(&[(closed(2), 5)])), [want(B, closed(2))]);
}

#[test]
fn an_origin_that_was_taken_for_closed_begins_anew() {
    let (mut replica, fold) = (replica(), fold());
    replica.message(C.node, said(&fold, true));
    replica.folded(&fold);
    let back = closed(3);
    let effects = replica.linked(back.node, back.start);
    assert!(effects.contains(&Effect::Send(back.node, Message::Resume { held: 0, durable: 0 })));
    let mut writer = FrameWriter::new(back, 1);
    writer.samples(HERE, 1, &[], &[]);
    let bytes = writer.finish();
    let (taken, _) = replica.frame(back.node, 0, Frame::decode(&bytes).unwrap(), bytes.into());
    assert_eq!(taken.map(|taken| taken.blocks.len()), Some(1));
}

#[test]
fn what_a_peer_has_folded_since_is_caught_up_with_by_its_stand_in() {
    let (mut replica, fold) = (replica(), fold());
    replica.message(B.node, vectors(&[]));
    replica.message(C.node, vectors(&[(closed(3), 9)]));
    assert!(!replica.is_caught_up());
    let stand_in = fold.stand_in();
    replica.message(C.node, vectors(&[(stand_in, 1)]));
    assert!(!replica.is_caught_up());
    replica.adopted(&Coverage { partitions: vec![(HERE, vec![(stand_in, 1)])], frames: Vec::new() });
    assert!(replica.is_caught_up());
}
