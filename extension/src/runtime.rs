//! The runtime under all connections: made at the first use, one for each process.
//!
//! A fork takes no threads along, so a child that finds its parent's runtime leaves it alone and makes
//! its own. Runtimes are never dropped: whoever ends the process ends their threads, without waiting.

use std::sync::OnceLock;

use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle, Runtime};

use crate::failure::Failure;

/// Enough to keep several streams busy: decoding is done by the callers.
const THREADS: usize = 2;

type Made = Mutex<Option<(u32, &'static Runtime)>>;

fn made() -> &'static Made {
    static MADE: OnceLock<Made> = OnceLock::new();
    MADE.get_or_init(Made::default)
}

/// This process's runtime, and its process id.
///
/// # Errors
/// The system gives no threads.
pub fn runtime() -> Result<(u32, &'static Handle), Failure> {
    let process = std::process::id();
    // The parent's lock may have been held by a thread that is not here.
    let mut made = match made().try_lock_for(std::time::Duration::from_secs(5)) {
        Some(made) => made,
        None => return Err(Failure::io("the client's lock was lost in a fork")),
    };
    if let Some((owner, runtime)) = *made
        && owner == process
    {
        return Ok((process, runtime.handle()));
    }
    let runtime = Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("openduck")
        .enable_all()
        .build()
        .map_err(|error| Failure::io(format!("cannot start the client's threads: {error}")))?;
    let runtime: &'static Runtime = Box::leak(Box::new(runtime));
    *made = Some((process, runtime));
    Ok((process, runtime.handle()))
}
