//! The program as a process: what it prints where, and how it exits.

use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use super::node::Node;

/// A guard against hanging; nothing waits for it to pass.
const GUARD: Duration = Duration::from_secs(30);

async fn program(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_firmware-sim"));
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    timeout(GUARD, command.output()).await.expect("it ends").unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn a_run_prints_its_summary_and_writes_its_report() {
    let directory = tempfile::tempdir().unwrap();
    let report = directory.path().join("report.json");
    let node = Node::start(&[]).await;
    let path = report.to_str().unwrap();
    let run = ["run", "--url", &node.url, "--sensors", "1", "--scenario", "building", "--duration", "1200ms"];
    let output = program(&[&run[..], &["--report", path]].concat()).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    // Five quantities at 0 s and 1 s, the battery at 0 s.
    let summary = "sent 11, acked 11, resent 0, gaps 0, refused 0, connections 1\n";
    assert_eq!(text(&output.stdout), summary);
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
    assert_eq!((&report["total"]["acked"], &report["total"]["gaps"]), (&11.into(), &0.into()));
    assert_eq!(
        (&report["sensors"][0]["sensor"], &report["sensors"][0]["sent"]),
        (&"room-1".into(), &11.into())
    );
}

#[tokio::test]
async fn what_nobody_acknowledges_is_a_gap_and_exit_code_1() {
    let gone = Node::start(&[]).await.url.clone();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/imu_watch.csv");
    let replay = ["replay", file, "--sensor", "s", "--speed", "max", "--from-now", "--attribute", "imu"];
    let output = program(&[&replay[..], &["--url", &gone, "--patience", "200ms"]].concat()).await;
    assert_eq!(output.status.code(), Some(1));
    let summary = "sent 0, acked 0, resent 0, gaps 600, refused 0, connections 0\n";
    assert_eq!(text(&output.stdout), summary);
    assert!(text(&output.stderr).contains("cannot connect"), "{}", text(&output.stderr));
}

#[tokio::test]
async fn ctrl_c_ends_the_measuring_and_prints_the_summary() {
    let node = Node::start(&[]).await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_firmware-sim"));
    command.args([
        "run",
        "--url",
        &node.url,
        "--sensors",
        "1",
        "--scenario",
        "wearables",
        "--duration",
        "1h",
    ]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let child = command.spawn().unwrap();
    let acknowledged = async {
        while node.samples().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    timeout(GUARD, acknowledged).await.expect("samples");
    let pid = rustix::process::Pid::from_raw(child.id().unwrap() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = timeout(GUARD, child.wait_with_output()).await.expect("it ends").unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let expected = format!("acked {}, resent 0, gaps 0", node.samples().len());
    assert!(text(&output.stdout).contains(&expected), "{expected}: {}", text(&output.stdout));
}

#[tokio::test]
async fn what_cannot_start_exits_1_and_wrong_usage_2() {
    for (arguments, code, reason) in [
        (&["replay", "/nowhere.csv", "--sensor", "s"][..], 1, "cannot read /nowhere.csv"),
        (&["run", "--url", "wss://h"], 1, "`wss://h`: the simulator speaks no TLS"),
        (&["run", "--sensors", "0"], 2, "not a number from 1"),
        (&["run", "--scenario", "zoo"], 2, "none of wearables"),
        (&["replay", "x.csv", "--sensor", "a/b"], 2, "an id starts with"),
        (&["replay", "x.csv"], 2, "--sensor"),
        (&["demo", "--nodes", "1"], 2, "not a number from 2"),
        (&["demo", "--sensorium", "/nowhere"], 1, "/nowhere: there is no such file"),
    ] {
        let output = program(arguments).await;
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        assert!(text(&output.stderr).contains(reason), "{arguments:?}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}
