//! A cluster of three real processes: its page while nodes die and come back, and a sensor's page that lives through it.

use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::chromium::{Chromium, is_long_run};
use crate::node::{Device, Node, addresses, now_ms};
use crate::rooms::{PEOPLE, call};

/// What the connection's pill says, and the node that the page is on.
const LINK: &str = "document.querySelector('[data-role=link]').textContent";
const NODE: &str = "document.querySelector('[data-role=node]').textContent";
/// Samples of a frame.
const FRAME: u64 = 20;
const NAMES: [&str; 3] = ["a", "b", "c"];

/// Three nodes that have joined, each in a directory of its own.
struct Trio {
    nodes: [Option<Node>; 3],
    data: tempfile::TempDir,
}

impl Trio {
    async fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let at = addresses::<6>();
        let a = Node::start_as("a", &data.path().join("a"), &at[0], &at[1], &[]).await;
        let seeds = [a.peer.clone()];
        let b = Node::start_as("b", &data.path().join("b"), &at[2], &at[3], &seeds).await;
        let c = Node::start_as("c", &data.path().join("c"), &at[4], &at[5], &seeds).await;
        let trio = Self { nodes: [Some(a), Some(b), Some(c)], data };
        for node in trio.nodes.iter().flatten() {
            node.until_ready().await;
        }
        trio
    }

    fn node(&self, index: usize) -> &Node {
        self.nodes[index].as_ref().expect("it runs")
    }

    /// Starts a node again on its data and at its addresses.
    async fn restart(&mut self, index: usize, http: &str, peer: &str) {
        let seeds: Vec<String> = self.nodes.iter().flatten().map(|node| node.peer.clone()).collect();
        let data: &Path = &self.data.path().join(NAMES[index]);
        let node = Node::start_as(NAMES[index], data, http, peer, &seeds).await;
        node.until_ready().await;
        self.nodes[index] = Some(node);
    }
}

/// A device that knows all nodes, and sends again what was not acknowledged.
struct Roamer {
    device: Device,
    first: u64,
    sent: u64,
}

impl Roamer {
    fn hello() -> Value {
        json!({ "type": "hello", "sensor": "s", "attributes": { "a": { "keep": 20_000 } } })
    }

    async fn connect(node: &Node) -> Self {
        let device = Device::connect(node, Self::hello()).await;
        Self { device, first: now_ms() - 3_600_000, sent: 0 }
    }

    async fn frames(&mut self, count: usize) {
        for _ in 0..count {
            let values: Vec<_> = (self.sent..self.sent + FRAME).map(|index| index as f64 / 8.0).collect();
            let ts = self.first + self.sent * 10;
            let frame = json!({ "attribute": "a", "ts": ts, "interval_ms": 10, "values": values });
            self.device.send(frame).await;
            self.sent += FRAME;
        }
    }

    /// Its node is gone: it goes on with another, and sends the last frame again.
    async fn move_to(&mut self, node: &Node) {
        self.device = Device::connect(node, Self::hello()).await;
        self.sent -= FRAME;
        self.frames(1).await;
    }

    /// The page holds each sample once, with its time and value.
    async fn assert_shown(&self, browser: &Chromium) {
        browser.until(&format!("sensorium.series('s/a').length >= {}", self.sent)).await;
        let held = browser
            .run(
                "const { times, columns, length } = sensorium.series('s/a');
                 return [[...times.subarray(0, length)], [...columns[0].subarray(0, length)]];",
            )
            .await;
        let [times, values]: [Vec<f64>; 2] = serde_json::from_value(held).unwrap();
        assert_eq!(times, (0..self.sent).map(|index| (self.first + index * 10) as f64).collect::<Vec<_>>());
        assert_eq!(values, (0..self.sent).map(|index| index as f64 / 8.0).collect::<Vec<_>>());
    }
}

/// The node whose name the page says it is on.
async fn index_of_page(browser: &Chromium) -> usize {
    let name = browser.run(&format!("return {NODE}")).await;
    NAMES.iter().position(|one| name == *one).expect("one of the three")
}

/// A page through a kill, a hang and a restart in order of the node that it happens to be on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_lives_through_the_loss_of_every_node_in_turn() {
    let Some(browser) = Chromium::start().await else { return };
    let mut trio = Trio::start().await;
    let mut roamer = Roamer::connect(trio.node(0)).await;
    roamer.frames(5).await;
    browser.page.goto(&trio.node(0).page("/sensors/s")).await.unwrap();
    roamer.assert_shown(&browser).await;
    for how in [Signal::KILL, Signal::STOP, Signal::TERM] {
        let lost = index_of_page(&browser).await;
        let (http, peer) = (trio.node(lost).http.clone(), trio.node(lost).peer.clone());
        browser.run("window.left = performance.now(); window.lives = sensorium.live.connects").await;
        trio.node(lost).signal(how);
        let next = (lost + 1) % 3;
        roamer.move_to(trio.node(next)).await;
        roamer.frames(5).await;
        browser
            .until(&format!(
                "{LINK} === 'Live' && {NODE} !== '{}' && sensorium.live.connects > lives",
                NAMES[lost]
            ))
            .await;
        roamer.assert_shown(&browser).await;
        let took = browser.run("return performance.now() - window.left").await;
        println!("{how:?}: the page is on another node, whole, after {took} ms");
        let node = trio.nodes[lost].take().expect("it ran");
        match how {
            Signal::TERM => node.ended().await,
            _ => drop(node),
        }
        trio.restart(lost, &http, &peer).await;
        roamer.frames(2).await;
        roamer.assert_shown(&browser).await;
    }
    // Every node answers alike for it.
    for node in trio.nodes.iter().flatten() {
        browser.page.goto(&node.page("/sensors/s")).await.unwrap();
        roamer.assert_shown(&browser).await;
    }
    browser.assert_no_errors(&["WebSocket", "ERR_"]).await;
}

/// All nodes are restarted in order, one after the other, while samples flow: the page is never offline, and whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_is_not_seen() {
    let Some(browser) = Chromium::start().await else { return };
    let mut trio = Trio::start().await;
    let mut roamer = Roamer::connect(trio.node(0)).await;
    roamer.frames(5).await;
    browser.page.goto(&trio.node(0).page("/sensors/s")).await.unwrap();
    browser.until(&format!("{LINK} === 'Live'")).await;
    browser
        .run(
            "window.states = []; window.silence = 0; let last = performance.now();
             sensorium.live.addEventListener('state', ({ detail }) => states.push(detail));
             sensorium.live.addEventListener('beat', () => {
               const now = performance.now();
               window.silence = Math.max(silence, now - last);
               last = now;
             });",
        )
        .await;
    for index in 0..3 {
        let (http, peer) = (trio.node(index).http.clone(), trio.node(index).peer.clone());
        trio.node(index).signal(Signal::TERM);
        roamer.move_to(trio.node((index + 1) % 3)).await;
        roamer.frames(3).await;
        trio.nodes[index].take().expect("it ran").ended().await;
        trio.restart(index, &http, &peer).await;
        roamer.frames(3).await;
        roamer.assert_shown(&browser).await;
    }
    browser.until(&format!("{LINK} === 'Live'")).await;
    let states = browser.run("return states").await;
    assert!(!is_long_run() || !states.as_array().unwrap().contains(&json!("offline")), "{states}");
    let silence = browser.run("return silence").await.as_f64().unwrap();
    println!("a rolling restart: the longest the page heard nothing is {silence:.0} ms");
    assert!(!is_long_run() || silence < 3000.0, "{silence} ms");
    browser.assert_no_errors(&["WebSocket", "ERR_"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cluster_page_tells_of_a_death_and_a_return() {
    let Some(browser) = Chromium::start().await else { return };
    let mut trio = Trio::start().await;
    let state =
        |node: &str| format!("document.querySelector('[data-node={node}] [data-role=state]')?.textContent");
    browser.page.goto(&trio.node(0).page("/cluster")).await.unwrap();
    for name in NAMES {
        browser.until(&format!("{} === 'Alive'", state(name))).await;
    }
    let mut roamer = Roamer::connect(trio.node(1)).await;
    roamer.frames(50).await;
    browser.until("document.querySelector('[data-node=b] [data-field=devices]').textContent === '1'").await;
    browser
        .until("/ ms$/.test(document.querySelector('[data-node=b] [data-field=lag_ms]').textContent)")
        .await;
    let (http, peer) = (trio.node(1).http.clone(), trio.node(1).peer.clone());
    drop(trio.nodes[1].take());
    browser.until(&format!("{} === 'Down'", state("b"))).await;
    let lines = "[...document.querySelectorAll('[data-role=events] .what')].map((line) => line.textContent)";
    browser.until(&format!("{lines}.includes('b died')")).await;
    trio.restart(1, &http, &peer).await;
    browser.until(&format!("{} === 'Alive'", state("b"))).await;
    browser
        .until(&format!(
            "{lines}.indexOf('b joined') >= 0 && {lines}.indexOf('b joined') < {lines}.indexOf('b died')"
        ))
        .await;
    browser.picture("cluster-of-three").await;
    browser.assert_no_errors(&[]).await;
}

/// What the page of a lone node says to start a second one does just that, word for word.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_line_that_a_lone_node_shows_starts_a_second_one() {
    let Some(browser) = Chromium::start().await else { return };
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(&data.path().join("first")).await;
    browser.page.goto(&node.page("/cluster")).await.unwrap();
    browser.until("!document.querySelector('[data-role=second]').hidden").await;
    let line = browser.run("return document.querySelector('[data-role=second] code').textContent").await;
    let mut words = line.as_str().unwrap().split_whitespace();
    assert_eq!(words.next(), Some("sensorium"));
    let arguments: Vec<String> = words.map(str::to_owned).collect();
    let second = Node::start_with(&arguments, data.path()).await;
    browser.until("document.querySelector('[data-node=b] [data-role=state]')?.textContent === 'Alive'").await;
    browser.until("document.querySelector('[data-role=second]').hidden").await;
    // And its page is one click away.
    browser.run("document.querySelector('[data-node=b] a').click()").await;
    browser.until(&format!("location.href === '{}' && {NODE} === 'b'", second.page("/cluster"))).await;
    browser.until("document.querySelector('[data-node=b] .badge').checkVisibility()").await;
    browser.assert_no_errors(&[]).await;
}

/// Somebody in a room whose node is killed is there again at once, through another node, as the same person.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_in_a_room_is_there_again_when_their_node_was_killed() {
    let Some(browser) = Chromium::start().await else { return };
    let mut trio = Trio::start().await;
    browser.page.goto(&trio.node(0).page("/cluster")).await.unwrap();
    let made = call(&browser, "POST", "rooms", json!({ "name": "Lab" })).await;
    let room = made["room"].as_str().unwrap();
    browser.run("localStorage.setItem('sensorium.name', 'Ana')").await;
    browser.page.goto(&trio.node(0).page(&format!("/rooms/{room}"))).await.unwrap();
    browser.until(&format!("{PEOPLE} === 'Ana (you)'")).await;
    let on = "[...sensorium.people.values()].map((person) => person.id + ' on ' + person.node).join()";
    let index = index_of_page(&browser).await;
    let node = NAMES[index];
    browser.until(&format!("{on}.endsWith(' on {node}')")).await;
    let before = browser.run(&format!("return {on}")).await.as_str().unwrap().to_owned();
    trio.nodes[index] = None;
    browser.until(&format!("{LINK} === 'Live' && {NODE} !== '{node}' && {on} !== '{before}'")).await;
    browser.until(&format!("{PEOPLE} === 'Ana (you)'")).await;
    let after = browser.run(&format!("return {on}")).await.as_str().unwrap().to_owned();
    let id = |text: &str| text.split(' ').next().unwrap().to_owned();
    assert_eq!(id(&before), id(&after));
    browser.assert_no_errors(&["WebSocket", "ERR_"]).await;
}

/// A room through the death of the node that served its page: its tiles miss nothing, its invitation and its links lead to
/// the node that the page is on, and what the browser keeps comes along to that node's address.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_outlives_the_node_that_served_it() {
    let Some(browser) = Chromium::start().await else { return };
    let mut trio = Trio::start().await;
    let mut roamer = Roamer::connect(trio.node(0)).await;
    roamer.frames(5).await;
    browser.page.goto(&trio.node(0).page("/cluster")).await.unwrap();
    let made = call(&browser, "POST", "rooms", json!({ "name": "Lab", "sensors": ["s"] })).await;
    let room = made["room"].as_str().unwrap();
    browser.run("localStorage.setItem('sensorium.name', 'Ana')").await;
    browser.page.goto(&trio.node(0).page(&format!("/rooms/{room}"))).await.unwrap();
    browser.until(&format!("{PEOPLE} === 'Ana (you)'")).await;
    roamer.assert_shown(&browser).await;
    browser.click("[data-size=large]").await;
    let lost = index_of_page(&browser).await;
    let id = browser.run("return localStorage.getItem('sensorium.person')").await;
    trio.nodes[lost] = None;
    roamer.move_to(trio.node((lost + 1) % 3)).await;
    roamer.frames(5).await;
    browser.until(&format!("{LINK} === 'Live' && {NODE} !== '{}'", NAMES[lost])).await;
    roamer.assert_shown(&browser).await;
    let now = trio.node(index_of_page(&browser).await).http.clone();
    let code = made["join_code"].as_str().unwrap();
    browser
        .until(&format!(
            "document.querySelector('[data-role=invite] pre').textContent === 'http://{now}/join/{code}'"
        ))
        .await;
    // The other node is another address, where this browser has kept nothing yet.
    browser.click("[data-role=tile] h3 a").await;
    browser.until(&format!("location.href === 'http://{now}/sensors/s'")).await;
    roamer.assert_shown(&browser).await;
    let kept = browser
        .run("return ['name', 'person', 'tiles'].map((key) => localStorage.getItem('sensorium.' + key))")
        .await;
    assert_eq!(kept, json!(["Ana", id, "large"]));
    browser.assert_no_errors(&["ERR_"]).await;
}
