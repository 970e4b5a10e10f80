//! Recovery: what a writer that ended without saying so left behind becomes a layer with an end.
//!
//! The active layer is read record by record. What was acknowledged must be there: a bad record
//! below a place that is known to have been durable (by a later commit record, the host's head
//! word, or the catalog) is damage, never cut. Behind the last acknowledged commit, records are
//! kept as long as they are whole, and the first that is not ends the log; kept records that no
//! commit covers become one more commit point, so that what is opened always is one.
//!
//! The part of the log that is not known to be durable is written once more and synced before
//! anything rests on it: after a failed sync the page cache may hold bytes that the disk does not.

use std::sync::Arc;

use crate::catalog::{CommitRange, Head, LayerRow, Rotation, StatePoint};
use crate::checksum::{CHUNK, chunk_sums};
use crate::disk::{self, DiskFile};
use crate::error::FsError;
use crate::files::{Files, is_open};
use crate::format::RECORDS_AT;
use crate::head::HeadWord;
use crate::id::{LayerId, Lsn, Timestamp};
use crate::layer::Layer;
use crate::load::open_error;
use crate::record::{Change, HEADER_LENGTH, RECORD_ALIGN, Record};
use crate::scan::{LogScan, Scanned, read_header};

/// What recovery found in an active layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// End, commits and images of the layer.
    pub rotation: Rotation,
    /// The head that follows from it; `None` if the layer has no commit.
    pub head: Option<Head>,
}

/// What a walk over the log saw.
struct Walk {
    /// Behind the last whole record.
    end: u64,
    /// Behind the last commit record.
    commit_end: u64,
    /// Below this, everything is durable.
    durable_end: u64,
    commits: Option<CommitRange>,
    written_bytes: u64,
    images: Vec<LayerId>,
    /// The first record whose payload is not whole, if it may be a torn one.
    torn: Option<u64>,
}

/// Recovers the active layer `row`. `acknowledged` is the newest commit in this layer that is
/// known to have been acknowledged.
pub fn recover(
    files: &Files,
    row: &LayerRow,
    acknowledged: Option<Lsn>,
) -> Result<Recovered, RecoverError> {
    let id = row.id;
    if is_open(&files.active(id)) {
        detach(files, id)?;
    }
    let file = files
        .disk()
        .open(&files.active(id), true)
        .map_err(FsError::from)?;
    let header = read_header(id, &*file).map_err(|error| open_error(id, error))?;
    let layer = Arc::new(Layer::new(id, Arc::clone(&file)));
    let must_reach = acknowledged.unwrap_or(Lsn::EMPTY);
    let length = file.length().map_err(FsError::from)?;
    let mut walk = walk(&layer, header.written_bytes, length, must_reach)?;
    while let Some(torn) = walk.torn {
        walk = self::walk(&layer, header.written_bytes, torn, must_reach)?;
    }
    let reached = walk.commits.map_or(Lsn::EMPTY, |commits| commits.last_lsn);
    if reached < must_reach || later_commit_proves(&layer, &walk)? {
        tracing::error!(layer = %id, offset = walk.end, "the log is damaged below acknowledged commits");
        let good = walk
            .commits
            .map(|commits| commits.last_lsn)
            .or(header.parent.map(|point| point.lsn));
        return Err(RecoverError::Damaged {
            layer: id,
            offset: walk.end,
            good: good.unwrap_or(Lsn::EMPTY),
        });
    }
    if walk.end > walk.commit_end {
        close_tail(&layer, &mut walk, header.first_lsn)?;
    }
    if walk.durable_end < walk.end {
        rewrite(&*file, walk.durable_end, walk.end)?;
    }
    let head = walk.commits.map(|commits| Head {
        point: Some(StatePoint {
            layer: id,
            lsn: commits.last_lsn,
        }),
        time: commits.last_time,
        written_bytes: walk.written_bytes,
    });
    let rotation = Rotation {
        layer: id,
        end: walk.end,
        commits: walk.commits,
        images: walk.images,
    };
    Ok(Recovered { rotation, head })
}

/// Puts a copy in the place of a file that a replaced writer still has open: when it wakes up, what
/// it writes goes to a file without a name.
fn detach(files: &Files, id: LayerId) -> Result<(), FsError> {
    let active = files.active(id);
    let source = files.disk().open(&active, false)?;
    let copy = files.copy_of(id);
    let length = source.length()?;
    disk::copy(&**files.disk(), &*source, length, &copy, &mut |_| ())?;
    files.disk().rename(&copy, &active)?;
    Ok(files.disk().sync_directory(&files.active_directory())?)
}

/// Why a layer can't be recovered.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// Acknowledged commits can't be read: never cut away, for a person to decide.
    #[error("layer {layer} is damaged at offset {offset}: the commits behind {good} can't be read")]
    Damaged {
        /// The layer.
        layer: LayerId,
        /// Where its first bad record begins.
        offset: u64,
        /// The last commit that can be read.
        good: Lsn,
    },
    /// The disk failed.
    #[error(transparent)]
    Fs(#[from] FsError),
}

/// The newest commit of `layer` that the head word or the catalog's head say was acknowledged.
#[must_use]
pub fn acknowledged(layer: LayerId, word: Option<HeadWord>, head: &Head) -> Option<Lsn> {
    let points = [word.map(|word| word.point), head.point];
    points
        .into_iter()
        .flatten()
        .filter(|point| point.layer == layer)
        .map(|point| point.lsn)
        .max()
}

fn walk(
    layer: &Arc<Layer>,
    written_bytes: u64,
    limit: u64,
    acknowledged: Lsn,
) -> Result<Walk, FsError> {
    let mut scan = LogScan::new(layer, RECORDS_AT, limit);
    let mut walk = Walk {
        end: RECORDS_AT,
        commit_end: RECORDS_AT,
        durable_end: RECORDS_AT,
        commits: None,
        written_bytes,
        images: Vec::new(),
        torn: None,
    };
    // Data behind what is known to be durable: only its payloads can be torn.
    let mut unproven: Vec<Scanned> = Vec::new();
    while let Ok(scanned) = scan.next()? {
        walk.end = scanned.place.end;
        match scanned.record.change {
            Change::Commit {
                lsn,
                durable_end,
                written_bytes,
            } => {
                let time = scanned.record.time;
                let alone = CommitRange {
                    first_lsn: lsn,
                    last_lsn: lsn,
                    first_time: time,
                    last_time: time,
                };
                let first = walk.commits.unwrap_or(alone);
                walk.commits = Some(CommitRange {
                    last_lsn: lsn,
                    last_time: time,
                    ..first
                });
                walk.commit_end = scanned.place.end;
                walk.written_bytes = written_bytes;
                walk.durable_end = walk.durable_end.max(durable_end.min(scanned.at));
                if lsn <= acknowledged {
                    // What does not match here is damage, found when it is read: never cut.
                    unproven.clear();
                }
                unproven.retain(|record| record.at >= durable_end);
            }
            Change::Image { layer, .. } => walk.images.push(layer),
            Change::Data { .. } => unproven.push(scanned),
            _ => {}
        }
    }
    for scanned in unproven {
        if !is_whole(layer, &scanned)? {
            walk.torn = Some(scanned.at);
            break;
        }
    }
    Ok(walk)
}

/// Whether a data record's payload matches its checksums.
fn is_whole(layer: &Layer, scanned: &Scanned) -> Result<bool, FsError> {
    let Change::Data {
        length,
        payload_at,
        sums,
        ..
    } = &scanned.record.change
    else {
        return Ok(true);
    };
    let mut payload = vec![0; *length as usize];
    let got = layer.file().read_at(&mut payload, *payload_at)?;
    Ok(got == payload.len()
        && chunk_sums(layer.id(), *payload_at, &payload).eq(sums.iter().copied()))
}

/// Whether some commit record behind the end of the walk says that the end was durable: then the
/// walk was stopped by damage, not by a torn tail.
fn later_commit_proves(layer: &Arc<Layer>, walk: &Walk) -> Result<bool, FsError> {
    let mut at = walk.end + RECORD_ALIGN;
    let length = layer.file().length()?;
    let mut buffer = vec![0; (CHUNK * 8) as usize];
    while at < length {
        let got = layer.file().read_at(&mut buffer, at)?;
        let bytes = &buffer[..got];
        let last = got.saturating_sub(HEADER_LENGTH - 1);
        for skip in (0..last).step_by(RECORD_ALIGN as usize) {
            if bytes[skip..skip + 4] == [0; 4] {
                continue;
            }
            if let Ok((
                Record {
                    change: Change::Commit { durable_end, .. },
                    ..
                },
                _,
            )) = Record::decode(layer.id(), at + skip as u64, &bytes[skip..])
                && durable_end > walk.end
            {
                return Ok(true);
            }
        }
        if got < buffer.len() {
            break;
        }
        at += (got - HEADER_LENGTH) as u64;
    }
    Ok(false)
}

/// Appends a commit record behind whole records that no commit covers.
fn close_tail(layer: &Arc<Layer>, walk: &mut Walk, first_lsn: Lsn) -> Result<(), FsError> {
    let (lsn, after) = walk.commits.map_or((first_lsn, Timestamp(0)), |commits| {
        (commits.last_lsn.next(), commits.last_time)
    });
    let time = Timestamp::now().max(Timestamp(after.0 + 1));
    // The count is exact up to the last commit; what came behind is counted here.
    let mut scan = LogScan::new(layer, walk.commit_end, walk.end);
    while let Ok(scanned) = scan.next()? {
        if let Change::Data { length, .. } = scanned.record.change {
            walk.written_bytes += length;
        }
    }
    let change = Change::Commit {
        lsn,
        durable_end: walk.durable_end,
        written_bytes: walk.written_bytes,
    };
    let record = Record { time, change }.encode(layer.id(), walk.end);
    layer.file().write_at(&[&record], walk.end)?;
    walk.end += record.len() as u64;
    walk.commit_end = walk.end;
    let first = walk.commits.unwrap_or(CommitRange {
        first_lsn: lsn,
        last_lsn: lsn,
        first_time: time,
        last_time: time,
    });
    walk.commits = Some(CommitRange {
        last_lsn: lsn,
        last_time: time,
        ..first
    });
    Ok(())
}

/// Writes a range once more and syncs it.
fn rewrite(file: &dyn DiskFile, begin: u64, end: u64) -> Result<(), FsError> {
    let mut buffer = vec![0; 1 << 20];
    let mut at = begin;
    while at < end {
        let length = (end - at).min(buffer.len() as u64) as usize;
        let got = file.read_at(&mut buffer[..length], at)?;
        if got == 0 {
            break;
        }
        file.write_at(&[&buffer[..got]], at)?;
        at += got as u64;
    }
    Ok(file.sync()?)
}
