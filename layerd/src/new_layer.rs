//! Writing a whole layer in one go: what import, restore and compaction do.
//!
//! Nobody knows the layer before [`NewLayer::publish`] (or the catalog row that compaction writes),
//! so it is written without the log's machinery: records one behind the other, one sync at the
//! end.

use std::sync::Arc;

use crate::catalog::{CommitRange, Head, LayerRow, LayerState, Rotation, StatePoint};
use crate::checksum::chunk_sums;
use crate::disk::DiskFile;
use crate::error::FsError;
use crate::files::Files;
use crate::format::{LayerHeader, RECORDS_AT};
use crate::id::{DatabaseId, Epoch, FileId, LayerId, Lsn, Timestamp};
use crate::layer::Layer;
use crate::record::{Change, PAYLOAD_MAX, Record, place_data};
use crate::send::{LogRange, send_log};
use crate::store::{Store, StoreError};

/// A delta layer in the making.
pub struct NewLayer {
    files: Files,
    file: Arc<dyn DiskFile>,
    header: LayerHeader,
    end: u64,
    synced: u64,
    commits: Option<CommitRange>,
    written_bytes: u64,
    published: bool,
}

impl NewLayer {
    /// A new file among the unsealed layers.
    pub fn begin(
        files: &Files,
        database: DatabaseId,
        epoch: Epoch,
        parent: Option<StatePoint>,
        first_lsn: Lsn,
        written_bytes: u64,
    ) -> Result<NewLayer, FsError> {
        let id = LayerId::random(epoch);
        let file = files.disk().create(&files.active(id))?;
        let header = LayerHeader {
            id,
            database,
            parent,
            first_lsn,
            created: Timestamp::now(),
            written_bytes,
        };
        let layer = NewLayer {
            files: files.clone(),
            file,
            header,
            end: RECORDS_AT,
            synced: RECORDS_AT,
            commits: None,
            written_bytes,
            published: false,
        };
        layer.file.write_at(&[&header.encode()], 0)?;
        Ok(layer)
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> LayerId {
        self.header.id
    }

    /// Behind the last record.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Adds a record without payload.
    pub fn add(&mut self, time: Timestamp, change: Change) -> Result<(), FsError> {
        let bytes = Record { time, change }.encode(self.id(), self.end);
        self.file.write_at(&[&bytes], self.end)?;
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Adds data.
    pub fn add_data(
        &mut self,
        time: Timestamp,
        file: FileId,
        offset: u64,
        data: &[u8],
    ) -> Result<(), FsError> {
        for (payload, offset) in data
            .chunks(PAYLOAD_MAX)
            .zip((offset..).step_by(PAYLOAD_MAX))
        {
            let length = payload.len() as u64;
            let place = place_data(self.end, offset, length);
            let sums = chunk_sums(self.id(), place.payload_at, payload).collect();
            let change = Change::Data {
                file,
                offset,
                length,
                payload_at: place.payload_at,
                sums,
            };
            let bytes = Record { time, change }.encode(self.id(), self.end);
            self.file.write_at(&[&bytes], self.end)?;
            self.file.write_at(&[payload], place.payload_at)?;
            if place.end > place.payload_at + length {
                // The record reaches to the next alignment, whatever follows.
                self.file.set_length(place.end.max(self.file.length()?))?;
            }
            self.end = place.end;
        }
        Ok(())
    }

    /// Adds a commit record.
    pub fn commit(&mut self, lsn: Lsn, time: Timestamp, written_bytes: u64) -> Result<(), FsError> {
        self.written_bytes = written_bytes;
        self.add(
            time,
            Change::Commit {
                lsn,
                durable_end: self.synced,
                written_bytes,
            },
        )?;
        let first = self.commits.unwrap_or(CommitRange {
            first_lsn: lsn,
            last_lsn: lsn,
            first_time: time,
            last_time: time,
        });
        self.commits = Some(CommitRange {
            last_lsn: lsn,
            last_time: time,
            ..first
        });
        Ok(())
    }

    /// Makes the file and its name durable.
    pub fn sync(&mut self) -> Result<(), FsError> {
        self.file.sync()?;
        self.synced = self.end;
        Ok(self
            .files
            .disk()
            .sync_directory(&self.files.active_directory())?)
    }

    /// Its row, as a rotated layer.
    #[must_use]
    pub fn row(&self, images: &[LayerId]) -> LayerRow {
        let header = &self.header;
        let first_lsn = self
            .commits
            .map_or(header.first_lsn, |commits| commits.first_lsn);
        LayerRow {
            state: LayerState::Rotated,
            last_lsn: self.commits.map(|commits| commits.last_lsn),
            first_time: self.commits.map(|commits| commits.first_time),
            last_time: self.commits.map(|commits| commits.last_time),
            end: Some(self.end),
            images: images.to_vec(),
            ..LayerRow::begun(
                header.id,
                header.database,
                header.parent,
                first_lsn,
                header.created,
            )
        }
    }

    /// Makes it durable (in the store too, where that is a remote one), adds it to the catalog under the writer's epoch, and moves the head to
    /// its last commit.
    pub fn publish(
        &mut self,
        store: &Store,
        epoch: Epoch,
        images: &[LayerId],
    ) -> Result<Head, StoreError> {
        let catalog = store.catalog();
        self.sync()?;
        let active = LayerRow {
            state: LayerState::Active,
            last_lsn: None,
            first_time: None,
            last_time: None,
            end: None,
            ..self.row(images)
        };
        catalog.add_layer(epoch, &active)?;
        self.published = true;
        let Some(commits) = self.commits else {
            return Err(FsError::Invalid.into());
        };
        let point = StatePoint {
            layer: self.id(),
            lsn: commits.last_lsn,
        };
        let head = Head {
            point: Some(point),
            time: commits.last_time,
            written_bytes: self.written_bytes,
        };
        let rotation = Rotation {
            layer: self.id(),
            end: self.end,
            commits: Some(commits),
            images: images.to_vec(),
        };
        if let Some(objects) = store.remote() {
            let layer = Layer::new(self.id(), Arc::clone(&self.file));
            let mut from = 0;
            while from < self.end {
                let log = LogRange {
                    from,
                    end: self.end,
                    commits: self.commits,
                };
                let segment = send_log(objects, self.header.database, &layer, &log)?;
                catalog.add_segment(self.header.database, epoch, self.id(), &segment)?;
                from = segment.end;
            }
        }
        catalog.rotate(self.header.database, epoch, &rotation, &head)?;
        Ok(head)
    }

    /// The file belongs to the catalog now: it stays when this value goes.
    pub fn keep(&mut self) {
        self.published = true;
    }
}

impl Drop for NewLayer {
    fn drop(&mut self) {
        if !self.published {
            // What is left over is an orphan, which garbage collection finds.
            let _ = self.files.disk().remove(&self.files.active(self.id()));
        }
    }
}
