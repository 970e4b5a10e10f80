//! How a caller says that it does not want to wait any more.

use std::ffi::c_void;
use std::future::Future;
use std::time::Duration;

use crate::failure::Failure;
use crate::runtime;

/// How often a caller that waits is asked.
pub const ASKED_EVERY: Duration = Duration::from_millis(20);

/// A caller's word, asked while it waits.
#[derive(Clone, Copy, Debug)]
pub struct Interrupt {
    asked: Option<extern "C" fn(*const c_void) -> bool>,
    with: *const c_void,
}

impl Interrupt {
    /// A caller that waits as long as it takes.
    pub const NEVER: Self = Self {
        asked: None,
        with: std::ptr::null(),
    };

    /// A caller that is asked by a function.
    pub fn new(asked: Option<extern "C" fn(*const c_void) -> bool>, with: *const c_void) -> Self {
        Self { asked, with }
    }

    /// Whether to stop.
    pub fn is_raised(&self) -> bool {
        self.asked.is_some_and(|asked| asked(self.with))
    }

    /// Waits for a future, in the runtime's hands, until it is done or the caller has enough of it.
    ///
    /// # Errors
    /// The future's own; an `Interrupt` one when the caller said so.
    pub fn wait<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let (_, runtime) = runtime::runtime()?;
        runtime.block_on(async {
            tokio::pin!(work);
            loop {
                match tokio::time::timeout(ASKED_EVERY, &mut work).await {
                    Ok(done) => return done,
                    Err(_) if self.is_raised() => return Err(Failure::interrupted()),
                    Err(_) => {}
                }
            }
        })
    }
}
