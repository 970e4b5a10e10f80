//! Awake: while commits follow each other closely, a virtual machine's idle processors stay awake.
//!
//! A commit is three requests of the kernel's, and each wakes a thread on another processor and
//! then its caller again. Where an idle virtual processor is halted, each waking goes through the
//! hypervisor and costs several times what the request's work does. PM QoS is the kernel's way to
//! ask for less: as long as `/dev/cpu_dma_latency` is held open with a zero written to it, idle
//! processors poll instead of halting.
//!
//! It is held for the length of a burst of commits and no longer, only under the `haltpoll` driver
//! (real processors wake fast by themselves, and would burn power), and only where the file may be
//! opened, which root may. Anywhere else nothing is done.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const REQUEST: &str = "/dev/cpu_dma_latency";
const DRIVER: &str = "/sys/devices/system/cpu/cpuidle/current_driver";

/// Commits further apart than this are no burst: then waking is a small part of the time.
const GAP_MAX: Duration = Duration::from_millis(5);
/// So many commits in a row make a burst. One transaction, or a checkpoint, is none.
const BURST_COMMITS: u32 = 8;

/// Keeps processors awake through bursts of commits.
pub(crate) struct Awake(Option<Arc<Burst>>);

struct Burst {
    request: PathBuf,
    begin: Instant,
    /// When the last commit was asked for: nanoseconds since `begin`.
    last_ns: AtomicU64,
    commits: AtomicU32,
    held: AtomicBool,
}

impl Awake {
    pub(crate) fn new() -> Awake {
        let halts = fs::read_to_string(DRIVER).is_ok_and(|driver| driver.trim() == "haltpoll");
        Awake(halts.then(|| Burst::new(Path::new(REQUEST))))
    }

    /// A commit is asked for.
    pub(crate) fn note(&self) {
        if let Some(burst) = &self.0 {
            burst.note();
        }
    }
}

impl Burst {
    fn new(request: &Path) -> Arc<Burst> {
        Arc::new(Burst {
            request: request.to_owned(),
            begin: Instant::now(),
            last_ns: AtomicU64::new(0),
            commits: AtomicU32::new(0),
            held: AtomicBool::new(false),
        })
    }

    fn now_ns(&self) -> u64 {
        // 584 years of nanoseconds fit.
        self.begin.elapsed().as_nanos() as u64
    }

    fn note(self: &Arc<Burst>) {
        let now = self.now_ns();
        let last = self.last_ns.swap(now, Ordering::Relaxed);
        if now.saturating_sub(last) > GAP_MAX.as_nanos() as u64 {
            self.commits.store(1, Ordering::Relaxed);
            return;
        }
        let commits = self.commits.fetch_add(1, Ordering::Relaxed) + 1;
        if commits >= BURST_COMMITS && !self.held.swap(true, Ordering::Relaxed) {
            let burst = Arc::clone(self);
            let thread = thread::Builder::new().name("awake".into());
            if thread.spawn(move || burst.hold()).is_err() {
                self.held.store(false, Ordering::Relaxed);
            }
        }
    }

    /// Holds the request until the burst is over. Where that is not allowed, `held` stays set and
    /// it is not tried again.
    fn hold(&self) {
        let request = File::options().write(true).open(&self.request);
        match request.and_then(|mut file| file.write_all(&[0; 4]).map(|()| file)) {
            Ok(_file) => {
                while self.now_ns() - self.last_ns.load(Ordering::Relaxed)
                    <= GAP_MAX.as_nanos() as u64
                {
                    thread::sleep(GAP_MAX);
                }
                self.held.store(false, Ordering::Relaxed);
            }
            Err(error) => tracing::debug!("{}: {error}", self.request.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn until_held(burst: &Arc<Burst>) {
        for _ in 0..1000 * BURST_COMMITS {
            burst.note();
            if burst.held.load(Ordering::Relaxed) {
                return;
            }
        }
        panic!("a burst is not seen");
    }

    #[test]
    fn only_a_burst_keeps_processors_awake_and_only_while_it_lasts() {
        let home = tempfile::tempdir().unwrap();
        let request = home.path().join("request");
        fs::write(&request, "").unwrap();
        let burst = Burst::new(&request);
        for _ in 0..3 {
            burst.note();
            thread::sleep(2 * GAP_MAX);
        }
        assert_eq!(fs::read(&request).unwrap(), b"");
        until_held(&burst);
        let begin = Instant::now();
        while burst.held.load(Ordering::Relaxed) && begin.elapsed() < Duration::from_secs(10) {
            thread::sleep(GAP_MAX);
        }
        assert!(!burst.held.load(Ordering::Relaxed));
        assert_eq!(fs::read(&request).unwrap(), [0; 4]);
    }

    #[test]
    fn what_is_not_allowed_is_tried_once() {
        let home = tempfile::tempdir().unwrap();
        let burst = Burst::new(&home.path().join("missing"));
        until_held(&burst);
        thread::sleep(4 * GAP_MAX);
        assert!(burst.held.load(Ordering::Relaxed));
    }
}
