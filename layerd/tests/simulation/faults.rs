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
}

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
    pub fn end(&self) {
        *self.0.lock() = State::default();
    }

    /// Nothing goes wrong meanwhile.
    pub fn pause(&self, work: impl FnOnce()) {
        let state = std::mem::take(&mut *self.0.lock());
        work();
        *self.0.lock() = state;
    }

    /// Whether nothing goes wrong any more.
    pub fn have_ended(&self) -> bool {
        let state = self.0.lock();
        state.store == 0 && state.catalog == 0 && state.store_away == Timestamp(0)
    }

    pub fn store_away(&self, until: Timestamp) {
        self.0.lock().store_away = until;
    }

    pub fn catalog_away(&self, until: Timestamp) {
        self.0.lock().catalog_away = until;
    }

    /// The way to the store, and what happens there.
    pub fn on_store(&self, world: &World) -> Fault {
        let state = *self.0.lock();
        if world.now() < state.store_away {
            world.rest(Duration::from_secs(2 + world.below(60)));
            return Fault::Refused;
        }
        latency(world);
        pick(world, state.store)
    }

    /// The way to the catalog, and what happens there.
    pub fn on_catalog(&self, world: &World) -> Fault {
        let state = *self.0.lock();
        if world.now() < state.catalog_away {
            world.rest(Duration::from_secs(1 + world.below(4)));
            return Fault::Refused;
        }
        latency(world);
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
fn latency(world: &World) {
    let ms = match world.below(200) {
        0 => world.below(20_000),
        1..10 => world.below(1000),
        10..120 => world.below(20),
        _ => return,
    };
    world.rest(Duration::from_millis(ms));
}
