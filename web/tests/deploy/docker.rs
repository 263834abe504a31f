//! `deploy/Dockerfile`, and what reaches the builder.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::program::{self, Running};
use crate::{text, top};

pub(crate) const PATH: &str = "deploy/Dockerfile";
const IGNORE: &str = "deploy/Dockerfile.dockerignore";

/// One `FROM` and what stands below it.
#[derive(Debug)]
pub(crate) struct Stage {
    from: String,
    name: Option<String>,
    /// Instruction and its text.
    steps: Vec<(String, String)>,
}

impl Stage {
    fn step(&self, instruction: &str) -> Option<&str> {
        self.steps.iter().rev().find(|(name, _)| name == instruction).map(|(_, rest)| rest.as_str())
    }
}

/// The stages of the Dockerfile. An instruction that Docker does not know is an error.
pub(crate) fn stages() -> Vec<Stage> {
    const KNOWN: [&str; 13] = [
        "FROM",
        "WORKDIR",
        "COPY",
        "RUN",
        "ENV",
        "VOLUME",
        "EXPOSE",
        "STOPSIGNAL",
        "USER",
        "HEALTHCHECK",
        "ENTRYPOINT",
        "CMD",
        "ARG",
    ];
    let file = text(PATH);
    let lines = file.lines().filter(|line| !line.trim_start().starts_with('#'));
    let joined = lines.collect::<Vec<_>>().join("\n").replace("\\\n", " ");
    let mut stages: Vec<Stage> = Vec::new();
    for line in joined.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (instruction, rest) = line.split_once(' ').unwrap_or_else(|| panic!("{line}"));
        assert!(KNOWN.contains(&instruction), "{instruction} in {line}");
        if instruction == "FROM" {
            let words: Vec<&str> = rest.split_whitespace().collect();
            let name = match words[1..] {
                [] => None,
                ["AS", name] => Some(name.to_owned()),
                _ => panic!("{line}"),
            };
            stages.push(Stage { from: words[0].to_owned(), name, steps: Vec::new() });
        } else {
            let stage = stages.last_mut().expect("FROM comes first");
            stage.steps.push((instruction.to_owned(), rest.trim().to_owned()));
        }
    }
    stages
}

fn named<'a>(stages: &'a [Stage], name: &str) -> &'a Stage {
    stages
        .iter()
        .find(|stage| stage.name.as_deref() == Some(name))
        .unwrap_or_else(|| panic!("no stage {name}"))
}

/// Whether a stage of this name can be built.
pub(crate) fn has_stage(name: &str) -> bool {
    stages().iter().any(|stage| stage.name.as_deref() == Some(name))
}

/// User and group of the image.
pub(crate) fn user() -> String {
    named(&stages(), "node").step("USER").unwrap().to_owned()
}

/// Environment of the image.
pub(crate) fn environment() -> BTreeMap<String, Option<String>> {
    let stages = stages();
    let said = named(&stages, "node").step("ENV").unwrap().split_whitespace();
    said.map(|pair| pair.split_once('=').map(|(name, value)| (name.into(), Some(value.into()))).unwrap())
        .collect()
}

fn words(json: &str) -> Vec<String> {
    let value: Value = serde_json::from_str(json).unwrap_or_else(|_| panic!("not the exec form: {json}"));
    value.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
}

#[test]
fn every_stage_and_source_exists_and_reaches_the_builder() {
    let stages = stages();
    let ignore = text(IGNORE);
    let kept: Vec<&str> = ignore.lines().filter_map(|line| line.strip_prefix('!')).collect();
    assert!(ignore.lines().any(|line| line == "*") && ignore.lines().any(|line| line == "**/target"));
    let mut copied = Vec::new();
    for (at, stage) in stages.iter().enumerate() {
        let before = |name: &str| stages[..at].iter().any(|stage| stage.name.as_deref() == Some(name));
        assert!(
            before(&stage.from) || stage.from.contains(':'),
            "{}: neither a stage nor pinned",
            stage.from
        );
        assert!(!stage.from.ends_with(":latest"), "{} is not pinned", stage.from);
        for (_, rest) in stage.steps.iter().filter(|(name, _)| name == "COPY") {
            let (flags, paths): (Vec<&str>, Vec<&str>) =
                rest.split_whitespace().partition(|word| word.starts_with("--"));
            match flags.iter().find_map(|flag| flag.strip_prefix("--from=")) {
                Some(name) => assert!(before(name), "COPY --from={name}"),
                None => copied.extend(paths[..paths.len() - 1].iter().map(|path| (*path).to_owned())),
            }
        }
    }
    for path in &copied {
        assert!(top().join(path).exists(), "COPY {path}: there is no such file");
        assert!(kept.contains(&path.as_str()), "{path} is copied, but does not reach the builder");
    }
    assert_eq!(kept.len(), copied.len(), "what is not copied need not be sent: {kept:?}");

    // Cargo reads every member of the workspace, whichever of them is built.
    let workspace: toml::Table = toml::from_str(&text("Cargo.toml")).unwrap();
    for member in workspace["workspace"]["members"].as_array().unwrap() {
        assert!(copied.iter().any(|path| path == member.as_str().unwrap()), "{member:?} is not copied");
    }
    let least = workspace["workspace"]["package"]["rust-version"].as_str().unwrap();
    let tag = stages[0].from.strip_prefix("rust:").unwrap().split('-').next().unwrap();
    let minor = |version: &str| version.split('.').nth(1).unwrap().parse::<u32>().unwrap();
    assert!(minor(tag) >= minor(least), "built with Rust {tag}, needs {least}");
    let build = named(&stages, "build").step("RUN").unwrap();
    assert!(build.contains("cargo build --release --locked -p web --bin sensorium"), "{build}");
}

#[test]
fn the_image_runs_the_program_and_not_as_root() {
    let stages = stages();
    let node = named(&stages, "node");
    assert_eq!(node.step("USER").unwrap(), "65532:65532");
    assert_eq!(node.step("STOPSIGNAL"), Some("SIGTERM"));
    assert_eq!(node.step("VOLUME"), environment()["SENSORIUM_DATA"].as_deref());
    let last = stages.last().unwrap();
    assert!(last.from == "node" && last.steps.is_empty(), "the default image is not the node: {last:?}");
    assert!(named(&stages, "fly").from == "node");

    let exposed: Vec<&str> = node.step("EXPOSE").unwrap().split_whitespace().collect();
    assert_eq!(exposed, ["4000/tcp", "1883/tcp", "4400/tcp", "4400/udp"]);
    let entry = words(node.step("ENTRYPOINT").unwrap());
    let installed = node.steps.iter().any(|(name, rest)| name == "COPY" && rest.ends_with(&entry[0]));
    assert!(installed, "{} is not in the image", entry[0]);
    let command = words(node.step("CMD").unwrap());
    assert!(program::takes(&command.iter().map(String::as_str).collect::<Vec<_>>()), "{command:?}");

    let options = program::options();
    for variable in environment().keys() {
        assert!(options.values().any(|known| known == variable), "{variable} is no variable of the program");
    }
    for choice in ["SENSORIUM_INSECURE_OPEN", "SENSORIUM_CLUSTER_SECRET"] {
        assert!(!environment().contains_key(choice), "an image must not say {choice}");
    }
}

#[test]
fn the_health_check_fails_until_a_node_answers() {
    let stages = stages();
    let check = named(&stages, "node").step("HEALTHCHECK").unwrap();
    is_health_check(&words(check.split_once(" CMD ").unwrap().1));
}

/// Asserts that a health check in exec form asks the node in its own container, and that the program does what the
/// check needs: succeed when a node answers, fail when none does.
pub(crate) fn is_health_check(check: &[String]) {
    assert_eq!(check, ["/usr/local/bin/sensorium", "status", "--http", "http://127.0.0.1:4000"]);
    let node = Running::start();
    let status = node.status();
    let ask = || program::sensorium(status.iter().map(String::as_str)).output().unwrap().status.code();
    assert_eq!(ask(), Some(0));
    drop(node);
    assert_eq!(ask(), Some(1));
}
