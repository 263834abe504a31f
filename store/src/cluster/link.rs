//! One connection between two nodes: TLS 1.3, both ends proven to know the cluster secret, messages of bounded length.
//!
//! A [`Link`] exists only once both ends have admitted each other, so whoever holds one talks to a node of its own
//! cluster, in a version of the protocol that both speak. It has no queue: what is sent waits for the socket.
//!
//! The dialler proves itself first, so a stranger who connects learns nothing that depends on the secret. Then both
//! say [`Hello`], and both admit or refuse; a refusal is told before the connection closes, so both ends know why.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsStream;
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};

use super::hello::{Hello, Opening, Refusal, agree, heard};
use super::secret::{End, Keys};
use super::tls::{self, CertificateError, Tls};
use crate::model::ids::{NodeId, NodeName};

/// Longest message on a link, in bytes. A longer one is not sent; one that comes breaks the link.
pub const MAX_MESSAGE_BYTES: usize = 8 << 20;
/// Time from the first packet to an open link. Who takes longer is cut off.
pub const HANDSHAKE_TIME: Duration = Duration::from_secs(5);
/// The same for who dials: what was lost on the way waits for ever longer, and a new attempt does not.
pub const DIAL_TIME: Duration = Duration::from_secs(2);
/// Two links that opened within this time were dialled at once.
const DOUBLED_WITHIN: Duration = HANDSHAKE_TIME;
/// Connections that may be opening from outside at once. One more is closed at once; its node tries again.
pub const MAX_HANDSHAKES: usize = 64;
/// Longest message before both ends are admitted, in bytes.
const MAX_OPENING_BYTES: usize = 8 << 10;
/// How long a refused peer has to read why.
const LINGER: Duration = Duration::from_secs(1);
/// What is read from the socket at once.
const READ_BYTES: usize = 64 << 10;
/// Messages up to this size are gathered and written together; longer ones go to TLS from where they are.
const GATHERED_BYTES: usize = 16 << 10;
/// Bytes of the length before each message, big-endian.
const LENGTH_BYTES: usize = 4;
/// Whose exporter is proven over (RFC 8446 7.5).
const EXPORTER: &[u8] = b"EXPORTER-sensorium-link";

type Reader = FramedRead<ReadHalf<TlsStream<TcpStream>>, LengthDelimitedCodec>;

/// Why a link did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Nothing answers there.
    #[error("cannot connect to {peer}: {source}")]
    Unreachable {
        /// Whom.
        peer: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The other end was too slow.
    #[error("{peer} did not open a link in time; is it a node's --peer address?")]
    Slow {
        /// Whom.
        peer: SocketAddr,
    },
    /// Too many are opening already.
    #[error("{peer} has to wait: {MAX_HANDSHAKES} links are being opened already")]
    Busy {
        /// Whom.
        peer: SocketAddr,
    },
    /// The connection broke, or the other end speaks something else.
    #[error("no link with {peer}: {source}; is it a node's --peer address?")]
    Broken {
        /// Whom.
        peer: SocketAddr,
        /// What the socket or TLS said.
        source: io::Error,
    },
    /// The other end closed without a reason.
    #[error("{peer} closed the connection while the link was being opened")]
    Closed {
        /// Whom.
        peer: SocketAddr,
    },
    /// A message that cannot be read, or not one that is due.
    #[error("{peer} does not open a link as nodes do: {what}")]
    Malformed {
        /// Whom.
        peer: SocketAddr,
        /// What came.
        what: String,
    },
    /// This node refused the other one, and has told it.
    #[error("refused {}: {refusal}", shown(name.as_ref(), *peer))]
    RefusedHere {
        /// Whom.
        peer: SocketAddr,
        /// Its name, when it had told it.
        name: Option<NodeName>,
        /// Why.
        refusal: Refusal,
    },
    /// The other node refused this one.
    #[error("{} refused this node: {refusal}", shown(name.as_ref(), *peer))]
    RefusedThere {
        /// Who.
        peer: SocketAddr,
        /// Its name, when it had told it.
        name: Option<NodeName>,
        /// Why.
        refusal: Refusal,
    },
}

impl OpenError {
    /// Why one of the two refused the other, if so.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::RefusedHere { refusal, .. } | Self::RefusedThere { refusal, .. } => Some(refusal),
            _ => None,
        }
    }

    /// The machine is there, and no process listens: whoever was there is dead.
    pub fn nobody_listens(&self) -> bool {
        matches!(self, Self::Unreachable { source, .. } if source.kind() == io::ErrorKind::ConnectionRefused)
    }
}

fn shown(name: Option<&NodeName>, peer: SocketAddr) -> String {
    name.map_or_else(|| peer.to_string(), |name| format!("node {name} at {peer}"))
}

/// Why an open link is over.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The connection broke: the other process died, or the network did.
    #[error("the link broke: {0}")]
    Broken(#[from] io::Error),
    /// A message that is too long was to be sent. Nothing of it was.
    #[error("a message of {0} bytes is longer than the {MAX_MESSAGE_BYTES} that a link carries")]
    TooLong(usize),
    /// An earlier send was dropped halfway, so the other end can no longer tell messages apart.
    #[error("an earlier message was cut off halfway")]
    Torn,
}

/// Opens links: what all links of a node have in common. Cheap to clone.
#[derive(Clone)]
pub struct Linker(Arc<Common>);

struct Common {
    tls: Tls,
    keys: Keys,
    hello: Hello,
    opening: Semaphore,
}

impl Linker {
    /// Draws this start's certificate. `hello` is what this node says of itself.
    pub fn new(keys: &Keys, hello: Hello) -> Result<Self, CertificateError> {
        Ok(Self(Arc::new(Common {
            tls: Tls::new()?,
            keys: keys.clone(),
            hello,
            opening: Semaphore::new(MAX_HANDSHAKES),
        })))
    }

    /// What this node says of itself.
    pub fn hello(&self) -> &Hello {
        &self.0.hello
    }

    /// Connects to the node at `peer`. `admit` is asked once the other node has proven itself and fits into the
    /// cluster; it only judges, for the other side may still refuse. Takes at most [`DIAL_TIME`].
    pub async fn connect(
        &self,
        peer: SocketAddr,
        admit: impl FnOnce(&Hello) -> Result<(), Refusal>,
    ) -> Result<Link, OpenError> {
        let open = async {
            let tcp =
                TcpStream::connect(peer).await.map_err(|source| OpenError::Unreachable { peer, source })?;
            let broken = |source| OpenError::Broken { peer, source };
            tcp.set_nodelay(true).map_err(broken)?;
            let stream = self.0.tls.connector.connect(tls::name(), tcp).await.map_err(broken)?;
            let exported = stream.get_ref().1.export_keying_material([0; 32], EXPORTER, None);
            let exported = exported.map_err(|e| broken(io::Error::other(e)))?;
            Talk::new(stream.into(), peer, End::Dialler, exported, &self.0).dial(admit).await
        };
        // On the heap: the two halves of a handshake would make every caller's future tens of kilobytes long.
        timeout(DIAL_TIME, Box::pin(open)).await.unwrap_or(Err(OpenError::Slow { peer }))
    }

    /// Opens a link over a connection that came in from `peer`, within [`HANDSHAKE_TIME`]; like [`Self::connect`]
    /// otherwise.
    pub async fn accept(
        &self,
        tcp: TcpStream,
        peer: SocketAddr,
        admit: impl FnOnce(&Hello) -> Result<(), Refusal>,
    ) -> Result<Link, OpenError> {
        let Ok(_place) = self.0.opening.try_acquire() else { return Err(OpenError::Busy { peer }) };
        let open = async {
            let broken = |source| OpenError::Broken { peer, source };
            tcp.set_nodelay(true).map_err(broken)?;
            let stream = self.0.tls.acceptor.accept(tcp).await.map_err(broken)?;
            let exported = stream.get_ref().1.export_keying_material([0; 32], EXPORTER, None);
            let exported = exported.map_err(|e| broken(io::Error::other(e)))?;
            Talk::new(stream.into(), peer, End::Listener, exported, &self.0).listen(admit).await
        };
        timeout(HANDSHAKE_TIME, Box::pin(open)).await.unwrap_or(Err(OpenError::Slow { peer }))
    }
}

/// A connection whose other end has yet to be admitted.
struct Talk<'a> {
    reader: Reader,
    writer: LinkWriter,
    peer: SocketAddr,
    end: End,
    exported: [u8; 32],
    name: Option<NodeName>,
    common: &'a Common,
}

impl<'a> Talk<'a> {
    fn new(
        stream: TlsStream<TcpStream>,
        peer: SocketAddr,
        end: End,
        exported: [u8; 32],
        common: &'a Common,
    ) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        let codec = LengthDelimitedCodec::builder()
            .length_field_length(LENGTH_BYTES)
            .max_frame_length(MAX_OPENING_BYTES)
            .new_codec();
        let reader = FramedRead::with_capacity(reader, codec, READ_BYTES);
        let writer = LinkWriter { stream: writer, gathered: BytesMut::new(), torn: false };
        Self { reader, writer, peer, end, exported, name: None, common }
    }

    async fn dial(mut self, admit: impl FnOnce(&Hello) -> Result<(), Refusal>) -> Result<Link, OpenError> {
        self.prove().await?;
        self.check_proof(End::Listener).await?;
        let theirs = self.hear_hello().await?;
        self.say(&Opening::Hello((&self.common.hello).into())).await?;
        let version = self.judge(&theirs, admit).await?;
        self.hear_admitted().await?;
        Ok(self.done(theirs, version))
    }

    async fn listen(mut self, admit: impl FnOnce(&Hello) -> Result<(), Refusal>) -> Result<Link, OpenError> {
        self.check_proof(End::Dialler).await?;
        self.prove().await?;
        self.say(&Opening::Hello((&self.common.hello).into())).await?;
        let theirs = self.hear_hello().await?;
        self.hear_admitted().await?;
        let version = self.judge(&theirs, admit).await?;
        Ok(self.done(theirs, version))
    }

    fn done(mut self, hello: Hello, version: u16) -> Link {
        self.reader.decoder_mut().set_max_frame_length(MAX_MESSAGE_BYTES);
        Link {
            hello,
            version,
            dialled: self.end == End::Dialler,
            peer: self.peer,
            reader: LinkReader(self.reader),
            writer: self.writer,
        }
    }

    async fn prove(&mut self) -> Result<(), OpenError> {
        let proof = self.common.keys.prove(self.end, &self.exported);
        self.say(&Opening::Proof(proof)).await
    }

    async fn check_proof(&mut self, end: End) -> Result<(), OpenError> {
        match self.hear().await? {
            Opening::Proof(proof) if self.common.keys.proves(end, &self.exported, &proof) => Ok(()),
            Opening::Proof(_) => Err(self.refuse(Refusal::secret()).await),
            _ => Err(self.malformed("a proof of the secret was due")),
        }
    }

    async fn hear_hello(&mut self) -> Result<Hello, OpenError> {
        let Opening::Hello(said) = self.hear().await? else { return Err(self.malformed("a hello was due")) };
        let hello = Hello::try_from(said).map_err(|e| self.malformed(&e.to_string()))?;
        self.name = Some(hello.name.clone());
        Ok(hello)
    }

    async fn hear_admitted(&mut self) -> Result<(), OpenError> {
        match self.hear().await? {
            Opening::Admitted => Ok(()),
            _ => Err(self.malformed("an answer to the hello was due")),
        }
    }

    /// Says whether the other end is admitted.
    async fn judge(
        &mut self,
        theirs: &Hello,
        admit: impl FnOnce(&Hello) -> Result<(), Refusal>,
    ) -> Result<u16, OpenError> {
        let judged = agree(&self.common.hello, theirs).and_then(|version| admit(theirs).map(|()| version));
        match judged {
            Ok(version) => self.say(&Opening::Admitted).await.map(|()| version),
            Err(refusal) => Err(self.refuse(refusal).await),
        }
    }

    async fn say(&mut self, what: &Opening) -> Result<(), OpenError> {
        let message = postcard::to_stdvec(what).map_err(|e| self.malformed(&e.to_string()))?;
        match self.writer.send([message.into()]).await {
            Ok(()) => Ok(()),
            Err(error) => {
                // A peer that refuses may close before it has read everything: its reason counts, not the broken pipe.
                match timeout(LINGER, self.hear()).await {
                    Ok(Err(refused @ OpenError::RefusedThere { .. })) => Err(refused),
                    _ => Err(OpenError::Broken { peer: self.peer, source: io::Error::other(error) }),
                }
            }
        }
    }

    /// The next message; a refusal is an error.
    async fn hear(&mut self) -> Result<Opening, OpenError> {
        let peer = self.peer;
        let message = match self.reader.next().await {
            None => return Err(OpenError::Closed { peer }),
            Some(Err(source)) if source.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(OpenError::Closed { peer });
            }
            Some(Err(source)) => return Err(OpenError::Broken { peer, source }),
            Some(Ok(message)) => message,
        };
        match postcard::from_bytes(&message) {
            Ok(Opening::Refused { cause, reason }) => {
                let refusal = heard(cause, &reason);
                Err(OpenError::RefusedThere { peer, name: self.name.clone(), refusal })
            }
            Ok(message) => Ok(message),
            Err(error) => Err(self.malformed(&error.to_string())),
        }
    }

    /// Tells the other end why, and gives it time to read it: closing on unread bytes would reset the connection and
    /// with it the reason.
    async fn refuse(&mut self, refusal: Refusal) -> OpenError {
        let peer = self.peer;
        let told = async {
            let reason = postcard::to_stdvec(&Opening::from(&refusal)).map_err(io::Error::other)?;
            self.writer.send([reason.into()]).await.map_err(io::Error::other)?;
            self.writer.stream.shutdown().await?;
            let mut rest = [0; 256];
            while self.reader.get_mut().read(&mut rest).await? > 0 {}
            Ok::<_, io::Error>(())
        };
        if !matches!(timeout(LINGER, told).await, Ok(Ok(()))) {
            tracing::debug!(%peer, "a refused peer may not have read why");
        }
        OpenError::RefusedHere { peer, name: self.name.clone(), refusal }
    }

    fn malformed(&self, what: &str) -> OpenError {
        OpenError::Malformed { peer: self.peer, what: what.into() }
    }
}

/// An open link to another node of the cluster.
#[derive(Debug)]
pub struct Link {
    /// What the other node said of itself.
    pub hello: Hello,
    /// The version of the protocol to speak.
    pub version: u16,
    /// Whether this node connected (else the other one did).
    pub dialled: bool,
    /// The other end of the connection. When the other node connected, that is not where it listens.
    pub peer: SocketAddr,
    /// What it sends.
    pub reader: LinkReader,
    /// What it is sent.
    pub writer: LinkWriter,
}

/// Which of two links to one run of a node to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// The one that is held.
    Held,
    /// The one that has just opened.
    New,
}

/// Which of two links between `me` and `peer` to keep, when one is held for some time and another one opened. Of two that
/// were dialled at once by both ends the one dialled by the smaller id, so that both ends keep the same one; or else the
/// new one: it would not have been dialled if the held one still worked there.
pub fn keep(me: NodeId, peer: NodeId, (held_dialled, held_for): (bool, Duration), new_dialled: bool) -> Keep {
    let preferred = |dialled: bool| dialled == (me < peer);
    let at_once = held_for < DOUBLED_WITHIN;
    if at_once && preferred(held_dialled) && !preferred(new_dialled) { Keep::Held } else { Keep::New }
}

/// The reading half of a link.
#[derive(Debug)]
pub struct LinkReader(Reader);

impl LinkReader {
    /// The next message; `None` when the other end closed in good order. A process that died, a reset and a message
    /// over [`MAX_MESSAGE_BYTES`] are errors, and come at once; silence is not noticed here. Cancel safe: a message
    /// is returned whole or stays.
    pub async fn next(&mut self) -> Result<Option<Bytes>, LinkError> {
        Ok(self.0.next().await.transpose()?.map(BytesMut::freeze))
    }
}

/// The writing half of a link.
#[derive(Debug)]
pub struct LinkWriter {
    stream: WriteHalf<TlsStream<TcpStream>>,
    gathered: BytesMut,
    torn: bool,
}

impl LinkWriter {
    /// Sends messages in order and flushes once. Waits while the other end does not read. Not cancel safe: when it is
    /// dropped halfway, so is the link ([`LinkError::Torn`] from then on).
    pub async fn send<I>(&mut self, messages: I) -> Result<(), LinkError>
    where
        I: IntoIterator<Item = Bytes, IntoIter: Send>,
    {
        if self.torn {
            return Err(LinkError::Torn);
        }
        self.torn = true;
        self.gathered.clear();
        let mut too_long = None;
        for message in messages {
            if message.len() > MAX_MESSAGE_BYTES {
                too_long = Some(message.len());
                break;
            }
            self.gathered.put_u32(message.len() as u32);
            if message.len() <= GATHERED_BYTES {
                self.gathered.extend_from_slice(&message);
                if self.gathered.len() < GATHERED_BYTES {
                    continue;
                }
            }
            self.stream.write_all(&self.gathered).await?;
            self.gathered.clear();
            if message.len() > GATHERED_BYTES {
                self.stream.write_all(&message).await?;
            }
        }
        self.stream.write_all(&self.gathered).await?;
        self.stream.flush().await?;
        self.torn = false;
        too_long.map_or(Ok(()), |length| Err(LinkError::TooLong(length)))
    }

    /// Says goodbye, so that the other end reads `None` and not an error.
    pub async fn close(&mut self) -> Result<(), LinkError> {
        Ok(self.stream.shutdown().await?)
    }
}
