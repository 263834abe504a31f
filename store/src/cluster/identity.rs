//! Who a member is to foca, and how its messages are written. Values only.
//!
//! A member is known by its node's name: a restart, or another disk under the same name, takes the place of who had it.
//! Which of two runs is the later one is told by an epoch: the wall clock at the start, raised whenever the cluster
//! took the member for dead ([`foca::Identity::renew`]). A clock that was set back between two starts costs a few
//! round trips: the new run learns that it lost, and raises its epoch in growing steps until it wins.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::{Buf, BufMut};
use foca::{Codec, Header, Message};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::heard::Heard;
use crate::model::ids::{IdError, NodeId, NodeName};

/// Renewals in a row after which a member stays down for a while: two live nodes fight over one name.
pub(super) const MAX_RENEWALS: u32 = 8;
/// Renewals closer together than this are in a row.
pub(super) const RENEWALS_WITHIN: Duration = Duration::from_secs(10);
/// Most that a renewal raises the epoch by, in milliseconds: 1000⁴, some 31 years.
const MAX_STEP_EXPONENT: u32 = 4;
/// Where an announcement is addressed to: whoever it reaches.
const ANYONE: u64 = 0;

/// One run of a node, as the others know it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Member {
    /// Its operator's name for it.
    pub name: NodeName,
    /// Its disk.
    pub node: NodeId,
    /// Its run: with `node`, the origin of its blocks.
    pub start: u64,
    /// Where it takes datagrams and links.
    pub address: SocketAddr,
}

impl Member {
    /// Whether the other one is the same run of the same node.
    pub fn same_run(&self, other: &Self) -> bool {
        (&self.name, self.node, self.start) == (&other.name, other.node, other.start)
    }
}

/// A member with what tells its lives apart.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub(super) struct Identity {
    pub(super) member: Member,
    /// Milliseconds since 1970 at its start, or more: of two, the higher one is the later.
    epoch: u64,
    /// When it was last renewed, and how often in a row. Known to itself alone.
    renewed: Option<(Instant, u32)>,
}

impl Identity {
    /// A run that begins now.
    pub(super) fn new(member: Member) -> Self {
        Self { member, epoch: now(), renewed: None }
    }

    /// Whoever is at `address`: only to address an announcement.
    pub(super) fn anyone(&self, address: SocketAddr) -> Self {
        Self { member: Member { address, ..self.member.clone() }, epoch: 0, renewed: None }
    }

    /// A later life of the same run, whatever [`MAX_RENEWALS`] says.
    pub(super) fn revived(&self) -> Self {
        Self { epoch: now().max(self.epoch.saturating_add(1)), renewed: None, member: self.member.clone() }
    }

    fn order(&self) -> (u64, u64, u64, SocketAddr) {
        (self.epoch, self.member.start, self.member.node.0, self.member.address)
    }

    /// What a message to it carries in place of all this.
    fn tag(&self) -> u64 {
        let written =
            postcard::to_stdvec(self).expect("numbers, a text and an address can always be written");
        let hash = blake3::hash(&written);
        u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes")).max(ANYONE + 1)
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order() && self.member.name == other.member.name
    }
}

impl Eq for Identity {}

impl foca::Identity for Identity {
    type Addr = NodeName;

    fn renew(&self) -> Option<Self> {
        let row = match self.renewed {
            Some((last, row)) if last.elapsed() < RENEWALS_WITHIN => row + 1,
            _ => 0,
        };
        if row >= MAX_RENEWALS {
            return None;
        }
        let step = 1000_u64.pow(row.min(MAX_STEP_EXPONENT));
        let epoch = now().max(self.epoch.saturating_add(step));
        Some(Self { epoch, renewed: Some((Instant::now(), row)), member: self.member.clone() })
    }

    fn addr(&self) -> NodeName {
        self.member.name.clone()
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.order() > adversary.order()
    }
}

/// An [`Identity`] on the wire.
#[derive(Serialize, Deserialize)]
struct Written {
    name: String,
    node: u64,
    start: u64,
    epoch: u64,
    address: SocketAddr,
}

impl From<Identity> for Written {
    fn from(identity: Identity) -> Self {
        let Member { name, node, start, address } = identity.member;
        Self { name: name.as_str().to_owned(), node: node.0, start, epoch: identity.epoch, address }
    }
}

impl TryFrom<Written> for Identity {
    type Error = IdError;

    fn try_from(written: Written) -> Result<Self, IdError> {
        let Written { name, node, start, epoch, address } = written;
        let member = Member { name: NodeName::new(&name)?, node: NodeId(node), start, address };
        Ok(Self { member, epoch, renewed: None })
    }
}

/// What reading a message needs to know of its reader, and what it notes for it. Shared by the codec, which foca owns,
/// with the task that owns foca.
#[derive(Clone)]
pub(super) struct Own {
    reader: Arc<Mutex<Reader>>,
    heard: Heard,
}

struct Reader {
    identity: Identity,
    tag: u64,
    /// Another run under this node's name that has sent something: when it was first and last heard of.
    rival: Option<(Member, Instant, Instant)>,
}

impl Own {
    pub(super) fn new(identity: Identity, heard: Heard) -> Self {
        let tag = identity.tag();
        Self { reader: Arc::new(Mutex::new(Reader { identity, tag, rival: None })), heard }
    }

    /// Messages are now addressed to this one.
    pub(super) fn set(&self, identity: Identity) {
        let mut reader = self.reader.lock();
        reader.tag = identity.tag();
        reader.identity = identity;
    }

    /// Who sends under this node's name, if somebody has for at least `long`, and not only long ago.
    pub(super) fn rival(&self, long: Duration) -> Option<Member> {
        let mut reader = self.reader.lock();
        let (rival, first, last) = reader.rival.as_ref()?;
        if last.elapsed() > RENEWALS_WITHIN {
            reader.rival = None;
            return None;
        }
        (last.duration_since(*first) >= long).then(|| rival.clone())
    }

    fn read_src(&self, src: &Identity) {
        self.heard.note(&src.member);
        let mut reader = self.reader.lock();
        if src.member.name != reader.identity.member.name || src.member.same_run(&reader.identity.member) {
            return;
        }
        let now = Instant::now();
        match &mut reader.rival {
            Some((rival, _, last)) if rival.same_run(&src.member) => *last = now,
            rival => *rival = Some((src.member.clone(), now, now)),
        }
    }
}

/// Writes foca's messages with postcard. The addressee is written as a hash of its identity: a message that was meant
/// for an earlier life, or for who had the address before, is not taken.
pub(super) struct Postcard(pub(super) Own);

/// Why a message cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub(super) enum CodecError {
    #[error(transparent)]
    Postcard(#[from] postcard::Error),
    #[error("{0} bytes do not fit")]
    Full(usize),
}

fn write(what: &impl Serialize, mut buf: impl BufMut) -> Result<(), CodecError> {
    let written = postcard::to_stdvec(what)?;
    if written.len() > buf.remaining_mut() {
        return Err(CodecError::Full(written.len()));
    }
    buf.put_slice(&written);
    Ok(())
}

fn read<T: for<'a> Deserialize<'a>>(mut buf: impl Buf) -> Result<T, CodecError> {
    let held = buf.chunk();
    let (value, rest) = postcard::take_from_bytes(held)?;
    let used = held.len() - rest.len();
    buf.advance(used);
    Ok(value)
}

impl Codec<Identity> for Postcard {
    type Error = CodecError;

    fn encode_header(&mut self, header: &Header<Identity>, buf: impl BufMut) -> Result<(), CodecError> {
        let to = if header.message == Message::Announce { ANYONE } else { header.dst.tag() };
        write(&(&header.src, header.src_incarnation, to, &header.message), buf)
    }

    fn decode_header(&mut self, buf: impl Buf) -> Result<Header<Identity>, CodecError> {
        let (src, src_incarnation, to, message) = read::<(Identity, u16, u64, Message<Identity>)>(buf)?;
        self.0.read_src(&src);
        let reader = self.0.reader.lock();
        let mine = to == reader.tag || (to == ANYONE && message == Message::Announce);
        // What is meant for somebody else is given an addressee that foca does not take for this node.
        let dst = if mine { reader.identity.clone() } else { src.clone() };
        Ok(Header { src, src_incarnation, dst, message })
    }

    fn encode_member(&mut self, member: &foca::Member<Identity>, buf: impl BufMut) -> Result<(), CodecError> {
        write(member, buf)
    }

    fn decode_member(&mut self, buf: impl Buf) -> Result<foca::Member<Identity>, CodecError> {
        read(buf)
    }
}

#[cfg(test)]
mod tests {
    use foca::Identity as _;

    use super::*;

    fn identity(name: &str, start: u64) -> Identity {
        Identity::new(Member {
            name: NodeName::new(name).unwrap(),
            node: NodeId(1),
            start,
            address: "127.0.0.1:4400".parse().unwrap(),
        })
    }

    fn own(identity: &Identity) -> Own {
        Own::new(identity.clone(), Heard::default())
    }

    #[test]
    fn of_two_runs_exactly_one_is_the_later() {
        let old = Identity { epoch: 1000, ..identity("a", 1) };
        let new = Identity { epoch: 1001, ..identity("a", 0) };
        let twin = Identity { epoch: 1000, ..identity("a", 2) };
        for (winner, loser) in [(&new, &old), (&twin, &old), (&new, &twin)] {
            assert!(winner.win_addr_conflict(loser) && !loser.win_addr_conflict(winner));
        }
        assert_eq!(old.addr(), new.addr());
    }

    #[test]
    fn a_clock_set_back_is_made_good_in_a_few_renewals() {
        let years = 20 * 365 * 86_400_000;
        let before = Identity { epoch: now() + years, ..identity("a", 1) };
        let mut life = identity("a", 2);
        let mut renewals = 0;
        while !life.win_addr_conflict(&before) {
            let next = life.renew().unwrap();
            assert!(next.win_addr_conflict(&life));
            (life, renewals) = (next, renewals + 1);
        }
        assert!(renewals <= MAX_RENEWALS, "{renewals}");
        while let Some(next) = life.renew() {
            (life, renewals) = (next, renewals + 1);
        }
        assert_eq!(renewals, MAX_RENEWALS, "a fight over a name pauses");
        let revived = life.revived();
        assert!(revived.win_addr_conflict(&life) && revived.renew().is_some());
    }

    #[test]
    fn messages_survive_the_wire_and_find_their_addressee_only() {
        let (a, b, c) = (identity("a", 1), identity("b", 2), identity("c", 3));
        let (own_a, own_b) = (own(&a), own(&b));
        let (mut at_a, mut at_b) = (Postcard(own_a), Postcard(own_b.clone()));
        let mut cross = |dst: &Identity, message: Message<Identity>| {
            let header = Header { src: a.clone(), src_incarnation: 3, dst: dst.clone(), message };
            let mut bytes = Vec::new();
            at_a.encode_header(&header, &mut bytes).unwrap();
            let mut left = &bytes[..];
            let read = at_b.decode_header(&mut left).unwrap();
            assert!(left.is_empty());
            assert_eq!((read.src, read.src_incarnation, &read.message), (a.clone(), 3, &header.message));
            read.dst
        };
        assert_eq!(cross(&b, Message::Ping(9)), b);
        assert_eq!(cross(&b, Message::PingReq { target: c.clone(), probe_number: 1 }), b);
        assert_ne!(cross(&c, Message::Ping(9)), b);
        assert_eq!(cross(&a.anyone(b.member.address), Message::Announce), b);
        let renewed = b.renew().unwrap();
        own_b.set(renewed.clone());
        assert_ne!(cross(&b, Message::Ping(9)), renewed, "meant for an earlier life");
        assert_eq!(cross(&renewed, Message::Ping(9)), renewed);
    }

    #[test]
    fn what_does_not_fit_or_makes_no_sense_is_an_error() {
        let mut codec = Postcard(own(&identity("a", 1)));
        let member = foca::Member::alive(identity("b", 2));
        let mut bytes = Vec::new();
        codec.encode_member(&member, &mut bytes).unwrap();
        assert_eq!(codec.decode_member(&bytes[..]).unwrap(), member);
        assert!(codec.encode_member(&member, (&mut Vec::new()).limit(bytes.len() - 1)).is_err());
        for cut in 0..bytes.len() {
            assert!(codec.decode_member(&bytes[..cut]).is_err(), "{cut}");
        }
        bytes[1] = b' ';
        assert!(codec.decode_member(&bytes[..]).is_err(), "not a node's name");
    }

    #[test]
    fn another_run_that_sends_under_the_same_name_is_a_rival() {
        let (a, other) = (identity("a", 1), identity("a", 2));
        let own = own(&a);
        let mut codec = Postcard(own.clone());
        for src in [identity("b", 9), a.renew().unwrap()] {
            let header = Header { src, src_incarnation: 0, dst: a.clone(), message: Message::Ping(0) };
            let mut bytes = Vec::new();
            codec.encode_header(&header, &mut bytes).unwrap();
            codec.decode_header(&bytes[..]).unwrap();
        }
        assert_eq!(own.rival(Duration::ZERO), None);
        own.read_src(&other);
        own.read_src(&other);
        assert_eq!(own.rival(Duration::ZERO), Some(other.member));
        assert_eq!(own.rival(Duration::from_secs(1)), None, "a straggler of the run before is none yet");
    }
}
