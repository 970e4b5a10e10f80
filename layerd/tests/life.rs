//! A database's life through the public interface: what was acknowledged is there, whatever came
//! in between.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use layerd::frozen::{FileKind, Frozen};
use layerd::id::{DatabaseName, FileId, Lsn};
use layerd::reference::Ref;
use layerd::store::{Store, StoreConfig};
use layerd::writer::{NewFile, RenameMode, SetAttr, Writer, WriterOptions};

const FILE: NewFile = NewFile {
    kind: FileKind::File,
    mode: 0o644,
    uid: 0,
    gid: 0,
};

fn open(home: &Path) -> Arc<Store> {
    Store::open(&StoreConfig::of_home(home)).unwrap()
}

fn name(text: &str) -> DatabaseName {
    text.parse().unwrap()
}

fn create(writer: &Writer, file: &str) -> FileId {
    writer
        .create(FileId::ROOT, file.as_bytes(), FILE)
        .unwrap()
        .file
}

fn content(frozen: &Frozen, file: &str) -> Vec<u8> {
    let attr = frozen.lookup(FileId::ROOT, file.as_bytes()).unwrap();
    let mut out = vec![0xaa; attr.size as usize];
    assert_eq!(frozen.read(attr.file, 0, &mut out).unwrap(), out.len());
    out
}

fn read_at(store: &Arc<Store>, database: &str, reference: &str) -> Vec<u8> {
    let reader = store
        .open_reader(&name(database), &reference.parse().unwrap())
        .unwrap();
    content(&reader.frozen(), &format!("{database}.duckdb"))
}

#[test]
fn every_commit_opens_as_it_was() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    store.create(&name("db")).unwrap();
    let writer = store
        .open_writer(&name("db"), WriterOptions::default())
        .unwrap();
    let file = create(&writer, "db.duckdb");
    let mut expected = vec![0; 300_000];
    for round in 0..20u8 {
        let at = usize::from(round) * 7_000;
        let bytes = vec![round + 1; 50_000];
        writer.write(file, at as u64, &bytes).unwrap();
        expected[at..at + bytes.len()].fill(round + 1);
        assert_eq!(writer.sync().unwrap(), Lsn(u64::from(round) + 1));
        assert_eq!(
            writer.sync().unwrap(),
            Lsn(u64::from(round) + 1),
            "nothing new, no commit"
        );
        let size = writer.attr(file).unwrap().size as usize;
        assert_eq!(read_at(&store, "db", "latest"), expected[..size]);
        if round == 9 {
            store
                .snapshot(&name("db"), Some(&"half".parse().unwrap()))
                .unwrap();
            assert!(writer.rotate().unwrap());
        }
    }
    writer.close().unwrap();
    let all = read_at(&store, "db", "latest");
    assert_eq!(all, expected[..all.len()]);
    let half = read_at(&store, "db", "half");
    assert_eq!(half, read_at(&store, "db", "lsn:10"));
    assert_eq!(half.len(), 9 * 7_000 + 50_000);
    assert_eq!(half[half.len() - 1], 10);
    assert_eq!(store.commits(&name("db")).unwrap().len(), 20);
}

#[test]
fn a_writer_that_ends_without_a_word_loses_nothing_acknowledged() {
    let home = tempfile::tempdir().unwrap();
    for round in 0..5u64 {
        let store = open(home.path());
        if round == 0 {
            store.create(&name("db")).unwrap();
        }
        let writer = store
            .open_writer(&name("db"), WriterOptions::default())
            .unwrap();
        let file = match writer.lookup(FileId::ROOT, b"db.duckdb") {
            Ok(attr) => attr.file,
            Err(_) => create(&writer, "db.duckdb"),
        };
        assert_eq!(writer.attr(file).unwrap().size, round * 100);
        writer
            .write(file, round * 100, &[round as u8; 100])
            .unwrap();
        writer.sync().unwrap();
        drop(writer);
    }
    let store = open(home.path());
    let expected: Vec<u8> = (0..5u8).flat_map(|round| [round; 100]).collect();
    assert_eq!(read_at(&store, "db", "latest"), expected);
    assert!(store.verify(None, true, &|_, _| ()).unwrap().ok);
}

#[test]
fn a_follower_sees_each_commit_at_once() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    store.create(&name("db")).unwrap();
    let writer = store
        .open_writer(&name("db"), WriterOptions::default())
        .unwrap();
    let reading = open(home.path());
    let follower = reading.open_follower(&name("db")).unwrap();
    assert_eq!(follower.latest().unwrap().lsn(), Lsn::EMPTY);
    let file = create(&writer, "db.duckdb");
    for round in 1..=50u64 {
        writer
            .write(file, (round - 1) * 10, &[round as u8; 10])
            .unwrap();
        let lsn = writer.sync().unwrap();
        if round % 7 == 0 {
            writer.rotate().unwrap();
        }
        let latest = follower.latest().unwrap();
        assert_eq!(latest.lsn(), lsn);
        assert_eq!(content(&latest, "db.duckdb").len() as u64, round * 10);
    }
    let held = follower.latest().unwrap();
    writer
        .set_attr(
            file,
            SetAttr {
                size: Some(0),
                ..SetAttr::default()
            },
        )
        .unwrap();
    writer.sync().unwrap();
    assert_eq!(
        content(&held, "db.duckdb").len(),
        500,
        "a held image never changes"
    );
    assert_eq!(content(&follower.latest().unwrap(), "db.duckdb").len(), 0);
}

#[test]
fn clones_and_restores_keep_the_rules_of_lsns() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    store.create(&name("a")).unwrap();
    let writer = store
        .open_writer(&name("a"), WriterOptions::default())
        .unwrap();
    let file = create(&writer, "a.duckdb");
    for round in 1..=5u8 {
        writer.write(file, 0, &[round; 10]).unwrap();
        writer.sync().unwrap();
    }
    let clone = store
        .clone_database(&name("a"), &"lsn:3".parse().unwrap(), &name("b"))
        .unwrap();
    assert_eq!(clone.head.lsn(), Lsn(3));
    assert_eq!(read_at(&store, "b", "latest"), [3; 10]);
    assert_eq!(
        read_at(&store, "b", "lsn:2"),
        [2; 10],
        "earlier commits resolve in the source"
    );
    assert!(store.open_reader(&name("b"), &Ref::Lsn(Lsn(4))).is_err());
    let cloned = store
        .open_writer(&name("b"), WriterOptions::default())
        .unwrap();
    let file = cloned.lookup(FileId::ROOT, b"b.duckdb").unwrap().file;
    cloned.write(file, 0, &[40; 10]).unwrap();
    assert_eq!(cloned.sync().unwrap(), Lsn(4));
    cloned.close().unwrap();
    writer.close().unwrap();
    assert_eq!(read_at(&store, "b", "latest"), [40; 10]);
    assert_eq!(read_at(&store, "a", "lsn:4"), [4; 10]);

    assert_eq!(
        store.restore(&name("a"), &Ref::Lsn(Lsn(2))).unwrap(),
        Lsn(6)
    );
    assert_eq!(read_at(&store, "a", "latest"), [2; 10]);
    assert_eq!(
        read_at(&store, "a", "lsn:5"),
        [5; 10],
        "what was in between stays addressable"
    );
    let writer = store
        .open_writer(&name("a"), WriterOptions::default())
        .unwrap();
    assert_eq!(writer.committed().lsn(), Lsn(6));
    writer.close().unwrap();
    store.remove(&name("a")).unwrap();
    assert_eq!(
        read_at(&store, "b", "lsn:3"),
        [3; 10],
        "a clone outlives its source"
    );
    store.undrop(&name("a")).unwrap();
    assert_eq!(read_at(&store, "a", "latest"), [2; 10]);
    assert!(store.verify(None, true, &|_, _| ()).unwrap().ok);
}

#[test]
fn space_comes_back_and_what_is_kept_stays() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    store.create(&name("db")).unwrap();
    let writer = store
        .open_writer(&name("db"), WriterOptions::default())
        .unwrap();
    let file = create(&writer, "db.duckdb");
    let megabyte = |byte: u8| vec![byte; 1 << 20];
    for round in 1..=30u8 {
        writer.write(file, 0, &megabyte(round)).unwrap();
        writer.write(file, 1 << 20, &[round; 5000]).unwrap();
        writer.sync().unwrap();
        if round % 10 == 0 {
            writer.rotate().unwrap();
        }
        if round == 12 {
            store
                .snapshot(&name("db"), Some(&"twelve".parse().unwrap()))
                .unwrap();
        }
    }
    store.set_retention(&name("db"), Duration::ZERO).unwrap();
    let held = store
        .open_reader(&name("db"), &"lsn:30".parse().unwrap())
        .unwrap();
    let report = store.compact(&name("db"), &|_, _| ()).unwrap();
    assert!(report.bytes_after < 3 << 20, "{report:?}");
    writer.reload().unwrap();
    store.gc(Some(Duration::ZERO), false).unwrap();
    assert_eq!(
        content(&held.frozen(), "db.duckdb")[..1 << 20],
        megabyte(30)
    );
    let mut live = vec![0xaa; 2 << 20];
    let got = writer.read(file, 0, &mut live).unwrap();
    assert_eq!(live[..1 << 20], megabyte(30));
    assert_eq!(live[1 << 20..got], [30; 5000]);
    drop(held);
    writer.write(file, 0, &[31; 10]).unwrap();
    writer.sync().unwrap();
    writer.close().unwrap();
    store.gc(Some(Duration::ZERO), false).unwrap();
    assert_eq!(read_at(&store, "db", "twelve")[..1 << 20], megabyte(12));
    assert_eq!(read_at(&store, "db", "latest")[..10], [31; 10]);
    assert!(
        store
            .open_reader(&name("db"), &"lsn:5".parse().unwrap())
            .is_err()
    );
    assert!(store.verify(None, true, &|_, _| ()).unwrap().ok);
    assert!(
        disk_bytes(home.path()) < 4 << 20,
        "{}",
        disk_bytes(home.path())
    );
    store
        .unsnapshot(&name("db"), &"twelve".parse().unwrap())
        .unwrap();
    store.compact(&name("db"), &|_, _| ()).unwrap();
    store.gc(Some(Duration::ZERO), false).unwrap();
    assert_eq!(read_at(&store, "db", "latest")[..10], [31; 10]);
    assert!(
        disk_bytes(home.path()) < 2 << 20,
        "{}",
        disk_bytes(home.path())
    );
}

fn disk_bytes(home: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let walk = |directory: &str| {
        let entries = std::fs::read_dir(home.join(directory)).unwrap();
        entries
            .map(|entry| entry.unwrap().metadata().unwrap().blocks() * 512)
            .sum::<u64>()
    };
    walk("objects/active") + walk("objects/layers")
}

#[test]
fn a_file_comes_in_and_goes_out_bit_exact() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    let source = home.path().join("plain.duckdb");
    let mut bytes: Vec<u8> = (0..5_000_000u32)
        .flat_map(|i| (i.wrapping_mul(2_654_435_761)).to_le_bytes())
        .collect();
    bytes[1_000_000..3_000_000].fill(0);
    bytes.truncate(19_999_999);
    std::fs::write(&source, &bytes).unwrap();
    std::fs::write(home.path().join("plain.duckdb.wal"), b"a log").unwrap();
    let database = store.import(&source, &name("db"), &|_, _| ()).unwrap();
    assert_eq!(database.head.lsn(), Lsn(1));
    assert_eq!(read_at(&store, "db", "latest"), bytes);
    let reader = store.open_reader(&name("db"), &Ref::Latest).unwrap();
    let main = reader.frozen().lookup(FileId::ROOT, b"db.duckdb").unwrap();
    assert!(reader.frozen().whole_image(main.file).is_some());
    let out = home.path().join("out.duckdb");
    let written = store
        .export(&name("db"), &Ref::Latest, &out, &|_, _| ())
        .unwrap();
    assert_eq!(written.len(), 2);
    assert!(std::fs::read(&out).unwrap() == bytes);
    assert_eq!(
        std::fs::read(home.path().join("out.duckdb.wal")).unwrap(),
        b"a log"
    );
    assert!(
        store
            .export(&name("db"), &Ref::Latest, &out, &|_, _| ())
            .is_err(),
        "nothing is overwritten"
    );
    let writer = store
        .open_writer(&name("db"), WriterOptions::default())
        .unwrap();
    writer.write(main.file, 10_000_000, &[9; 4096]).unwrap();
    writer.sync().unwrap();
    writer.close().unwrap();
    let diff = store
        .diff(&name("db"), &Ref::Lsn(Lsn(1)), &name("db"), &Ref::Latest)
        .unwrap();
    assert_eq!(diff.len(), 1);
    assert!(
        diff[0].changed_bytes <= 8192 && diff[0].changed_bytes >= 4096,
        "{diff:?}"
    );
    assert!(store.verify(None, true, &|_, _| ()).unwrap().ok);
}

#[test]
fn names_behave_as_in_any_directory() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    store.create(&name("db")).unwrap();
    let writer = store
        .open_writer(&name("db"), WriterOptions::default())
        .unwrap();
    let root = FileId::ROOT;
    let file = create(&writer, "db.duckdb");
    assert!(matches!(
        writer.create(root, b"db.duckdb", FILE),
        Err(layerd::FsError::Exists)
    ));
    let directory = writer
        .create(
            root,
            b"dir",
            NewFile {
                kind: FileKind::Directory,
                ..FILE
            },
        )
        .unwrap()
        .file;
    writer.create(directory, b"x", FILE).unwrap();
    assert!(matches!(
        writer.rmdir(root, b"dir"),
        Err(layerd::FsError::NotEmpty)
    ));
    assert!(matches!(
        writer.rename((root, b"dir"), (directory, b"in"), RenameMode::Replace),
        Err(layerd::FsError::Invalid)
    ));
    let other = create(&writer, "db.duckdb.wal.checkpoint");
    writer.write(other, 0, b"new").unwrap();
    create(&writer, "db.duckdb.wal");
    writer
        .rename(
            (root, b"db.duckdb.wal.checkpoint"),
            (root, b"db.duckdb.wal"),
            RenameMode::Replace,
        )
        .unwrap();
    assert_eq!(writer.lookup(root, b"db.duckdb.wal").unwrap().file, other);
    writer.opened(file);
    writer.write(file, 0, b"still here").unwrap();
    writer.unlink(root, b"db.duckdb").unwrap();
    let mut out = [0xaa; 100];
    let got = writer.read(file, 0, &mut out).unwrap();
    assert_eq!(out[..got], *b"still here");
    writer.released(file);
    assert!(writer.read(file, 0, &mut out).is_err());
    writer.close().unwrap();
    let frozen = store
        .open_reader(&name("db"), &Ref::Latest)
        .unwrap()
        .frozen();
    let names: Vec<Vec<u8>> = frozen
        .list(root)
        .unwrap()
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    assert_eq!(names, [b"db.duckdb.wal".to_vec(), b"dir".to_vec()]);
}

#[test]
fn a_writer_that_is_closed_takes_nothing_more() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    store.create(&name("db")).unwrap();
    let writer = store
        .open_writer(&name("db"), WriterOptions::default())
        .unwrap();
    let file = create(&writer, "db.duckdb");
    let accepted = std::thread::scope(|scope| {
        let appending = scope.spawn(|| {
            let mut count = 0;
            while writer.write(file, count * 100, &[1; 100]).is_ok() {
                count += 1;
            }
            count
        });
        std::thread::sleep(Duration::from_millis(50));
        writer.close().unwrap();
        appending.join().unwrap()
    });
    assert!(writer.sync().is_err());
    assert!(writer.unlink(FileId::ROOT, b"db.duckdb").is_err());
    assert_eq!(
        read_at(&store, "db", "latest").len() as u64,
        accepted * 100,
        "what was taken is kept"
    );
    assert!(store.verify(None, true, &|_, _| ()).unwrap().ok);
    let next = store
        .open_writer(&name("db"), WriterOptions::default())
        .unwrap();
    assert_eq!(next.attr(file).unwrap().size, accepted * 100);
}

#[test]
fn rotations_and_compactions_at_once_harm_nobody() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    store.create(&name("db")).unwrap();
    store.set_retention(&name("db"), Duration::ZERO).unwrap();
    let writer = store
        .open_writer(&name("db"), WriterOptions::default())
        .unwrap();
    let file = create(&writer, "db.duckdb");
    let written = std::thread::scope(|scope| {
        let care = || {
            for _ in 0..6 {
                writer.rotate().unwrap();
                store.compact(&name("db"), &|_, _| ()).unwrap();
                writer.reload().unwrap();
                store.gc(Some(Duration::ZERO), false).unwrap();
            }
        };
        let caring = [scope.spawn(care), scope.spawn(care), scope.spawn(care)];
        let mut count = 0;
        while !caring.iter().all(|thread| thread.is_finished()) {
            writer
                .write(file, count * 100, &[count as u8; 100])
                .unwrap();
            writer.sync().unwrap();
            count += 1;
        }
        count
    });
    let expected: Vec<u8> = (0..written).flat_map(|count| [count as u8; 100]).collect();
    let mut found = vec![0xaa; expected.len() + 1];
    let got = writer.read(file, 0, &mut found).unwrap();
    assert!(found[..got] == expected);
    assert!(read_at(&store, "db", "latest") == expected);
    writer.close().unwrap();
    assert!(store.verify(None, true, &|_, _| ()).unwrap().ok);
}

#[test]
fn a_writer_that_overslept_its_lease_is_not_taken_for_dead_in_its_own_home() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    let database = store.create(&name("db")).unwrap();
    let writer = store
        .open_writer(&name("db"), WriterOptions::default())
        .unwrap();
    let file = create(&writer, "db.duckdb");
    writer.sync().unwrap();
    // As after fifteen seconds of sleep: the catalog knows of no lease any more.
    store
        .catalog()
        .release_lease(database.id, writer.epoch())
        .unwrap();
    assert!(store.catalog().lease(database.id).unwrap().is_none());
    let other = open(home.path());
    assert_eq!(other.database(&name("db")).unwrap().head.lsn(), Lsn(1));
    assert!(
        other
            .open_writer(&name("db"), WriterOptions::default())
            .is_err()
    );
    assert!(other.restore(&name("db"), &Ref::Latest).is_err());
    assert!(other.remove(&name("db")).is_err());
    writer.write(file, 0, b"awake again").unwrap();
    assert_eq!(writer.sync().unwrap(), Lsn(2));
    assert_eq!(read_at(&other, "db", "latest"), b"awake again");
}
