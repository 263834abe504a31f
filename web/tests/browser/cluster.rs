//! The page of the cluster, and pages that lose their node: to a kill, a hang, an orderly stop.

use serde_json::{Value, json};
use store::cluster::view::{Happening, NodeState};

use crate::chromium::{Chromium, is_long_run};
use crate::node::now_ms;
use crate::pair::{Half, Wire, pair};

/// What the connection's pill says.
const LINK: &str = "document.querySelector('[data-role=link]').textContent";
/// The node that the page says it is on.
const NODE: &str = "document.querySelector('[data-role=node]').textContent";

fn cell(node: &str, field: &str) -> String {
    format!("document.querySelector('[data-node={node}] [data-field={field}]').textContent")
}

fn state(node: &str) -> String {
    format!("document.querySelector('[data-node={node}] [data-role=state]').textContent")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cluster_page_shows_nodes_and_what_happens_to_them_as_it_happens() {
    let Some(browser) = Chromium::start().await else { return };
    let a = Half::start("a").await;
    browser.page.goto(&format!("{}/cluster", a.http)).await.unwrap();
    // Alone: it says how to start a second node.
    browser.until(&format!("{} === 'Alive'", state("a"))).await;
    browser.until("!document.querySelector('[data-role=second]').hidden").await;
    let line = browser.run("return document.querySelector('[data-role=second] code').textContent").await;
    assert_eq!(
        line,
        "sensorium --name b --data ./data-b --http 127.0.0.1:0 --mqtt 127.0.0.1:0 --peer 127.0.0.1:0 --join 127.0.0.1:4400"
    );
    browser.until("document.querySelector('[data-role=events]').textContent.startsWith('Nothing yet')").await;

    // Others come, hang, die; one is refused. Nothing is reloaded.
    let nodes = a.state.nodes();
    a.knows_of("b", "http://127.0.0.1:4001", NodeState::Alive);
    nodes.event("b", Happening::Joined);
    browser.until(&format!("{} === 'Alive'", state("b"))).await;
    browser.until("document.querySelector('[data-role=second]').hidden").await;
    browser.until(&format!("{} === '18\\u202f240'", cell("b", "samples_per_second"))).await;
    browser.until(&format!("{} === '1.8 ms' && {} === '–'", cell("b", "lag_ms"), cell("a", "lag_ms"))).await;
    browser
        .until(&format!(
            "{} === '151 MiB' && {} === '1.5 GiB'",
            cell("b", "memory_bytes"),
            cell("b", "disk_bytes")
        ))
        .await;
    a.knows_of("b", "http://127.0.0.1:4001", NodeState::Suspect);
    nodes.event("b", Happening::Suspected);
    browser.until(&format!("{} === 'Suspect'", state("b"))).await;
    a.knows_of("b", "http://127.0.0.1:4001", NodeState::Down);
    nodes.event("b", Happening::Died);
    nodes.event("10.0.0.9:4400", Happening::Refused("<b>another secret</b>".into()));
    browser.until(&format!("{} === 'Down' && {} === '–'", state("b"), cell("b", "devices"))).await;
    let lines = "[...document.querySelectorAll('[data-role=events] .what')].map((line) => line.textContent)";
    let expected =
        json!(["10.0.0.9:4400 was refused: <b>another secret</b>", "b died", "b is silent", "b joined"]);
    browser.until(&format!("JSON.stringify({lines}) === JSON.stringify({expected})")).await;
    browser
        .until("document.querySelector('[data-role=summary]').textContent === '2 nodes: 1 alive, 1 down'")
        .await;
    browser.until("document.querySelector('[data-role=total-alive]').textContent === '1 of 2'").await;
    // Figures follow by themselves, once a second.
    a.take("s", "a", &[(now_ms(), 1.0)]).await;
    browser.until(&format!("{} === '1'", cell("a", "sensors"))).await;
    browser.until(&format!("{} === '1'", cell("a", "viewers"))).await;
    browser.assert_no_errors(&[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cluster_page_is_legible_in_dark_and_light_and_on_a_phone() {
    let Some(browser) = Chromium::start().await else { return };
    let a = Half::start("berlin-1").await;
    let nodes = a.state.nodes();
    for (name, state, what) in [
        ("berlin-2", NodeState::Alive, vec![Happening::Joined]),
        ("lab-cellar-with-a-long-name", NodeState::Suspect, vec![Happening::Joined, Happening::Suspected]),
        ("paris-1", NodeState::Down, vec![Happening::Joined, Happening::Suspected, Happening::Died]),
        ("paris-2", NodeState::Left, vec![Happening::Joined, Happening::Left]),
    ] {
        a.knows_of(name, &format!("http://{name}.example:4000"), state);
        what.into_iter().for_each(|what| nodes.event(name, what));
    }
    nodes.event("berlin-2", Happening::CaughtUp(std::time::Duration::from_millis(3_240)));
    nodes.event("10.0.0.9:4400", Happening::Refused("it has another cluster secret".into()));
    let ready = "document.querySelectorAll('[data-node]').length === 5";
    crate::assert_legible(&browser, "cluster", &format!("{}/cluster", a.http), ready).await;
    // By keyboard: the nodes that live are links, and each says where it leads.
    let links = browser
        .run(
            "return [...document.querySelectorAll('[data-node] a')].map((link) => link.getAttribute('href'))",
        )
        .await;
    assert_eq!(
        links,
        json!([
            format!("{}/cluster", a.http),
            "http://berlin-2.example:4000/cluster",
            "http://lab-cellar-with-a-long-name.example:4000/cluster",
            null,
            null
        ])
    );
    // Its neighbours are only told of: a page that its node let wait has looked for them.
    browser.assert_no_errors(&["ERR_"]).await;
}

/// The value of sample `index`, which a 32-bit float holds exactly.
fn value(index: u64) -> f64 {
    index as f64 / 8.0
}

/// Samples `from..to`, 10 ms apart, the first of all at `first`.
fn samples(first: u64, from: u64, to: u64) -> Vec<(u64, f64)> {
    (from..to).map(|index| (first + index * 10, value(index))).collect()
}

/// The page holds samples `0..count` of `s/a`, each once.
async fn assert_held(browser: &Chromium, first: u64, count: u64) {
    browser.until(&format!("sensorium.series('s/a').length >= {count}")).await;
    let held = browser
        .run(
            "const { times, columns, length } = sensorium.series('s/a');
             return [[...times.subarray(0, length)], [...columns[0].subarray(0, length)]];",
        )
        .await;
    let held: [Vec<f64>; 2] = serde_json::from_value(held).unwrap();
    assert_eq!(held[0], (0..count).map(|index| (first + index * 10) as f64).collect::<Vec<_>>());
    assert_eq!(held[1], (0..count).map(value).collect::<Vec<_>>());
}

/// Opens a page and waits until it is live on the node that served it. On a starved machine it may have gone on with
/// another one at once; then it is opened again.
async fn open_on(browser: &Chromium, url: &str, node: &str) {
    for _ in 0..20 {
        browser.page.goto(url).await.unwrap();
        browser.until(&format!("{LINK} === 'Live' && {NODE} !== ''")).await;
        if browser.run(&format!("return {NODE}")).await == node {
            return;
        }
    }
    panic!("{url} never stayed on {node}");
}

/// Its node is killed, hangs, or stops in order: the page goes on with the other one by itself; it misses and doubles
/// nothing, and what it asks and where it links to moves with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_goes_on_with_another_node_without_a_gap() {
    let Some(browser) = Chromium::start().await else { return };
    for how in ["killed", "hung", "stopped"] {
        let (a, b) = pair().await;
        let first = now_ms() - 60_000;
        for node in [&a, &b] {
            node.take("s", "a", &samples(first, 0, 100)).await;
        }
        open_on(&browser, &format!("{}/sensors/s", a.http), "a").await;
        assert_held(&browser, first, 100).await;
        // What the page says on its way.
        browser
            .run(&format!(
                "window.said = new Set(); const pill = document.querySelector('[data-role=link]');
                 new MutationObserver(() => said.add({LINK})).observe(pill, {{ childList: true, characterData: true, subtree: true }});
                 window.left = performance.now(); window.back = null;
                 sensorium.live.addEventListener('beat', () => {{ if ({NODE} === 'b') window.back ??= performance.now(); }});"
            ))
            .await;
        match how {
            "killed" => a.wire(Wire::Cut),
            "hung" => a.wire(Wire::Held),
            _ => a.state.stop().cancel(),
        }
        b.knows(&a, if how == "stopped" { NodeState::Left } else { NodeState::Down });
        // Measured while the page is between the nodes: it asks for what it missed. The first of them reached `a` too.
        b.take("s", "a", &samples(first, 100, 150)).await;
        browser.until(&format!("{LINK} === 'Live' && {NODE} === 'b' && window.back")).await;
        b.take("s", "a", &samples(first, 150, 200)).await;
        assert_held(&browser, first, 200).await;
        let said = browser.run("return [...window.said]").await;
        assert!(said.as_array().unwrap().contains(&json!("Reconnecting to node b…")), "{how}: {said}");
        let took = browser.run("return window.back - window.left").await.as_f64().unwrap();
        println!("a page whose node was {how} was on the other after {took:.0} ms");
        // A hung node is noticed after 1.25 s of silence; the others at once.
        assert!(!is_long_run() || took < 5000.0, "{how}: {took} ms");

        // What the page asks for comes from b: a new attribute, known there alone, gets its card.
        b.take("s", "later", &[(now_ms(), 4.5)]).await;
        browser
            .until("document.querySelector('[data-attribute=later] [data-role=value]').textContent === '4.5'")
            .await;
        // Links that came with it are turned when somebody turns to them.
        let links = browser
            .run(
                "return [...document.querySelectorAll('a[href]:not(.skip)')].map((link) => {
                   link.dispatchEvent(new PointerEvent('pointerover', { bubbles: true }));
                   return new URL(link.href).origin;
                 })",
            )
            .await;
        assert!(links.as_array().unwrap().iter().all(|origin| *origin == json!(b.http)), "{how}: {links}");
        browser.run("document.querySelector('a.brand').click()").await;
        browser.until(&format!("location.href === '{}/'", b.http)).await;
        browser
            .until("document.querySelector('[data-sensor=s] [data-attribute=later] [data-role=value]').textContent === '4.5'")
            .await;
        browser.assert_no_errors(&["WebSocket", "ERR_CONNECTION", "ERR_EMPTY_RESPONSE"]).await;
    }
}

/// Without any node the page says so in words, goes on trying each that it knows, and finds the one that comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_without_nodes_is_offline_until_one_is_back() {
    let Some(browser) = Chromium::start().await else { return };
    let (a, b) = pair().await;
    a.take("s", "a", &[(now_ms(), 1.0)]).await;
    browser.page.goto(&format!("{}/sensors/s", a.http)).await.unwrap();
    browser.until(&format!("{LINK} === 'Live'")).await;
    a.wire(Wire::Held);
    b.wire(Wire::Held);
    browser.until(&format!("{LINK} === 'Reconnecting to node b…'")).await;
    browser.resize(390, 844).await;
    browser.picture("sensor-reconnecting-phone").await;
    browser.until(&format!("{LINK} === 'Offline'")).await;
    b.take("s", "a", &[(now_ms(), 2.0)]).await;
    b.wire(Wire::Whole);
    browser.until(&format!("{LINK} === 'Live' && {NODE} === 'b'")).await;
    browser.until("document.querySelector('[data-attribute=a] [data-role=value]').textContent === '2'").await;
    let state: Value = browser.run("return sensorium.live.connects").await;
    assert!(state.as_u64() >= Some(2), "{state}");
    browser.assert_no_errors(&["WebSocket", "ERR_"]).await;
}
