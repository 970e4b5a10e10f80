//! From a reference to a state, and the list of all states that are still kept.
//!
//! A commit is kept while it was the newest one at some moment of the retention window, that is:
//! while the commit behind it is younger than the window. The head, and commits that a snapshot
//! names, are always kept. Commits from before a clone belong to its source and are under the
//! source's retention.

use std::collections::HashSet;
use std::sync::Arc;

use crate::catalog::{Database, Head, LayerKind, LayerRow, LayerState, Snapshot, StatePoint};
use crate::error::FsError;
use crate::files::Files;
use crate::format::RECORDS_AT;
use crate::frozen::CommitPoint;
use crate::id::{DatabaseName, Lsn, Timestamp};
use crate::load::open_error;
use crate::record::Change;
use crate::reference::Ref;
use crate::scan::{LogScan, Scanned, open_layer, read_footer, scan_index};
use crate::store::{CommitInfo, Result, Store, StoreError};

impl CommitPoint {
    /// The commit's number; [`Lsn::EMPTY`] for the empty database.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.point.map_or(Lsn::EMPTY, |point| point.lsn)
    }

    /// The newest commit.
    pub(crate) fn of_head(head: &Head) -> CommitPoint {
        CommitPoint {
            point: head.point,
            time: head.time,
            written_bytes: head.written_bytes,
        }
    }

    fn of(commit: &CommitInfo) -> CommitPoint {
        let point = StatePoint {
            layer: commit.layer,
            lsn: commit.lsn,
        };
        CommitPoint {
            point: Some(point),
            time: commit.time,
            written_bytes: commit.written_bytes,
        }
    }
}

impl Store {
    /// Finds the state that a reference means. `database` has its newest head.
    pub(crate) fn resolve(
        self: &Arc<Self>,
        database: &Database,
        reference: &Ref,
    ) -> Result<CommitPoint> {
        let head = CommitPoint {
            point: database.head.point,
            time: database.head.time,
            written_bytes: database.head.written_bytes,
        };
        match reference {
            Ref::Latest => Ok(head),
            Ref::Name(name) => {
                let snapshot = self.catalog().snapshot_by_name(database.id, name)?;
                self.resolve_snapshot(database, &head, &snapshot)
            }
            Ref::Id(id) => {
                let snapshot = self.catalog().snapshot_by_id(database.id, *id)?;
                self.resolve_snapshot(database, &head, &snapshot)
            }
            Ref::Lsn(lsn) => self.resolve_lsn(database, &head, *lsn, true),
            Ref::Time(at) => self.resolve_time(database, &head, *at),
        }
    }

    /// A snapshot names a commit by number and time: under its number another one may have been
    /// published, where its own never was.
    fn resolve_snapshot(
        self: &Arc<Self>,
        database: &Database,
        head: &CommitPoint,
        snapshot: &Snapshot,
    ) -> Result<CommitPoint> {
        let never_published = || {
            let what = format!(
                "snapshot {} of {} names a commit that a replaced writer's host alone had; once that host is back, it is in a clone {}-lost-<epoch>",
                snapshot.id, database.name, database.name
            );
            StoreError::NoSuchRef(what)
        };
        if snapshot.lsn > head.lsn() {
            return Err(never_published());
        }
        let found = self.resolve_lsn(database, head, snapshot.lsn, false)?;
        if found.time == snapshot.time {
            Ok(found)
        } else {
            Err(never_published())
        }
    }

    fn resolve_lsn(
        self: &Arc<Self>,
        database: &Database,
        head: &CommitPoint,
        lsn: Lsn,
        retained: bool,
    ) -> Result<CommitPoint> {
        if lsn == head.lsn() {
            return Ok(*head);
        }
        let name = &database.name;
        if lsn > head.lsn() {
            return Err(StoreError::NoSuchRef(format!(
                "{name} has no commit {lsn} yet; the newest is {}",
                head.lsn()
            )));
        }
        if lsn == Lsn::EMPTY && !retained {
            return Ok(CommitPoint {
                point: None,
                time: database.created,
                written_bytes: 0,
            });
        }
        let gone = || {
            let what = format!(
                "commit {lsn} of {name} is not kept any more; `openduck-fs log {name} --commits` lists what is"
            );
            StoreError::NoSuchRef(what)
        };
        let row = self
            .catalog()
            .find_lsn(database.id, lsn)?
            .ok_or_else(gone)?;
        let commits = layer_commits(self.files(), &row, head)?;
        let at = commits
            .iter()
            .position(|commit| commit.lsn == lsn)
            .ok_or_else(gone)?;
        if retained {
            let kept = match commits.get(at + 1) {
                Some(next) => self.is_retained(&row, next.time)?,
                None => true, // The last of its layer: judged below, by the list.
            };
            let listed = kept
                && (at + 1 < commits.len()
                    || self
                        .history(database)?
                        .iter()
                        .any(|commit| commit.lsn == lsn));
            if !listed && !self.has_snapshot(&row, lsn)? {
                return Err(gone());
            }
        }
        Ok(CommitPoint::of(&commits[at]))
    }

    fn is_retained(&self, row: &LayerRow, superseded: Timestamp) -> Result<bool> {
        let owner = self.catalog().database_by_id(row.database)?;
        Ok(superseded
            >= self
                .catalog()
                .now()?
                .plus_seconds(-(owner.retention_s.cast_signed())))
    }

    fn has_snapshot(&self, row: &LayerRow, lsn: Lsn) -> Result<bool> {
        Ok(self
            .catalog()
            .snapshots(row.database)?
            .iter()
            .any(|snapshot| snapshot.lsn == lsn))
    }

    fn resolve_time(
        self: &Arc<Self>,
        database: &Database,
        head: &CommitPoint,
        at: Timestamp,
    ) -> Result<CommitPoint> {
        if at >= head.time {
            return Ok(*head);
        }
        let commits = self.history(database)?;
        let found = commits.iter().rev().find(|commit| commit.time <= at);
        found.map(CommitPoint::of).ok_or_else(|| {
            let name = &database.name;
            let oldest = commits
                .first()
                .map_or(database.created, |commit| commit.time);
            StoreError::NoSuchRef(format!(
                "{name} keeps no commit from {at} or before; the oldest is from {oldest}"
            ))
        })
    }

    /// Every commit that is still kept, oldest first.
    pub fn commits(self: &Arc<Self>, name: &DatabaseName) -> Result<Vec<CommitInfo>> {
        self.history(&self.database(name)?)
    }

    /// All commits that are kept, of the database and, up to where it was cloned, of its source.
    pub(crate) fn history(self: &Arc<Self>, database: &Database) -> Result<Vec<CommitInfo>> {
        let mut all = Vec::new();
        let mut next: Option<(Database, Lsn, Option<Timestamp>)> =
            Some((database.clone(), Lsn(u64::MAX), None));
        while let Some((owner, up_to, superseded)) = next.take() {
            let head = CommitPoint {
                point: owner.head.point,
                time: owner.head.time,
                written_bytes: owner.head.written_bytes,
            };
            let mut own = Vec::new();
            for row in self
                .catalog()
                .layers(owner.id)?
                .iter()
                .filter(|row| row.kind == LayerKind::Delta)
            {
                own.extend(layer_commits(self.files(), row, &head)?);
            }
            own.sort_by_key(|commit| commit.lsn);
            own.dedup_by_key(|commit| commit.lsn);
            own.retain(|commit| commit.lsn <= up_to);
            let first_time = own.first().map(|commit| commit.time).or(superseded);
            self.drop_expired(&owner, &mut own, superseded)?;
            all.splice(0..0, own);
            if let Some(base) = owner.base
                && let Some(point) = base.point
            {
                let source = self.settled(self.catalog().database_by_id(base.database)?)?;
                next = Some((source, point.lsn.min(up_to), first_time));
            }
        }
        Ok(all)
    }

    /// Keeps commits of the retention window, and those that a snapshot names. `superseded` is
    /// when the last of them was followed by a commit of a clone; `None` for a head.
    fn drop_expired(
        &self,
        owner: &Database,
        commits: &mut Vec<CommitInfo>,
        superseded: Option<Timestamp>,
    ) -> Result<()> {
        let oldest = self
            .catalog()
            .now()?
            .plus_seconds(-(owner.retention_s.cast_signed()));
        let named: HashSet<Lsn> = self
            .catalog()
            .snapshots(owner.id)?
            .iter()
            .map(|snapshot| snapshot.lsn)
            .collect();
        let ends: Vec<Option<Timestamp>> = commits
            .iter()
            .skip(1)
            .map(|next| Some(next.time))
            .chain([superseded])
            .collect();
        let mut ends = ends.into_iter();
        commits.retain(|commit| {
            let end = ends.next().flatten();
            end.is_none_or(|end| end >= oldest) || named.contains(&commit.lsn)
        });
        Ok(())
    }
}

/// The commits in one layer, in order; of an active layer those up to `head`.
pub(crate) fn layer_commits(
    files: &Files,
    row: &LayerRow,
    head: &CommitPoint,
) -> std::result::Result<Vec<CommitInfo>, FsError> {
    let mut commits = Vec::new();
    let is_unpublished = row.state == LayerState::Active && row.segments.is_empty();
    if is_unpublished && files.tier().is_some() && !files.has(row) {
        // Another host has begun it, and published nothing of it yet.
        return Ok(commits);
    }
    let (layer, _) =
        open_layer(files, row.id, Some(row)).map_err(|error| open_error(row.id, error))?;
    let mut note = |scanned: &Scanned| {
        if let Change::Commit {
            lsn, written_bytes, ..
        } = scanned.record.change
        {
            commits.push(CommitInfo {
                lsn,
                time: scanned.record.time,
                written_bytes,
                layer: row.id,
            });
        }
    };
    if row.state == LayerState::Sealed {
        let footer =
            read_footer(row.id, &**layer.file()).map_err(|error| open_error(row.id, error))?;
        scan_index(&layer, &footer, |scanned| {
            note(&scanned);
            Ok(true)
        })
        .map_err(|error| open_error(row.id, error))?;
    } else {
        let mut scan = LogScan::new(&layer, RECORDS_AT, row.end.unwrap_or(u64::MAX));
        while let Ok(scanned) = scan.next()? {
            note(&scanned);
        }
        commits.retain(|commit| row.end.is_some() || commit.lsn <= head.lsn());
    }
    Ok(commits)
}
