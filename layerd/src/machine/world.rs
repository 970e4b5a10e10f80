//! A simulated world: hosts with clocks, processes that can be killed and stopped, and chance.
//!
//! Made and driven by the simulation in `tests/simulation`; only there with the feature
//! `simulation`.

use std::sync::Arc;
use std::time::Duration;

pub use super::scheduler::Outcome;
use super::scheduler::{self, Shared, Wait, current};
use crate::id::Timestamp;

/// A host of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host(usize);

/// A process of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process(usize);

/// A world. Clones are the same one.
#[derive(Clone)]
pub struct World(Arc<Shared>);

impl World {
    /// One in which all chance comes from the seed.
    #[must_use]
    pub fn new(seed: u64) -> World {
        World(Arc::new(Shared::new(seed)))
    }

    /// A host, whose wall clock is wrong by so many nanoseconds.
    #[must_use]
    pub fn host(&self, skew: i64) -> Host {
        Host(self.0.state().add_host(skew))
    }

    /// A process; it lives as long as a thread of it does.
    #[must_use]
    pub fn process(&self, host: Host) -> Process {
        Process(self.0.state().add_process(host.0))
    }

    /// Starts a thread of a process. It runs once it is its turn.
    pub fn spawn(&self, process: Process, name: &str, run: impl FnOnce() + Send + 'static) {
        scheduler::spawn(&self.0, process.0, name, run);
    }

    /// Runs all threads until none is left.
    #[must_use]
    pub fn run(&self) -> Outcome {
        self.0.run()
    }

    /// Kills a process, and waits until it is gone. Called by a thread of another one.
    pub fn kill(&self, process: Process) {
        self.0.state().kill(process.0);
        self.wait_for(process);
    }

    /// Waits until a process is gone.
    pub fn wait_for(&self, process: Process) {
        if let Some(actor) = current() {
            actor.wait(Wait::Gone(process.0));
        }
    }

    /// Whether a process has a thread and was not killed.
    #[must_use]
    pub fn is_alive(&self, process: Process) -> bool {
        self.0.state().is_alive(process.0)
    }

    /// A process does nothing for a while, and clocks go on: as by SIGSTOP and SIGCONT.
    pub fn stop(&self, process: Process, time: Duration) {
        self.0.state().stop(process.0, time);
    }

    /// A host does nothing for a while, and its clocks stand still: as a virtual machine that is
    /// paused, and does not know.
    pub fn freeze(&self, host: Host, time: Duration) {
        self.0.state().freeze(host.0, time);
    }

    /// The wall clock that is right.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        current().map_or(Timestamp(0), |actor| actor.world_clock())
    }

    /// A number below `n`.
    #[must_use]
    pub fn below(&self, n: u64) -> u64 {
        self.0.state().random() % n
    }

    /// True once in `n` times.
    #[must_use]
    pub fn one_in(&self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// Others may go on before the caller does.
    pub fn pause(&self) {
        self.rest(Duration::ZERO);
    }

    /// Time passes.
    pub fn rest(&self, time: Duration) {
        super::sleep(time);
    }

    /// Whether the caller's process was killed: what it does has no effect any more.
    #[must_use]
    pub fn is_dying(&self) -> bool {
        current().is_some_and(|actor| actor.is_dying())
    }

    /// Adds a line to the trace.
    pub fn note(&self, what: std::fmt::Arguments<'_>) {
        if let Some(actor) = current() {
            actor.note(what);
        }
    }
}
