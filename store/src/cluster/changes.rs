//! What changed in the membership since it was last told, so that telling it may wait for a slow listener.
//!
//! A listener that falls behind is told less, never wrongly: what came and went meanwhile is left out, and what it is
//! told last is how things are.

use std::collections::{BTreeMap, VecDeque};

use super::identity::Member;
use super::view::NodeState;
use crate::model::ids::NodeName;

/// News of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberEvent {
    /// It came, or came back.
    Up(Member),
    /// It does not answer; if it stays silent it is down.
    Suspect(Member),
    /// It answers again.
    Recovered(Member),
    /// It is dead: killed, hung, or cut off; or a later run has taken its name.
    Down(Member),
    /// It said goodbye.
    Left(Member),
    /// A live node, this one, has the name of this node. Both stay; the operator has to stop one.
    Contested(Member),
}

/// Who is in the cluster, this node left out, and how it is.
pub(super) type Roster = BTreeMap<NodeName, (Member, NodeState)>;

/// The roster that a listener knows.
#[derive(Default)]
pub(super) struct Told {
    roster: Roster,
    due: VecDeque<MemberEvent>,
}

impl Told {
    /// The next thing to tell on the way to `roster`. It counts as told.
    pub(super) fn next(&mut self, roster: &Roster) -> Option<MemberEvent> {
        if self.due.is_empty() {
            self.compare(roster);
        }
        self.due.pop_front()
    }

    fn compare(&mut self, roster: &Roster) {
        for (name, (member, state)) in roster {
            let told = self.roster.get(name);
            if told.is_some_and(|told| told.1 == *state && told.0 == *member) {
                continue;
            }
            let before = told.filter(|(told, _)| told.same_run(member)).map(|(_, state)| *state);
            if let Some((gone, state)) = told
                && before.is_none()
                && here(*state)
            {
                self.due.push_back(MemberEvent::Down(gone.clone()));
            }
            steps(before, *state, member, &mut self.due);
            self.roster.insert(name.clone(), (member.clone(), *state));
        }
        // Who is no longer listed was down for long.
        self.roster.retain(|name, _| roster.contains_key(name));
    }
}

fn here(state: NodeState) -> bool {
    matches!(state, NodeState::Alive | NodeState::Suspect)
}

/// What to tell of one run of a member that was `before` (`None`: never heard of) and is `now`.
fn steps(before: Option<NodeState>, now: NodeState, member: &Member, due: &mut VecDeque<MemberEvent>) {
    let was_here = before.is_some_and(here);
    if here(now) && !was_here {
        due.push_back(MemberEvent::Up(member.clone()));
    }
    match now {
        NodeState::Suspect if before != Some(NodeState::Suspect) => {
            due.push_back(MemberEvent::Suspect(member.clone()));
        }
        NodeState::Alive if before == Some(NodeState::Suspect) => {
            due.push_back(MemberEvent::Recovered(member.clone()));
        }
        NodeState::Down if was_here => due.push_back(MemberEvent::Down(member.clone())),
        NodeState::Left if was_here => due.push_back(MemberEvent::Left(member.clone())),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::NodeId;

    fn member(name: &str, start: u64) -> Member {
        let name = NodeName::new(name).unwrap();
        Member { name, node: NodeId(1), start, address: "127.0.0.1:1".parse().unwrap() }
    }

    fn roster(members: &[(&Member, NodeState)]) -> Roster {
        members.iter().map(|(member, state)| (member.name.clone(), ((*member).clone(), *state))).collect()
    }

    fn all(told: &mut Told, roster: &Roster) -> Vec<MemberEvent> {
        std::iter::from_fn(|| told.next(roster)).collect()
    }

    #[test]
    fn each_change_is_told_once() {
        use MemberEvent as E;
        use NodeState::{Alive, Down, Left, Suspect};
        let (a, mut told) = (member("a", 1), Told::default());
        for (state, events) in [
            (Alive, vec![E::Up(a.clone())]),
            (Alive, vec![]),
            (Suspect, vec![E::Suspect(a.clone())]),
            (Alive, vec![E::Recovered(a.clone())]),
            (Suspect, vec![E::Suspect(a.clone())]),
            (Down, vec![E::Down(a.clone())]),
            (Down, vec![]),
            (Alive, vec![E::Up(a.clone())]),
            (Left, vec![E::Left(a.clone())]),
            (Suspect, vec![E::Up(a.clone()), E::Suspect(a.clone())]),
        ] {
            assert_eq!(all(&mut told, &roster(&[(&a, state)])), events, "{state}");
        }
        assert_eq!(all(&mut told, &roster(&[])), []);
        assert_eq!(all(&mut told, &roster(&[(&a, Alive)])), [E::Up(a)]);
    }

    #[test]
    fn who_was_never_here_does_not_go() {
        let (a, mut told) = (member("a", 1), Told::default());
        assert_eq!(all(&mut told, &roster(&[(&a, NodeState::Down)])), []);
        assert_eq!(all(&mut told, &roster(&[(&a, NodeState::Left)])), []);
    }

    #[test]
    fn a_later_run_takes_the_place_of_the_earlier() {
        use MemberEvent as E;
        let (old, new, mut told) = (member("a", 1), member("a", 2), Told::default());
        all(&mut told, &roster(&[(&old, NodeState::Alive)]));
        let events = all(&mut told, &roster(&[(&new, NodeState::Alive)]));
        assert_eq!(events, [E::Down(old.clone()), E::Up(new.clone())]);
        all(&mut told, &roster(&[(&new, NodeState::Down)]));
        let events = all(&mut told, &roster(&[(&old, NodeState::Alive)]));
        assert_eq!(events, [E::Up(old)], "the one before was told to be down already");
    }

    #[test]
    fn who_listens_late_is_told_how_things_are_by_then() {
        let (a, b, mut told) = (member("a", 1), member("b", 1), Told::default());
        let both = roster(&[(&a, NodeState::Alive), (&b, NodeState::Alive)]);
        assert_eq!(told.next(&both), Some(MemberEvent::Up(a.clone())));
        let later = roster(&[(&a, NodeState::Down), (&b, NodeState::Down)]);
        let events = all(&mut told, &later);
        assert_eq!(events, [MemberEvent::Up(b.clone()), MemberEvent::Down(a), MemberEvent::Down(b)]);
    }
}
