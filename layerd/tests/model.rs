//! The engine and a plain map of byte vectors are given the same random operations, crashes,
//! rotations, compactions, collections, clones and restores included, and must agree: every
//! reopened state is one that was reached at or behind the last acknowledged commit, and every kept
//! commit reads as it did.
//!
//! `OPENDUCK_CASES` makes it longer; a failure prints the operations and leaves a regression file.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod crash_disk;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use layerd::disk::Disk;
use layerd::frozen::{FileKind, Frozen};
use layerd::id::{DatabaseName, FileId, Lsn};
use layerd::reference::Ref;
use layerd::store::{Store, StoreConfig};
use layerd::writer::{NewFile, RenameMode, SetAttr, Writer, WriterOptions};
use proptest::prelude::*;

use crash_disk::CrashDisk;

/// Names that the operations use; the first two are the database's own.
const NAMES: [&str; 4] = ["db.duckdb", "db.duckdb.wal", "other", "more"];
const SIZE_MAX: u64 = 200_000;

#[derive(Clone, Debug)]
enum Op {
    Write {
        name: usize,
        offset: u64,
        length: u64,
        byte: u8,
    },
    Truncate {
        name: usize,
        size: u64,
    },
    Punch {
        name: usize,
        offset: u64,
        length: u64,
    },
    Unlink {
        name: usize,
    },
    Rename {
        from: usize,
        to: usize,
    },
    Sync,
    Snapshot,
    Rotate,
    /// Forget all commits but the head and snapshots, and give their space back.
    Compact,
    Collect,
    /// The process is killed: what was written stays in the page cache.
    Kill,
    /// The power fails.
    Crash {
        seed: u64,
    },
    Close,
    Clone,
    /// Back to an earlier commit; counted from the newest that is known.
    Restore {
        back: usize,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let name = 0..NAMES.len();
    let offset = prop_oneof![0..SIZE_MAX, (0..40u64).prop_map(|page| page * 4096)];
    let length = prop_oneof![1..400u64, 4096..70_000u64];
    prop_oneof![
        12 => (name.clone(), offset.clone(), length.clone(), any::<u8>())
            .prop_map(|(name, offset, length, byte)| Op::Write { name, offset, length, byte }),
        2 => (name.clone(), 0..SIZE_MAX).prop_map(|(name, size)| Op::Truncate { name, size }),
        2 => (name.clone(), offset, length).prop_map(|(name, offset, length)| Op::Punch { name, offset, length }),
        1 => name.clone().prop_map(|name| Op::Unlink { name }),
        1 => (name.clone(), name).prop_map(|(from, to)| Op::Rename { from, to }),
        8 => Just(Op::Sync),
        1 => Just(Op::Snapshot),
        2 => Just(Op::Rotate),
        1 => Just(Op::Compact),
        1 => Just(Op::Collect),
        1 => Just(Op::Kill),
        1 => any::<u64>().prop_map(|seed| Op::Crash { seed }),
        1 => Just(Op::Close),
        1 => Just(Op::Clone),
        1 => (0..6usize).prop_map(|back| Op::Restore { back }),
    ]
}

/// All files and their content.
type Files = BTreeMap<&'static str, Vec<u8>>;

fn database() -> DatabaseName {
    "db".parse().unwrap()
}

fn open_store(home: &Path, disk: Arc<dyn Disk>) -> Arc<Store> {
    Store::open_on(&StoreConfig::of_home(home), disk).unwrap()
}

fn files_of(frozen: &Frozen, database: &str) -> Files {
    let mut files = Files::new();
    for entry in frozen.list(FileId::ROOT).unwrap() {
        let shown = String::from_utf8(entry.name)
            .unwrap()
            .replace(&format!("{database}.duckdb"), "db.duckdb");
        let name = NAMES.iter().find(|name| **name == shown).unwrap();
        let size = frozen.attr(entry.file).unwrap().size;
        let mut content = vec![0xaa; size as usize];
        let got = frozen.read(entry.file, 0, &mut content).unwrap();
        assert_eq!(got as u64, size);
        files.insert(name, content);
    }
    files
}

/// The engine and the model side by side.
struct Pair {
    home: tempfile::TempDir,
    disk: CrashDisk,
    store: Arc<Store>,
    writer: Option<Writer>,
    /// The model's state now.
    now: Files,
    /// Every state since the last acknowledged commit, that one first.
    since: Vec<Files>,
    /// What each commit that is still kept looked like.
    commits: BTreeMap<Lsn, Files>,
    /// The commits that have a snapshot.
    named: Vec<Lsn>,
    head: Lsn,
    dirty: bool,
    clones: Vec<(DatabaseName, Files)>,
}

impl Pair {
    fn new() -> Pair {
        let home = if Path::new("/dev/shm").is_dir() {
            tempfile::tempdir_in("/dev/shm")
        } else {
            tempfile::tempdir()
        };
        let home = home.unwrap();
        let disk = CrashDisk::new();
        let store = open_store(home.path(), Arc::new(disk.clone()));
        store.create(&database()).unwrap();
        let writer = store
            .open_writer(&database(), WriterOptions::default())
            .unwrap();
        Pair {
            home,
            disk,
            store,
            writer: Some(writer),
            now: Files::new(),
            since: vec![Files::new()],
            commits: BTreeMap::new(),
            named: Vec::new(),
            head: Lsn::EMPTY,
            dirty: false,
            clones: Vec::new(),
        }
    }

    fn writer(&self) -> &Writer {
        self.writer.as_ref().unwrap()
    }

    fn file(&self, name: &str) -> Option<FileId> {
        self.writer()
            .lookup(FileId::ROOT, name.as_bytes())
            .ok()
            .map(|attr| attr.file)
    }

    /// The model changed: so did the engine, in the same way.
    fn changed(&mut self) {
        self.dirty = true;
        self.since.push(self.now.clone());
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Write {
                name,
                offset,
                length,
                byte,
            } => {
                let name = NAMES[name];
                if self.file(name).is_none() {
                    let new = NewFile {
                        kind: FileKind::File,
                        mode: 0o644,
                        uid: 0,
                        gid: 0,
                    };
                    self.writer()
                        .create(FileId::ROOT, name.as_bytes(), new)
                        .unwrap();
                    self.now.insert(name, Vec::new());
                    self.changed();
                }
                let bytes: Vec<u8> = (0..length)
                    .map(|i| byte.wrapping_add((i / 97) as u8))
                    .collect();
                self.writer()
                    .write(self.file(name).unwrap(), offset, &bytes)
                    .unwrap();
                let content = self.now.get_mut(name).unwrap();
                let end = (offset + length) as usize;
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[offset as usize..end].copy_from_slice(&bytes);
                self.changed();
            }
            Op::Truncate { name, size } => {
                let Some(file) = self.file(NAMES[name]) else {
                    return;
                };
                let before = self.writer().attr(file).unwrap().size;
                self.writer()
                    .set_attr(
                        file,
                        SetAttr {
                            size: Some(size),
                            ..SetAttr::default()
                        },
                    )
                    .unwrap();
                self.now
                    .get_mut(NAMES[name])
                    .unwrap()
                    .resize(size as usize, 0);
                if before != size {
                    self.changed();
                }
            }
            Op::Punch {
                name,
                offset,
                length,
            } => {
                let Some(file) = self.file(NAMES[name]) else {
                    return;
                };
                let before = self.writer().attr(file).unwrap().allocated;
                self.writer().punch_hole(file, offset, length).unwrap();
                let content = self.now.get_mut(NAMES[name]).unwrap();
                let end = ((offset + length) as usize).min(content.len());
                if let Some(hole) = content.get_mut(offset as usize..end) {
                    hole.fill(0);
                }
                if self.writer().attr(file).unwrap().allocated != before {
                    self.changed();
                }
            }
            Op::Unlink { name } => {
                if self.file(NAMES[name]).is_some() {
                    self.writer()
                        .unlink(FileId::ROOT, NAMES[name].as_bytes())
                        .unwrap();
                    self.now.remove(NAMES[name]);
                    self.changed();
                }
            }
            Op::Rename { from, to } => {
                if from != to && self.file(NAMES[from]).is_some() {
                    let (from, to) = (NAMES[from], NAMES[to]);
                    let root = FileId::ROOT;
                    self.writer()
                        .rename(
                            (root, from.as_bytes()),
                            (root, to.as_bytes()),
                            RenameMode::Replace,
                        )
                        .unwrap();
                    let content = self.now.remove(from).unwrap();
                    self.now.insert(to, content);
                    self.changed();
                }
            }
            Op::Sync => {
                let lsn = self.writer().sync().unwrap();
                self.acknowledged(lsn);
            }
            Op::Snapshot => {
                if self.head != Lsn::EMPTY {
                    let snapshot = self.store.snapshot(&database(), None).unwrap();
                    assert_eq!(snapshot.lsn, self.head);
                    self.named.push(snapshot.lsn);
                } else {
                    assert!(self.store.snapshot(&database(), None).is_err());
                }
            }
            Op::Rotate => {
                self.writer().rotate().unwrap();
                let lsn = self.writer().committed().lsn();
                self.acknowledged(lsn);
            }
            Op::Compact => {
                self.store
                    .set_retention(&database(), Duration::ZERO)
                    .unwrap();
                self.store.compact(&database(), &|_, _| ()).unwrap();
                self.store
                    .set_retention(&database(), Duration::from_secs(3600))
                    .unwrap();
                self.writer().reload().unwrap();
                let kept: Vec<Lsn> = self
                    .store
                    .commits(&database())
                    .unwrap()
                    .iter()
                    .map(|commit| commit.lsn)
                    .collect();
                for lsn in self
                    .named
                    .iter()
                    .chain([&self.head])
                    .filter(|lsn| **lsn != Lsn::EMPTY)
                {
                    assert!(
                        kept.contains(lsn),
                        "commit {lsn} must be kept, not only {kept:?}"
                    );
                }
                self.commits.retain(|lsn, _| kept.contains(lsn));
            }
            Op::Collect => {
                self.store.gc(Some(Duration::ZERO), false).unwrap();
            }
            Op::Kill => {
                drop(self.writer.take());
                self.reopen();
            }
            Op::Crash { seed } => {
                let mut random = seed | 1;
                self.disk.crash(|| {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    random % 3 != 0
                });
                drop(self.writer.take());
                self.reopen();
            }
            Op::Close => {
                self.writer().close().unwrap();
                drop(self.writer.take());
                self.reopen();
                assert!(self.since.len() == 1 && !self.dirty);
            }
            Op::Clone => {
                if self.clones.len() < 3 && self.head != Lsn::EMPTY {
                    let name: DatabaseName = format!("clone{}", self.clones.len()).parse().unwrap();
                    self.store
                        .clone_database(&database(), &Ref::Latest, &name)
                        .unwrap();
                    self.clones.push((name, self.commits[&self.head].clone()));
                    self.named.push(self.head);
                }
            }
            Op::Restore { back } => self.restore(back),
        }
    }

    fn acknowledged(&mut self, lsn: Lsn) {
        if self.dirty {
            assert_eq!(lsn, self.head.next());
            self.commits.insert(lsn, self.now.clone());
        } else {
            assert_eq!(lsn, self.head, "nothing new, no commit");
        }
        self.head = lsn;
        self.dirty = false;
        self.since = vec![self.now.clone()];
    }

    fn restore(&mut self, back: usize) {
        let Some((&lsn, files)) = self.commits.iter().rev().nth(back) else {
            return;
        };
        let files = files.clone();
        self.writer().close().unwrap();
        drop(self.writer.take());
        if self.dirty {
            self.head = self.head.next();
            self.commits.insert(self.head, self.now.clone());
        }
        let restored = self.store.restore(&database(), &Ref::Lsn(lsn)).unwrap();
        assert_eq!(restored, self.head.next());
        self.head = restored;
        self.commits.insert(restored, files.clone());
        (self.dirty, self.now, self.since) = (false, files.clone(), vec![files]);
        self.reopen();
    }

    /// Another process comes: what it finds is a state that was reached.
    fn reopen(&mut self) {
        let disk = CrashDisk::new();
        self.store = open_store(self.home.path(), Arc::new(disk.clone()));
        self.disk = disk;
        let writer = self
            .store
            .open_writer(&database(), WriterOptions::default())
            .unwrap();
        let committed = writer.committed();
        let found = files_of(&committed, "db");
        assert!(
            committed.lsn() == self.head || committed.lsn() == self.head.next(),
            "{} after {}",
            committed.lsn(),
            self.head
        );
        if committed.lsn() == self.head {
            assert!(
                found == self.since[0],
                "the acknowledged commit {} has changed",
                self.head
            );
        } else {
            assert!(
                self.since.contains(&found),
                "recovery found a state that never was"
            );
            self.head = committed.lsn();
            self.commits.insert(self.head, found.clone());
        }
        (self.now, self.since, self.dirty) = (found.clone(), vec![found], false);
        self.writer = Some(writer);
    }

    /// Everything that is kept reads as it did.
    fn check(&self) {
        let writer = self.writer();
        for (name, content) in &self.now {
            let attr = writer.lookup(FileId::ROOT, name.as_bytes()).unwrap();
            let mut found = vec![0xaa; SIZE_MAX as usize * 2];
            let got = writer.read(attr.file, 0, &mut found).unwrap();
            assert!(found[..got] == *content, "the live file {name} differs");
        }
        assert_eq!(writer.list(FileId::ROOT).unwrap().len(), self.now.len());
        for (lsn, files) in &self.commits {
            let reader = self
                .store
                .open_reader(&database(), &Ref::Lsn(*lsn))
                .unwrap();
            assert!(
                files_of(&reader.frozen(), "db") == *files,
                "commit {lsn} has changed"
            );
        }
        for (name, files) in &self.clones {
            let reader = self.store.open_reader(name, &Ref::Latest).unwrap();
            assert!(
                files_of(&reader.frozen(), name.as_str()) == *files,
                "clone {name} has changed"
            );
        }
        let report = self.store.verify(None, true, &|_, _| ()).unwrap();
        assert!(report.ok, "{:?}", report.problems);
    }
}

fn cases() -> u32 {
    std::env::var("OPENDUCK_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok())
        .unwrap_or(48)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn engine_equals_a_map_of_byte_vectors(ops in prop::collection::vec(op(), 1..60)) {
        let mut pair = Pair::new();
        for op in &ops {
            pair.apply(op);
        }
        pair.check();
    }

    /// The machine stops at any step of I/O, within whatever was under way.
    #[test]
    fn a_crash_at_any_step_loses_nothing_acknowledged(
        ops in prop::collection::vec(op(), 1..40),
        steps in 0..150u32,
        seed in any::<u64>(),
    ) {
        let mut pair = Pair::new();
        pair.run_until_stopped(&ops, steps, seed);
        pair.check();
    }
}

impl Pair {
    /// Applies writes and syncs until the disk stops, then lets the power fail and reopens.
    fn run_until_stopped(&mut self, ops: &[Op], steps: u32, seed: u64) {
        self.disk.stop_after(steps);
        for op in ops {
            let alive = match op {
                Op::Write {
                    name,
                    offset,
                    length,
                    byte,
                } => self.try_write(NAMES[*name], *offset, *length, *byte),
                Op::Rotate => {
                    self.try_commit(|writer| writer.rotate().map(|_| writer.committed().lsn()))
                }
                _ => self.try_commit(Writer::sync),
            };
            if !alive {
                break;
            }
        }
        self.apply(&Op::Crash { seed });
    }

    /// The states that a failed operation may have left are among those that recovery may find.
    fn try_write(&mut self, name: &'static str, offset: u64, length: u64, byte: u8) -> bool {
        let file = match self.file(name) {
            Some(file) => file,
            None => {
                self.now.insert(name, Vec::new());
                self.changed();
                let new = NewFile {
                    kind: FileKind::File,
                    mode: 0o644,
                    uid: 0,
                    gid: 0,
                };
                match self.writer().create(FileId::ROOT, name.as_bytes(), new) {
                    Ok(attr) => attr.file,
                    Err(_) => return false,
                }
            }
        };
        let content = self.now.get_mut(name).unwrap();
        let end = (offset + length) as usize;
        if content.len() < end {
            content.resize(end, 0);
        }
        content[offset as usize..end].fill(byte);
        self.changed();
        self.writer()
            .write(file, offset, &vec![byte; length as usize])
            .is_ok()
    }

    fn try_commit(&mut self, commit: impl Fn(&Writer) -> Result<Lsn, layerd::FsError>) -> bool {
        match commit(self.writer()) {
            Ok(lsn) => {
                self.acknowledged(lsn);
                true
            }
            Err(_) => false,
        }
    }
}
