//! Status: what a mount says of itself.

use std::path::PathBuf;

use layerd::id::{Epoch, Lsn};
use layerd::reference::Ref;
use serde::Serialize;

use crate::state::{Main, State};

/// The state of a mount, as in `.openduck/status` and in `openduck-fs status`.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// The database.
    pub database: String,
    /// Where it is mounted.
    pub dir: PathBuf,
    /// The file to open.
    pub file: PathBuf,
    /// `rw` or `ro`.
    pub mode: &'static str,
    /// The process that serves the mount.
    pub pid: u32,
    /// The reference that was mounted; `latest` on a follow mount, `null` on a live one.
    #[serde(rename = "ref")]
    pub reference: Option<String>,
    /// The commit that an open sees now.
    pub lsn: Option<Lsn>,
    /// The last acknowledged commit of the database.
    pub head_lsn: Option<Lsn>,
    /// The writer's lease; `null` on a read-only mount.
    pub epoch: Option<Epoch>,
    /// Layers in the image's chain.
    pub layers: Option<usize>,
    /// Bytes that the database's layers take here.
    pub bytes_local: Option<u64>,
    /// Bytes that they take in a remote object store.
    pub bytes_remote: u64,
    /// How far the remote object store is behind: the age of the oldest commit that it does not have.
    pub upload_lag_ms: u64,
    /// Bytes of the log that it does not have.
    pub upload_queue_bytes: u64,
    /// What was fetched from the object store.
    pub cache: CacheStatus,
}

/// Use of the local cache of remote objects.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct CacheStatus {
    /// Reads that found their frame here.
    pub hits: u64,
    /// Reads that did not.
    pub misses: u64,
    /// Bytes that this mount fetched from the store.
    pub bytes: u64,
}

/// The file is padded with blanks to a multiple of this, so that its size, which programs ask for
/// before they open it, is still right afterwards.
const FILE_GRAIN: usize = 1024;

impl Status {
    /// Looks now. What can't be found out is `null`.
    pub(crate) fn of(state: &State) -> Status {
        let known = |error: &dyn std::fmt::Display| tracing::warn!("status: {error}");
        let database = state
            .store
            .database(&state.database)
            .inspect_err(|error| known(error))
            .ok();
        let published = database.as_ref().map(|database| database.head.lsn());
        let (lsn, head_lsn, epoch, layers) = match &state.main {
            Main::Live(live) => {
                let writer = live.writer();
                let head = Some(writer.committed().lsn());
                (head, head, Some(writer.epoch()), Some(writer.layers()))
            }
            Main::Frozen(image) => (Some(image.commit()), published, None, image.layer_count()),
            Main::Follow(follow) => {
                let newest = follow.newest().ok();
                let commit = newest.as_ref().map(|image| image.commit());
                (
                    commit,
                    commit.max(published),
                    None,
                    newest.and_then(|image| image.layer_count()),
                )
            }
        };
        let fetched = state.store.remote_stats();
        let (upload_lag_ms, upload_queue_bytes) = match &state.main {
            Main::Live(live) => {
                let writer = live.writer();
                (
                    writer.upload_lag().as_millis() as u64,
                    writer.waiting_bytes(),
                )
            }
            Main::Frozen(_) | Main::Follow(_) => (0, 0),
        };
        let bytes_remote = database
            .as_ref()
            .and_then(|database| {
                let bytes = state.store.bytes_remote(database);
                bytes.inspect_err(|error| known(error)).ok()
            })
            .unwrap_or(0);
        Status {
            database: state.database.to_string(),
            dir: state.dir.clone(),
            file: state.file(),
            mode: state.mode(),
            pid: std::process::id(),
            reference: state.reference.as_ref().map(Ref::to_string),
            lsn,
            head_lsn,
            epoch,
            layers,
            bytes_local: database.and_then(|database| {
                state
                    .store
                    .bytes(&database)
                    .inspect_err(|error| known(error))
                    .ok()
            }),
            bytes_remote,
            upload_lag_ms,
            upload_queue_bytes,
            cache: CacheStatus {
                hits: fetched.hits,
                misses: fetched.misses,
                bytes: fetched.bytes,
            },
        }
    }

    /// The file's content.
    pub(crate) fn text(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).unwrap_or_default();
        let length = (text.len() + 1).next_multiple_of(FILE_GRAIN);
        text.resize(length - 1, b' ');
        text.push(b'\n');
        text
    }
}
