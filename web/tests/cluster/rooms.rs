//! A room of 100 sensors and 200 people over three nodes that are killed in turn, while it is changed: what was answered is
//! on all survivors, and whoever was there is there again, once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use firmware_sim::demo::cluster::Cluster;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

use crate::common::{GUARD, alone, call, draw, often, plan, seed, slow};

const SENSORS: usize = 100;
const PEOPLE: usize = 200;
/// From a kill, or the last change, until rooms, codes and members are the same on all survivors.
const SAME_WITHIN: Duration = Duration::from_secs(1);
/// From a kill until everybody is seen on all survivors, through nodes that live.
const PRESENT_WITHIN: Duration = Duration::from_secs(3);

/// A connection that says `hello` and stays, going to the next node whenever its own is gone, as pages and devices do.
async fn stay(nodes: Arc<Vec<SocketAddr>>, first: usize, path: &'static str, hello: Value) {
    for at in first.. {
        let url = format!("ws://{}/api/v1/{path}", nodes[at % nodes.len()]);
        let Ok((mut socket, _)) = tokio_tungstenite::connect_async(url).await else {
            tokio::task::yield_now().await;
            continue;
        };
        if socket.send(Message::text(hello.to_string())).await.is_err() {
            continue;
        }
        while let Some(Ok(said)) = socket.next().await {
            let Message::Text(text) = said else { continue };
            // A node that has just come back may be asked before it has the room.
            if text.contains(r#""code":"unknown_room""#)
                && socket.send(Message::text(hello.to_string())).await.is_err()
            {
                break;
            }
        }
    }
}

async fn get(node: SocketAddr, path: &str) -> Value {
    let (status, answer) = call(node, "GET", path, Value::Null).await;
    assert_eq!(status, 200, "{path}: {answer}");
    answer
}

/// The room under test, and what it is to be like.
struct Room {
    id: String,
    code: String,
    name: String,
    sensors: BTreeSet<String>,
    members: BTreeMap<String, String>,
    /// The ids of all rooms.
    all: BTreeSet<String>,
}

impl Room {
    async fn make(node: SocketAddr) -> Self {
        let sensors: BTreeSet<_> = (0..SENSORS).map(|number| format!("sensor-{number}")).collect();
        let wish = json!({"name": "Lab", "sensors": sensors});
        let (status, made) = call(node, "POST", "/api/v1/rooms", wish).await;
        assert_eq!(status, 201, "{made}");
        let text = |key: &str| made[key].as_str().unwrap().to_owned();
        let id = text("room");
        let (code, name, all) = (text("join_code"), text("name"), BTreeSet::from([id.clone()]));
        Self { id, code, name, sensors, members: BTreeMap::new(), all }
    }

    async fn change(&self, node: SocketAddr, method: &str, below: &str, body: Value) -> Value {
        let (status, answer) = call(node, method, &format!("/api/v1/rooms/{}{below}", self.id), body).await;
        assert!(matches!(status, 200 | 204), "{method} {below}: {status} {answer}");
        answer
    }

    /// Somebody becomes a member through this node.
    async fn join(&mut self, node: SocketAddr, round: usize) {
        let (id, role) = (format!("member-{round}"), ["owner", "admin", "member"][round % 3].to_owned());
        self.change(node, "PUT", &format!("/members/{id}"), json!({"role": role})).await;
        self.members.insert(id, role);
    }

    /// Something of everything is changed through this node; the code that was good until then.
    async fn turn(&mut self, node: SocketAddr, round: usize) -> String {
        self.name = format!("Lab {round}");
        self.change(node, "PATCH", "", json!({"name": self.name})).await;
        let (gone, new) = (format!("sensor-{round}"), format!("other-{round}"));
        self.change(node, "DELETE", &format!("/sensors/{gone}"), Value::Null).await;
        self.change(node, "PUT", &format!("/sensors/{new}"), Value::Null).await;
        self.sensors.remove(&gone);
        self.sensors.insert(new);
        if round > 0 {
            let left = format!("member-{}", round - 1);
            self.change(node, "DELETE", &format!("/members/{left}"), Value::Null).await;
            self.members.remove(&left);
        }
        let (status, made) =
            call(node, "POST", "/api/v1/rooms", json!({"name": "Beside", "temporary": true})).await;
        assert_eq!(status, 201);
        self.all.insert(made["room"].as_str().unwrap().to_owned());
        let renewed = self.change(node, "POST", "/join-code", Value::Null).await;
        std::mem::replace(&mut self.code, renewed["join_code"].as_str().unwrap().to_owned())
    }

    /// What a node says of rooms, held against what it is to say.
    async fn is_on(&self, node: SocketAddr) -> Result<Value, String> {
        let rooms = get(node, "/api/v1/rooms").await;
        let ids: BTreeSet<_> = rooms["rooms"]
            .as_array()
            .unwrap()
            .iter()
            .map(|room| room["room"].as_str().unwrap().to_owned())
            .collect();
        let room = rooms["rooms"].as_array().unwrap().iter().find(|room| room["room"] == *self.id);
        let room = room.ok_or("it is not there")?;
        let members: BTreeMap<_, _> = room["members"]
            .as_array()
            .unwrap()
            .iter()
            .map(|member| {
                let text = |key: &str| member[key].as_str().unwrap().to_owned();
                (text("id"), text("role"))
            })
            .collect();
        let right = ids == self.all
            && (&room["name"], &room["join_code"]) == (&json!(self.name), &json!(self.code))
            && room["sensors"] == json!(self.sensors)
            && members == self.members;
        if right { Ok(rooms) } else { Err(format!("{} rooms, {room}", ids.len())) }
    }

    /// All of these nodes say the same, and what it is to be.
    async fn is_same(&self, nodes: &[SocketAddr]) -> Result<(), String> {
        let mut said = Vec::new();
        for node in nodes {
            said.push(self.is_on(*node).await.map_err(|why| format!("{node}: {why}"))?);
        }
        if said.windows(2).all(|two| two[0] == two[1]) { Ok(()) } else { Err(format!("{said:?}")) }
    }

    /// Everybody and every device is there once, through one of these nodes, and all nodes say the same.
    async fn is_full(&self, nodes: &[SocketAddr], names: &[String]) -> Result<(), String> {
        let mut said = Vec::new();
        for node in nodes {
            said.push(get(*node, &format!("/api/v1/rooms/{}/presence", self.id)).await);
        }
        let list = |key: &str| said[0][key].as_array().unwrap();
        let through = |one: &Value| names.iter().any(|name| one["node"] == *name);
        let ids: BTreeSet<_> = list("people").iter().map(|one| one["id"].as_str().unwrap()).collect();
        let calls = list("people").iter().filter(|one| one["call"] == true).count();
        let devices: BTreeSet<_> =
            list("devices").iter().map(|one| one["sensor"].as_str().unwrap()).collect();
        let expected = self.sensors.iter().filter(|id| id.starts_with("sensor-")).count();
        let right = list("people").iter().chain(list("devices")).all(through)
            && (ids.len(), list("people").len(), calls) == (PEOPLE, PEOPLE, PEOPLE / 2)
            && (devices.len(), list("devices").len()) == (expected, expected)
            && said.windows(2).all(|two| two[0] == two[1]);
        let found = || {
            let lengths =
                |key: &str| said.iter().map(|one| one[key].as_array().unwrap().len()).collect::<Vec<_>>();
            format!("people {:?}, {calls} in the call, devices {:?}", lengths("people"), lengths("devices"))
        };
        if right { Ok(()) } else { Err(found()) }
    }
}

/// The running nodes: addresses and names.
fn running(cluster: &Cluster) -> (Vec<SocketAddr>, Vec<String>) {
    let nodes =
        cluster.nodes().iter().filter_map(|node| Some((node.ready().ok()?.http, node.name().to_owned())));
    nodes.unzip()
}

fn worst(times: &[Duration]) -> String {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    format!("{} / {} ms", sorted[sorted.len() / 2].as_millis(), sorted[sorted.len() - 1].as_millis())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_room_is_the_same_everywhere_through_kills() {
    let _machine = alone().await;
    let (seed, kills) = (seed(), often(3, 100));
    let mut cluster = Cluster::start(&plan(3, &[])).await.unwrap();
    let (nodes, names) = running(&cluster);
    let mut room = Room::make(nodes[0]).await;
    let all = cluster.eventually("all nodes know the room", GUARD, async || room.is_same(&nodes).await);
    all.await.unwrap();
    let addresses = Arc::new(nodes.clone());
    let mut clients = JoinSet::new();
    for number in 0..PEOPLE {
        let enter = json!({"type": "enter", "room": room.id, "id": format!("person-{number}"),
                           "name": format!("Person {number}"), "call": number % 2 == 0});
        clients.spawn(stay(addresses.clone(), number, "live", enter));
    }
    for number in 0..SENSORS {
        let hello = json!({"type": "hello", "sensor": format!("sensor-{number}")});
        clients.spawn(stay(addresses.clone(), number, "ingest/ws", hello));
    }
    let full = cluster.eventually("everybody is there", GUARD, async || room.is_full(&nodes, &names).await);
    eprintln!(
        "{PEOPLE} people and {SENSORS} devices were seen on all nodes after {:.0?}",
        full.await.unwrap()
    );

    let (mut kept, mut same, mut present) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..kills {
        let victim = draw(seed, round, 3);
        let address = cluster.nodes()[victim].ready().unwrap().http;
        room.join(address, round).await;
        cluster.node_mut(victim).kill().await.unwrap();
        let killed = Instant::now();
        let (nodes, names) = running(&cluster);
        let what = format!("kill {round}: what the dead node had answered");
        cluster.eventually(&what, GUARD, async || room.is_same(&nodes).await).await.unwrap();
        kept.push(killed.elapsed());
        let full = async {
            let what = format!("kill {round}: everybody is there again");
            cluster.eventually(&what, GUARD, async || room.is_full(&nodes, &names).await).await.unwrap();
            killed.elapsed()
        };
        present.push(full.await);
        let void = room.turn(nodes[round % 2], round).await;
        let changed = Instant::now();
        let what = format!("kill {round}: what was changed since");
        cluster.eventually(&what, GUARD, async || room.is_same(&nodes).await).await.unwrap();
        same.push(changed.elapsed());
        for node in &nodes {
            let (status, opened) =
                call(*node, "GET", &format!("/api/v1/join/{}", room.code), Value::Null).await;
            assert_eq!((status, &opened["room"], &opened["name"]), (200, &json!(room.id), &json!(room.name)));
            let (status, refused) = call(*node, "GET", &format!("/api/v1/join/{void}"), Value::Null).await;
            assert_eq!((status, &refused["error"]["code"]), (404, &json!("unknown_join_code")), "{refused}");
        }
        cluster.node_mut(victim).start().await.unwrap();
        cluster.ready(victim).await.unwrap();
        cluster.all_alive().await.unwrap();
        let (nodes, names) = running(&cluster);
        let back = cluster.eventually("the node that is back says the same", GUARD, async || {
            room.is_same(&nodes).await?;
            room.is_full(&nodes, &names).await
        });
        back.await.unwrap();
    }
    eprintln!(
        "{kills} kills, median / worst: rooms as the dead node had answered {}, presence right {}; \
         a change the same on all {} after its answer",
        worst(&kept),
        worst(&present),
        worst(&same)
    );
    clients.shutdown().await;
    let left = Instant::now();
    let (nodes, _) = running(&cluster);
    let empty = cluster.eventually("no ghosts", GUARD, async || {
        for node in &nodes {
            let presence = get(*node, &format!("/api/v1/rooms/{}/presence", room.id)).await;
            if presence != json!({"people": [], "devices": []}) {
                return Err(format!("{node}: {presence}"));
            }
        }
        Ok(())
    });
    empty.await.unwrap();
    eprintln!("nobody was seen {:.0?} after all had left", left.elapsed());
    if !slow() {
        // Beside compilers nodes are starved for seconds: how long it takes is for a run on a machine of its own.
        return;
    }
    let worst = |times: &[Duration]| times.iter().max().copied().unwrap_or_default();
    assert!(worst(&kept) <= SAME_WITHIN && worst(&same) <= SAME_WITHIN, "{kept:?} {same:?}");
    assert!(worst(&present) <= PRESENT_WITHIN && left.elapsed() <= PRESENT_WITHIN, "{present:?}");
}
