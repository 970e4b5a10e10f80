//! What goes wrong, and how often: drawn from the seed, turned off at the end.

use std::sync::Arc;
use std::time::Duration;

use layerd::id::Timestamp;
use layerd::machine::world::World;
use parking_lot::Mutex;

/// Faults of store and catalog. Clones are the same ones.
#[derive(Clone)]
pub struct Faults(Arc<Mutex<State>>);

#[derive(Clone, Copy, Default)]
struct State {
    /// One call in so many fails; 0: none.
    store: u64,
    catalog: u64,
    store_away: Timestamp,
    catalog_away: Timestamp,
    /// When all of it ended; what was begun before may still fail.
    ended: Option<Timestamp>,
    /// How long each call takes then.
    slow: Duration,
    /// The answer to the next such call to the catalog is lost.
    lost: Option<&'static str>,
}

/// No call takes longer, in seconds.
const CALL_MAX: i64 = 1000;

/// How a call goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// It is not done, and says so.
    Refused,
    /// It is done, and says that it is not.
    Unsaid,
    /// It says that it is done, and is not, or wrongly.
    Wrong,
}

impl Faults {
    pub fn new(world: &World) -> Faults {
        let rate = |world: &World| [0, 200, 60, 20, 8][world.below(5) as usize];
        Faults(Arc::new(Mutex::new(State {
            store: rate(world),
            catalog: rate(world),
            ..State::default()
        })))
    }

    /// From here on nothing goes wrong.
    pub fn end(&self, now: Timestamp) {
        *self.0.lock() = State {
            ended: Some(now),
            ..State::default()
        };
    }

    /// Nothing goes wrong meanwhile.
    pub fn pause(&self, work: impl FnOnce()) {
        let state = std::mem::take(&mut *self.0.lock());
        work();
        *self.0.lock() = state;
    }

    /// Whether nothing goes wrong any more, and nothing that is under way began before.
    pub fn have_ended(&self, now: Timestamp) -> bool {
        let ended = self.0.lock().ended;
        ended.is_some_and(|at| now > at.plus_seconds(CALL_MAX))
    }

    pub fn store_away(&self, until: Timestamp) {
        self.0.lock().store_away = until;
    }

    pub fn catalog_away(&self, until: Timestamp) {
        self.0.lock().catalog_away = until;
    }

    /// From here on each call takes so long.
    pub fn slow(&self, time: Duration) {
        self.0.lock().slow = time;
    }

    /// The answer to the next call that is shown so is lost.
    pub fn lose_answer_to(&self, what: &'static str) {
        self.0.lock().lost = Some(what);
    }

    /// The way to the store, and what happens there.
    pub fn on_store(&self, world: &World) -> Fault {
        let state = *self.0.lock();
        if world.now() < state.store_away {
            world.rest(Duration::from_secs(2 + world.below(60)));
            return Fault::Refused;
        }
        latency(world, &state);
        pick(world, state.store)
    }

    /// The way to the catalog, and what happens there.
    pub fn on_catalog(&self, world: &World, what: &str) -> Fault {
        let state = *self.0.lock();
        if state.lost.is_some_and(|lost| what.starts_with(lost)) {
            self.0.lock().lost = None;
            return Fault::Unsaid;
        }
        if world.now() < state.catalog_away {
            world.rest(Duration::from_secs(1 + world.below(4)));
            return Fault::Refused;
        }
        latency(world, &state);
        match pick(world, state.catalog) {
            // A catalog does not lie.
            Fault::Wrong => Fault::Unsaid,
            fault => fault,
        }
    }
}

fn pick(world: &World, rate: u64) -> Fault {
    if rate == 0 || !world.one_in(rate) {
        return Fault::None;
    }
    [Fault::Refused, Fault::Unsaid, Fault::Wrong][world.below(3) as usize]
}

/// Mostly short, now and then long.
fn latency(world: &World, state: &State) {
    if state.ended.is_some() {
        return world.rest(state.slow);
    }
    let ms = match world.below(200) {
        0 => world.below(20_000),
        1..10 => world.below(1000),
        10..120 => world.below(20),
        _ => return,
    };
    world.rest(Duration::from_millis(ms));
}
