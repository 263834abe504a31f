//! When each member was last heard, over datagrams or a link: who speaks is not dead, however much of it is lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::changes::Roster;
use super::identity::Member;
use crate::model::ids::{NodeId, NodeName};

/// Names that are remembered. When full, others go unheard: they can then be taken for dead a little too soon.
const MAX_NAMES: usize = 4096;

/// Shared by who hears and who asks. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Heard(Arc<Mutex<BTreeMap<NodeName, Voice>>>);

/// Which run of a name spoke last, and when.
#[derive(Debug)]
struct Voice {
    run: (NodeId, u64),
    at: Instant,
}

impl Heard {
    /// This run has spoken now.
    pub(super) fn note(&self, member: &Member) {
        let mut voices = self.0.lock();
        let (run, at) = ((member.node, member.start), Instant::now());
        if let Some(voice) = voices.get_mut(&member.name) {
            *voice = Voice { run, at };
        } else if voices.len() < MAX_NAMES {
            voices.insert(member.name.clone(), Voice { run, at });
        }
    }

    /// How long this run has been silent; `None` when it was never heard.
    pub(super) fn silence(&self, member: &Member) -> Option<Duration> {
        let voices = self.0.lock();
        let voice = voices.get(&member.name).filter(|voice| voice.run == (member.node, member.start))?;
        Some(voice.at.elapsed())
    }

    /// Forgets who is no longer listed.
    pub(super) fn keep(&self, roster: &Roster) {
        let mut voices = self.0.lock();
        if voices.len() > roster.len() {
            voices.retain(|name, _| roster.contains_key(name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::view::NodeState;

    #[test]
    fn silence_is_that_of_a_run() {
        let name = NodeName::new("a").unwrap();
        let first = Member { name, node: NodeId(1), start: 1, address: "127.0.0.1:1".parse().unwrap() };
        let second = Member { start: 2, ..first.clone() };
        let heard = Heard::default();
        assert_eq!(heard.silence(&first), None);
        heard.note(&first);
        assert!(heard.silence(&first).is_some_and(|silence| silence < Duration::from_secs(5)));
        assert_eq!(heard.silence(&second), None);
        heard.note(&second);
        assert_eq!(heard.silence(&first), None, "its place is taken");
        heard.keep(&Roster::from([(second.name.clone(), (second.clone(), NodeState::Alive))]));
        assert!(heard.silence(&second).is_some());
        heard.keep(&Roster::new());
        assert_eq!(heard.silence(&second), None);
    }
}
