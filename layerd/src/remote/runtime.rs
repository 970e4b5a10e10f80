//! The one tokio runtime of the process: everything that waits for a network waits on it.
//!
//! It begins with its first use, so that a process that forks before has no threads to lose. The
//! engine itself is blocking: its threads hand a future over and wait.

use std::future::Future;
use std::io;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};

/// Threads that drive the network. Decoding and disk are left to the runtime's blocking threads.
const WORKERS: usize = 2;
/// Blocking threads: as many as there are fetches under way, and some for local stores.
const BLOCKING_MAX: usize = 24;
/// The longest that a call to the store may take, its retries included: the store gives up
/// retrying after 60 s, and the last attempt ends after 30 s.
pub const CALL_MAX: Duration = Duration::from_secs(95);

/// The runtime; an error if its threads can't be started.
pub fn runtime() -> io::Result<&'static Handle> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime.handle());
    }
    let runtime = Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING_MAX)
        .thread_name("remote")
        .enable_all()
        .build()?;
    // Another thread may have been faster; its runtime is the one then, and this one ends.
    if let Err(spare) = RUNTIME.set(runtime) {
        spare.shutdown_background();
    }
    match RUNTIME.get() {
        Some(runtime) => Ok(runtime.handle()),
        None => Err(io::Error::other("no runtime")),
    }
}

/// Waits for a future.
pub fn block_on<F: Future>(future: F) -> io::Result<F::Output> {
    #[cfg(feature = "simulation")]
    if crate::machine::is_simulated() {
        return Ok(crate::machine::tasks::block_on(future));
    }
    Ok(runtime()?.block_on(future))
}

/// Lets a task run beside the caller.
pub fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) {
    #[cfg(feature = "simulation")]
    if crate::machine::is_simulated() {
        return crate::machine::tasks::spawn(async move { drop(task.await) });
    }
    // Without threads nothing waits for it either.
    if let Ok(runtime) = runtime() {
        drop(runtime.spawn(task));
    }
}

/// Does work that blocks, or takes long, without keeping tasks waiting; `None` if it panicked.
pub async fn unblock<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    #[cfg(feature = "simulation")]
    if crate::machine::is_simulated() {
        return Some(work());
    }
    runtime().ok()?.spawn_blocking(work).await.ok()
}

/// Waits for a call to the store, at most [`CALL_MAX`].
pub async fn bounded<T>(
    call: impl Future<Output = Result<T, object_store::Error>>,
) -> Result<T, object_store::Error> {
    bounded_by(CALL_MAX, call).await
}

/// Waits for a call to the store, at most for `time`.
pub async fn bounded_by<T>(
    time: Duration,
    call: impl Future<Output = Result<T, object_store::Error>>,
) -> Result<T, object_store::Error> {
    #[cfg(feature = "simulation")]
    if crate::machine::is_simulated() {
        // A simulated store bounds its answers by itself: there is no timer in virtual time.
        return call.await;
    }
    match tokio::time::timeout(time, call).await {
        Ok(result) => result,
        Err(_) => Err(object_store::Error::Generic {
            store: "remote",
            source: format!("no answer within {:.0} s", time.as_secs_f64()).into(),
        }),
    }
}
