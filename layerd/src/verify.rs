//! Verify: is every layer what was written?
//!
//! Shallow: each layer's file is there, has its length, and its header, footer and index are whole
//! and agree with the catalog. Deep: every byte of every layer file is read; sealed files are
//! compared with their hash, payloads with their checksums, and what is neither (padding, room
//! allocated ahead) must be zero.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::catalog::{Database, LayerKind, LayerRow, LayerState};
use crate::disk::DiskFile;
use crate::files::Files;
use crate::format::{PAGE_LENGTH, RECORDS_AT};
use crate::id::{DatabaseId, DatabaseName, LayerId, Lsn, Timestamp, random_u64};
use crate::instance;
use crate::layer::Layer;
use crate::load::{note_payload, read_image_header};
use crate::record::{Change, HEADER_LENGTH, RECORD_ALIGN, Record};
use crate::remote::cache::Cache;
use crate::remote::file::RemoteFile;
use crate::remote::objects::Objects;
use crate::remote::prefetch::prefetch;
use crate::remote::tier::Tier;
use crate::scan::{LogScan, OpenError, Scanned, read_footer, read_header, scan_index};
use crate::store::{Problem, Progress, Result, Store, VerifyReport, io_error};

const STEP: usize = 1 << 20;
/// How long a living writer may take from writing a record's first byte to its last.
const WRITE_PATIENCE: Duration = Duration::from_millis(500);

impl Store {
    /// Checks one database's layers (and those it stands on), or all files of the store. `deep`
    /// reads every byte.
    pub fn verify(
        self: &Arc<Self>,
        name: Option<&DatabaseName>,
        deep: bool,
        progress: Progress<'_>,
    ) -> Result<VerifyReport> {
        let inventory = self.catalog().inventory()?;
        let rows: Vec<LayerRow> = match name {
            None => inventory.layers,
            Some(name) => {
                let database = self.catalog().database(name)?;
                let mut rows = self
                    .catalog()
                    .chain(database.id, database.head.point)?
                    .layers;
                rows.extend(self.catalog().layers(database.id)?);
                let mut seen = HashSet::new();
                rows.retain(|row| seen.insert(row.id));
                rows
            }
        };
        let total = rows
            .iter()
            .map(|row| row.bytes.or(row.end).unwrap_or(0))
            .sum();
        let mut check = Check {
            store: self,
            deep,
            report: VerifyReport::default(),
            passage: self
                .remote()
                .map(|objects| Passage::open(self, objects))
                .transpose()?,
            total,
            progress,
        };
        for row in &rows {
            check.layer(row, &inventory.databases);
        }
        if name.is_none() {
            check.unknown_files();
        }
        let mut report = check.report;
        report.ok = report.problems.is_empty();
        progress(total, total);
        Ok(report)
    }
}

/// The remote store as if nothing of it were in this home: through a cache that is empty at first,
/// holds one layer at a time, and goes away.
struct Passage {
    tier: Arc<Tier>,
    cache: Arc<Cache>,
    directory: PathBuf,
}

impl Passage {
    fn open(store: &Store, objects: &Objects) -> Result<Passage> {
        let name = format!("verify-{:016x}", random_u64());
        let directory = store.home().join(name);
        let failed = |error| io_error(&format!("make {}", directory.display()), error);
        std::fs::create_dir(&directory).map_err(failed)?;
        let cache = Cache::open(&directory, store.cache_limits()).map_err(failed)?;
        let tier = Tier::new(objects.clone(), Some(Arc::clone(&cache)));
        tier.ask(store.shared_catalog());
        Ok(Passage {
            tier,
            cache,
            directory,
        })
    }

    fn forget(&self, layer: LayerId) {
        if let Err(error) = self.cache.forget(layer) {
            tracing::debug!(%error, "what was fetched stays until the check ends");
        }
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            tracing::warn!(%error, directory = %self.directory.display(), "cannot remove what was fetched");
        }
    }
}

struct Check<'a> {
    store: &'a Arc<Store>,
    deep: bool,
    report: VerifyReport,
    /// The remote store, past the home's cache.
    passage: Option<Passage>,
    total: u64,
    progress: Progress<'a>,
}

impl Check<'_> {
    fn files(&self) -> &Files {
        self.store.files()
    }

    fn problem(&mut self, path: &Path, offset: u64, what: impl Into<String>) {
        let layer = path
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        self.report.problems.push(Problem {
            layer,
            offset,
            what: what.into(),
        });
    }

    fn checked(&mut self, bytes: u64) {
        self.report.checked_bytes += bytes;
        (self.progress)(self.report.checked_bytes.min(self.total), self.total);
    }

    fn layer(&mut self, row: &LayerRow, databases: &[Database]) {
        if !row.segments.is_empty() {
            self.stored(row);
        }
        // Of another host's layer only that is there which it has sent.
        if self.passage.is_some() && !self.files().has(row) {
            return;
        }
        match (row.kind, row.state) {
            (LayerKind::Image, _) => self.image(row),
            (LayerKind::Delta, LayerState::Sealed) => self.sealed(row),
            (LayerKind::Delta, LayerState::Active | LayerState::Rotated) => {
                let writer_lives = databases
                    .iter()
                    .any(|database| database.id == row.database && self.is_written(database));
                self.unsealed(row, writer_lives);
            }
        }
    }

    fn is_written(&self, database: &Database) -> bool {
        let lease = self.store.catalog().lease(database.id).ok().flatten();
        lease.is_some_and(|lease| !instance::is_dead(&self.files().locks(), &lease.holder))
    }

    /// Opens a layer's file; a missing one is a problem unless the layer is dead.
    fn open(&mut self, row: &LayerRow, path: &Path) -> Option<Arc<dyn DiskFile>> {
        match self.files().disk().open(path, false) {
            Ok(file) => Some(file),
            Err(error) => {
                let gone = error.kind() == std::io::ErrorKind::NotFound;
                if !(gone
                    && (row.dead_since.is_some()
                        || !self.store.catalog().knows_layer(row.id).unwrap_or(true)))
                {
                    self.problem(path, 0, format!("cannot be opened: {error}"));
                }
                None
            }
        }
    }

    fn open_problem(&mut self, path: &Path, error: &OpenError) {
        let offset = match error {
            OpenError::Page { at, .. } | OpenError::Index { at, .. } => *at,
            OpenError::Io(_) => 0,
        };
        self.problem(path, offset, error.to_string());
    }

    /// Checks what the remote store has of a layer, past the local cache.
    fn stored(&mut self, row: &LayerRow) {
        let Some(tier) = self
            .passage
            .as_ref()
            .map(|passage| Arc::clone(&passage.tier))
        else {
            return;
        };
        let kind = match row.kind {
            LayerKind::Delta => "delta",
            LayerKind::Image => "image",
        };
        let label = PathBuf::from(format!("{}.{kind} in the store", row.id));
        let unusable = |check: &mut Self, error: std::io::Error| {
            check.problem(&label, 0, format!("cannot be read: {error}"));
        };
        match (row.kind, row.state) {
            (LayerKind::Image, _) => {
                match tier.image(row.id, row.end.unwrap_or(0), &row.segments) {
                    Ok((image, sums)) => {
                        self.fetch_whole(&[Arc::clone(&image), Arc::clone(&sums)]);
                        self.image_files(row, image, sums, &label, &label);
                    }
                    Err(error) => unusable(self, error),
                }
            }
            (LayerKind::Delta, LayerState::Sealed) => match tier.delta(row.id, &row.segments) {
                Ok(file) => {
                    self.fetch_whole(&[Arc::clone(&file)]);
                    self.sealed_file(row, file, &label);
                }
                Err(error) => unusable(self, error),
            },
            (LayerKind::Delta, LayerState::Active | LayerState::Rotated) => {
                match tier.delta(row.id, &row.segments) {
                    Ok(file) => {
                        self.fetch_whole(&[Arc::clone(&file)]);
                        self.stored_log(row, file, &label);
                    }
                    Err(error) => unusable(self, error),
                }
            }
        }
        if let Some(passage) = &self.passage {
            passage.forget(row.id);
        }
    }

    /// Fetches what a deep check reads anyway, in few large requests. What fails is found again, and
    /// told, by the check.
    fn fetch_whole(&self, files: &[Arc<RemoteFile>]) {
        if self.deep
            && let Err(error) = prefetch(files, &|_, _| (), &AtomicBool::new(false))
        {
            tracing::debug!(%error, "a layer cannot be fetched as a whole");
        }
    }

    /// The log of a layer that is not sealed must reach the end of its segments.
    fn stored_log(&mut self, row: &LayerRow, file: Arc<dyn DiskFile>, label: &Path) {
        let end = row.segments.last().map_or(0, |last| last.end);
        if let Err(error) = read_header(row.id, &*file) {
            return self.open_problem(label, &error);
        }
        let layer = Layer::new(row.id, file);
        let mut scan = LogScan::new(&layer, RECORDS_AT, end);
        while scan.at() < end {
            let at = scan.at();
            match scan.next() {
                Ok(Ok(scanned)) => note_payload(&layer, &scanned),
                Ok(Err(_)) => {
                    return self.problem(label, at, "the log ends before its segments do");
                }
                Err(error) => return self.problem(label, at, format!("cannot be read: {error}")),
            }
        }
        self.checked(end);
        if self.deep {
            self.payloads(&layer, label, u64::MAX);
        }
    }

    fn sealed(&mut self, row: &LayerRow) {
        let path = self.files().sealed(row.id);
        if let Some(file) = self.open(row, &path) {
            self.sealed_file(row, file, &path);
        }
    }

    fn sealed_file(&mut self, row: &LayerRow, file: Arc<dyn DiskFile>, path: &Path) {
        let length = file.length().unwrap_or(0);
        if row.bytes.is_some_and(|bytes| bytes != length) {
            self.problem(
                path,
                length,
                format!(
                    "the file has {length} bytes instead of {}",
                    row.bytes.unwrap_or(0)
                ),
            );
        }
        if let Err(error) = read_header(row.id, &*file) {
            self.open_problem(path, &error);
        }
        let footer = match read_footer(row.id, &*file) {
            Ok(footer) => footer,
            Err(error) => return self.open_problem(path, &error),
        };
        if row.hash.is_some_and(|hash| hash != footer.hash) {
            self.problem(
                path,
                length,
                "the footer's hash is not the one in the catalog",
            );
        }
        let layer = Layer::new(row.id, Arc::clone(&file));
        let scanned = scan_index(&layer, &footer, |scanned| {
            note_payload(&layer, &scanned);
            Ok(true)
        });
        if let Err(error) = scanned {
            self.open_problem(path, &error);
        }
        self.checked(footer.index_length + 2 * PAGE_LENGTH as u64);
        if self.deep {
            self.payloads(&layer, path, u64::MAX);
            self.whole_file(
                &*file,
                path,
                length.saturating_sub(PAGE_LENGTH as u64),
                footer.hash,
            );
        }
    }

    /// Compares the payloads below `end` with their checksums: names the place of damage.
    fn payloads(&mut self, layer: &Layer, path: &Path, end: u64) {
        let mut problems = Vec::new();
        layer.verify_payloads(|offset, what| problems.push((offset, what)), |_| ());
        for (offset, what) in problems.into_iter().filter(|(offset, _)| *offset < end) {
            self.problem(path, offset, what);
        }
    }

    /// Compares the first `length` bytes with their hash: finds damage anywhere.
    fn whole_file(&mut self, file: &dyn DiskFile, path: &Path, length: u64, hash: [u8; 32]) {
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; STEP];
        let mut at = 0;
        while at < length {
            let want = (length - at).min(STEP as u64) as usize;
            match file.read_at(&mut buffer[..want], at) {
                Ok(0) => return self.problem(path, at, "the file ends too early"),
                Ok(got) => {
                    hasher.update(&buffer[..got]);
                    at += got as u64;
                    self.checked(got as u64);
                }
                Err(error) => return self.problem(path, at, format!("cannot be read: {error}")),
            }
        }
        if *hasher.finalize().as_bytes() != hash
            && !self
                .report
                .problems
                .iter()
                .any(|p| path.ends_with(&p.layer))
        {
            self.problem(path, 0, "the content does not match its hash");
        }
    }

    fn image(&mut self, row: &LayerRow) {
        let (path, sums_path) = (self.files().image(row.id), self.files().sums(row.id));
        let Some(file) = self.open(row, &path) else {
            return;
        };
        if let Some(sums) = self.open(row, &sums_path) {
            self.image_files(row, file, sums, &path, &sums_path);
        }
    }

    fn image_files(
        &mut self,
        row: &LayerRow,
        file: Arc<dyn DiskFile>,
        sums: Arc<dyn DiskFile>,
        path: &Path,
        sums_path: &Path,
    ) {
        let (header, sums) = match read_image_header(row.id, &*sums) {
            Ok(found) => found,
            Err(error) => return self.open_problem(sums_path, &error),
        };
        if row.hash.is_some_and(|hash| hash != header.hash) {
            self.problem(sums_path, 0, "its hash is not the one in the catalog");
        }
        let length = file.length().unwrap_or(0);
        if length != header.size {
            self.problem(
                path,
                length,
                format!("the file has {length} bytes instead of {}", header.size),
            );
        }
        self.checked(sums.len() as u64 * 4 + PAGE_LENGTH as u64);
        if self.deep {
            let layer = Layer::image(row.id, Arc::clone(&file), header.size, sums);
            self.payloads(&layer, path, u64::MAX);
            self.whole_file(&*file, path, header.size, header.hash);
        }
    }

    fn unsealed(&mut self, row: &LayerRow, writer_lives: bool) {
        let path = self.files().active(row.id);
        // It may have been sealed since the catalog was read.
        if !path.exists() && self.files().sealed(row.id).exists() {
            return self.sealed(row);
        }
        let Some(file) = self.open(row, &path) else {
            return;
        };
        if let Err(error) = read_header(row.id, &*file) {
            return self.open_problem(&path, &error);
        }
        let layer = Arc::new(Layer::new(row.id, file));
        let log = match self.log(&layer, row, &path) {
            Some(log) => log,
            None => return,
        };
        self.checked(log.end);
        if self.deep {
            self.payloads(&layer, &path, log.must_reach);
            self.blanks(&layer, row, &log, writer_lives, &path);
        }
    }

    /// Walks the log as far as it must reach, and further while there are records.
    fn log(&mut self, layer: &Arc<Layer>, row: &LayerRow, path: &Path) -> Option<Walked> {
        let word = self
            .store
            .head_word(row.database)
            .filter(|word| word.point.layer == row.id);
        let must_reach = row.end.or(word.map(|word| word.end)).unwrap_or(RECORDS_AT);
        let mut scan = LogScan::new(layer, RECORDS_AT, row.end.unwrap_or(u64::MAX));
        let mut gaps = vec![];
        let mut end = RECORDS_AT;
        loop {
            match scan.next() {
                Ok(Ok(scanned)) => {
                    note_payload(layer, &scanned);
                    gaps.extend(padding(&scanned));
                    end = scanned.place.end;
                }
                Ok(Err(_)) if end < must_reach => {
                    self.problem(
                        path,
                        end,
                        "a record of the log is damaged, and later commits were acknowledged",
                    );
                    return None;
                }
                Ok(Err(_)) => {
                    return Some(Walked {
                        end,
                        must_reach,
                        gaps,
                    });
                }
                Err(error) => {
                    self.problem(path, end, format!("cannot be read: {error}"));
                    return None;
                }
            }
        }
    }

    /// Padding between records, and the room behind the log, must be zero. After a crash, what
    /// lies behind the last acknowledged commit is the next writer's to judge: a torn tail is no
    /// damage.
    fn blanks(
        &mut self,
        layer: &Arc<Layer>,
        row: &LayerRow,
        log: &Walked,
        writer_lives: bool,
        path: &Path,
    ) {
        for (begin, end) in log.gaps.iter().filter(|(_, end)| *end <= log.must_reach) {
            if let Some(at) = first_nonzero(layer, *begin, *end) {
                self.problem(path, at, "padding is not zero");
            }
        }
        if row.end.is_some() || !writer_lives {
            return;
        }
        let length = layer.file().length().unwrap_or(log.end);
        let Some(at) = unexplained(layer, log.end, length) else {
            return;
        };
        // It may be a record on its way: a moment later it is whole, and so is the log.
        crate::machine::sleep(WRITE_PATIENCE);
        let fresh = Arc::new(Layer::new(layer.id(), Arc::clone(layer.file())));
        let mut scan = LogScan::new(&fresh, log.end, u64::MAX);
        while matches!(scan.next(), Ok(Ok(_))) {}
        let still = unexplained(&fresh, scan.at(), length);
        if scan.at() <= at && still == Some(at) {
            self.problem(path, at, "the room behind the log is not blank");
        }
    }

    /// Files that the catalog does not know: what is no layer does not belong here; what is one,
    /// left over from something that was killed, is checked as far as it got.
    fn unknown_files(&mut self) {
        for directory in [
            self.files().active_directory(),
            self.files().layer_directory().to_owned(),
        ] {
            let Ok(entries) = std::fs::read_dir(&directory) else {
                continue;
            };
            for entry in entries.flatten() {
                let path = entry.path();
                let layer = path.file_stem().and_then(|stem| stem.to_str());
                let layer = layer.and_then(|stem| stem.parse::<LayerId>().ok());
                match (layer, path.extension().and_then(|end| end.to_str())) {
                    (Some(layer), Some("delta" | "image" | "sums" | "copy")) => {
                        self.orphan(layer, &path);
                    }
                    _ => self.problem(&path, 0, "this file does not belong to the store"),
                }
            }
        }
    }

    fn orphan(&mut self, layer: LayerId, path: &Path) {
        if self.store.catalog().knows_layer(layer).unwrap_or(true) {
            return;
        }
        let kind = match path.extension().and_then(|end| end.to_str()) {
            Some("image") if self.files().sums(layer).exists() => LayerKind::Image,
            // A delta layer gets here only once it is whole.
            Some("delta") if path.parent() == Some(self.files().layer_directory()) => {
                LayerKind::Delta
            }
            _ => return,
        };
        self.layer(&orphan_row(layer, kind), &[]);
    }
}

/// What a layer without a row is checked against: itself.
fn orphan_row(id: LayerId, kind: LayerKind) -> LayerRow {
    LayerRow {
        kind,
        state: LayerState::Sealed,
        ..LayerRow::begun(id, DatabaseId(0), None, Lsn::EMPTY, Timestamp(0))
    }
}

struct Walked {
    end: u64,
    /// Below this every byte is known to have been durable; behind it may lie what a crash tore.
    must_reach: u64,
    /// Padding within and between records.
    gaps: Vec<(u64, u64)>,
}

/// The padding around a data record's payload.
fn padding(scanned: &Scanned) -> Vec<(u64, u64)> {
    let Change::Data {
        length, payload_at, ..
    } = scanned.record.change
    else {
        return Vec::new();
    };
    let body_end = scanned.at + HEADER_LENGTH as u64 + scanned.record.change.body_length();
    let gaps = [
        (body_end, payload_at),
        (payload_at + length, scanned.place.end),
    ];
    gaps.into_iter()
        .filter(|(begin, end)| begin < end)
        .collect()
}

fn first_nonzero(layer: &Layer, begin: u64, end: u64) -> Option<u64> {
    let mut buffer = vec![0; STEP];
    let mut at = begin;
    while at < end {
        let want = (end - at).min(STEP as u64) as usize;
        let got = layer.file().read_at(&mut buffer[..want], at).ok()?;
        if let Some(skip) = buffer[..got].iter().position(|b| *b != 0) {
            return Some(at + skip as u64);
        }
        if got < want {
            return None;
        }
        at += got as u64;
    }
    None
}

/// The first byte behind the log that is not zero and belongs to no record that a killed writer
/// left: a whole one behind a gap, or a torn one with its header.
fn unexplained(layer: &Arc<Layer>, end: u64, length: u64) -> Option<u64> {
    let mut at = end;
    while let Some(found) = first_nonzero(layer, at, length) {
        let begin = found / RECORD_ALIGN * RECORD_ALIGN;
        let mut head = vec![0; 64 << 10];
        let got = layer.file().read_at(&mut head, begin).ok()?;
        match Record::decode(layer.id(), begin, &head[..got]) {
            Ok((_, place)) => at = place.end,
            Err(_) => return Some(found),
        }
    }
    None
}
