//! Other people's linters, where they are installed. The tests beside this one do not need them: none is in Debian, and
//! what they would find of consequence is asserted there against the program itself.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::{compose, docker, kubernetes, top};

/// Program, arguments, and how to see that it is there.
fn linters() -> [(&'static str, Vec<&'static str>, Vec<&'static str>); 4] {
    [
        ("docker", vec!["compose", "-f", compose::PATH, "config", "--quiet"], vec!["compose", "version"]),
        ("kubeconform", vec!["-strict", "-summary", kubernetes::PATH], vec!["-v"]),
        ("hadolint", vec![docker::PATH], vec!["--version"]),
        ("flyctl", vec!["config", "validate", "--strict", "--config", "fly.toml"], vec!["version"]),
    ]
}

#[test]
fn what_linters_say_who_are_here() {
    for (program, args, probe) in linters() {
        let quiet = Command::new(program).args(probe).stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !quiet.is_ok_and(|status| status.success()) {
            // Not `eprintln`, which a test that passes keeps to itself.
            writeln!(std::io::stderr(), "SKIPPED: `{program} {}` is not installed", args.join(" ")).unwrap();
            continue;
        }
        let mut command = Command::new(program);
        command.args(&args).current_dir(top()).env("SENSORIUM_CLUSTER_SECRET", "f".repeat(64));
        let output = command.output().unwrap();
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {args:?}: {said}");
    }
}
