//! Links between nodes: who gets one, what refused nodes are told, what crosses, and how an end is noticed.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use store::cluster::hello::{Cause, Hello, Refusal, VERSIONS};
use store::cluster::link::{
    Keep, Link, LinkError, Linker, MAX_HANDSHAKES, MAX_MESSAGE_BYTES, OpenError, keep,
};
use store::cluster::secret::Keys;
use store::{NodeId, NodeName, PARTITIONS};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Longer than anything here takes; a test that waits for it has failed.
const GUARD: Duration = Duration::from_secs(20);

fn hello(name: &str, node: u64) -> Hello {
    Hello {
        versions: VERSIONS,
        node: NodeId(node),
        start: node * 1000,
        name: NodeName::new(name).unwrap(),
        partitions: PARTITIONS,
        replicas: 3,
        peer: format!("{name}.example:4400"),
        http: format!("http://{name}.example:4000"),
        mqtt: Some(format!("mqtt://{name}.example")),
        zone: None,
    }
}

fn linker(secret: &str, hello: Hello) -> Linker {
    Linker::new(&Keys::new(Some(secret)), hello).unwrap()
}

/// Admits whoever fits.
const ANYONE: fn(&Hello) -> Result<(), Refusal> = |_| Ok(());

async fn guarded<T>(what: impl Future<Output = T>) -> T {
    timeout(GUARD, what).await.expect("it came to nothing")
}

/// A node dials another one; what both make of it.
async fn meet(dialler: &Linker, listener: &Linker) -> (Result<Link, OpenError>, Result<Link, OpenError>) {
    meet_if(dialler, listener, ANYONE, ANYONE).await
}

async fn meet_if(
    dialler: &Linker,
    listener: &Linker,
    dialler_admits: impl FnOnce(&Hello) -> Result<(), Refusal>,
    listener_admits: impl FnOnce(&Hello) -> Result<(), Refusal>,
) -> (Result<Link, OpenError>, Result<Link, OpenError>) {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let accepted = async {
        let (tcp, peer) = socket.accept().await.unwrap();
        listener.accept(tcp, peer, listener_admits).await
    };
    guarded(async { tokio::join!(dialler.connect(address, dialler_admits), accepted) }).await
}

async fn open() -> (Link, Link) {
    let (a, b) = (linker("s", hello("a", 1)), linker("s", hello("b", 2)));
    let (at_a, at_b) = meet(&a, &b).await;
    (at_a.unwrap(), at_b.unwrap())
}

#[tokio::test]
async fn two_nodes_of_one_cluster_get_a_link() {
    let (at_a, at_b) = open().await;
    assert_eq!(at_a.hello, hello("b", 2));
    assert_eq!(at_b.hello, hello("a", 1));
    assert_eq!((at_a.version, at_b.version), (VERSIONS.1, VERSIONS.1));
    assert!(at_a.dialled && !at_b.dialled);
}

#[tokio::test]
async fn neighbouring_versions_speak_the_highest_that_both_know() {
    let older = linker("s", Hello { versions: (1, 2), ..hello("a", 1) });
    let newer = linker("s", Hello { versions: (2, 3), ..hello("b", 2) });
    let (at_older, at_newer) = meet(&older, &newer).await;
    assert_eq!((at_older.unwrap().version, at_newer.unwrap().version), (2, 2));
}

/// Both ends must say the same, whoever dials, and name both nodes' values.
async fn refused_on_both_sides(a: &Linker, b: &Linker, cause: Cause, words: &[&str]) {
    for (dialler, listener) in [(a, b), (b, a)] {
        let (here, there) = meet(dialler, listener).await;
        let (here, there) = (here.unwrap_err(), there.unwrap_err());
        assert_eq!(here.refusal().map(|r| r.cause), Some(cause), "{here}");
        assert_eq!(here.refusal(), there.refusal(), "{here} / {there}");
        for text in [here.to_string(), there.to_string()] {
            for word in words {
                assert!(text.contains(word), "{text:?} lacks {word:?}");
            }
        }
        let by = |error: &OpenError| matches!(error, OpenError::RefusedHere { .. });
        assert_ne!(by(&here), by(&there), "one refuses, the other is refused");
    }
}

#[tokio::test]
async fn another_secret_is_refused() {
    let (a, b) = (linker("s", hello("a", 1)), linker("t", hello("b", 2)));
    refused_on_both_sides(&a, &b, Cause::Secret, &["--cluster-secret"]).await;
    let open = Linker::new(&Keys::new(None), hello("b", 2)).unwrap();
    refused_on_both_sides(&a, &open, Cause::Secret, &["--cluster-secret"]).await;
}

#[tokio::test]
async fn another_cluster_is_refused() {
    let a = linker("s", hello("a", 1));
    let b = linker("s", Hello { partitions: 512, ..hello("b", 2) });
    refused_on_both_sides(&a, &b, Cause::Partitions, &["node a has", "node b has", "1024", "512", "--data"])
        .await;
    let b = linker("s", Hello { replicas: 2, ..hello("b", 2) });
    refused_on_both_sides(&a, &b, Cause::Replicas, &["--replicas 3", "--replicas 2"]).await;
    let b = linker("s", Hello { versions: (7, 9), ..hello("b", 2) });
    refused_on_both_sides(&a, &b, Cause::Version, &["7 to 9", "upgrade"]).await;
    let (here, there) = meet(&a, &b).await;
    let (OpenError::RefusedHere { name, .. } | OpenError::RefusedThere { name, .. }) = there.unwrap_err()
    else {
        panic!("not a refusal")
    };
    assert_eq!(name, NodeName::new("a").ok(), "who was it?");
    assert!(here.unwrap_err().to_string().contains("node b at 127.0.0.1:"));
}

#[tokio::test]
async fn a_node_does_not_link_with_itself() {
    let a = linker("s", hello("a", 1));
    refused_on_both_sides(&a, &a, Cause::Oneself, &["node a called itself", "--join"]).await;
}

#[tokio::test]
async fn the_caller_may_refuse_on_either_side() {
    let (a, b) = (linker("s", hello("a", 1)), linker("s", hello("a", 2)));
    let taken = |theirs: &Hello| Err(Refusal::name_taken(theirs, NodeId(1), "10.0.0.1:4400"));
    for (here, there) in [meet_if(&b, &a, ANYONE, taken).await, meet_if(&a, &b, taken, ANYONE).await] {
        for error in [here.unwrap_err(), there.unwrap_err()] {
            assert_eq!(error.refusal().unwrap().cause, Cause::NameTaken);
            let text = error.to_string();
            for word in ["the name a", "0000000000000001", "0000000000000002", "10.0.0.1:4400", "--name"] {
                assert!(text.contains(word), "{text:?} lacks {word:?}");
            }
        }
    }
}

#[tokio::test]
async fn messages_of_all_sizes_cross_in_order() {
    let (at_a, at_b) = open().await;
    let (mut writer, mut reader) = (at_a.writer, at_b.reader);
    let sizes = [0, 1, 16 << 10, (16 << 10) + 1, 100, 4 << 20, 7, MAX_MESSAGE_BYTES];
    let message = |i: usize, size: usize| Bytes::from(vec![i as u8; size]);
    let sent = tokio::spawn(async move {
        let messages: Vec<_> = sizes.iter().enumerate().map(|(i, &size)| message(i, size)).collect();
        writer.send(messages).await.unwrap();
        for i in 0..10_000_u32 {
            writer.send([Bytes::copy_from_slice(&i.to_be_bytes())]).await.unwrap();
        }
        writer.close().await.unwrap();
        writer
    });
    guarded(async {
        for (i, &size) in sizes.iter().enumerate() {
            assert!(reader.next().await.unwrap().unwrap() == message(i, size), "message {i} of {size}");
        }
        for i in 0..10_000_u32 {
            assert_eq!(reader.next().await.unwrap().unwrap(), &i.to_be_bytes()[..]);
        }
        assert!(reader.next().await.unwrap().is_none(), "a goodbye is no error");
        sent.await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_message_that_is_too_long_is_not_sent_and_harms_nothing() {
    let (mut at_a, mut at_b) = open().await;
    let (short, long) = (Bytes::from_static(b"short"), Bytes::from(vec![0; MAX_MESSAGE_BYTES + 1]));
    let error = guarded(at_a.writer.send([short.clone(), long])).await.unwrap_err();
    assert!(matches!(error, LinkError::TooLong(_)), "{error}");
    guarded(at_a.writer.send([Bytes::from_static(b"next")])).await.unwrap();
    assert_eq!(guarded(at_b.reader.next()).await.unwrap().unwrap(), short);
    assert_eq!(guarded(at_b.reader.next()).await.unwrap().unwrap(), &b"next"[..]);
}

#[tokio::test]
async fn a_send_that_was_dropped_halfway_ends_the_link() {
    let (mut at_a, at_b) = open().await;
    let large = Bytes::from(vec![0; MAX_MESSAGE_BYTES]);
    // Nobody reads, so it cannot end.
    let sending = at_a.writer.send([large.clone(), large.clone(), large]);
    assert!(timeout(Duration::from_millis(300), sending).await.is_err());
    let error = at_a.writer.send([Bytes::from_static(b"next")]).await.unwrap_err();
    assert!(matches!(error, LinkError::Torn), "{error}");
    drop(at_b);
}

/// Passes bytes between a dialler and `to` until told to end, then cuts both connections off without a goodbye.
async fn relay(to: SocketAddr) -> (SocketAddr, tokio::sync::oneshot::Sender<bool>) {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let (cut, told) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let (mut near, _) = socket.accept().await.unwrap();
        let mut far = TcpStream::connect(to).await.unwrap();
        let reset = tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => false,
            reset = told => reset.unwrap_or(false),
        };
        if reset {
            near.set_zero_linger().unwrap();
            far.set_zero_linger().unwrap();
        }
    });
    (address, cut)
}

#[tokio::test]
async fn a_cut_connection_is_noticed_at_once() {
    for reset in [false, true] {
        let (a, b) = (linker("s", hello("a", 1)), linker("s", hello("b", 2)));
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, cut) = relay(socket.local_addr().unwrap()).await;
        let accepted = async {
            let (tcp, peer) = socket.accept().await.unwrap();
            b.accept(tcp, peer, ANYONE).await
        };
        let (at_a, at_b) = guarded(async { tokio::join!(a.connect(address, ANYONE), accepted) }).await;
        let (mut at_a, mut at_b) = (at_a.unwrap(), at_b.unwrap());
        cut.send(reset).unwrap();
        let (here, there) = guarded(async { tokio::join!(at_a.reader.next(), at_b.reader.next()) }).await;
        assert!(here.is_err() && there.is_err(), "a cut is no goodbye");
    }
}

#[tokio::test]
async fn nobody_listening_is_told_from_silence() {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    drop(socket);
    let a = linker("s", hello("a", 1));
    let error = a.connect(address, ANYONE).await.unwrap_err();
    assert!(error.nobody_listens(), "{error}");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[tokio::test]
async fn garbage_costs_its_sender_alone() {
    let b = linker("s", hello("b", 2));
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 4096], &[0xff; 4096], b"\x16\x03\x01\xff\xff"] {
        let mut stranger = TcpStream::connect(address).await.unwrap();
        let (tcp, peer) = socket.accept().await.unwrap();
        let accepted = async { b.accept(tcp, peer, ANYONE).await.unwrap_err() };
        let strange = async {
            stranger.write_all(garbage).await.unwrap();
            stranger.shutdown().await.unwrap();
            // Whatever it is told, or a reset; not for long.
            let _ = stranger.read_to_end(&mut Vec::new()).await;
        };
        let (error, ()) = guarded(async { tokio::join!(accepted, strange) }).await;
        assert!(matches!(error, OpenError::Broken { .. }), "{error}");
        assert!(error.to_string().contains("--peer"), "{error}");
    }
    let a = linker("s", hello("a", 1));
    let (at_a, at_b) = meet(&a, &b).await;
    assert!(at_a.is_ok() && at_b.is_ok());
}

#[tokio::test]
async fn the_silent_are_cut_off_and_cannot_be_more_than_so_many() {
    let b = linker("s", hello("b", 2));
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let mut silent = Vec::new();
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..MAX_HANDSHAKES {
        silent.push(TcpStream::connect(address).await.unwrap());
        let ((tcp, peer), b) = (socket.accept().await.unwrap(), b.clone());
        waiting.spawn(async move { b.accept(tcp, peer, ANYONE).await.unwrap_err() });
    }
    // They run before this task does again, so all places are taken.
    tokio::task::yield_now().await;
    let _one_more = TcpStream::connect(address).await.unwrap();
    let (tcp, peer) = socket.accept().await.unwrap();
    let error = b.accept(tcp, peer, ANYONE).await.unwrap_err();
    assert!(matches!(error, OpenError::Busy { .. }), "{error}");
    while let Some(error) = guarded(waiting.join_next()).await {
        assert!(matches!(error.unwrap(), OpenError::Slow { .. }));
    }
    let (at_a, at_b) = meet(&linker("s", hello("a", 1)), &b).await;
    assert!(at_a.is_ok() && at_b.is_ok(), "their places are free again");
}

/// A link that one of the two nodes holds: which connection it is, and that it lives.
struct Held {
    id: u8,
    dialled: bool,
}

fn settle(held: &mut Option<Held>, me: NodeId, peer: NodeId, new: Held) {
    let kept =
        held.as_ref().map_or(Keep::New, |held| keep(me, peer, (held.dialled, Duration::ZERO), new.dialled));
    if kept == Keep::New {
        *held = Some(new);
    }
}

#[tokio::test]
async fn of_two_links_dialled_at_once_both_ends_keep_the_same_one() {
    let (a, b) = (linker("s", hello("a", 1)), linker("s", hello("b", 2)));
    let (ab, ba) = guarded(async { tokio::join!(meet(&a, &b), meet(&b, &a)) }).await;
    assert!(
        ab.0.unwrap().dialled && !ab.1.unwrap().dialled && ba.0.unwrap().dialled && !ba.1.unwrap().dialled
    );
    // Connection 1 is dialled by a, connection 2 by b; each node may see them open in either order.
    let (at_a, at_b) = (NodeId(1), NodeId(2));
    for a_first in [1, 2] {
        for b_first in [1, 2] {
            let (mut held_a, mut held_b) = (None, None);
            for id in [a_first, 3 - a_first] {
                settle(&mut held_a, at_a, at_b, Held { id, dialled: id == 1 });
            }
            for id in [b_first, 3 - b_first] {
                settle(&mut held_b, at_b, at_a, Held { id, dialled: id == 2 });
            }
            assert_eq!((held_a.unwrap().id, held_b.unwrap().id), (1, 1), "the smaller id's own");
        }
    }
    // Whoever dials anew has lost the one before.
    assert_eq!(keep(at_a, at_b, (true, Duration::ZERO), true), Keep::New);
    assert_eq!(keep(at_b, at_a, (true, Duration::ZERO), true), Keep::New);
}
