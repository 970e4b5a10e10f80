//! The state of one mount: what is served, and all that its parts share.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use fuser::{Errno, Notifier};
use layerd::id::{DatabaseName, SnapshotName, Timestamp};
use layerd::reference::Ref;
use layerd::store::{Store, StoreError};
use parking_lot::Mutex;

use crate::attr::Owner;
use crate::background::Background;
use crate::errno::store_errno;
use crate::follow::{Follow, Source};
use crate::handles::Handles;
use crate::image::Image;
use crate::live::Live;
use crate::node::Nodes;
use crate::passthrough::Passthrough;
use crate::scratch::Scratch;
use crate::snapshot_file::Drafts;
use crate::snapshots::Snapshots;

/// What lies at the top of a mount.
pub(crate) enum Main {
    /// The live image, writable.
    Live(Live),
    /// One commit.
    Frozen(Arc<Image>),
    /// The newest commit.
    Follow(Arc<Follow>),
}

/// One mount.
pub(crate) struct State {
    pub(crate) store: Arc<Store>,
    pub(crate) database: DatabaseName,
    pub(crate) reference: Option<Ref>,
    pub(crate) dir: PathBuf,
    pub(crate) main: Main,
    pub(crate) nodes: Nodes,
    pub(crate) handles: Handles,
    pub(crate) scratch: Scratch,
    pub(crate) snapshots: Snapshots,
    pub(crate) drafts: Drafts,
    pub(crate) passthrough: Passthrough,
    pub(crate) background: Background,
    /// Owns what only the mount knows.
    pub(crate) owner: Owner,
    pub(crate) made: Timestamp,
    pub(crate) notifier: OnceLock<Notifier>,
    /// `.snapshots/latest`, once somebody went there.
    pub(crate) latest: Mutex<Option<Arc<Follow>>>,
}

impl State {
    /// The name of the database's file.
    pub(crate) fn file_name(&self) -> String {
        format!("{}.duckdb", self.database)
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.dir.join(self.file_name())
    }

    pub(crate) fn mode(&self) -> &'static str {
        match self.main {
            Main::Live(_) => "rw",
            Main::Frozen(_) | Main::Follow(_) => "ro",
        }
    }

    /// Whether a name is that of the spill directory.
    pub(crate) fn is_spill(&self, name: &[u8]) -> bool {
        name.strip_prefix(self.database.as_str().as_bytes()) == Some(b".duckdb.tmp")
    }

    /// Whether a name is that of a WAL: DuckDB has several.
    pub(crate) fn is_wal(&self, name: &[u8]) -> bool {
        name.strip_prefix(self.database.as_str().as_bytes())
            .is_some_and(|rest| rest.starts_with(b".duckdb.wal"))
    }

    /// Closes what is served: no change is possible any more.
    pub(crate) fn close(&self) -> Result<(), StoreError> {
        match &self.main {
            Main::Live(live) => live.close(),
            Main::Frozen(_) | Main::Follow(_) => Ok(()),
        }
    }

    /// The name of the spill directory.
    pub(crate) fn spill_name(&self) -> String {
        format!("{}.duckdb.tmp", self.database)
    }

    /// `.snapshots/latest`, if somebody went there before.
    pub(crate) fn latest(&self) -> Option<Arc<Follow>> {
        match &self.main {
            Main::Follow(follow) => Some(Arc::clone(follow)),
            Main::Live(_) | Main::Frozen(_) => self.latest.lock().clone(),
        }
    }

    /// `.snapshots/latest`; opens it if need be.
    pub(crate) fn open_latest(&self) -> Result<Arc<Follow>, Errno> {
        if let Some(latest) = self.latest() {
            return Ok(latest);
        }
        let source = match &self.main {
            Main::Live(live) => Source::Writer(Arc::clone(live.writer())),
            Main::Frozen(_) | Main::Follow(_) => {
                let follower = self
                    .store
                    .open_follower(&self.database)
                    .map_err(|error| store_errno(&error))?;
                Source::Follower(Arc::new(follower))
            }
        };
        let follow = Arc::new(Follow::new(source));
        Ok(Arc::clone(self.latest.lock().get_or_insert(follow)))
    }

    /// Takes a snapshot.
    pub(crate) fn snapshot(&self, name: &SnapshotName) -> Result<(), Errno> {
        match self.store.snapshot(&self.database, Some(name)) {
            Ok(snapshot) => {
                tracing::info!(name = name.as_str(), lsn = snapshot.lsn.0, "snapshot");
                Ok(())
            }
            Err(error) => {
                tracing::warn!("no snapshot {name}: {error}");
                Err(store_errno(&error))
            }
        }
    }
}
