//! Workers that announce themselves: every gateway over the same catalog finds them there, with the secret
//! by which it is believed.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use layerd::catalog::service::Worker;
use layerd::store::Store;

/// How often a worker is announced; a gateway believes it for three times as long.
const EVERY: Duration = Duration::from_secs(3);

/// A worker that is announced for as long as [`Announcement::go_on`] is waited for.
pub struct Announcement {
    store: Arc<Store>,
    worker: Worker,
}

impl Announcement {
    /// Of this worker, in the store's catalog. Nothing is said yet.
    #[must_use]
    pub fn new(store: Arc<Store>, worker: Worker) -> Announcement {
        Announcement { store, worker }
    }

    /// Announces it again and again.
    pub async fn go_on(&self) -> Infallible {
        loop {
            let (store, worker) = (Arc::clone(&self.store), self.worker.clone());
            let announced =
                tokio::task::spawn_blocking(move || store.catalog().announce_worker(&worker)).await;
            if let Ok(Err(error)) = announced {
                tracing::warn!(%error, "a worker can't be announced to gateways");
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Takes it back.
    pub async fn end(&self) {
        let (store, id) = (Arc::clone(&self.store), self.worker.id);
        let ended = tokio::task::spawn_blocking(move || store.catalog().remove_worker(id)).await;
        if let Ok(Err(error)) = ended {
            tracing::debug!(%error, "a worker's row stays until it is old");
        }
    }
}
