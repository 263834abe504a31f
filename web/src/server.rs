//! The HTTP listener: it alone accepts browsers' and devices' TCP connections, and bounds what each may cost.
//!
//! Invariant: a connection that says nothing, stops in the middle of a request, or stops reading its answer is closed
//! in bounded time; none outlives [`Server::run`] and the drain that follows it.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::FromRequestParts;
use axum::http::Request;
use axum::http::request::Parts;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Most connections at a time, sockets of viewers and devices included. A further one is told 503 and closed.
pub const MAX_CONNECTIONS: usize = 60_000;
/// How long a connection may take to send the head of a request, also between two requests.
pub const HEAD_WITHIN: Duration = Duration::from_secs(20);
/// How long a client may read nothing of what is sent to it. Beyond it the connection is closed.
pub const READ_WITHIN: Duration = Duration::from_secs(10);
/// Longest head of a request, in bytes. A longer one is answered 431.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Pause after `accept` failed for want of resources (file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a connection beyond [`MAX_CONNECTIONS`] is kept to tell it so.
const REFUSE_WITHIN: Duration = Duration::from_secs(1);
/// What a connection beyond [`MAX_CONNECTIONS`] is told.
const FULL: &str =
    r#"{"error":{"code":"too_many_connections","message":"this node has all the connections it takes"}}"#;

/// What the listener needs to know.
#[derive(Debug, Clone)]
pub struct Limits {
    /// See [`MAX_CONNECTIONS`].
    pub connections: usize,
    /// See [`HEAD_WITHIN`].
    pub head_within: Duration,
    /// See [`READ_WITHIN`].
    pub read_within: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: MAX_CONNECTIONS, head_within: HEAD_WITHIN, read_within: READ_WITHIN }
    }
}

/// Who asks, as an extension of each request: the address at the other end of its connection. Of a request that came
/// through none (in a test) it is `0.0.0.0`.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

impl<S: Sync> FromRequestParts<S> for Peer {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().copied().unwrap_or(Self(IpAddr::V4(Ipv4Addr::UNSPECIFIED))))
    }
}

/// The router as one connection calls it.
struct Called {
    router: TowerToHyperService<Router>,
    peer: Peer,
}

impl Service<Request<Incoming>> for Called {
    type Response = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Response;
    type Error = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Error;
    type Future = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Future;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.peer);
        self.router.call(request)
    }
}

/// Serves a router on a listener.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    limits: Limits,
    connections: TaskTracker,
}

impl Server {
    /// A server on a bound listener.
    pub fn new(listener: TcpListener, limits: Limits) -> Self {
        Self { listener, limits, connections: TaskTracker::new() }
    }

    /// Tracks every open connection, upgraded ones included: empty once all are closed.
    pub fn connections(&self) -> TaskTracker {
        self.connections.clone()
    }

    /// Accepts until `stop`; then the listener is closed, idle connections too, and requests under way are finished.
    /// Wait for [`Self::connections`] to drain after it.
    pub async fn run(self, router: Router, stop: CancellationToken) {
        let slots = Arc::new(Semaphore::new(self.limits.connections));
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            let (stream, from) = match accepted {
                Ok(accepted) => accepted,
                Err(error) if is_of_one_connection(&error) => continue,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections; is the limit of open files too low?");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "cannot set TCP_NODELAY");
            }
            let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
                self.connections.spawn(refuse(stream));
                continue;
            };
            let io = Guarded {
                stream,
                read_within: self.limits.read_within,
                stalled: None,
                _slot: slot,
                _open: self.connections.token(),
            };
            let service = Called { router: TowerToHyperService::new(router.clone()), peer: Peer(from.ip()) };
            tokio::spawn(serve(io, service, self.limits.head_within, stop.clone()));
        }
        self.connections.close();
    }
}

/// Whether a failed `accept` concerns only the connection that it would have returned.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

/// Tells a connection that the node is full, and lets it say what it has to say: closing with unread input would
/// reset the connection before the answer is read.
async fn refuse(mut stream: TcpStream) {
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 5\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{FULL}",
        FULL.len()
    );
    let told = tokio::time::timeout(REFUSE_WITHIN, async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
    });
    if !matches!(told.await, Ok(Ok(_))) {
        tracing::debug!("a connection beyond the limit was closed");
    }
}

/// One connection, to its end or its upgrade.
async fn serve(io: Guarded, service: Called, head_within: Duration, stop: CancellationToken) {
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_within)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection ended early");
    }
}

/// A connection that fails when its peer has read nothing for a while, and holds its slot until it is closed,
/// whoever has it by then.
struct Guarded {
    stream: TcpStream,
    read_within: Duration,
    /// Runs while a write waits for the peer to read.
    stalled: Option<Pin<Box<Sleep>>>,
    _slot: OwnedSemaphorePermit,
    _open: TaskTrackerToken,
}

impl Guarded {
    /// Fails a write that has been pending for too long.
    fn watch<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stalled = None;
            return polled;
        }
        let deadline = Instant::now() + self.read_within;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        match stalled.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("the client read nothing for {} s", self.read_within.as_secs()),
            ))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.watch(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::AsyncReadExt;

    use super::*;

    /// Serves `limits` until the guard is dropped.
    async fn start(limits: Limits) -> (std::net::SocketAddr, TaskTracker, tokio_util::sync::DropGuard) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::new(listener, limits);
        let (connections, stop) = (server.connections(), CancellationToken::new());
        let large = "x".repeat(64 * 1024 * 1024);
        let router =
            Router::new().route("/", get(|| async { "hi" })).route("/large", get(|| async { large }));
        tokio::spawn(server.run(router, stop.clone()));
        (address, connections, stop.drop_guard())
    }

    async fn read_to_end(stream: &mut TcpStream) -> String {
        let mut answer = Vec::new();
        // A reset after the answer is an end as well.
        drop(stream.read_to_end(&mut answer).await);
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test]
    async fn silence_and_half_a_request_are_closed_and_their_slots_freed() {
        let limits = Limits { connections: 1, head_within: Duration::from_millis(50), ..Limits::default() };
        let (address, _, _stop) = start(limits).await;
        for said in ["", "GET / HT", "GET / HTTP/1.1\r\nhost: a\r\n\r\n"] {
            // The one slot is free again each time: a connection that is still held would make this one `FULL`.
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(said.as_bytes()).await.unwrap();
            let answer = read_to_end(&mut stream).await;
            assert!(!answer.contains("too_many_connections"), "after {said:?}: {answer}");
            assert_eq!(said.ends_with("\r\n\r\n"), answer.ends_with("hi"), "{answer}");
        }
    }

    #[tokio::test]
    async fn a_connection_too_many_is_told_so() {
        let (address, _, _stop) = start(Limits { connections: 1, ..Limits::default() }).await;
        let mut first = TcpStream::connect(address).await.unwrap();
        first.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut answer = [0; 12];
        first.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        let mut second = TcpStream::connect(address).await.unwrap();
        assert!(read_to_end(&mut second).await.contains("too_many_connections"));
    }

    #[tokio::test]
    async fn a_client_that_stops_reading_is_closed() {
        let limits = Limits { read_within: Duration::from_millis(50), ..Limits::default() };
        let (address, connections, _stop) = start(limits).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        // `wait` ends once the tracker is closed and empty; our end stays open all the while.
        connections.close();
        tokio::time::timeout(Duration::from_secs(30), connections.wait())
            .await
            .expect("closed by the server");
    }

    #[tokio::test]
    async fn stopping_closes_the_listener_and_idle_connections() {
        let (address, connections, stop) = start(Limits::default()).await;
        let mut idle = TcpStream::connect(address).await.unwrap();
        idle.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut answer = [0; 12];
        idle.read_exact(&mut answer).await.unwrap();
        drop(stop);
        assert!(read_to_end(&mut idle).await.ends_with("hi"));
        tokio::time::timeout(Duration::from_secs(10), connections.wait()).await.expect("drained");
        assert!(TcpStream::connect(address).await.is_err());
    }
}
