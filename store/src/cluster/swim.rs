//! Runs foca: one task with a socket, its timers, and what foca wants done.
//!
//! Beside foca's own messages there are four: a goodbye with its answer, so that leaving is told from dying, and a
//! question to who is suspected with its answer, so that a member whose datagrams are often lost can refute it in time.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::{NonZeroU8, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use foca::{
    Config, Foca, Incarnation, NoCustomBroadcast, Notification, PeriodicParams, Runtime, State, Timer,
};
use rand_foca::SeedableRng;
use rand_foca::rngs::StdRng;
use serde::Serialize;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::changes::{Roster, Told};
use super::datagram::{MAX_DATAGRAM_BYTES, MAX_PAYLOAD_BYTES, Opener, Sealer};
use super::heard::Heard;
use super::identity::{Identity, Member, Own, Postcard, RENEWALS_WITHIN};
use super::member::{
    ANSWER_WITHIN, CALL_DOWN_AT_ONCE, CALL_DOWN_EVERY, Command, LEAVE_TIME, LEFT, MemberEvent, MemberFigures,
    PROBE_EVERY, REMEMBER_DOWN_FOR, SUSPECT_FOR, Shared,
};
use super::secret::Keys;
use super::view::NodeState;
use crate::model::ids::NodeName;

/// How often a suspected member is asked to speak up.
const ASK_EVERY: Duration = Duration::from_millis(150);
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

/// What a datagram carries: its payload's first byte.
const SWIM: u8 = 0;
/// The identity of who leaves.
const GOODBYE: u8 = 1;
/// Answer to a goodbye: the name of who has heard it.
const FAREWELL: u8 = 2;
/// To a suspected member: what is held of it, to be refuted, and the address of who asks.
const SPEAK_UP: u8 = 3;
/// Answer to it: the identity of who speaks.
const HERE: u8 = 4;

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
    AskSuspects,
}

/// A member's part in the protocol.
pub(super) struct Task {
    socket: UdpSocket,
    foca: Foca<Identity, Postcard, StdRng, NoCustomBroadcast>,
    own: Own,
    outbox: Outbox,
    sealer: Sealer,
    opener: Opener,
    /// By time and order of being set.
    timers: BTreeMap<(Instant, u64), Due>,
    timers_set: u64,
    heard: Heard,
    /// Whether [`Due::AskSuspects`] is set.
    asking: bool,
    told: Told,
    contested: Option<Instant>,
    figures: MemberFigures,
    shared: Arc<Shared>,
    events: mpsc::Sender<MemberEvent>,
}

impl Task {
    pub(super) fn new(
        socket: UdpSocket,
        me: Member,
        keys: &Keys,
        shared: Arc<Shared>,
        heard: Heard,
        events: mpsc::Sender<MemberEvent>,
    ) -> Self {
        let identity = Identity::new(me);
        let own = Own::new(identity.clone(), heard.clone());
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
            heard,
            asking: false,
            told: Told::default(),
            contested: None,
            figures: MemberFigures::default(),
            shared,
            events,
        };
        task.set(CALL_DOWN_EVERY, Due::CallDown);
        task
    }

    /// Takes part until told to leave, or until nobody can tell it anything any more.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
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
                    Some(Command::Gone(member, how)) => self.take_for_gone(&member, how),
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
                Due::AskSuspects => self.ask_suspects(),
            }
        }
        // Foca's own order, for timers that fall due together.
        of_foca.sort();
        for timer in of_foca {
            if let Timer::ChangeSuspectToDown { member_id, .. } = &timer
                && let Some(silence) = self.heard.silence(&member_id.member)
                && let Some(left) = SUSPECT_FOR.checked_sub(silence)
            {
                self.set(left.max(ASK_EVERY), Due::Foca(timer));
                continue;
            }
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
            Some((&GOODBYE, who)) => postcard::from_bytes(who).map(|who| self.part(who)).is_ok(),
            Some((&SPEAK_UP, asked)) => {
                postcard::from_bytes(asked).map(|(held, asker)| self.speak_up(held, asker)).is_ok()
            }
            Some((&HERE, who)) => postcard::from_bytes(who).map(|who| self.speaks(who)).is_ok(),
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

    /// Asks all suspected members to speak up, as long as there are any.
    fn ask_suspects(&mut self) {
        self.asking = false;
        let me = self.foca.identity().member.address;
        let suspects: Vec<_> =
            self.foca.iter_members().filter(|member| member.state() == State::Suspect).cloned().collect();
        for suspect in suspects {
            self.asking = true;
            self.send_later(suspect.id().member.address, SPEAK_UP, &(&suspect, me));
        }
        if self.asking {
            self.set(ASK_EVERY, Due::AskSuspects);
        }
    }

    /// Somebody suspects this node, and holds this of it.
    fn speak_up(&mut self, held: foca::Member<Identity>, asker: SocketAddr) {
        let me = self.foca.identity().clone();
        if *held.id() == me && held.state() == State::Suspect {
            // Foca refutes it, to some of the members.
            self.apply(held);
        }
        self.send_later(asker, HERE, &me);
    }

    /// A member that was asked to has spoken up.
    fn speaks(&mut self, who: Identity) {
        if who.member.name != self.foca.identity().member.name {
            self.heard.note(&who.member);
            self.apply(foca::Member::alive(who));
        }
    }

    fn send_later(&mut self, to: SocketAddr, kind: u8, what: &impl Serialize) {
        match postcard::to_stdvec(what) {
            Ok(written) => self.outbox.send.push((to, [&[kind], &written[..]].concat())),
            Err(error) => tracing::warn!(%error, "a message of membership cannot be written"),
        }
    }

    fn take_for_gone(&mut self, member: &Member, how: Incarnation) {
        let known = self.foca.iter_members().find(|known| known.id().member.same_run(member));
        if let Some(identity) = known.map(|known| known.id().clone()) {
            self.apply(foca::Member::new(identity, how, State::Down));
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
        if !self.asking && roster.values().any(|(_, state)| *state == NodeState::Suspect) {
            self.asking = true;
            self.set(Duration::ZERO, Due::AskSuspects);
        }
        self.heard.keep(&roster);
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
