//! The demo, as an audience sees it.

use firmware_sim::demo::{Options, run};

use crate::common::{alone, program, seed};

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_ends_with_its_verdict() {
    let _machine = alone().await;
    let options =
        Options { program: program(), nodes: 3, sensors: 9, kills: 1, seed: seed(), browser: false };
    let report = run(&options, |line| eprintln!("{line}")).await.unwrap();
    eprintln!("{report}");
    assert!(report.is_clean(), "{:?}", report.verdict);
    assert_eq!(report.to_string().lines().last(), Some("lost 0, doubled 0"));
    assert_eq!((report.kills.len(), report.verdict.nodes, report.verdict.viewers), (1, 3, 3));
    assert!(report.kills[0].devices > 0 && report.kills[0].acked > 0, "{:?}", report.kills);
}
