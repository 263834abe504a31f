//! Membership: who is in the cluster and whether it lives. `foca` (SWIM) decides, one task moves its datagrams.
//!
//! A member that does not answer is suspected within [`PROBE_EVERY`] or two, and down [`SUSPECT_FOR`] later unless it
//! speaks up: a hung process is known in about two seconds. A dead one is known sooner, by [`Membership::is_down`].
//! Nobody stays out: members that are down are called every [`CALL_DOWN_EVERY`], and a member that learns it was taken
//! for dead comes back by itself as a later life of the same run. Who says goodbye ([`Membership::leave`]) has left at
//! once, and is not called again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::{NonZeroU8, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use foca::{Config, Foca, NoCustomBroadcast, Notification, PeriodicParams, Runtime, State, Timer};
use parking_lot::Mutex;
use rand_foca::SeedableRng;
use rand_foca::rngs::StdRng;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until};

pub use super::changes::MemberEvent;
use super::changes::{Roster, Told};
use super::datagram::{MAX_DATAGRAM_BYTES, MAX_PAYLOAD_BYTES, Opener, Sealer, Taken};
pub use super::identity::Member;
use super::identity::{Identity, Own, Postcard, RENEWALS_WITHIN};
use super::secret::Keys;
use super::view::NodeState;
use crate::model::ids::NodeName;

/// How often another member is asked whether it lives.
pub const PROBE_EVERY: Duration = Duration::from_millis(500);
/// How long it may take to answer before others are asked to try.
pub const ANSWER_WITHIN: Duration = Duration::from_millis(200);
/// How long a suspected member has to speak up.
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

/// How often a goodbye is repeated to those that have not answered it.
const GOODBYE_EVERY: Duration = Duration::from_millis(50);
/// How often news travel along while there are any, and to how many.
const GOSSIP_EVERY: Duration = Duration::from_millis(200);
const GOSSIP_TO: NonZeroUsize = NonZeroUsize::new(3).expect("not 0");
/// How often a piece of news is sent on.
const SEND_NEWS: NonZeroU8 = NonZeroU8::new(8).expect("not 0");
/// How often the whole roster is asked for, from one member.
const ASK_ROSTER_EVERY: Duration = Duration::from_secs(30);
/// A task that wakes so late was stopped or starved: it cannot blame others for not having been heard.
const STOPPED: Duration = Duration::from_secs(1);
/// How long another run must have been sending under this node's name to be more than a straggler.
const RIVAL_FOR: Duration = Duration::from_secs(1);
/// What an unreadable socket is given to recover.
const RECOVER: Duration = Duration::from_millis(10);
/// The incarnation of who left, which no living member reaches: it tells those who only hear of it later.
const LEFT: u16 = u16::MAX;

/// What a datagram carries: its payload's first byte.
const SWIM: u8 = 0;
/// The identity of who leaves.
const GOODBYE: u8 = 1;
/// Answer to a goodbye: the name of who has heard it.
const FAREWELL: u8 = 2;

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
}

#[derive(Debug, Default)]
struct Shared {
    roster: Mutex<Roster>,
    figures: Mutex<MemberFigures>,
}

#[derive(Debug)]
enum Command {
    Announce(SocketAddr),
    Down(Member),
    Leave(oneshot::Sender<()>),
}

impl Membership {
    /// Starts taking part as `me`, whose address must lead to `socket`. The receiver gets what happens to others; one
    /// that is not read holds nothing up (see [`MemberEvent`] and [`EVENTS`]).
    pub fn start(socket: UdpSocket, me: Member, keys: &Keys) -> (Self, mpsc::Receiver<MemberEvent>) {
        let (events, received) = mpsc::channel(EVENTS);
        let (commands, due) = mpsc::channel(COMMANDS);
        let shared = Arc::<Shared>::default();
        let task = Task::new(socket, me, keys, Arc::clone(&shared), events);
        tokio::spawn(task.run(due));
        (Self { commands, shared }, received)
    }

    /// Asks whoever is at `address` to be taken in, unless a member is known to live there. Nothing comes of a call
    /// into the void: call again.
    pub fn announce(&self, address: SocketAddr) {
        self.command(Command::Announce(address));
    }

    /// Takes this run of a member for dead, and tells the others: its machine said that nobody listens any more.
    pub fn is_down(&self, member: &Member) {
        self.command(Command::Down(member.clone()));
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

fn config() -> Config {
    Config {
        probe_period: PROBE_EVERY,
        probe_rtt: ANSWER_WITHIN,
        num_indirect_probes: GOSSIP_TO,
        max_transmissions: SEND_NEWS,
        suspect_to_down_after: SUSPECT_FOR,
        remove_down_after: Some(REMEMBER_DOWN_FOR),
        max_packet_size: NonZeroUsize::new(MAX_PAYLOAD_BYTES - 1).expect("more than one"),
        notify_down_members: true,
        periodic_announce: Some(PeriodicParams {
            frequency: ASK_ROSTER_EVERY,
            num_members: NonZeroUsize::MIN,
        }),
        // Foca calls members that are down only while others are up; `call_down` always does.
        periodic_announce_to_down_members: None,
        periodic_gossip: Some(PeriodicParams { frequency: GOSSIP_EVERY, num_members: GOSSIP_TO }),
    }
}

/// What foca wants done.
#[derive(Default)]
struct Outbox {
    send: Vec<(SocketAddr, Vec<u8>)>,
    timers: Vec<(Duration, Timer<Identity>)>,
    rejoined: Option<Identity>,
    defunct: bool,
}

impl Runtime<Identity> for Outbox {
    fn notify(&mut self, notification: Notification<'_, Identity>) {
        match notification {
            Notification::Rejoin(identity) => self.rejoined = Some(identity.clone()),
            Notification::Defunct => self.defunct = true,
            // Ups and downs are read off the roster.
            _ => {}
        }
    }

    fn send_to(&mut self, to: Identity, data: &[u8]) {
        self.send.push((to.member.address, [&[SWIM], data].concat()));
    }

    fn submit_after(&mut self, timer: Timer<Identity>, after: Duration) {
        self.timers.push((after, timer));
    }
}

/// What the task has to do at a given time.
enum Due {
    Foca(Timer<Identity>),
    CallDown,
    Revive,
}

struct Task {
    socket: UdpSocket,
    foca: Foca<Identity, Postcard, StdRng, NoCustomBroadcast>,
    own: Own,
    outbox: Outbox,
    sealer: Sealer,
    opener: Opener,
    /// By time and order of being set.
    timers: BTreeMap<(Instant, u64), Due>,
    timers_set: u64,
    told: Told,
    contested: Option<Instant>,
    figures: MemberFigures,
    shared: Arc<Shared>,
    events: mpsc::Sender<MemberEvent>,
}

impl Task {
    fn new(
        socket: UdpSocket,
        me: Member,
        keys: &Keys,
        shared: Arc<Shared>,
        events: mpsc::Sender<MemberEvent>,
    ) -> Self {
        let identity = Identity::new(me);
        let own = Own::new(identity.clone());
        let rng = StdRng::seed_from_u64(rand::random());
        let mut task = Self {
            socket,
            foca: Foca::new(identity, config(), rng, Postcard(own.clone())),
            own,
            outbox: Outbox::default(),
            sealer: Sealer::new(keys),
            opener: Opener::new(keys),
            timers: BTreeMap::new(),
            timers_set: 0,
            told: Told::default(),
            contested: None,
            figures: MemberFigures::default(),
            shared,
            events,
        };
        task.set(CALL_DOWN_EVERY, Due::CallDown);
        task
    }

    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut buffer = [0; MAX_DATAGRAM_BYTES + 1];
        let events = self.events.clone();
        loop {
            self.run_timers();
            self.settle().await;
            let waiting = self.tell();
            let next = self.timers.first_key_value().map_or_else(Instant::now, |((at, _), _)| *at);
            // Each of these is cancel safe: what is not taken stays where it is.
            tokio::select! {
                received = self.socket.recv_from(&mut buffer) => match received {
                    Ok((length, from)) => self.receive(&mut buffer[..length], from),
                    Err(error) => {
                        tracing::debug!(%error, "a datagram could not be received");
                        sleep(RECOVER).await;
                    }
                },
                command = commands.recv() => match command {
                    Some(Command::Announce(address)) => self.announce(address),
                    Some(Command::Down(member)) => self.take_for_dead(&member),
                    Some(Command::Leave(done)) => {
                        self.leave(&mut buffer).await;
                        // The caller may be gone by now.
                        done.send(()).ok();
                        return;
                    }
                    None => return,
                },
                // Room only means that there is something to compare anew.
                room = events.reserve(), if waiting => drop(room),
                () = sleep_until(next) => {}
            }
        }
    }

    /// Sets a timer.
    fn set(&mut self, after: Duration, due: Due) {
        self.timers_set += 1;
        self.timers.insert((Instant::now() + after, self.timers_set), due);
    }

    fn run_timers(&mut self) {
        let now = Instant::now();
        let Some((&(first, _), _)) = self.timers.first_key_value() else { return };
        let late = now.saturating_duration_since(first);
        if late > STOPPED {
            // Time stood still here: what was waited for may lie in the socket, so everybody gets that time again.
            tracing::info!(?late, "membership was stopped and goes on");
            let stopped = std::mem::take(&mut self.timers);
            self.timers = stopped.into_iter().map(|((at, order), due)| ((at + late, order), due)).collect();
            return;
        }
        let later = self.timers.split_off(&(now, u64::MAX));
        let due = std::mem::replace(&mut self.timers, later);
        let mut of_foca = Vec::new();
        for due in due.into_values() {
            match due {
                Due::Foca(timer) => of_foca.push(timer),
                Due::CallDown => self.call_down(),
                Due::Revive => self.revive(),
            }
        }
        // Foca's own order, for timers that fall due together.
        of_foca.sort();
        for timer in of_foca {
            if let Err(error) = self.foca.handle_timer(timer, &mut self.outbox) {
                tracing::debug!(%error, "a timer of membership came to nothing");
            }
        }
    }

    fn receive(&mut self, datagram: &mut [u8], from: SocketAddr) {
        self.figures.bytes_received += datagram.len() as u64;
        let payload = match self.opener.open(datagram) {
            Ok(payload) => payload,
            Err(refused) => return tracing::trace!(%from, %refused, "a datagram was refused"),
        };
        let understood = match payload.split_first() {
            Some((&SWIM, message)) => match self.foca.handle_data(message, &mut self.outbox) {
                // A seed list may well name the node itself.
                Ok(()) | Err(foca::Error::DataFromOurselves) => true,
                Err(error) => {
                    tracing::debug!(%from, %error, "a message of membership makes no sense");
                    false
                }
            },
            Some((&GOODBYE, who)) => match postcard::from_bytes::<Identity>(who) {
                Ok(who) => {
                    self.part(who);
                    true
                }
                Err(_) => false,
            },
            // An answer that comes after the end of waiting.
            Some((&FAREWELL, _)) => true,
            _ => false,
        };
        if !understood {
            self.figures.malformed += 1;
        }
    }

    fn apply(&mut self, update: foca::Member<Identity>) {
        if let Err(error) = self.foca.apply_many(std::iter::once(update), true, &mut self.outbox) {
            tracing::debug!(%error, "news of a member came to nothing");
        }
    }

    /// `who` says goodbye.
    fn part(&mut self, who: Identity) {
        let me = &self.foca.identity().member;
        if who.member.name == me.name {
            return;
        }
        let farewell = [&[FAREWELL], me.name.as_str().as_bytes()].concat();
        self.outbox.send.push((who.member.address, farewell));
        self.apply(foca::Member::new(who, LEFT, State::Down));
    }

    fn announce(&mut self, address: SocketAddr) {
        let me = self.foca.identity();
        let known = self.foca.iter_members().any(|member| member.id().member.address == address);
        if known || me.member.address == address {
            return;
        }
        let to = me.anyone(address);
        if let Err(error) = self.foca.announce(to, &mut self.outbox) {
            tracing::debug!(%error, %address, "an announcement came to nothing");
        }
    }

    fn take_for_dead(&mut self, member: &Member) {
        let known = self.foca.iter_members().find(|known| known.id().member.same_run(member));
        if let Some(identity) = known.map(|known| known.id().clone()) {
            self.apply(foca::Member::down(identity));
        }
    }

    /// Calls some of the members that are down and have not left.
    fn call_down(&mut self) {
        self.set(CALL_DOWN_EVERY, Due::CallDown);
        let mut down: Vec<Identity> = self
            .foca
            .iter_membership_state()
            .filter(|member| state(member) == NodeState::Down)
            .map(|member| member.id().clone())
            .collect();
        for _ in 0..CALL_DOWN_AT_ONCE.min(down.len()) {
            let to = down.swap_remove(rand::random_range(0..down.len()));
            if let Err(error) = self.foca.announce(to, &mut self.outbox) {
                tracing::debug!(%error, "a call to a member that is down came to nothing");
            }
        }
    }

    /// After too many renewals in a row: tries once more.
    fn revive(&mut self) {
        let revived = self.foca.identity().revived();
        self.own.set(revived.clone());
        if let Err(error) = self.foca.change_identity(revived, &mut self.outbox) {
            tracing::debug!(%error, "a member could not come back");
        }
    }

    /// Does what foca wants done, and takes over the roster.
    async fn settle(&mut self) {
        if let Some(identity) = self.outbox.rejoined.take() {
            tracing::info!("the others took this node for dead; it comes back");
            self.own.set(identity);
        }
        if std::mem::take(&mut self.outbox.defunct) {
            self.set(RENEWALS_WITHIN, Due::Revive);
        }
        for (after, timer) in std::mem::take(&mut self.outbox.timers) {
            self.set(after, Due::Foca(timer));
        }
        for (to, payload) in std::mem::take(&mut self.outbox.send) {
            self.send(to, &payload).await;
        }
        let members = self.foca.iter_membership_state();
        let roster: Roster = members
            .map(|member| {
                let at = &member.id().member;
                (at.name.clone(), (at.clone(), state(member)))
            })
            .filter(|(name, _)| *name != self.foca.identity().member.name)
            .collect();
        self.figures.taken = self.opener.taken();
        *self.shared.figures.lock() = self.figures;
        *self.shared.roster.lock() = roster;
    }

    /// Waits for room in the socket's buffer, which the system empties by itself. What cannot be sent is lost, as any
    /// datagram may be.
    async fn send(&mut self, to: SocketAddr, payload: &[u8]) {
        let Some(datagram) = self.sealer.seal(payload) else {
            return tracing::debug!(%to, bytes = payload.len(), "a message is too long for a datagram");
        };
        match self.socket.send_to(&datagram, to).await {
            Ok(_) => {
                self.figures.sent += 1;
                self.figures.bytes_sent += datagram.len() as u64;
            }
            Err(error) => tracing::debug!(%to, %error, "a datagram could not be sent"),
        }
    }

    /// Tells what is new while there is room. Whether something is left.
    fn tell(&mut self) -> bool {
        let roster = self.shared.roster.lock().clone();
        let events = self.events.clone();
        loop {
            let room = match events.try_reserve() {
                Ok(room) => room,
                Err(mpsc::error::TrySendError::Full(())) => return true,
                // Nobody listens.
                Err(mpsc::error::TrySendError::Closed(())) => return false,
            };
            if let Some(event) = self.told.next(&roster) {
                room.send(event);
            } else if let Some(rival) = self.rival() {
                room.send(MemberEvent::Contested(rival));
            } else {
                return false;
            }
        }
    }

    /// A live node under this node's name, told again only after a while.
    fn rival(&mut self) -> Option<Member> {
        let rival = self.own.rival(RIVAL_FOR)?;
        if self.contested.is_some_and(|told| told.elapsed() < RENEWALS_WITHIN) {
            return None;
        }
        self.contested = Some(Instant::now());
        Some(rival)
    }

    /// Says goodbye until all have answered.
    async fn leave(&mut self, buffer: &mut [u8]) {
        let goodbye = match postcard::to_stdvec(self.foca.identity()) {
            Ok(identity) => [&[GOODBYE], &identity[..]].concat(),
            Err(error) => return tracing::warn!(%error, "no goodbye could be said"),
        };
        let mut here: BTreeMap<NodeName, SocketAddr> = self
            .foca
            .iter_members()
            .map(|member| (member.id().member.name.clone(), member.id().member.address))
            .collect();
        let end = Instant::now() + LEAVE_TIME;
        let mut again = Instant::now();
        while !here.is_empty() && Instant::now() < end {
            if Instant::now() >= again {
                for to in here.values() {
                    self.send(*to, &goodbye).await;
                }
                again += GOODBYE_EVERY;
            }
            tokio::select! {
                received = self.socket.recv_from(buffer) => {
                    let Ok((length, _)) = received else { continue };
                    if let Ok(payload) = self.opener.open(&mut buffer[..length])
                        && let Some((&FAREWELL, name)) = payload.split_first()
                        && let Ok(name) = std::str::from_utf8(name)
                    {
                        here.remove(name);
                    }
                }
                () = sleep_until(again.min(end)) => {}
            }
        }
    }
}

/// How a member is.
fn state(member: &foca::Member<Identity>) -> NodeState {
    match member.state() {
        State::Alive => NodeState::Alive,
        State::Suspect => NodeState::Suspect,
        State::Down if member.incarnation() == LEFT => NodeState::Left,
        State::Down => NodeState::Down,
    }
}
