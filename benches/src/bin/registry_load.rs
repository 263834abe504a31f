//! What rooms, descriptors and people cost: two nodes in this process, linked over loopback, are filled and asked.
//!
//! `target/release/registry_load` prints a table. Memory is what the process takes more with each kind of entry on one
//! node, before the other starts; bytes of a change are counted on the link.

use std::hint::black_box;
use std::io::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use benches::cluster::table::{Figure, markdown};
use benches::load::Error;
use benches::process::Process;
use clap::Parser;
use store::cluster::mesh::{Cluster, PROTOCOL, Setup};
use store::cluster::view::Nodes;
use store::{
    Attribute, AttributeDescription, Config, Description, JoinCode, MemberWish, NewRoom, NodeName, PersonId,
    Role, RoomId, SensorId, Stay, Store, Subscription, Ticket,
};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::mpsc;

/// Sensors and members of a room.
const IN_ROOM: (usize, usize) = (10, 5);
/// Changes whose bytes are counted.
const CHANGES: usize = 1000;
/// Changes of a burst: they wait for one commit.
const BURST: usize = 1000;
/// Other nodes have what one has within this time.
const WITHIN: Duration = Duration::from_secs(120);
/// Events that wait for a follower of rooms.
const FOLLOWER: usize = 10;

/// What is put into the cluster.
#[derive(Parser)]
#[command(about = "Measures rooms, descriptors and presence on two nodes in one process", version)]
struct Options {
    /// Rooms, each of 10 sensors and 5 members
    #[arg(long, default_value_t = 10_000)]
    rooms: usize,
    /// Sensors that are described
    #[arg(long, default_value_t = 100_000)]
    sensors: usize,
    /// People who are in rooms
    #[arg(long, default_value_t = 20_000)]
    people: usize,
}

struct Node {
    store: Store,
    nodes: Nodes,
    cluster: Cluster,
    address: SocketAddr,
    _data: tempfile::TempDir,
    /// Discovery goes on as long as the node.
    _found: mpsc::Sender<SocketAddr>,
}

async fn start(name: &str, seed: Option<SocketAddr>) -> Result<Node, Error> {
    let data = tempfile::tempdir()?;
    let name = NodeName::new(name)?;
    let mut config = Config::new(data.path(), name.clone());
    config.expects_peers = seed.is_some();
    let store = Store::open(config)?;
    let tcp = TcpListener::bind("127.0.0.1:0").await?;
    let address = tcp.local_addr()?;
    let udp = UdpSocket::bind(address).await?;
    let nodes = Nodes::new(name, store.node().id, String::new(), None);
    let setup = Setup {
        peer: address.to_string(),
        versions: PROTOCOL,
        secret: Some("secret".into()),
        replicas: 3,
        zone: None,
        expects_peers: seed.is_some(),
    };
    let (found_in, found) = mpsc::channel(1);
    if let Some(seed) = seed {
        found_in.send(seed).await?;
    }
    let cluster = Cluster::start(store.clone(), nodes.clone(), setup, tcp, udp, found).await?;
    Ok(Node { store, nodes, cluster, address, _data: data, _found: found_in })
}

/// Waits for what no event tells.
async fn until(what: &str, mut holds: impl FnMut() -> bool) -> Result<(), Error> {
    let began = Instant::now();
    while !holds() {
        if began.elapsed() > WITHIN {
            return Err(format!("waited in vain: {what}").into());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

impl Node {
    async fn ready(&self) -> Result<(), Error> {
        until("a node is ready", || self.nodes.readiness().reasons.is_empty()).await
    }

    fn sent(&self) -> u64 {
        self.nodes.figures().bytes_sent
    }

    async fn stop(self) -> Result<(), Error> {
        self.cluster.leave().await?;
        self.store.close().await;
        Ok(())
    }
}

fn sensor(number: usize) -> Result<SensorId, Error> {
    Ok(SensorId::new(&format!("sensor-{number:06}"))?)
}

fn person(number: usize) -> Result<PersonId, Error> {
    Ok(PersonId::new(&format!("person-{number:05}"))?)
}

async fn kept(ticket: Option<Ticket>) -> Result<(), Error> {
    match ticket {
        Some(ticket) => ticket.kept().await.map(drop).map_err(|failed| failed.to_string().into()),
        None => Ok(()),
    }
}

fn describe(store: &Store, sensors: usize) -> Result<(), Error> {
    for number in 0..sensors {
        let unit = AttributeDescription { unit: Some("Cel".into()), ..AttributeDescription::default() };
        let attributes = vec![(Attribute::new("temperature")?, unit)];
        let description = Description { name: Some(format!("Sensor {number}")), attributes };
        store.describe(&sensor(number)?, &description)?;
    }
    Ok(())
}

async fn fill(store: &Store, rooms: usize, sensors: usize) -> Result<(), Error> {
    let (of_sensors, of_members) = IN_ROOM;
    let mut last = None;
    for number in 0..rooms {
        let named = (0..of_sensors).map(|n| sensor((number * of_sensors + n) % sensors.max(1)));
        let wish = NewRoom {
            name: format!("Room {number}"),
            temporary: false,
            sensors: named.collect::<Result<_, _>>()?,
        };
        let room = store.create_room(wish)?.0.room;
        for n in 0..of_members {
            let who = MemberWish { name: Some(format!("Person {n}")), role: Some(Role::Member) };
            last = Some(store.put_member(&room, &person(n)?, who)?);
        }
        if number % BURST == 0 {
            kept(last.take()).await?;
        }
    }
    kept(last).await
}

fn enter(store: &Store, rooms: &[RoomId], people: usize) -> Result<(Subscription, Vec<Stay>), Error> {
    let subscription = store.subscribe(FOLLOWER);
    let stays = (0..people)
        .map(|number| {
            let (room, name) = (&rooms[number % rooms.len()], format!("Person {number}"));
            Ok(store.enter(&subscription, room, &person(number)?, &name, false)?)
        })
        .collect::<Result<_, Error>>()?;
    Ok((subscription, stays))
}

/// Microseconds of each call, asked about all over the place.
fn each(rooms: &[(RoomId, JoinCode)], mut ask: impl FnMut(&RoomId, JoinCode)) -> Vec<f64> {
    let rooms = rooms.iter().step_by(7);
    rooms
        .map(|(room, code)| {
            let began = Instant::now();
            ask(room, *code);
            began.elapsed().as_nanos() as f64 / 1e3
        })
        .collect()
}

async fn measure(options: &Options) -> Result<Vec<Figure>, Error> {
    let Options { rooms: room_count, sensors, people } = *options;
    let mut figures = Vec::new();
    let a = start("a", None).await?;
    a.ready().await?;
    let process = Process::this();
    let mut before = process.resident()?;
    let mut grown = |what: String, count: usize, figures: &mut Vec<Figure>| -> Result<(), Error> {
        let now = process.resident()?;
        figures.push(Figure::one(what, "bytes", (now - before) / count as f64));
        before = now;
        Ok(())
    };
    describe(&a.store, sensors)?;
    grown(format!("memory of a descriptor ({sensors})"), sensors, &mut figures)?;
    fill(&a.store, room_count, sensors).await?;
    grown(format!("memory of a room of 10 sensors and 5 members ({room_count})"), room_count, &mut figures)?;
    let views = a.store.rooms();
    let rooms: Vec<_> = views.into_iter().filter_map(|view| Some((view.room, view.join_code?))).collect();
    let ids: Vec<RoomId> = rooms.iter().map(|room| room.0.clone()).collect();
    let (subscription, stays) = enter(&a.store, &ids, people)?;
    grown(format!("memory of somebody present ({people})"), people, &mut figures)?;

    let began = Instant::now();
    let b = start("b", Some(a.address)).await?;
    b.ready().await?;
    figures.push(Figure::one("a new node holds all and is ready after", "s", began.elapsed().as_secs_f64()));
    until("everybody is seen", || ids.iter().map(|room| b.store.people(room).len()).sum::<usize>() == people)
        .await?;
    figures.push(Figure::one("… and sees all who are present after", "s", began.elapsed().as_secs_f64()));
    if b.store.rooms().len() != rooms.len() || b.store.sensor(sensor(sensors - 1)?.as_str()).is_none() {
        return Err("the new node lacks what it should hold".into());
    }

    let first = sensor(0)?;
    let mut asked = |what: &str, micros: Vec<f64>| {
        figures.push(Figure::events(format!("lookup: {what}"), "µs", micros).wanted("≤ 50"));
    };
    asked("a room by its join code", each(&rooms, |_, code| drop(black_box(b.store.room_by_code(code)))));
    asked(
        "whether a sensor is in a room",
        each(&rooms, |room, _| {
            black_box(b.store.is_in_room(room.as_str(), &first));
        }),
    );
    asked("a sensor", each(&rooms, |_, _| drop(black_box(b.store.sensor(first.as_str())))));
    asked("the rooms of a sensor", each(&rooms, |_, _| drop(black_box(b.store.rooms_of(&first)))));
    asked("the people of a room", each(&rooms, |room, _| drop(black_box(b.store.people(room)))));

    // One commit each, so that no two share a frame.
    let sent = a.sent();
    let began = Instant::now();
    for number in 0..CHANGES {
        let room = &ids[number % ids.len()];
        kept(Some(a.store.add_sensor(room, &sensor(sensors + number)?)?)).await?;
    }
    let took = began.elapsed().as_secs_f64() / CHANGES as f64;
    figures.push(Figure::one(
        "a change by itself, on a link",
        "bytes",
        (a.sent() - sent) as f64 / CHANGES as f64,
    ));
    figures.push(Figure::one("… kept on two nodes after", "ms", took * 1e3));
    let sent = a.sent();
    let began = Instant::now();
    let mut last = None;
    for number in 0..BURST {
        let room = &ids[number % ids.len()];
        last = Some(a.store.remove_sensor(room, &sensor(sensors + number)?)?);
    }
    kept(last).await?;
    figures.push(Figure::one(
        "a change among a thousand, on a link",
        "bytes",
        (a.sent() - sent) as f64 / BURST as f64,
    ));
    figures.push(Figure::one("… all kept on two nodes after", "ms", began.elapsed().as_secs_f64() * 1e3));
    let sent = a.sent();
    let began = Instant::now();
    drop(stays);
    until("all are gone", || ids.iter().all(|room| b.store.people(room).is_empty())).await?;
    figures.push(Figure::one(
        "somebody who leaves, on a link",
        "bytes",
        (a.sent() - sent) as f64 / people as f64,
    ));
    figures.push(Figure::one(
        "… all are gone on the other node after",
        "ms",
        began.elapsed().as_secs_f64() * 1e3,
    ));
    drop(subscription);
    b.stop().await?;
    a.stop().await?;
    Ok(figures)
}

fn main() -> Result<(), Error> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let figures = runtime.block_on(measure(&options))?;
    let command: Vec<String> = std::env::args().collect();
    let table = markdown("Rooms, descriptors and people", &command.join(" "), &figures)?;
    write!(std::io::stdout(), "{table}")?;
    Ok(())
}
