//! Passthrough: reads and writes that the kernel takes straight to a file of ours.
//!
//! It needs the kernel's FUSE_PASSTHROUGH (6.9 and later) and CAP_SYS_ADMIN. Where the kernel says
//! no once, it is not asked again, and everything goes through this process instead.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fuser::BackingId;

/// Whether passthrough works on this mount.
#[derive(Debug, Default)]
pub(crate) struct Passthrough {
    is_usable: AtomicBool,
}

impl Passthrough {
    /// The kernel offered it, and was told that we want it.
    pub(crate) fn allow(&self) {
        self.is_usable.store(true, Ordering::Relaxed);
    }

    /// Registers a file by `register`; `None` where that is not possible.
    pub(crate) fn back(
        &self,
        register: impl FnOnce() -> io::Result<BackingId>,
    ) -> Option<Arc<BackingId>> {
        if !self.is_usable.load(Ordering::Relaxed) {
            return None;
        }
        match register() {
            Ok(backing) => Some(Arc::new(backing)),
            Err(error) => {
                tracing::info!("no passthrough ({error}): files are read through this process");
                self.is_usable.store(false, Ordering::Relaxed);
                None
            }
        }
    }
}
