//! The operating system's clocks, chance, threads and locks.

use std::fs::File;
use std::io;
use std::thread;
#[cfg(not(feature = "simulation"))]
pub use std::time::Instant;
use std::time::{Duration, SystemTime};

#[cfg(not(feature = "simulation"))]
pub use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::id::Timestamp;

/// A started thread.
#[cfg(not(feature = "simulation"))]
pub type JoinHandle = thread::JoinHandle<()>;

/// The wall clock.
pub fn wall_clock() -> Timestamp {
    Timestamp::from(jiff::Timestamp::now())
}

/// How long ago that was, by the wall clock; nothing if it is yet to come.
pub fn age(then: SystemTime) -> Duration {
    then.elapsed().unwrap_or_default()
}

/// Milliseconds since the machine was booted, sleep included.
pub fn boot_time_ms() -> u64 {
    let at = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    at.tv_sec.unsigned_abs() * 1000 + at.tv_nsec.unsigned_abs() / 1_000_000
}

/// Random bits from the kernel.
pub fn random_u64() -> u64 {
    let mut bytes = [0; 8];
    let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    // The kernel fills requests of up to 256 bytes whole once its pool is ready, which is before
    // any program of a running system starts.
    assert_eq!(got, Ok(8), "the kernel gave no random bytes");
    u64::from_ne_bytes(bytes)
}

/// Rests.
pub fn sleep(time: Duration) {
    thread::sleep(time);
}

/// Starts a thread.
pub fn spawn(
    name: &str,
    run: impl FnOnce() + Send + 'static,
) -> io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(run)
}

/// Waits for a file's lock.
pub fn lock_file(file: &File) -> io::Result<()> {
    file.lock()
}
