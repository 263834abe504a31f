//! A long way between two nodes: what comes to a relay's address arrives at the node's own a while later, over TCP and UDP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

/// Pieces on their way; at this the sender waits, as in a full network buffer.
const PIECES: usize = 256;
/// Bytes of a piece at most.
const PIECE: usize = 64 * 1024;

/// Forwards until it is dropped.
pub(crate) struct Relay(JoinHandle<()>);

impl Drop for Relay {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Relay {
    /// From `at` to `to`, each way taking `delay`.
    pub(crate) async fn start(at: SocketAddr, to: SocketAddr, delay: Duration) -> Self {
        let listener = TcpListener::bind(at).await.unwrap();
        let socket = Arc::new(UdpSocket::bind(at).await.unwrap());
        Self(tokio::spawn(async move {
            let mut running = JoinSet::new();
            running.spawn(datagrams(socket, to, delay));
            loop {
                let Ok((from, _)) = listener.accept().await else { continue };
                running.spawn(async move {
                    // A node that is not there yet is one that refuses.
                    let Ok(onward) = TcpStream::connect(to).await else { return };
                    from.set_nodelay(true).unwrap();
                    onward.set_nodelay(true).unwrap();
                    let ((from_read, from_write), (to_read, to_write)) =
                        (from.into_split(), onward.into_split());
                    tokio::join!(pass(from_read, to_write, delay), pass(to_read, from_write, delay));
                });
            }
        }))
    }
}

/// One direction, until either side ends.
async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, delay: Duration) {
    let (sender, mut pieces) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES);
    let read = async move {
        loop {
            let mut piece = vec![0; PIECE];
            match from.read(&mut piece).await {
                Ok(0) | Err(_) => return,
                Ok(length) => {
                    piece.truncate(length);
                    if sender.send((Instant::now() + delay, piece)).await.is_err() {
                        return;
                    }
                }
            }
        }
    };
    let write = async move {
        while let Some((due, piece)) = pieces.recv().await {
            sleep_until(due).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
        // The end travels as long as everything else; the other side may be gone already.
        to.shutdown().await.ok();
    };
    tokio::join!(read, write);
}

async fn datagrams(socket: Arc<UdpSocket>, to: SocketAddr, delay: Duration) {
    let mut running = JoinSet::new();
    let mut datagram = vec![0; PIECE];
    loop {
        while running.try_join_next().is_some() {}
        let Ok((length, _)) = socket.recv_from(&mut datagram).await else { continue };
        let (socket, datagram, due) =
            (Arc::clone(&socket), datagram[..length].to_vec(), Instant::now() + delay);
        running.spawn(async move {
            sleep_until(due).await;
            // Lost, as datagrams may be.
            socket.send_to(&datagram, to).await.ok();
        });
    }
}
