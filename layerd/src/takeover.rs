//! Taking over: what an earlier writer left becomes layers with an end.
//!
//! A layer of which this home has the file is recovered from it ([`crate::recover`]), and what the
//! store does not have yet is brought there. Of a layer of another home only that exists which is
//! in the store: it ends behind the newest published commit.
//!
//! When a host comes back after another one took over, its file may hold commits that it had
//! acknowledged and nobody else ever saw. They are kept as a clone, `DB-lost-<epoch>`: never merged
//! into what the other one wrote, never thrown away.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::catalog::{
    Base, CatalogError, CommitRange, Database, Head, LayerRow, LayerState, Rotation, StatePoint,
};
use crate::error::FsError;
use crate::files::is_open;
use crate::format::{LayerHeader, RECORDS_AT};
use crate::frozen::CommitPoint;
use crate::id::{DatabaseId, DatabaseName, Epoch, LayerId, Lsn, Timestamp};
use crate::layer::{Cache, Layer, Piece};
use crate::lease::HeldLease;
use crate::load::{note_payload, open_error};
use crate::new_layer::NewLayer;
use crate::record::Change;
use crate::recover::{Recovered, acknowledged, recover};
use crate::resolve::layer_commits;
use crate::scan::{LogScan, open_layer, read_header};
use crate::seal::has_more;
use crate::send::{LogRange, send_log};
use crate::store::{Result, Store, StoreError};

/// How long a writer that begins waits for a store that does not answer.
const STORE_TIME_MAX: Duration = Duration::from_secs(60);

impl Store {
    /// Ends every layer that an earlier writer left active. The caller holds the lease.
    pub(crate) fn recover_layers(
        self: &Arc<Self>,
        id: DatabaseId,
        lease: &HeldLease,
    ) -> Result<()> {
        // From here on the head word tells of this lease: what it says of earlier ones is used first.
        match self.keep_lost_held(id) {
            Err(error @ StoreError::Refused(_)) => tracing::error!(%error, "lost commits"),
            kept => drop(kept?),
        }
        let (word, epoch) = (self.head_word(id), lease.epoch());
        let mut active: Vec<LayerRow> = self.catalog().layers(id)?;
        active.retain(|row| row.state == LayerState::Active);
        active.sort_by_key(|row| row.first_lsn);
        // Layers of which nothing is left go first, the newest before what it stands on.
        while let Some(row) = active.pop_if(|row| self.is_nowhere(row)) {
            let head = self.catalog().database_by_id(id)?.head;
            let rotation = nothing(&row);
            self.catalog().rotate(id, epoch, &rotation, &head)?;
        }
        for row in active {
            let head = self.catalog().database_by_id(id)?.head;
            let here = self.files().active(row.id);
            let recovered = if here.exists() {
                let recovered = recover(self.files(), &row, acknowledged(row.id, word, &head))?;
                let stored = row.segments.last().map_or(0, |last| last.end);
                if recovered.rotation.end < stored {
                    // This disk lost what it had promised: the store has more.
                    self.end_in_store(&row, &head)?
                } else {
                    self.send_rest(&row, &recovered, lease)?;
                    recovered
                }
            } else {
                self.end_in_store(&row, &head)?
            };
            let head = recovered.head.unwrap_or(head);
            self.catalog()
                .rotate(id, epoch, &recovered.rotation, &head)?;
            if recovered.rotation.commits.is_none() {
                // The catalog has marked it dead; nothing was ever in it.
                let _ = self.files().disk().remove(&here);
            }
            self.store_head_word(id, epoch, &head, recovered.rotation.end)?;
            tracing::info!(layer = %row.id, lsn = %head.lsn(), "recovered the layer of a writer that ended unexpectedly");
        }
        Ok(())
    }

    /// Whether neither this home nor the store has a commit of the layer.
    fn is_nowhere(&self, row: &LayerRow) -> bool {
        let stored = row.segments.iter().any(|segment| segment.commits.is_some());
        !stored && !self.files().active(row.id).exists()
    }

    /// Brings the end of a recovered layer to the store, if that is a remote one.
    fn send_rest(&self, row: &LayerRow, recovered: &Recovered, lease: &HeldLease) -> Result<()> {
        let (Some(objects), Some(_)) = (self.remote(), recovered.head) else {
            return Ok(());
        };
        let objects = objects.within(STORE_TIME_MAX);
        let file = self
            .files()
            .disk()
            .open(&self.files().active(row.id), false);
        let layer = Layer::new(row.id, file.map_err(FsError::from)?);
        let end = recovered.rotation.end;
        let mut from = row.segments.last().map_or(0, |last| last.end);
        let commits = commits_between(&layer, from, end)?;
        while from < end {
            lease.check()?;
            let log = LogRange { from, end, commits };
            let segment = send_log(&objects, row.database, &layer, &log)?;
            self.catalog()
                .add_segment(row.database, lease.epoch(), row.id, &segment)?;
            from = segment.end;
        }
        Ok(())
    }

    /// The end of a layer of which only that exists which is in the store.
    fn end_in_store(&self, row: &LayerRow, head: &Head) -> Result<Recovered> {
        let (Some(last), Some(point)) = (
            row.segments.last(),
            head.point.filter(|point| point.layer == row.id),
        ) else {
            return Ok(Recovered {
                rotation: nothing(row),
                head: None,
            });
        };
        let (layer, _) = open_layer(self.files(), row.id, Some(row))
            .map_err(|error| open_error(row.id, error))?;
        let mut scan = LogScan::new(&layer, RECORDS_AT, last.end);
        let (mut commits, mut images) = (None::<CommitRange>, Vec::new());
        while commits.is_none_or(|commits| commits.last_lsn < point.lsn) {
            let at = scan.at();
            let Ok(scanned) = scan.next().map_err(FsError::from)? else {
                let what = "the log ends before a commit that was published";
                return Err(layer.damaged(at, what).into());
            };
            match scanned.record.change {
                Change::Commit { lsn, .. } => extend(&mut commits, lsn, scanned.record.time),
                Change::Image { layer, .. } => images.push(layer),
                _ => {}
            }
        }
        Ok(Recovered {
            rotation: Rotation {
                layer: row.id,
                end: scan.at(),
                commits,
                images,
            },
            head: Some(*head),
        })
    }

    /// Keeps what this home's files hold of commits that were acknowledged here and never
    /// published, now that another writer went on without them. Returns the clones that were made.
    pub fn keep_lost(self: &Arc<Self>, id: DatabaseId) -> Result<Vec<DatabaseName>> {
        let database = self.catalog().database_by_id(id)?;
        if self.lost_layers(&database)?.is_empty() {
            return Ok(Vec::new());
        }
        let Some(_lock) = self.writer_lock(id)? else {
            // A writer of this home may still be at it.
            return Ok(Vec::new());
        };
        self.keep_lost_held(id)
    }

    /// The same, for a caller that keeps other writers of this home away.
    fn keep_lost_held(self: &Arc<Self>, id: DatabaseId) -> Result<Vec<DatabaseName>> {
        if self.remote().is_none() {
            return Ok(Vec::new());
        }
        let database = self.catalog().database_by_id(id)?;
        let mut lost = self.lost_layers(&database)?;
        lost.sort_by_key(|lost| (lost.header.id.epoch, lost.header.first_lsn));
        let mut clones = Vec::new();
        while let Some(first) = lost.first() {
            let epoch = first.header.id.epoch;
            let count = lost
                .iter()
                .take_while(|lost| lost.header.id.epoch == epoch)
                .count();
            let of_epoch: Vec<Lost> = lost.drain(..count).collect();
            clones.extend(self.keep_epoch(&database, epoch, &of_epoch)?);
            for lost in &of_epoch {
                let path = self.files().active(lost.header.id);
                if lost.is_waiting {
                    self.cut(&path, lost)?;
                } else {
                    let _ = self.files().disk().remove(&path);
                }
            }
        }
        Ok(clones)
    }

    /// Whether [`Store::keep_lost`] has something to keep, or may have.
    pub(crate) fn has_lost(&self, database: &Database) -> Result<bool> {
        Ok(self.remote().is_some() && !self.lost_layers(database)?.is_empty())
    }

    /// Unsealed layer files of the database that hold more than the catalog knows of, and whose
    /// writer was replaced.
    fn lost_layers(&self, database: &Database) -> Result<Vec<Lost>> {
        let Ok(entries) = std::fs::read_dir(self.files().active_directory()) else {
            return Ok(Vec::new());
        };
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let files: Vec<(PathBuf, LayerId)> = paths
            .filter_map(|path| Some((layer_of(&path)?, path)))
            .filter(|(id, _)| id.epoch <= database.epoch)
            .map(|(id, path)| (path, id))
            .collect();
        if files.is_empty() {
            return Ok(Vec::new());
        }
        let rows = self.catalog().layers(database.id)?;
        let mut lost = Vec::new();
        for (path, id) in files {
            let row = rows.iter().find(|row| row.id == id);
            let is_replaced = id.epoch < database.epoch;
            let published = match row {
                Some(row) if row.state == LayerState::Active => continue,
                Some(row) => row.last_lsn.zip(row.end),
                // It may be one in the making.
                None if !is_replaced => continue,
                None => None,
            };
            let Ok(file) = self.files().disk().open(&path, false) else {
                continue;
            };
            let Ok(header) = read_header(id, &*file) else {
                continue;
            };
            // The layers that compaction makes begin with no commit of their own.
            if header.database != database.id || header.first_lsn == Lsn::EMPTY {
                continue;
            }
            let layer = Layer::new(id, file);
            let is_waiting = row.is_some_and(|row| row.state == LayerState::Rotated);
            let has_more = match published {
                Some((_, end)) => has_more(&layer, end).map_err(FsError::from)?,
                None => self.is_lost(database, &layer)?,
            };
            if has_more && is_replaced {
                lost.push(Lost {
                    header,
                    published,
                    is_waiting,
                });
            } else if !has_more && (is_replaced || !is_waiting) && !is_open(&path) {
                // What nothing was ever in, what another host sealed or will seal, and what became
                // of other layers since is not needed here any more.
                let _ = self.files().disk().remove(&path);
            }
        }
        Ok(lost)
    }

    /// Whether a log of a replaced writer, which has no row any more, has commits that were never
    /// published: whether its last one is not the database's. What is expired can't be told from
    /// it; rather kept than lost.
    pub(crate) fn is_lost(&self, database: &Database, log: &Layer) -> Result<bool> {
        let mut last = None;
        let mut scan = LogScan::new(log, RECORDS_AT, u64::MAX);
        while let Ok(scanned) = scan.next().map_err(FsError::from)? {
            if let Change::Commit { lsn, .. } = scanned.record.change {
                last = Some((lsn, scanned.record.time));
            }
        }
        let Some(last) = last else {
            return Ok(false);
        };
        if last.0 > database.head.lsn() {
            return Ok(true);
        }
        let Some(row) = self.catalog().find_lsn(database.id, last.0)? else {
            return Ok(true);
        };
        let commits = layer_commits(self.files(), &row, &CommitPoint::of_head(&database.head))?;
        Ok(!commits
            .iter()
            .any(|commit| (commit.lsn, commit.time) == last))
    }

    /// Cuts what is kept elsewhere from a layer that is still to be sealed.
    fn cut(&self, path: &Path, lost: &Lost) -> Result<()> {
        if let Some((_, end)) = lost.published {
            let file = self.files().disk().open(path, true);
            let file = file.map_err(FsError::from)?;
            file.set_length(end).map_err(FsError::from)?;
        }
        Ok(())
    }

    /// Makes the clone of one epoch's lost commits, if there are some.
    fn keep_epoch(
        self: &Arc<Self>,
        database: &Database,
        epoch: Epoch,
        lost: &[Lost],
    ) -> Result<Option<DatabaseName>> {
        let mut parts = Vec::new();
        for lost in last_in_a_row(lost) {
            let header = &lost.header;
            let row = LayerRow::begun(
                header.id,
                database.id,
                header.parent,
                header.first_lsn,
                header.created,
            );
            let word = self.head_word(database.id);
            let newest = acknowledged(header.id, word, &database.head);
            let recovered = recover(self.files(), &row, newest)?;
            let from = lost.published.map_or(RECORDS_AT, |(_, end)| end);
            // A torn record is nothing to keep.
            if recovered.rotation.end > from {
                parts.push((lost, from, recovered.rotation.end));
            }
        }
        let (Some((first, ..)), Some((last, ..))) = (parts.first(), parts.last()) else {
            return Ok(None);
        };
        let before = match first.published {
            Some((lsn, _)) => lsn,
            None => first.header.parent.map_or(Lsn::EMPTY, |point| point.lsn),
        };
        let base = self.point_of(database, before)?;
        if base.is_none() && before > Lsn::EMPTY {
            return Err(StoreError::Refused(format!(
                "commits of {} that were acknowledged on this host and never published stand on commit {before}, which is not kept any more; their log stays in {}",
                database.name,
                self.files().active_directory().display()
            )));
        }
        let state = Base {
            database: database.id,
            point: base,
        };
        let start = (state, first.header.created, first.header.written_bytes);
        // The name may be that of an earlier attempt which was stopped, and somebody may have
        // written there since, or that of another database.
        for n in 1..=LOST_NAMES_MAX {
            let name = match n {
                1 => format!("{}-lost-{epoch}", database.name),
                n => format!("{}-lost-{epoch}-{n}", database.name),
            };
            let name: DatabaseName = name
                .parse()
                .map_err(|error: crate::id::InvalidName| StoreError::Config(error.to_string()))?;
            let made = self
                .catalog()
                .create_database(&name, database.retention_s, Some(start));
            let clone = match made {
                Err(CatalogError::DatabaseExists(_)) => self.catalog().database(&name)?,
                result => result?,
            };
            let lease = self.acquire(&clone)?;
            let filled = self.recover_layers(clone.id, &lease).and_then(|()| {
                let clone = self.catalog().database_by_id(clone.id)?;
                let is_empty = clone.base.is_some_and(|base| base.database == database.id)
                    && clone.head.lsn() == before;
                if is_empty {
                    self.fill_lost(&clone, &lease, base, &parts).map(|()| true)
                } else {
                    let path = self.files().active(last.header.id);
                    let file = self.files().disk().open(&path, false);
                    let log = Layer::new(last.header.id, file.map_err(FsError::from)?);
                    Ok(!self.is_lost(&clone, &log)?)
                }
            });
            lease.release()?;
            if filled? {
                tracing::warn!(clone = %name, "commits that were acknowledged on this host and never published are kept as a clone");
                return Ok(Some(name));
            }
        }
        Err(StoreError::Refused(format!(
            "all names from {0}-lost-{epoch} to {0}-lost-{epoch}-{LOST_NAMES_MAX} are taken; remove one of these databases",
            database.name
        )))
    }

    /// Where a commit of the database is now, if it is kept: compaction may have moved it, or
    /// folded it away.
    fn point_of(&self, database: &Database, lsn: Lsn) -> Result<Option<StatePoint>> {
        let Some(row) = self.catalog().find_lsn(database.id, lsn)? else {
            return Ok(None);
        };
        let head = CommitPoint::of_head(&database.head);
        let commits = layer_commits(self.files(), &row, &head)?;
        let is_there = commits.iter().any(|commit| commit.lsn == lsn);
        let layer = row.id;
        Ok(is_there.then_some(StatePoint { layer, lsn }))
    }

    fn fill_lost(
        &self,
        clone: &Database,
        lease: &HeldLease,
        base: Option<StatePoint>,
        parts: &[(&Lost, u64, u64)],
    ) -> Result<()> {
        let first_lsn = base.map_or(Lsn::EMPTY, |point| point.lsn).next();
        let mut layer = NewLayer::begin(
            self.files(),
            clone.id,
            lease.epoch(),
            base,
            first_lsn,
            clone.head.written_bytes,
        )?;
        for (lost, from, end) in parts {
            let path = self.files().active(lost.header.id);
            let file = self.files().disk().open(&path, false);
            let source = Layer::new(lost.header.id, file.map_err(FsError::from)?);
            copy_records(&source, *from, *end, &mut layer)?;
        }
        let head = layer.publish(self, lease.epoch(), &[])?;
        self.store_head_word(clone.id, lease.epoch(), &head, layer.end())?;
        self.seal_rotated(clone.id, &|| ())
    }
}

/// The end of a layer in which nothing was committed.
fn nothing(row: &LayerRow) -> Rotation {
    Rotation {
        layer: row.id,
        end: RECORDS_AT,
        commits: None,
        images: Vec::new(),
    }
}

/// How many names are tried for what one writer lost.
const LOST_NAMES_MAX: u32 = 99;

/// A layer file whose writer was replaced.
struct Lost {
    header: LayerHeader,
    /// The last commit of it that the catalog has, and where that ends.
    published: Option<(Lsn, u64)>,
    /// It is still to be sealed, from this file.
    is_waiting: bool,
}

/// The layers behind the last gap, each standing on the one before. A gap is a layer whose commits were
/// published; then those before it were too, and have expired since.
fn last_in_a_row(lost: &[Lost]) -> &[Lost] {
    let stands_on = |pair: &[Lost]| match pair {
        [below, above] => above.header.parent.map(|point| point.layer) == Some(below.header.id),
        _ => false,
    };
    let gap = lost.windows(2).rposition(|pair| !stands_on(pair));
    &lost[gap.map_or(0, |below| below + 1)..]
}

/// The layer whose log a file is.
fn layer_of(path: &Path) -> Option<LayerId> {
    path.file_name()?
        .to_str()?
        .strip_suffix(".delta")?
        .parse()
        .ok()
}

fn copy_records(
    source: &Layer,
    from: u64,
    end: u64,
    target: &mut NewLayer,
) -> std::result::Result<(), FsError> {
    let mut scan = LogScan::new(source, from, end);
    while scan.at() < end {
        let at = scan.at();
        let Ok(scanned) = scan.next()? else {
            return Err(source.damaged(at, "a record that was recovered can't be read back"));
        };
        note_payload(source, &scanned);
        let time = scanned.record.time;
        match scanned.record.change {
            Change::Data {
                file,
                offset,
                length,
                payload_at,
                ..
            } => {
                let mut bytes = vec![0; length as usize];
                let piece = Piece {
                    at: payload_at,
                    length,
                    to: 0,
                };
                source.read(&[piece], Cache::Here, &mut bytes)?;
                target.add_data(time, file, offset, &bytes)?;
            }
            Change::Commit {
                lsn, written_bytes, ..
            } => target.commit(lsn, time, written_bytes)?,
            change => target.add(time, change)?,
        }
    }
    Ok(())
}

/// The commits whose records lie between two ends of records.
fn commits_between(
    layer: &Layer,
    from: u64,
    end: u64,
) -> std::result::Result<Option<CommitRange>, FsError> {
    let mut scan = LogScan::new(layer, from.max(RECORDS_AT), end);
    let mut commits = None;
    while scan.at() < end {
        let at = scan.at();
        let Ok(scanned) = scan.next()? else {
            return Err(layer.damaged(at, "a record that was recovered can't be read back"));
        };
        if let Change::Commit { lsn, .. } = scanned.record.change {
            extend(&mut commits, lsn, scanned.record.time);
        }
    }
    Ok(commits)
}

fn extend(commits: &mut Option<CommitRange>, lsn: Lsn, time: Timestamp) {
    let range = commits.get_or_insert(CommitRange {
        first_lsn: lsn,
        last_lsn: lsn,
        first_time: time,
        last_time: time,
    });
    (range.last_lsn, range.last_time) = (lsn, time);
}
