//! Plain database files in and out, bit-exact.
//!
//! An import makes an image layer of the file, so that its snapshots can be passed through to the
//! kernel, and puts the WAL files beside it into the delta layer of the first commit.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::catalog::Database;
use crate::error::FsError;
use crate::frozen::FileKind;
use crate::id::{DatabaseName, Epoch, FileId, LayerId, Lsn, Timestamp};
use crate::image;
use crate::layer::Cache;
use crate::names::MAIN;
use crate::new_image::write_image;
use crate::new_layer::NewLayer;
use crate::record::Change;
use crate::reference::Ref;
use crate::store::{Progress, Result, Store, StoreError, io_error};

/// What may stand beside a database file and belongs to it.
const COMPANIONS: [&str; 3] = [".wal", ".wal.checkpoint", ".wal.recovery"];
/// How much is copied at a time.
const STEP: usize = 1 << 20;

/// A file to import: open, locked against writers, with its name in the image.
struct Source {
    path: PathBuf,
    stored: Vec<u8>,
    file: File,
    size: u64,
}

impl Source {
    fn open(path: PathBuf, stored: Vec<u8>) -> Result<Source> {
        let file =
            File::open(&path).map_err(|e| io_error(&format!("open {}", path.display()), e))?;
        let meta = file
            .metadata()
            .map_err(|e| io_error(&format!("look at {}", path.display()), e))?;
        if !meta.is_file() {
            return Err(StoreError::Refused(format!(
                "{} is not a plain file",
                path.display()
            )));
        }
        Ok(Source {
            path,
            stored,
            file,
            size: meta.len(),
        })
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) -> std::result::Result<(), FsError> {
        Ok(self.file.read_exact_at(bytes, offset)?)
    }
}

impl Source {
    /// Whether it is mostly data. A file that is mostly a hole (DuckDB can reserve 256 GiB) would
    /// cost its whole length to hash.
    fn is_dense(&self) -> Result<bool> {
        use std::os::unix::fs::MetadataExt;
        let meta = self
            .file
            .metadata()
            .map_err(|e| io_error(&format!("look at {}", self.path.display()), e))?;
        Ok(meta.blocks() * 512 >= self.size / 2)
    }

    /// Calls `copy` with all bytes that are not in a hole, a piece at a time.
    fn copy_runs(
        &self,
        mut copy: impl FnMut(u64, &[u8]) -> std::result::Result<(), FsError>,
    ) -> std::result::Result<(), FsError> {
        use rustix::fs::{SeekFrom, seek};
        let mut buffer = vec![0; STEP];
        let mut at = 0;
        loop {
            let begin = match seek(&self.file, SeekFrom::Data(at)) {
                Ok(begin) => begin,
                // No data behind here.
                Err(rustix::io::Errno::NXIO) => return Ok(()),
                Err(error) => return Err(std::io::Error::from(error).into()),
            };
            let end = seek(&self.file, SeekFrom::Hole(begin))
                .map_err(std::io::Error::from)?
                .min(self.size);
            at = begin;
            while at < end {
                let bytes = &mut buffer[..(end - at).min(STEP as u64) as usize];
                self.read(at, bytes)?;
                copy(at, bytes)?;
                at += bytes.len() as u64;
            }
            if at >= self.size {
                return Ok(());
            }
        }
    }
}

impl Store {
    /// Copies a plain DuckDB file, with its WAL files, into a new database.
    pub fn import(
        self: &Arc<Self>,
        file: &Path,
        name: &DatabaseName,
        progress: Progress<'_>,
    ) -> Result<Database> {
        let main = Source::open(file.to_owned(), MAIN.to_vec())?;
        if main.size == 0 {
            return Err(StoreError::Refused(format!(
                "{} is empty; use `create` for a new database",
                file.display()
            )));
        }
        // A writer holds an exclusive lock on the file; ours keeps writers away until we are done.
        rustix::fs::fcntl_lock(
            &main.file,
            rustix::fs::FlockOperation::NonBlockingLockShared,
        )
        .map_err(|_| {
            StoreError::Refused(format!(
                "{} is open for writing in another process; close it there, then import",
                file.display()
            ))
        })?;
        let mut companions = Vec::new();
        for suffix in COMPANIONS {
            let mut path = file.as_os_str().to_owned();
            path.push(suffix);
            let path = PathBuf::from(path);
            if path.exists() {
                companions.push(Source::open(path, [MAIN, suffix.as_bytes()].concat())?);
            }
        }
        let database = self.create(name)?;
        let imported = self.acquire(&database).and_then(|lease| {
            let result = self.import_into(&database, lease.epoch(), &main, &companions, progress);
            lease.release()?;
            result
        });
        match imported {
            Ok(()) => self.database(name),
            Err(error) => {
                self.catalog().drop_database(database.id)?;
                Err(error)
            }
        }
    }

    fn import_into(
        &self,
        database: &Database,
        epoch: Epoch,
        main: &Source,
        companions: &[Source],
        progress: Progress<'_>,
    ) -> Result<()> {
        let total = main.size + companions.iter().map(|source| source.size).sum::<u64>();
        let time = Timestamp::now();
        let mut layer = NewLayer::begin(self.files(), database.id, epoch, None, Lsn(1), 0)?;
        let mut images = Vec::new();
        let mut done = 0;
        for (n, source) in std::iter::once(main).chain(companions).enumerate() {
            let file = FileId(FileId::ROOT.0 + 1 + n as u64);
            layer.add(time, create(file, source)?)?;
            let mut step = |offset: u64| progress(done + offset, total);
            if n == 0 && source.is_dense()? {
                let image = self.import_image(database, epoch, source, &mut step)?;
                images.push(image);
                let size = source.size;
                layer.add(
                    time,
                    Change::Image {
                        file,
                        layer: image,
                        size,
                    },
                )?;
            } else {
                source.copy_runs(|offset, bytes| {
                    step(offset);
                    layer.add_data(time, file, offset, bytes)
                })?;
                layer.add(
                    time,
                    Change::Truncate {
                        file,
                        size: source.size,
                    },
                )?;
            }
            done += source.size;
        }
        layer.commit(Lsn(1), time, total)?;
        let head = layer.publish(self, epoch, &images)?;
        self.store_head_word(database.id, epoch, &head, layer.end())?;
        self.seal_rotated(database.id, &|| ())?;
        progress(total, total);
        Ok(())
    }

    /// Copies a file into an image layer.
    fn import_image(
        &self,
        database: &Database,
        epoch: Epoch,
        source: &Source,
        step: &mut dyn FnMut(u64),
    ) -> Result<LayerId> {
        let image = LayerId::random(epoch);
        let written = write_image(
            self.files(),
            image,
            database.id,
            source.size,
            &mut |offset, bytes| {
                step(offset);
                source.read(offset, bytes)
            },
        )?;
        let row = self.sent(written.row.clone())?;
        self.catalog().add_layer(epoch, &row)?;
        self.hashes().written(image);
        Ok(image)
    }

    /// Writes the database's file, and its WAL files, bit-exact to `file`; returns all paths
    /// written. Refuses to overwrite.
    pub fn export(
        self: &Arc<Self>,
        name: &DatabaseName,
        reference: &Ref,
        file: &Path,
        progress: Progress<'_>,
    ) -> Result<Vec<PathBuf>> {
        let reader = self.open_reader(name, reference)?;
        let frozen = reader.frozen();
        let image = frozen.image();
        let mut targets = Vec::new();
        for (stored, id) in image.entries(FileId::ROOT) {
            let Some(suffix) = stored.strip_prefix(MAIN) else {
                continue;
            };
            let node = image.node(id)?;
            if node.kind == FileKind::File {
                let mut path = file.as_os_str().to_owned();
                path.push(String::from_utf8_lossy(suffix).as_ref());
                targets.push((PathBuf::from(path), node));
            }
        }
        if image.find(FileId::ROOT, MAIN).is_none() {
            return Err(StoreError::NoSuchRef(format!(
                "{name}@{reference} has no database file in it yet; nothing to export"
            )));
        }
        let total = targets
            .iter()
            .map(|(_, node)| node.extents.allocated())
            .sum();
        let mut written = Vec::new();
        let mut done = 0;
        let result = targets.iter().try_for_each(|(path, node)| {
            let out = create_new(path)?;
            written.push(path.clone());
            write_out(&out, path, node, &mut |count| {
                done += count;
                progress(done, total);
            })
        });
        if let Err(error) = result {
            for path in &written {
                // Half an export is worse than none; what can't be removed is named by the error.
                let _ = std::fs::remove_file(path);
            }
            return Err(error);
        }
        Ok(written)
    }
}

fn create(file: FileId, source: &Source) -> Result<Change> {
    use std::os::unix::fs::MetadataExt;
    let meta = source
        .file
        .metadata()
        .map_err(|e| io_error(&format!("look at {}", source.path.display()), e))?;
    Ok(Change::Create {
        parent: FileId::ROOT,
        file,
        kind: FileKind::File,
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        name: source.stored.clone(),
    })
}

fn create_new(path: &Path) -> Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => StoreError::Refused(format!(
                "{} exists already; remove it or name another file",
                path.display()
            )),
            _ => io_error(&format!("create {}", path.display()), error),
        })
}

/// Writes a file's runs; what lies between them stays a hole.
fn write_out(
    out: &File,
    path: &Path,
    node: &image::Node,
    copied: &mut dyn FnMut(u64),
) -> Result<()> {
    let failed = |error| io_error(&format!("write {}", path.display()), error);
    out.set_len(node.size).map_err(failed)?;
    let mut buffer = vec![0; STEP];
    for (start, run) in node.extents.iter() {
        let mut at = start;
        let end = start + run.length;
        while at < end {
            let length = (end - at).min(STEP as u64);
            let bytes = &mut buffer[..length as usize];
            image::read(node, at, Cache::Here, bytes)?;
            out.write_all_at(bytes, at).map_err(failed)?;
            at += length;
            copied(length);
        }
    }
    out.sync_all().map_err(failed)
}
