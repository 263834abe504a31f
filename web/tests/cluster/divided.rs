//! A network that falls in two: people go on changing their rooms on both sides, see whom they can reach, and when it is
//! whole again every node holds the same, by the rules that ARCHITECTURE.md states.

use std::net::SocketAddr;

use firmware_sim::demo::cluster::Cluster;
use serde_json::{Value, json};

use crate::common::{GUARD, alone, call, room};
use crate::network::cluster_in;
use crate::people::{Socket, open, people, say};
use crate::space::Space;

const NODES: usize = 3;

async fn get(node: SocketAddr, path: &str) -> (u16, Value) {
    call(node, "GET", path, Value::Null).await
}

/// Changes something through a node: its answer.
async fn change(node: SocketAddr, method: &str, path: &str, body: Value) -> Value {
    let (status, answer) = call(node, method, path, body).await;
    assert!(matches!(status, 200 | 204), "{method} {path}: {status} {answer}");
    answer
}

async fn eventually(cluster: &Cluster, what: &str, ask: impl AsyncFnMut() -> Result<(), String>) {
    let came = cluster.eventually(what, GUARD, ask).await;
    came.unwrap_or_else(|error| panic!("{error}\n{}", cluster.logs()));
}

/// Each of these nodes sees this many nodes alive, itself included.
async fn sees(cluster: &Cluster, nodes: &[SocketAddr], count: usize) {
    eventually(cluster, &format!("{count} are alive"), async || {
        for node in nodes {
            let (_, cluster) = get(*node, "/api/v1/cluster").await;
            let members = cluster["nodes"].as_array().unwrap();
            let alive = members.iter().filter(|member| member["state"] == "alive").count();
            if alive != count {
                return Err(format!("{node}: {cluster}"));
            }
        }
        Ok(())
    })
    .await;
}

/// These and nobody else are in the room, as each of these nodes sees it.
async fn there(cluster: &Cluster, nodes: &[SocketAddr], room: &str, expected: &[(&str, &str)]) {
    eventually(cluster, &format!("{expected:?} are there"), async || {
        for node in nodes {
            let there = people(*node, room).await;
            let there: Vec<_> = there.iter().map(|(id, node)| (id.as_str(), node.as_str())).collect();
            if there != expected {
                return Err(format!("{node}: {there:?}"));
            }
        }
        Ok(())
    })
    .await;
}

async fn enter(node: SocketAddr, room: &str, id: &str) -> Socket {
    let mut socket = open(node, "live").await;
    say(&mut socket, json!({"type": "enter", "room": room, "id": id, "call": true})).await;
    socket
}

#[tokio::test(flavor = "multi_thread")]
async fn what_both_sides_of_a_partition_do_to_rooms_is_the_same_everywhere_afterwards() {
    let _machine = alone().await;
    let Some(space) = Space::make(NODES) else { return };
    let cluster = cluster_in(&space).await;
    let nodes: Vec<SocketAddr> = cluster.running().map(|node| node.http).collect();
    let (lab, hall) = (room(&nodes, &["s1", "s2"]).await, room(&nodes, &[]).await);
    let (at_lab, at_hall) = (format!("/api/v1/rooms/{lab}"), format!("/api/v1/rooms/{hall}"));
    let (_, made) = get(nodes[0], &at_lab).await;
    let first = made["join_code"].as_str().unwrap().to_owned();
    for (member, role) in [("ana", "member"), ("ben", "member"), ("eve", "owner")] {
        change(nodes[0], "PUT", &format!("{at_lab}/members/{member}"), json!({"role": role})).await;
    }
    let (mut ana, mut ben) = (enter(nodes[0], &lab, "ana").await, enter(nodes[1], &lab, "ben").await);
    there(&cluster, &nodes, &lab, &[("ana", "a"), ("ben", "b")]).await;
    eventually(&cluster, "all know its members", async || {
        for node in &nodes {
            let (_, now) = get(*node, &at_lab).await;
            if now["members"].as_array().is_none_or(|members| members.len() != 3) {
                return Err(format!("{node}: {now}"));
            }
        }
        Ok(())
    })
    .await;

    space.rule(|from, to| ((from == 0) != (to == 0)).then_some("drop"));
    sees(&cluster, &nodes[..1], 1).await;
    sees(&cluster, &nodes[1..], 2).await;
    // Each side sees those whom it can reach, and no ghosts.
    there(&cluster, &nodes[..1], &lab, &[("ana", "a")]).await;
    there(&cluster, &nodes[1..], &lab, &[("ben", "b")]).await;
    say(&mut ana, json!({"type": "signal", "room": lab, "to": "ben", "data": 1})).await;
    assert_eq!(crate::people::hear(&mut ana, "error").await["code"], "not_present");

    // The side of one node first, so that what the other side does is later.
    let (one, two) = (nodes[0], nodes[2]);
    change(one, "PATCH", &at_lab, json!({"name": "One"})).await;
    let void = change(one, "POST", &format!("{at_lab}/join-code"), Value::Null).await;
    change(one, "DELETE", &format!("{at_lab}/sensors/s1"), Value::Null).await;
    change(one, "PUT", &format!("{at_lab}/sensors/s2"), Value::Null).await;
    change(one, "PUT", &format!("{at_lab}/sensors/s3"), Value::Null).await;
    change(one, "PUT", &format!("{at_lab}/members/ana"), json!({"role": "admin"})).await;
    change(one, "PUT", &format!("{at_lab}/members/ben"), json!({"name": "Ben"})).await;
    change(one, "DELETE", &format!("{at_lab}/members/eve"), Value::Null).await;
    change(one, "DELETE", &at_hall, Value::Null).await;
    let (status, beside) = call(one, "POST", "/api/v1/rooms", json!({"name": "Beside"})).await;
    assert_eq!(status, 201);

    change(two, "PATCH", &at_lab, json!({"name": "Two"})).await;
    let valid = change(two, "POST", &format!("{at_lab}/join-code"), Value::Null).await;
    change(two, "PUT", &format!("{at_lab}/sensors/s1"), Value::Null).await;
    change(two, "DELETE", &format!("{at_lab}/sensors/s2"), Value::Null).await;
    change(two, "PUT", &format!("{at_lab}/sensors/s4"), Value::Null).await;
    change(two, "DELETE", &format!("{at_lab}/members/ana"), Value::Null).await;
    change(two, "PUT", &format!("{at_lab}/members/ben"), json!({"role": "owner"})).await;
    change(two, "PUT", &format!("{at_lab}/members/eve"), json!({"role": "admin"})).await;
    change(two, "PATCH", &at_hall, json!({"name": "Still here"})).await;
    // Who could not reach their node goes to another, and is on both sides for a while.
    let again = enter(two, &lab, "ana").await;
    there(&cluster, &nodes[1..], &lab, &[("ana", "c"), ("ben", "b")]).await;

    space.heal();
    sees(&cluster, &nodes, NODES).await;
    let code = |answer: &Value| answer["join_code"].as_str().unwrap().to_owned();
    let expected = json!({
        "room": lab, "name": "Two", "join_code": code(&valid), "temporary": false,
        // Both additions were made without knowing of the removals.
        "sensors": ["s1", "s2", "s3", "s4"],
        // Who was removed is out, whatever the other side said of them; a name and a role are both kept.
        "members": [{"id": "ben", "name": "Ben", "role": "owner"}],
    });
    let mut rooms = vec![expected, beside.clone()];
    rooms.sort_by_key(|room| room["room"].as_str().unwrap().to_owned());
    eventually(&cluster, "all hold the same rooms", async || {
        for node in &nodes {
            let (_, now) = get(*node, "/api/v1/rooms").await;
            let mut now = now["rooms"].as_array().unwrap().clone();
            now.sort_by_key(|room| room["room"].as_str().unwrap().to_owned());
            if now != rooms {
                return Err(format!("{node}: {now:?}"));
            }
        }
        Ok(())
    })
    .await;
    for node in &nodes {
        for (code, status) in
            [(&code(&valid), 200), (&code(&void), 404), (&first, 404), (&code(&beside), 200)]
        {
            assert_eq!(get(*node, &format!("/api/v1/join/{code}")).await.0, status, "{node}: {code}");
        }
        assert_eq!(get(*node, &at_hall).await.0, 404, "deleted for good");
    }
    // Once, through where they entered last; and signals go there.
    there(&cluster, &nodes, &lab, &[("ana", "c"), ("ben", "b")]).await;
    let mut again = again;
    say(&mut ben, json!({"type": "signal", "room": lab, "to": "ana", "data": 2})).await;
    assert_eq!(crate::people::hear(&mut again, "signal").await["data"], 2);
    drop(again);
    there(&cluster, &nodes, &lab, &[("ana", "a"), ("ben", "b")]).await;
}
