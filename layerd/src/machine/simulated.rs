//! The same as `real`, for threads that may be those of a simulated process.

use std::fs::{File, TryLockError};
use std::io;
use std::ops::{Add, Deref, DerefMut};
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use super::real;
use super::scheduler::{Actor, Wait, current};
use crate::id::Timestamp;

/// Whether this is a simulated thread.
pub fn is_simulated() -> bool {
    current().is_some()
}

/// See [`real::wall_clock`].
pub fn wall_clock() -> Timestamp {
    current().map_or_else(real::wall_clock, |actor| actor.wall_clock())
}

/// See [`real::age`].
pub fn age(then: SystemTime) -> Duration {
    match current() {
        Some(actor) => {
            let then = then
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default();
            let now = Duration::from_nanos(actor.wall_clock().0.unsigned_abs());
            now.saturating_sub(then)
        }
        None => real::age(then),
    }
}

/// See [`real::boot_time_ms`].
pub fn boot_time_ms() -> u64 {
    current().map_or_else(real::boot_time_ms, |actor| {
        actor.boot_time().as_millis() as u64
    })
}

/// See [`real::random_u64`].
pub fn random_u64() -> u64 {
    current().map_or_else(real::random_u64, |actor| actor.random())
}

/// See [`real::sleep`].
pub fn sleep(time: Duration) {
    match current() {
        Some(actor) => actor.sleep(time),
        None => real::sleep(time),
    }
}

/// A moment on the clock that never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(Duration);

/// Where the clock of threads that are not simulated begins.
static BEGIN: LazyLock<std::time::Instant> = LazyLock::new(std::time::Instant::now);

impl Instant {
    /// Now.
    pub fn now() -> Instant {
        Instant(current().map_or_else(|| BEGIN.elapsed(), |actor| actor.boot_time()))
    }

    /// How long ago that was.
    pub fn elapsed(&self) -> Duration {
        Instant::now().0.saturating_sub(self.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, time: Duration) -> Instant {
        Instant(self.0 + time)
    }
}

/// A started thread.
pub enum JoinHandle {
    Real(std::thread::JoinHandle<()>),
    Simulated(usize),
}

impl JoinHandle {
    /// Waits for its end.
    pub fn join(self) -> std::thread::Result<()> {
        match (self, current()) {
            (JoinHandle::Real(thread), _) => thread.join(),
            (JoinHandle::Simulated(thread), Some(actor)) => {
                actor.wait(Wait::Join(thread));
                Ok(())
            }
            (JoinHandle::Simulated(_), None) => Ok(()),
        }
    }
}

/// See [`real::spawn`].
pub fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle> {
    match current() {
        Some(actor) => Ok(JoinHandle::Simulated(actor.spawn(name, run))),
        None => real::spawn(name, run).map(JoinHandle::Real),
    }
}

/// How often a simulated thread looks at another's file lock.
const LOCK_LOOK: Duration = Duration::from_millis(1);

/// See [`real::lock_file`].
pub fn lock_file(file: &File) -> io::Result<()> {
    let Some(actor) = current() else {
        return real::lock_file(file);
    };
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => actor.sleep(LOCK_LOOK),
            Err(TryLockError::Error(error)) => return Err(error),
            Ok(()) => return Ok(()),
        }
    }
}

/// As parking_lot's.
#[derive(Debug, Default)]
pub struct Mutex<T>(parking_lot::Mutex<T>);

/// As parking_lot's.
pub struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    /// `None` only while it is unlocked for a moment.
    guard: Option<parking_lot::MutexGuard<'a, T>>,
}

impl<T> Mutex<T> {
    /// See [`parking_lot::Mutex`].
    pub const fn new(value: T) -> Mutex<T> {
        Mutex(parking_lot::Mutex::new(value))
    }

    /// See [`parking_lot::Mutex`].
    pub fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard {
            mutex: self,
            guard: Some(self.lock_inner()),
        }
    }

    /// See [`parking_lot::Mutex`].
    pub fn try_lock_for(&self, time: Duration) -> Option<MutexGuard<'_, T>> {
        let guard = match current() {
            Some(actor) => self.try_lock_simulated(&actor, time)?,
            None => self.0.try_lock_for(time)?,
        };
        Some(MutexGuard {
            mutex: self,
            guard: Some(guard),
        })
    }

    fn try_lock_simulated(
        &self,
        actor: &Actor,
        time: Duration,
    ) -> Option<parking_lot::MutexGuard<'_, T>> {
        let until = actor.boot_time() + time;
        loop {
            let guard = self.0.try_lock();
            if guard.is_some() || actor.boot_time() >= until {
                return guard;
            }
            actor.sleep(LOCK_LOOK);
        }
    }

    fn lock_inner(&self) -> parking_lot::MutexGuard<'_, T> {
        let Some(actor) = current() else {
            return self.0.lock();
        };
        loop {
            if let Some(guard) = self.0.try_lock() {
                return guard;
            }
            actor.wait(Wait::Lock(self.address()));
        }
    }

    fn address(&self) -> usize {
        (&raw const self.0).addr()
    }
}

impl<'a, T> MutexGuard<'a, T> {
    /// See [`parking_lot::MutexGuard`].
    pub fn unlocked<U>(this: &mut MutexGuard<'a, T>, work: impl FnOnce() -> U) -> U {
        this.release();
        let result = work();
        this.guard = Some(this.mutex.lock_inner());
        result
    }

    fn release(&mut self) {
        self.guard = None;
        if let Some(actor) = current() {
            actor.unlocked(self.mutex.address());
        }
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        // Behind a killed thread's wait it is not held.
        self.release();
    }
}

const HELD: &str = "a guard is held but for the moment in which it is unlocked";

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.guard.as_ref().expect(HELD)
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.guard.as_mut().expect(HELD)
    }
}

/// As parking_lot's.
#[derive(Debug, Default)]
pub struct Condvar(parking_lot::Condvar);

/// As parking_lot's.
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    /// Whether the time was up.
    pub fn timed_out(&self) -> bool {
        self.0
    }
}

impl Condvar {
    /// See [`parking_lot::Condvar`].
    pub const fn new() -> Condvar {
        Condvar(parking_lot::Condvar::new())
    }

    /// See [`parking_lot::Condvar`].
    pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        match current() {
            Some(actor) => drop(self.wait_simulated(&actor, guard, None)),
            None => self.0.wait(guard.guard.as_mut().expect(HELD)),
        }
    }

    /// See [`parking_lot::Condvar`].
    pub fn wait_until<T>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        until: Instant,
    ) -> WaitTimeoutResult {
        match current() {
            Some(actor) => self.wait_simulated(&actor, guard, Some(until.0)),
            None => {
                let time = until.0.saturating_sub(BEGIN.elapsed());
                let inner = guard.guard.as_mut().expect(HELD);
                WaitTimeoutResult(self.0.wait_for(inner, time).timed_out())
            }
        }
    }

    /// See [`parking_lot::Condvar`].
    pub fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, time: Duration) -> WaitTimeoutResult {
        self.wait_until(guard, Instant::now() + time)
    }

    fn wait_simulated<T>(
        &self,
        actor: &Actor,
        guard: &mut MutexGuard<'_, T>,
        until: Option<Duration>,
    ) -> WaitTimeoutResult {
        // Nobody else runs between the two.
        guard.release();
        let timed_out = actor.wait(Wait::Notice(self.address(), until));
        guard.guard = Some(guard.mutex.lock_inner());
        WaitTimeoutResult(timed_out)
    }

    /// See [`parking_lot::Condvar`].
    pub fn notify_all(&self) {
        self.0.notify_all();
        if let Some(actor) = current() {
            actor.notified(self.address());
        }
    }

    fn address(&self) -> usize {
        (&raw const self.0).addr()
    }
}
