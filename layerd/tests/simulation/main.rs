//! A simulation of the whole: several hosts with the engine's real code, over one catalog and one
//! bucket, in virtual time. Who goes on next, what fails, who dies and whose clock stands still is
//! drawn from a seed; a model beside it says what must be so.
//!
//! `OPENDUCK_SIM_SEEDS=1000..200000` runs other seeds than CI does, `1000..200000/97` every 97th of
//! them, `4711` one; `OPENDUCK_SIM_TRACE=1` prints its trace although it passes.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod care;
mod catalog;
#[path = "../crash_disk/mod.rs"]
mod crash_disk;
mod director;
mod disk;
mod faults;
mod judge;
mod model;
mod reader;
mod scenes;
mod setting;
mod store;
mod writer;

use std::iter::StepBy;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use layerd::machine::world::Outcome;
use parking_lot::Mutex;

use setting::{HOSTS, Setting};

/// What is run unless something else is asked for: what two cores do in about a minute.
const SEEDS: Range<u64> = 0..1000;

fn simulate(seed: u64) -> Outcome {
    let setting = Setting::new(seed);
    let world = setting.world().clone();
    let process = world.process(setting.0.hosts[HOSTS].host);
    let run = setting.clone();
    world.spawn(process, "director", move || director::run(&run));
    world.run()
}

type Seeds = StepBy<Range<u64>>;

fn seeds() -> Seeds {
    let Ok(text) = std::env::var("OPENDUCK_SIM_SEEDS") else {
        return SEEDS.step_by(1);
    };
    let number = |text: &str| -> u64 {
        text.parse()
            .expect("OPENDUCK_SIM_SEEDS is N, N..M or N..M/STEP")
    };
    let (range, step) = text.split_once('/').unwrap_or((&text, "1"));
    let range = match range.split_once("..") {
        Some((first, behind)) => number(first)..number(behind),
        None => number(range)..number(range) + 1,
    };
    range.step_by(number(step).max(1) as usize)
}

#[test]
fn every_schedule_keeps_every_promise() {
    let seeds = seeds();
    let shown = std::env::var_os("OPENDUCK_SIM_TRACE").is_some();
    let seeds = Mutex::new(seeds);
    let failed = AtomicU64::new(0);
    let turns = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let next = seeds.lock().next();
                    let Some(seed) = next else { return };
                    let outcome = simulate(seed);
                    turns.fetch_add(outcome.turns, Ordering::SeqCst);
                    if shown {
                        println!("{}", outcome.trace);
                    }
                    if let Some(failure) = outcome.failure {
                        // Printed at once, so that nothing of it is lost with what comes behind.
                        if failed.fetch_add(1, Ordering::SeqCst) == 0 && !shown {
                            println!("{}", outcome.trace);
                        }
                        println!("seed {seed}: {failure}");
                    }
                }
            });
        }
    });
    let (turns, failed) = (turns.into_inner(), failed.into_inner());
    println!("{turns} turns");
    assert_eq!(
        failed, 0,
        "seeds that failed; OPENDUCK_SIM_SEEDS=N runs one of them again"
    );
}

#[test]
fn a_seed_is_the_whole_of_a_run() {
    for seed in 0..20 {
        let (first, second) = (simulate(seed), simulate(seed));
        if first.hash != second.hash {
            let both = first.trace.lines().zip(second.trace.lines());
            let (n, (a, b)) = both.enumerate().find(|(_, (a, b))| a != b).unwrap();
            panic!("seed {seed} differs in line {n}:\n{a}\n{b}");
        }
    }
}
