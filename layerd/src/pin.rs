//! Pins: a reader's claim on the layers it reads from, renewed while anybody holds it.
//!
//! A pin lives ten minutes in the catalog and is renewed each minute. A reader that could not
//! renew for so long that garbage collection may have taken its layers answers ESTALE: it judges
//! by its own CLOCK_BOOTTIME, counted from before the last renewal was sent.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::catalog::{Catalog, Holder};
use crate::id::LayerId;
use crate::machine::{self, Condvar, Mutex, MutexGuard, boot_time_ms};

/// How long a pin lives unless renewed.
pub const PIN_TTL: Duration = Duration::from_secs(600);
/// How often it is renewed.
pub const PIN_RENEWAL: Duration = Duration::from_secs(60);

/// A claim on layers; ends when the last reference is dropped.
pub struct Pin {
    catalog: Arc<dyn Catalog>,
    id: u64,
    holder: Holder,
    deadline_ms: AtomicU64,
    lost: AtomicBool,
}

impl Pin {
    /// Its name in the catalog.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Whether the layers may be gone.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
            || boot_time_ms() >= self.deadline_ms.load(Ordering::Relaxed)
    }

    /// Replaces the set of layers, and renews.
    pub fn set(&self, layers: &[LayerId]) -> Result<(), crate::catalog::CatalogError> {
        let begin = boot_time_ms();
        self.catalog
            .set_pin(self.id, &self.holder, layers, PIN_TTL)?;
        self.deadline_ms
            .store(begin + PIN_TTL.as_millis() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn renew(&self) {
        let begin = boot_time_ms();
        match self.catalog.renew_pin(self.id, PIN_TTL) {
            Ok(true) => self
                .deadline_ms
                .store(begin + PIN_TTL.as_millis() as u64, Ordering::Relaxed),
            Ok(false) => {
                tracing::error!(
                    pin = self.id,
                    "the pin is gone from the catalog; its readers get ESTALE"
                );
                self.lost.store(true, Ordering::Relaxed);
            }
            Err(error) => tracing::warn!(%error, "a pin could not be renewed; trying again"),
        }
    }
}

impl Pin {
    /// Ends the claim; whoever still reads through it gets ESTALE.
    pub fn end(&self) {
        if self.lost.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Err(error) = self.catalog.unpin(self.id) {
            tracing::warn!(%error, "a pin could not be ended; it expires by itself");
        }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.end();
    }
}

/// Renews all pins of this process, in one thread.
pub struct PinKeeper {
    catalog: Arc<dyn Catalog>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    pins: Vec<Weak<Pin>>,
    running: bool,
    ended: bool,
}

impl PinKeeper {
    /// A keeper without pins; its thread begins with the first.
    #[must_use]
    pub fn new(catalog: Arc<dyn Catalog>) -> PinKeeper {
        PinKeeper {
            catalog,
            shared: Arc::default(),
        }
    }

    /// Keeps a pin that was just written to the catalog under `id`; `begin_ms` is
    /// [`boot_time_ms`] from before that.
    #[must_use]
    pub fn keep(&self, id: u64, holder: &Holder, begin_ms: u64) -> Arc<Pin> {
        let pin = Arc::new(Pin {
            catalog: Arc::clone(&self.catalog),
            id,
            holder: holder.clone(),
            deadline_ms: AtomicU64::new(begin_ms + PIN_TTL.as_millis() as u64),
            lost: AtomicBool::new(false),
        });
        let mut state = self.shared.state.lock();
        state.pins.push(Arc::downgrade(&pin));
        if !state.running {
            let shared = Arc::clone(&self.shared);
            // Without the thread the pin ends after ten minutes and its readers get ESTALE.
            state.running = machine::spawn("pins", move || shared.run()).is_ok();
        }
        pin
    }
}

impl PinKeeper {
    /// Ends all pins: whoever still reads through one gets ESTALE.
    pub fn end_all(&self) {
        let pins = std::mem::take(&mut self.shared.state.lock().pins);
        pins.iter()
            .filter_map(Weak::upgrade)
            .for_each(|pin| pin.end());
    }
}

impl Shared {
    fn run(&self) {
        let mut state = self.state.lock();
        while !state.ended {
            if !self.wake.wait_for(&mut state, PIN_RENEWAL).timed_out() {
                continue;
            }
            state.pins.retain(|pin| pin.strong_count() > 0);
            let pins: Vec<Arc<Pin>> = state.pins.iter().filter_map(Weak::upgrade).collect();
            MutexGuard::unlocked(&mut state, || pins.iter().for_each(|pin| pin.renew()));
        }
    }
}

impl Drop for PinKeeper {
    fn drop(&mut self) {
        self.shared.state.lock().ended = true;
        self.shared.wake.notify_all();
    }
}
