//! The bytes of one connection: read in packets, written when the socket takes them.
//!
//! Invariant: a connection that has nothing to say owns no buffer. All connections of a thread read into one scratch
//! buffer; only the beginning of a packet that is not there whole yet is kept, and what the socket did not take.

use std::cell::RefCell;
use std::io;
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::codec::{Frame, Violation};

/// Bytes of one read, and so of what becomes one append.
pub const READ_BYTES: usize = 64 * 1024;
/// A buffer no larger than this is kept from one packet to the next.
const KEEP_BYTES: usize = 1024;
/// How long a client is given to take the last bytes and close its side.
const LINGER: Duration = Duration::from_millis(500);
/// Most bytes that are read and thrown away after the last packet, so that it is not lost to a reset.
const LINGER_BYTES: usize = 8 << 20;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

/// What a read brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// Some bytes.
    Some,
    /// Nothing, after all.
    Nothing,
    /// The client has closed its side.
    End,
}

/// Why reading stops for good.
#[derive(Debug)]
pub enum ReadError<E> {
    /// The socket.
    Io,
    /// What looks like a packet is none.
    Violation(Violation),
    /// What takes the packets has had enough.
    Taker(E),
}

/// A socket, and the bytes on their way from and to it.
#[derive(Debug)]
pub struct Transport {
    stream: TcpStream,
    partial: Vec<u8>,
    /// To be written.
    pub out: BytesMut,
    /// When bytes last came.
    pub heard: Instant,
    /// When bytes last left, or there were none to leave.
    pub drained: Instant,
}

impl Transport {
    /// Around a fresh socket.
    pub fn new(stream: TcpStream) -> Self {
        let now = Instant::now();
        Self { stream, partial: Vec::new(), out: BytesMut::new(), heard: now, drained: now }
    }

    /// Waits until there may be something to read. Cancel-safe.
    pub async fn readable(&self) -> io::Result<()> {
        self.stream.readable().await
    }

    /// Waits until something may be written. Cancel-safe.
    pub async fn writable(&self) -> io::Result<()> {
        self.stream.writable().await
    }

    /// Whether a packet has begun to arrive.
    pub fn is_partial(&self) -> bool {
        !self.partial.is_empty()
    }

    /// Reads once and hands over each packet that is there whole.
    pub fn read<E>(
        &mut self,
        limit: usize,
        mut take: impl FnMut(Frame<'_>, &mut BytesMut) -> Result<(), E>,
    ) -> Result<Read, ReadError<E>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let count = match self.stream.try_read(scratch) {
                Ok(0) => return Ok(Read::End),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Read::Nothing),
                Err(_) => return Err(ReadError::Io),
            };
            self.heard = Instant::now();
            let bytes = &scratch[..count];
            if self.partial.is_empty() {
                let used = packets(bytes, limit, &mut self.out, &mut take)?;
                if used < count {
                    self.partial.extend_from_slice(&bytes[used..]);
                }
                return Ok(Read::Some);
            }
            self.partial.extend_from_slice(bytes);
            self.take_partial(limit, &mut take)?;
            Ok(Read::Some)
        })
    }

    /// Reads until the first packet is there whole, and takes that one alone. Not cancel-safe, and not called again
    /// after it was dropped.
    pub async fn first<T>(
        &mut self,
        limit: usize,
        take: impl FnOnce(Frame<'_>) -> T,
    ) -> Result<Option<T>, ReadError<T>> {
        loop {
            if let Some(frame) = Frame::split(&self.partial, limit).map_err(ReadError::Violation)? {
                let (length, taken) = (frame.len(), take(frame));
                self.partial.drain(..length);
                return Ok(Some(taken));
            }
            self.readable().await.map_err(|_| ReadError::Io)?;
            let mut chunk = [0; KEEP_BYTES];
            match self.stream.try_read(&mut chunk) {
                Ok(0) => return Ok(None),
                Ok(count) => self.partial.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Err(ReadError::Io),
            }
        }
    }

    /// Hands over the packets that came with the first.
    pub fn rest_of_first<E>(
        &mut self,
        limit: usize,
        mut take: impl FnMut(Frame<'_>, &mut BytesMut) -> Result<(), E>,
    ) -> Result<(), ReadError<E>> {
        self.take_partial(limit, &mut take)
    }

    fn take_partial<E>(
        &mut self,
        limit: usize,
        take: &mut impl FnMut(Frame<'_>, &mut BytesMut) -> Result<(), E>,
    ) -> Result<(), ReadError<E>> {
        let used = packets(&self.partial, limit, &mut self.out, take)?;
        self.partial.drain(..used);
        if self.partial.is_empty() && self.partial.capacity() > 0 {
            self.partial = Vec::new();
        }
        Ok(())
    }

    /// Writes what the socket takes now.
    pub fn flush(&mut self) -> io::Result<()> {
        while !self.out.is_empty() {
            match self.stream.try_write(&self.out) {
                Ok(count) => {
                    self.out.advance(count);
                    self.drained = Instant::now();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        if self.out.capacity() > 0 {
            self.out = BytesMut::new();
        }
        Ok(())
    }

    /// Writes what is left, then closes: the write side first, and only when the client has closed its own (or
    /// [`LINGER`] is over) the rest, since a reset could overtake the last packet.
    pub async fn close(mut self) {
        let farewell = async {
            self.stream.write_all(&self.out).await?;
            self.stream.shutdown().await?;
            let mut chunk = vec![0; 4096];
            let mut thrown = 0;
            while thrown < LINGER_BYTES {
                self.stream.readable().await?;
                match self.stream.try_read(&mut chunk) {
                    Ok(0) => break,
                    Ok(count) => thrown += count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            io::Result::Ok(())
        };
        // However it ends, the connection is over.
        let _ = timeout(LINGER, farewell).await;
    }
}

/// Hands over each whole packet of `bytes`; how many bytes they were.
fn packets<E>(
    bytes: &[u8],
    limit: usize,
    out: &mut BytesMut,
    take: &mut impl FnMut(Frame<'_>, &mut BytesMut) -> Result<(), E>,
) -> Result<usize, ReadError<E>> {
    let mut used = 0;
    while let Some(frame) = Frame::split(&bytes[used..], limit).map_err(ReadError::Violation)? {
        used += frame.len();
        take(frame, out).map_err(ReadError::Taker)?;
    }
    Ok(used)
}
