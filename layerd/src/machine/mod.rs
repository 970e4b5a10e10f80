//! What the engine takes from the machine beside its disk: clocks, chance, threads, and the locks
//! that are held or waited for while something else goes on.
//!
//! All of it comes through here, so that a simulation can put a machine of its own underneath: with
//! the feature `simulation`, a thread of a simulated process gets virtual time, seeded chance and
//! turns that a scheduler gives out; every other thread, and every build without the feature, gets
//! what the operating system has.
//!
//! Locks that are held for a few instructions only need not come from here: no simulated thread
//! loses its turn while it holds one.

mod real;
#[cfg(feature = "simulation")]
mod scheduler;
#[cfg(feature = "simulation")]
mod simulated;
#[cfg(feature = "simulation")]
pub(crate) mod tasks;
#[cfg(feature = "simulation")]
pub mod world;

#[cfg(not(feature = "simulation"))]
pub(crate) use real::*;
#[cfg(feature = "simulation")]
pub(crate) use simulated::*;
