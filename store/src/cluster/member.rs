//! Membership: who is in the cluster and whether it lives. `foca` (SWIM) decides, one task (`swim`) does what it says.
//!
//! A member that does not answer is suspected within [`PROBE_EVERY`] or two, and down when it was not heard for
//! [`SUSPECT_FOR`] since, though asked again and again: a hung process is known in about two seconds, and a network
//! that loses a third of all datagrams kills nobody. A dead one is known sooner, by [`Membership::is_down`].
//! Nobody stays out: members that are down are called every [`CALL_DOWN_EVERY`], and a member that learns it was taken
//! for dead comes back by itself as a later life of the same run. Who says goodbye ([`Membership::leave`]) has left at
//! once, and is not called again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use foca::Incarnation;
use parking_lot::Mutex;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};

pub use super::changes::MemberEvent;
use super::changes::Roster;
use super::datagram::Taken;
use super::heard::Heard;
pub use super::identity::Member;
use super::secret::Keys;
use super::swim::Task;
use super::view::NodeState;

/// How often another member is asked whether it lives.
pub const PROBE_EVERY: Duration = Duration::from_millis(500);
/// How long it may take to answer before others are asked to try.
pub const ANSWER_WITHIN: Duration = Duration::from_millis(200);
/// How long a suspected member must be silent to be taken for dead.
pub const SUSPECT_FOR: Duration = Duration::from_secs(1);
/// How often members that are down are called, so that partitions heal.
pub const CALL_DOWN_EVERY: Duration = Duration::from_secs(2);
/// How many members that are down are called at once.
pub const CALL_DOWN_AT_ONCE: usize = 3;
/// How long a member that is down is remembered.
pub const REMEMBER_DOWN_FOR: Duration = super::view::LISTED_FOR;
/// News that wait for the listener. When full they are not queued but compared anew once there is room (`changes`).
pub const EVENTS: usize = 256;
/// Calls of [`Membership`]'s methods that wait for its task. When full the call is left out, which each of them bears.
pub const COMMANDS: usize = 256;
/// Most time that a goodbye takes.
pub const LEAVE_TIME: Duration = Duration::from_millis(500);

/// The incarnation of who left, which no living member reaches: it tells those who only hear of it later.
pub(super) const LEFT: u16 = u16::MAX;

/// What membership has sent and received.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemberFigures {
    /// Datagrams received: taken, and refused by cause.
    pub taken: Taken,
    /// Datagrams that were sealed with the secret and still made no sense.
    pub malformed: u64,
    /// Datagrams sent.
    pub sent: u64,
    /// Bytes of them, without the headers of UDP and IP.
    pub bytes_sent: u64,
    /// Bytes of the datagrams received.
    pub bytes_received: u64,
}

/// A node's part in the membership. Cheap to clone; when the last one is dropped the node falls silent.
#[derive(Debug, Clone)]
pub struct Membership {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
    heard: Heard,
}

/// What the task shows of itself.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) roster: Mutex<Roster>,
    pub(super) figures: Mutex<MemberFigures>,
}

/// What the task is told.
#[derive(Debug)]
pub(super) enum Command {
    /// Ask whoever is there to be taken in.
    Announce(SocketAddr),
    /// This run is down, or has [`LEFT`].
    Gone(Member, Incarnation),
    /// Say goodbye; answered when that is done.
    Leave(oneshot::Sender<()>),
}

impl Membership {
    /// Starts taking part as `me`, whose address must lead to `socket`. The receiver gets what happens to others; one
    /// that is not read holds nothing up (see [`MemberEvent`] and [`EVENTS`]).
    pub fn start(socket: UdpSocket, me: Member, keys: &Keys) -> (Self, mpsc::Receiver<MemberEvent>) {
        let (events, received) = mpsc::channel(EVENTS);
        let (commands, due) = mpsc::channel(COMMANDS);
        let shared = Arc::<Shared>::default();
        let heard = Heard::default();
        let task = Task::new(socket, me, keys, Arc::clone(&shared), heard.clone(), events);
        tokio::spawn(task.run(due));
        (Self { commands, shared, heard }, received)
    }

    /// Asks whoever is at `address` to be taken in, unless a member is known to live there. Nothing comes of a call
    /// into the void: call again.
    pub fn announce(&self, address: SocketAddr) {
        self.command(Command::Announce(address));
    }

    /// Takes this run of a member for dead, and tells the others: its machine said that nobody listens any more.
    pub fn is_down(&self, member: &Member) {
        self.command(Command::Gone(member.clone(), Incarnation::MIN));
    }

    /// This run of a member said goodbye in some other way; the others are told.
    pub fn has_left(&self, member: &Member) {
        self.command(Command::Gone(member.clone(), LEFT));
    }

    /// This run of a member has just spoken on a link, so it lives even if its datagrams are lost. A call costs a lock.
    pub fn heard(&self, member: &Member) {
        self.heard.note(member);
    }

    /// Says goodbye to all members, and takes no part from then on. Ends when all have heard it, after [`LEAVE_TIME`]
    /// at the latest.
    pub async fn leave(&self) {
        let (done, left) = oneshot::channel();
        if self.commands.send(Command::Leave(done)).await.is_ok() {
            // An error says that the task is gone, which is what was asked for.
            left.await.ok();
        }
    }

    /// The other members and how they are, by name; those that are down or have left for [`REMEMBER_DOWN_FOR`].
    pub fn members(&self) -> Vec<(Member, NodeState)> {
        self.shared.roster.lock().values().cloned().collect()
    }

    /// Counts since the start.
    pub fn figures(&self) -> MemberFigures {
        *self.shared.figures.lock()
    }

    fn command(&self, command: Command) {
        if let Err(error) = self.commands.try_send(command) {
            tracing::debug!(%error, "membership is too busy to be told");
        }
    }
}
