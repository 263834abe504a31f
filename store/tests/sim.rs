//! The simulation over many seeds, and proof that it would notice a broken rule.
//!
//! `SENSORIUM_SIM_SEEDS=100000` runs the seeds below that instead of below 500, `SENSORIUM_SIM_FROM=50000` those from there
//! on; `SENSORIUM_SEED=7` runs one seed and prints its story.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use store::sim::{Counts, Rule, run};

/// Seeds of an ordinary run, and those within which a broken rule must fail.
const SEEDS: u64 = 500;
/// Threads that share the seeds.
const THREADS: usize = 2;

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable}={value} is no number")))
}

/// Runs these seeds; ends early at the first that fails. Returns what there was, and the lowest failure.
fn runs(seeds: Range<u64>, broken: Option<Rule>) -> (Counts, Option<(u64, String)>) {
    let (next, failed) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let all = Mutex::new((Counts::default(), None::<(u64, String)>));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || failed.load(Ordering::Relaxed) {
                        break;
                    }
                    let outcome = run(seed, broken, false);
                    let mut all = all.lock().expect("a run that panics ends the test");
                    all.0.join(&outcome.counts);
                    if let Err(what) = outcome.verdict {
                        failed.store(true, Ordering::Relaxed);
                        if all.1.as_ref().is_none_or(|held| held.0 > seed) {
                            all.1 = Some((seed, what));
                        }
                    }
                    if seed > 0 && seed.is_multiple_of(5000) {
                        eprintln!("{seed} seeds");
                    }
                }
            });
        }
    });
    all.into_inner().expect("a run that panics ends the test")
}

#[test]
fn whatever_happens_nothing_acknowledged_is_lost_and_equal_vectors_answer_alike() {
    if let Some(seed) = number("SENSORIUM_SEED") {
        let outcome = run(seed, None, true);
        outcome.story.iter().for_each(|line| println!("{line}"));
        assert_eq!(outcome.verdict, Ok(()), "seed {seed}");
        return;
    }
    let seeds = number("SENSORIUM_SIM_SEEDS").unwrap_or(SEEDS);
    let started = std::time::Instant::now();
    let from = number("SENSORIUM_SIM_FROM").unwrap_or(0);
    let (counts, failure) = runs(from..seeds, None);
    println!("{} seeds in {:.1} s", seeds.saturating_sub(from), started.elapsed().as_secs_f64());
    counts.iter().for_each(|(kind, count)| println!("{count:>12} {kind}"));
    if let Some((seed, what)) = failure {
        panic!(
            "seed {seed}: {what}\nrepeat: SENSORIUM_SEED={seed} cargo test -p store --test sim whatever -- --nocapture"
        );
    }
    for kind in Counts::KINDS {
        assert!(counts.get(kind) > 0, "{seeds} seeds without: {kind}");
    }
}

fn is_noticed(rule: Rule) {
    let (_, failure) = runs(0..SEEDS, Some(rule));
    let Some((seed, what)) = failure else {
        panic!("{SEEDS} seeds without {rule:?}, and nothing was noticed")
    };
    eprintln!("without {rule:?}, seed {seed}: {what}");
}

#[test]
fn an_origin_used_again_is_noticed() {
    is_noticed(Rule::FreshOrigin);
}

#[test]
fn an_acknowledgement_of_what_memory_holds_is_noticed() {
    is_noticed(Rule::AppendedAgain);
}

#[test]
fn chunks_of_what_is_not_durable_are_noticed() {
    is_noticed(Rule::ChunksOfDurable);
}

#[test]
fn versions_ahead_of_the_log_are_noticed() {
    is_noticed(Rule::VersionsBehindLog);
}

#[test]
fn chunks_deleted_by_what_memory_holds_are_noticed() {
    is_noticed(Rule::ChunksDeletedByDurable);
}

#[test]
fn blocks_over_a_gap_are_noticed() {
    is_noticed(Rule::NoGaps);
}

#[test]
fn a_snapshot_that_counts_too_early_is_noticed() {
    is_noticed(Rule::SnapshotWhenDurable);
}

#[test]
fn a_snapshot_of_one_origin_is_noticed() {
    is_noticed(Rule::SnapshotWhole);
}

#[test]
fn a_snapshot_of_several_moments_is_noticed() {
    is_noticed(Rule::SnapshotAtOnce);
}

#[test]
fn a_clear_that_is_forgotten_is_noticed() {
    is_noticed(Rule::ClearLasts);
}

#[test]
fn a_clear_that_is_older_than_what_it_clears_is_noticed() {
    is_noticed(Rule::ClearAboveAll);
}

#[test]
fn a_deletion_that_is_forgotten_is_noticed() {
    is_noticed(Rule::DeletionLasts);
}

#[test]
fn a_removal_that_is_forgotten_is_noticed() {
    is_noticed(Rule::RemovalLasts);
}

#[test]
fn a_fold_of_what_is_not_held_is_noticed() {
    is_noticed(Rule::FoldedAlike);
}

#[test]
fn folded_blocks_that_count_again_are_noticed() {
    is_noticed(Rule::FoldedInLog);
}
