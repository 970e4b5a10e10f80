//! One thread at a time: who goes next is drawn from the seed, and time passes only when all wait.
//!
//! Each simulated thread is a thread of the operating system that runs only while it has the turn.
//! It gives the turn away where it waits: for time, for a lock, for a notice, for a thread's end.
//! Between two such places nothing else happens, so a run is a function of its seed alone.
//!
//! A process is killed by unwinding each of its threads where it stands. What runs meanwhile (values
//! that are dropped) still waits for locks and threads of its own process, and for nothing else;
//! what a dead process must not do any more, its disk, store and catalog refuse
//! ([`World::is_dying`](super::world::World::is_dying)).

use std::cell::RefCell;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::id::Timestamp;

thread_local! {
    static CURRENT: RefCell<Option<Actor>> = const { RefCell::new(None) };
}

/// The simulated thread that runs this code, if one does.
pub fn current() -> Option<Actor> {
    CURRENT.with(|current| current.borrow().clone())
}

/// The wall clock at the beginning of each run: 2030-01-01.
const BEGIN: i64 = 1_893_456_000_000_000_000;
/// The machine was booted so long before.
const UPTIME: Duration = Duration::from_secs(1000);
/// More turns than this are an endless loop.
const TURNS_MAX: u64 = 2_000_000;
/// A thread that still has its turn after so many looks, in real time, waits for something that the
/// scheduler does not know of. A machine that stood still itself spoils one of them only.
const LOOKS: u32 = 24;
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What a thread waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Its turn.
    Turn,
    /// A time on its host's clock.
    Time(Duration),
    /// A lock, by its address.
    Lock(usize),
    /// A notice on a condition, by its address; at most until a time.
    Notice(usize, Option<Duration>),
    /// The end of a thread.
    Join(usize),
    /// The end of all threads of a process.
    Gone(usize),
}

/// Ends a thread of a killed process.
struct Killed;

pub(super) struct Shared {
    state: Mutex<State>,
    ended: Condvar,
}

struct Thread {
    process: usize,
    name: Arc<str>,
    wait: Wait,
    turn: Arc<Condvar>,
    done: bool,
    unwinding: bool,
}

struct Process {
    host: usize,
    alive: bool,
    /// Stopped until then, as by SIGSTOP.
    stopped_until: Duration,
}

struct Host {
    /// By how much its clock stood still so far.
    lost: Duration,
    /// All of it stands still until then, its clock too.
    frozen: Option<(Duration, Duration)>,
    /// What its wall clock is wrong by, in nanoseconds.
    skew: i64,
}

pub(super) struct State {
    random: u64,
    now: Duration,
    turns: u64,
    hosts: Vec<Host>,
    processes: Vec<Process>,
    threads: Vec<Thread>,
    running: Option<usize>,
    trace: String,
    hash: blake3::Hasher,
    failure: Option<String>,
}

/// How a run ended.
pub struct Outcome {
    /// What went wrong, if anything did.
    pub failure: Option<String>,
    /// What happened, line by line.
    pub trace: String,
    /// A hash of that.
    pub hash: [u8; 32],
    /// How often the turn was given to a thread.
    pub turns: u64,
    /// How much time passed in it.
    pub time: Duration,
}

impl Shared {
    pub(super) fn new(seed: u64) -> Shared {
        Shared {
            state: Mutex::new(State {
                random: seed,
                now: UPTIME,
                turns: 0,
                hosts: Vec::new(),
                processes: Vec::new(),
                threads: Vec::new(),
                running: None,
                trace: String::new(),
                hash: blake3::Hasher::new(),
                failure: None,
            }),
            ended: Condvar::new(),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Gives the first turn away, and waits until no thread is left.
    pub(super) fn run(&self) -> Outcome {
        let mut state = self.state.lock();
        state.give();
        let (mut turns, mut looks) = (u64::MAX, 0);
        while let Some(running) = state.running {
            self.ended.wait_for(&mut state, LOOK_EVERY);
            looks = if turns == state.turns { looks + 1 } else { 0 };
            turns = state.turns;
            if looks == LOOKS {
                // Its threads stay where they are.
                let thread = Arc::clone(&state.threads[running].name);
                state.fail(format!("thread {thread} never gave its turn away"));
                break;
            }
        }
        Outcome {
            failure: state.failure.take(),
            trace: std::mem::take(&mut state.trace),
            hash: *state.hash.finalize().as_bytes(),
            turns: state.turns,
            time: state.now - UPTIME,
        }
    }
}

impl State {
    /// SplitMix64.
    pub(super) fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn add_host(&mut self, skew: i64) -> usize {
        self.hosts.push(Host {
            lost: Duration::ZERO,
            frozen: None,
            skew,
        });
        self.hosts.len() - 1
    }

    pub(super) fn add_process(&mut self, host: usize) -> usize {
        self.processes.push(Process {
            host,
            alive: true,
            stopped_until: Duration::ZERO,
        });
        self.processes.len() - 1
    }

    pub(super) fn kill(&mut self, process: usize) {
        self.processes[process].alive = false;
    }

    pub(super) fn is_alive(&self, process: usize) -> bool {
        self.processes[process].alive
            && self
                .threads
                .iter()
                .any(|thread| thread.process == process && !thread.done)
    }

    pub(super) fn stop(&mut self, process: usize, time: Duration) {
        self.processes[process].stopped_until = self.now + time;
    }

    pub(super) fn freeze(&mut self, host: usize, time: Duration) {
        if self.hosts[host].frozen.is_none() {
            self.hosts[host].frozen = Some((self.now, self.now + time));
        }
    }

    pub(super) fn note(&mut self, who: &str, what: std::fmt::Arguments<'_>) {
        let begin = self.trace.len();
        let at = self.now - UPTIME;
        // Writing to a string does not fail.
        let _ = writeln!(self.trace, "{:>10.3} {who:<12} {what}", at.as_secs_f64());
        self.hash.update(&self.trace.as_bytes()[begin..]);
    }

    pub(super) fn fail(&mut self, what: String) {
        self.note("", format_args!("FAILED"));
        self.failure.get_or_insert(what);
        for process in &mut self.processes {
            process.alive = false;
        }
    }

    fn host_time(&self, host: usize) -> Duration {
        let host = &self.hosts[host];
        let still = match host.frozen {
            Some((since, until)) => until.min(self.now) - since,
            None => Duration::ZERO,
        };
        self.now - host.lost - still
    }

    /// When, on the world's clock, a host's clock will show `time`.
    fn world_time(&self, host: usize, time: Duration) -> Duration {
        let host = &self.hosts[host];
        let frozen = host
            .frozen
            .map_or(Duration::ZERO, |(since, until)| until - since);
        time + host.lost + frozen
    }

    /// When a thread may have the turn; `None` if something else must come first.
    fn due(&self, thread: &Thread) -> Option<Duration> {
        if thread.done {
            return None;
        }
        let process = &self.processes[thread.process];
        let is_over = |id: usize| self.threads[id].done;
        let ready = match thread.wait {
            Wait::Lock(_) => None,
            Wait::Join(id) => is_over(id).then_some(self.now),
            Wait::Gone(process) => {
                let mut of = self.threads.iter().filter(|it| it.process == process);
                of.all(|it| it.done).then_some(self.now)
            }
            Wait::Turn | Wait::Time(_) | Wait::Notice(..) if !process.alive => Some(self.now),
            Wait::Turn => Some(self.now),
            Wait::Time(time) | Wait::Notice(_, Some(time)) => {
                Some(self.world_time(process.host, time))
            }
            Wait::Notice(_, None) => None,
        };
        if !process.alive {
            // It is unwound where it stands, once; then it waits like others.
            return ready.or((!thread.unwinding).then_some(self.now));
        }
        let frozen = self.hosts[process.host]
            .frozen
            .map_or(Duration::ZERO, |(_, until)| until);
        ready.map(|at| at.max(process.stopped_until).max(frozen))
    }

    /// Who is next; time passes if nobody can go on before.
    fn choose(&mut self) -> Option<usize> {
        self.turns += 1;
        if self.turns == TURNS_MAX {
            self.fail("it never ends".to_owned());
        }
        loop {
            let now = self.now;
            let dues: Vec<(usize, Duration)> = (0..self.threads.len())
                .filter_map(|id| Some((id, self.due(&self.threads[id])?)))
                .collect();
            let ready: Vec<usize> = dues
                .iter()
                .filter(|(_, at)| *at <= now)
                .map(|(id, _)| *id)
                .collect();
            if !ready.is_empty() {
                let n = self.random() % ready.len() as u64;
                return Some(ready[n as usize]);
            }
            let Some(next) = dues.iter().map(|(_, at)| *at).min() else {
                if self.threads.iter().all(|thread| thread.done) {
                    return None;
                }
                let waiting: Vec<String> = self
                    .threads
                    .iter()
                    .filter(|thread| !thread.done)
                    .map(|thread| format!("{} for {:?}", thread.name, thread.wait))
                    .collect();
                assert!(self.failure.is_none(), "nobody can go on: {waiting:?}");
                self.fail(format!("nobody can go on: {waiting:?}"));
                continue;
            };
            self.now = next;
            for host in &mut self.hosts {
                if let Some((since, until)) = host.frozen
                    && until <= next
                {
                    host.lost += until - since;
                    host.frozen = None;
                }
            }
        }
    }

    /// Gives the turn to somebody.
    fn give(&mut self) {
        self.running = self.choose();
        if let Some(next) = self.running {
            self.threads[next].turn.notify_one();
        }
    }
}

/// A simulated thread, from within.
#[derive(Clone)]
pub struct Actor {
    shared: Arc<Shared>,
    id: usize,
}

impl Actor {
    fn process(&self, state: &State) -> usize {
        state.threads[self.id].process
    }

    /// The time since its host was booted.
    pub fn boot_time(&self) -> Duration {
        let state = self.shared.state.lock();
        state.host_time(state.processes[self.process(&state)].host)
    }

    /// Its host's wall clock.
    pub fn wall_clock(&self) -> Timestamp {
        let state = self.shared.state.lock();
        let host = &state.hosts[state.processes[self.process(&state)].host];
        Timestamp(BEGIN + (state.now - UPTIME).as_nanos() as i64 + host.skew)
    }

    /// The wall clock that is right.
    pub fn world_clock(&self) -> Timestamp {
        let state = self.shared.state.lock();
        Timestamp(BEGIN + (state.now - UPTIME).as_nanos() as i64)
    }

    pub fn random(&self) -> u64 {
        self.shared.state.lock().random()
    }

    pub fn note(&self, what: std::fmt::Arguments<'_>) {
        let mut state = self.shared.state.lock();
        let name = Arc::clone(&state.threads[self.id].name);
        state.note(&name, what);
    }

    /// Whether its process was killed.
    pub fn is_dying(&self) -> bool {
        let state = self.shared.state.lock();
        !state.processes[self.process(&state)].alive
    }

    pub fn sleep(&self, time: Duration) {
        if !std::thread::panicking() {
            let until = self.boot_time() + time;
            self.wait(Wait::Time(until));
        }
    }

    /// Gives the turn away, and has it again when what it waits for is there. Whether the time was
    /// up, where there is one.
    pub fn wait(&self, wait: Wait) -> bool {
        let mut state = self.shared.state.lock();
        state.threads[self.id].wait = wait;
        state.give();
        let turn = Arc::clone(&state.threads[self.id].turn);
        while state.running != Some(self.id) {
            turn.wait(&mut state);
        }
        let me = &mut state.threads[self.id];
        // A notice would have made it wait for its turn only.
        let timed_out = matches!(me.wait, Wait::Notice(..));
        me.wait = Wait::Turn;
        let process = me.process;
        if !state.processes[process].alive && !std::thread::panicking() {
            state.threads[self.id].unwinding = true;
            drop(state);
            resume_unwind(Box::new(Killed));
        }
        timed_out
    }

    /// A lock was let go.
    pub fn unlocked(&self, address: usize) {
        self.ready(|wait| wait == Wait::Lock(address));
    }

    /// A condition was notified.
    pub fn notified(&self, address: usize) {
        self.ready(|wait| matches!(wait, Wait::Notice(at, _) if at == address));
    }

    fn ready(&self, is_over: impl Fn(Wait) -> bool) {
        let mut state = self.shared.state.lock();
        for thread in &mut state.threads {
            if !thread.done && is_over(thread.wait) {
                thread.wait = Wait::Turn;
            }
        }
    }

    /// Starts a thread of the same process.
    pub fn spawn(&self, name: &str, run: impl FnOnce() + Send + 'static) -> usize {
        let (process, name) = {
            let state = self.shared.state.lock();
            let me = &state.threads[self.id];
            let begin = me.name.split('/').next().unwrap_or_default();
            (me.process, format!("{begin}/{name}"))
        };
        spawn(&self.shared, process, &name, run)
    }
}

/// Starts a thread of a process.
pub(super) fn spawn(
    shared: &Arc<Shared>,
    process: usize,
    name: &str,
    run: impl FnOnce() + Send + 'static,
) -> usize {
    let mut state = shared.state.lock();
    let id = state.threads.len();
    let turn = Arc::new(Condvar::new());
    state.threads.push(Thread {
        process,
        name: name.into(),
        wait: Wait::Turn,
        turn: Arc::clone(&turn),
        done: false,
        unwinding: false,
    });
    let actor = Actor {
        shared: Arc::clone(shared),
        id,
    };
    drop(state);
    let body = move || {
        CURRENT.set(Some(actor.clone()));
        let shared = Arc::clone(&actor.shared);
        {
            let mut state = shared.state.lock();
            while state.running != Some(id) {
                turn.wait(&mut state);
            }
        }
        let ended = catch_unwind(AssertUnwindSafe(|| {
            if !actor.is_dying() {
                run();
            }
        }));
        CURRENT.set(None);
        let mut state = shared.state.lock();
        if let Err(what) = ended
            && !what.is::<Killed>()
        {
            let text = what
                .downcast_ref::<String>()
                .map(String::as_str)
                .or(what.downcast_ref::<&str>().copied());
            let name = Arc::clone(&state.threads[id].name);
            let text = format!("{name}: {}", text.unwrap_or("it panicked"));
            state.fail(text);
        }
        state.threads[id].done = true;
        state.give();
        if state.running.is_none() {
            shared.ended.notify_all();
        }
    };
    let thread = std::thread::Builder::new().name(name.to_owned());
    if let Err(error) = thread.spawn(body) {
        panic!("no thread for a simulation: {error}");
    }
    id
}
