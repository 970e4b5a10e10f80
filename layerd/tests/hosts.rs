//! Several hosts: homes of their own over one catalog and one store, without a filesystem.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use layerd::frozen::{FileKind, Frozen};
use layerd::id::{DatabaseName, Epoch, FileId, LayerId};
use layerd::reference::Ref;
use layerd::store::{Store, StoreConfig, StoreError};
use layerd::writer::{Durability, NewFile, Writer, WriterOptions};

const FILE: NewFile = NewFile {
    kind: FileKind::File,
    mode: 0o644,
    uid: 0,
    gid: 0,
};

/// Longer than a test takes: nothing is sent by itself.
const NEVER: Duration = Duration::from_secs(3600);

fn name(text: &str) -> DatabaseName {
    text.parse().unwrap()
}

/// A host with this home; all hosts below one directory share catalog and store.
fn host(all: &Path, home: &str) -> Arc<Store> {
    Store::open(&StoreConfig {
        meta: Some(format!("sqlite:{}", all.join("catalog.db").display())),
        objects: Some(format!("file:{}?shared", all.join("bucket").display())),
        ..StoreConfig::of_home(all.join(home))
    })
    .unwrap()
}

fn options(durability: Durability, lag: Duration) -> WriterOptions {
    WriterOptions {
        steal: false,
        durability,
        lag,
    }
}

fn create(writer: &Writer) -> FileId {
    let made = writer.create(FileId::ROOT, b"db.duckdb", FILE);
    made.unwrap().file
}

fn content(frozen: &Frozen) -> Vec<u8> {
    let entry = frozen.list(FileId::ROOT).unwrap().remove(0);
    let size = frozen.attr(entry.file).unwrap().size;
    let mut out = vec![0xaa; size as usize];
    assert_eq!(frozen.read(entry.file, 0, &mut out).unwrap(), out.len());
    out
}

fn read(store: &Arc<Store>, database: &str) -> Vec<u8> {
    let reader = store.open_reader(&name(database), &Ref::Latest).unwrap();
    content(&reader.frozen())
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Bytes that no compression makes small.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

#[test]
fn another_host_reads_what_was_written_within_the_lag() {
    let all = tempfile::tempdir().unwrap();
    let (a, b) = (host(all.path(), "a"), host(all.path(), "b"));
    a.create(&name("db")).unwrap();
    let options = options(Durability::Local, Duration::from_millis(200));
    let writer = a.open_writer(&name("db"), options).unwrap();
    let file = create(&writer);
    let follower = b.open_follower(&name("db")).unwrap();
    let mut expected = Vec::new();
    for round in 0..20u64 {
        let bytes = noise(round, 100_000);
        writer.write(file, expected.len() as u64, &bytes).unwrap();
        expected.extend(bytes);
        let lsn = writer.sync().unwrap();
        if round % 5 == 4 {
            until("the follower sees the commit", || {
                follower.latest().unwrap().lsn() >= lsn
            });
            assert!(content(&follower.latest().unwrap()) == expected);
        }
        if round == 9 {
            writer.rotate().unwrap();
        }
    }
    assert!(read(&b, "db") == expected);
    writer.close().unwrap();
    assert!(content(&follower.latest().unwrap()) == expected);
    let report = b.verify(None, true, &|_, _| ()).unwrap();
    assert!(report.ok, "{report:?}");
    // The machine is gone; the other one goes on.
    drop((writer, a));
    std::fs::remove_dir_all(all.path().join("a")).unwrap();
    let c = host(all.path(), "c");
    assert!(read(&c, "db") == expected);
    let writer = c.open_writer(&name("db"), options).unwrap();
    writer.write(file, 0, b"from c").unwrap();
    writer.sync().unwrap();
    writer.close().unwrap();
    expected[..6].copy_from_slice(b"from c");
    assert!(read(&b, "db") == expected);
}

#[test]
fn remote_durability_needs_no_disk_of_the_writers() {
    let all = tempfile::tempdir().unwrap();
    let a = host(all.path(), "a");
    a.create(&name("db")).unwrap();
    let writer = a
        .open_writer(&name("db"), options(Durability::Remote, NEVER))
        .unwrap();
    let file = create(&writer);
    let mut expected = Vec::new();
    for round in 0..10u64 {
        let bytes = noise(round, 5_000);
        writer.write(file, expected.len() as u64, &bytes).unwrap();
        expected.extend(bytes);
        writer.sync().unwrap();
        if round == 4 {
            writer.rotate().unwrap();
        }
        // A host that never saw the database, each time.
        let fresh = host(all.path(), &format!("reader{round}"));
        assert!(read(&fresh, "db") == expected, "commit {round}");
    }
    // Killed, and its machine with it: the lease runs out, and nothing that was promised is missing.
    drop(writer);
    std::fs::remove_dir_all(all.path().join("a")).unwrap();
    let b = host(all.path(), "b");
    until("the lease runs out", || {
        b.open_writer(&name("db"), options(Durability::Remote, NEVER))
            .is_ok_and(|writer| {
                assert!(content(&writer.committed()) == expected);
                writer.close().unwrap();
                true
            })
    });
    assert!(read(&b, "db") == expected);
}

#[test]
fn what_was_never_published_is_kept_as_a_clone() {
    let all = tempfile::tempdir().unwrap();
    let (a, b) = (host(all.path(), "a"), host(all.path(), "b"));
    a.create(&name("db")).unwrap();
    let writer = a
        .open_writer(&name("db"), options(Durability::Local, Duration::ZERO))
        .unwrap();
    let file = create(&writer);
    writer.write(file, 0, b"published").unwrap();
    let published = writer.sync().unwrap();
    until("it is published", || writer.upload_lag() == Duration::ZERO);
    writer.close().unwrap();
    let writer = a
        .open_writer(&name("db"), options(Durability::Local, NEVER))
        .unwrap();
    let epoch = writer.epoch();
    // The store is away from here on.
    let (bucket, away) = (all.path().join("bucket"), all.path().join("away"));
    std::fs::rename(&bucket, &away).unwrap();
    std::fs::write(&bucket, b"").unwrap();
    for round in 0..3 {
        writer.write(file, 9 + 3 * round, b"abc").unwrap();
        writer.sync().unwrap();
        writer.rotate().unwrap();
    }
    writer.write(file, 18, &noise(3, 300_000)).unwrap();
    writer.sync().unwrap();
    let mut acknowledged = b"publishedabcabcabc".to_vec();
    acknowledged.extend(noise(3, 300_000));
    assert!(content(&writer.committed()) == acknowledged);
    assert!(writer.upload_lag() > Duration::ZERO && writer.waiting_bytes() > 300_000);
    // As killed: no more heartbeats.
    drop(writer);
    std::fs::remove_file(&bucket).unwrap();
    std::fs::rename(&away, &bucket).unwrap();
    assert!(matches!(
        b.open_writer(&name("db"), WriterOptions::default()),
        Err(StoreError::Catalog(_))
    ));
    let mut other = None;
    until("the lease runs out", || {
        other = b.open_writer(&name("db"), WriterOptions::default()).ok();
        other.is_some()
    });
    let other = other.unwrap();
    assert_eq!(content(&other.committed()), b"published");
    assert_eq!(other.committed().lsn(), published);
    other.write(file, 0, b"PUBLISHED").unwrap();
    other.sync().unwrap();
    other.close().unwrap();
    // The first host comes back.
    drop(a);
    let a = host(all.path(), "a");
    assert_eq!(read(&a, "db"), b"PUBLISHED");
    let lost = format!("db-lost-{epoch}");
    assert!(read(&a, &lost) == acknowledged);
    let fresh = host(all.path(), "fresh");
    assert!(read(&fresh, &lost) == acknowledged);
    assert_eq!(a.list().unwrap().len(), 2);
    let report = fresh.verify(None, true, &|_, _| ()).unwrap();
    assert!(report.ok, "{report:?}");
}

#[test]
fn a_mount_that_failed_hides_nothing_that_was_acknowledged() {
    let all = tempfile::tempdir().unwrap();
    let a = host(all.path(), "a");
    a.create(&name("db")).unwrap();
    let writer = a
        .open_writer(&name("db"), options(Durability::Local, NEVER))
        .unwrap();
    let file = create(&writer);
    writer.write(file, 0, b"on this host alone").unwrap();
    let lsn = writer.sync().unwrap();
    // As killed, and the store is away.
    drop(writer);
    let (bucket, away) = (all.path().join("bucket"), all.path().join("away"));
    std::fs::rename(&bucket, &away).unwrap();
    std::fs::write(&bucket, b"").unwrap();
    let is_there = || {
        assert_eq!(a.list().unwrap()[0].head.lsn(), lsn);
        assert_eq!(read(&a, "db"), b"on this host alone");
    };
    is_there();
    until("the lease runs out", || {
        let failed = a.open_writer(&name("db"), WriterOptions::default()).err();
        matches!(failed, Some(StoreError::Upload(_)))
    });
    is_there();
    std::fs::remove_file(&bucket).unwrap();
    std::fs::rename(&away, &bucket).unwrap();
    let writer = a
        .open_writer(&name("db"), WriterOptions::default())
        .unwrap();
    assert_eq!(content(&writer.committed()), b"on this host alone");
    writer.close().unwrap();
    assert_eq!(read(&host(all.path(), "b"), "db"), b"on this host alone");
}

#[test]
fn space_comes_back_from_the_store_too() {
    let all = tempfile::tempdir().unwrap();
    let (a, b) = (host(all.path(), "a"), host(all.path(), "b"));
    a.create(&name("db")).unwrap();
    a.set_retention(&name("db"), Duration::ZERO).unwrap();
    let writer = a
        .open_writer(&name("db"), options(Durability::Local, Duration::ZERO))
        .unwrap();
    let file = create(&writer);
    for round in 0..10 {
        writer.write(file, 0, &noise(round, 1 << 20)).unwrap();
        writer.sync().unwrap();
        writer.rotate().unwrap();
    }
    writer.close().unwrap();
    let stored = |all: &Path| {
        let mut bytes = 0;
        let mut rest = vec![all.join("bucket")];
        while let Some(path) = rest.pop() {
            for entry in std::fs::read_dir(path).unwrap().map(Result::unwrap) {
                match entry.file_type().unwrap().is_dir() {
                    true => rest.push(entry.path()),
                    false => bytes += entry.metadata().unwrap().len(),
                }
            }
        }
        bytes
    };
    assert!(stored(all.path()) > 10 << 20);
    let held = b.open_reader(&name("db"), &Ref::Latest).unwrap();
    a.compact(&name("db"), &|_, _| ()).unwrap();
    a.gc(Some(Duration::ZERO), false).unwrap();
    // What a reader of another host has pinned is still there for it, also what it never fetched.
    assert!(content(&held.frozen()) == noise(9, 1 << 20));
    drop(held);
    b.gc(Some(Duration::ZERO), false).unwrap();
    let left = stored(all.path());
    assert!(left < 5 << 18, "{left} bytes are left");
    let fresh = host(all.path(), "fresh");
    assert!(read(&fresh, "db") == noise(9, 1 << 20));
    assert!(fresh.verify(None, true, &|_, _| ()).unwrap().ok);
}

#[test]
fn orphans_go_when_they_are_asked_to_and_nothing_that_is_under_way() {
    let all = tempfile::tempdir().unwrap();
    let (a, b) = (host(all.path(), "a"), host(all.path(), "b"));
    a.create(&name("db")).unwrap();
    let writer = a
        .open_writer(&name("db"), options(Durability::Remote, NEVER))
        .unwrap();
    let file = create(&writer);
    writer.write(file, 0, &noise(1, 100_000)).unwrap();
    writer.sync().unwrap();
    let (database, epoch) = (a.database(&name("db")).unwrap().id, writer.epoch());
    let orphan = |epoch: Epoch| {
        let layer = LayerId { epoch, random: 7 };
        let directory = all.path().join(format!("bucket/{database}/{layer}"));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join(format!("{:012x}-{:016x}", 0, 7));
        std::fs::write(&path, b"left over").unwrap();
        path
    };
    let (old, new) = (orphan(Epoch(epoch.0 - 1)), orphan(epoch));
    let strange = all.path().join("bucket/something-else");
    std::fs::write(&strange, b"not ours").unwrap();
    b.gc(None, false).unwrap();
    assert!(old.exists() && new.exists(), "a day has not passed");
    let planned = b.gc(Some(Duration::ZERO), true).unwrap();
    assert!(old.exists() && planned.bytes_freed == 9, "{planned:?}");
    let report = b.gc(Some(Duration::ZERO), false).unwrap();
    assert_eq!(report.bytes_freed, 9);
    assert!(!old.exists() && new.exists(), "its writer may be at it");
    writer.close().unwrap();
    b.gc(Some(Duration::ZERO), false).unwrap();
    assert!(!new.exists());
    assert!(read(&b, "db") == noise(1, 100_000));
    // Another one of a database that goes: with it, whatever its age.
    let left = orphan(epoch);
    a.set_retention(&name("db"), Duration::ZERO).unwrap();
    a.remove(&name("db")).unwrap();
    b.gc(Some(Duration::ZERO), false).unwrap();
    let known = b.catalog().database_by_id(database);
    assert!(known.is_err() && !left.exists());
    assert!(strange.exists());
}

#[test]
fn the_cache_forgets_layers_that_are_gone() {
    let all = tempfile::tempdir().unwrap();
    let (a, b) = (host(all.path(), "a"), host(all.path(), "b"));
    a.create(&name("db")).unwrap();
    a.set_retention(&name("db"), Duration::ZERO).unwrap();
    let writer = a
        .open_writer(&name("db"), options(Durability::Local, Duration::ZERO))
        .unwrap();
    let file = create(&writer);
    writer.write(file, 0, &noise(1, 1 << 20)).unwrap();
    writer.sync().unwrap();
    writer.close().unwrap();
    assert!(read(&b, "db") == noise(1, 1 << 20));
    let cached = || {
        let entries = std::fs::read_dir(all.path().join("b/cache")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".data")).count()
    };
    assert_eq!(cached(), 1);
    b.gc(Some(Duration::ZERO), false).unwrap();
    assert_eq!(cached(), 1, "it is the newest");
    a.remove(&name("db")).unwrap();
    until("nothing is cached", || {
        b.gc(Some(Duration::ZERO), false).unwrap();
        cached() == 0
    });
}

/// One writer takes over from another, which does not notice and goes on writing.
fn replaced_writer_goes_on(a: &Arc<Store>, b: &Arc<Store>) {
    a.create(&name("db")).unwrap();
    let old = a
        .open_writer(&name("db"), options(Durability::Local, Duration::ZERO))
        .unwrap();
    let file = create(&old);
    let mut expected = noise(1, 100_000);
    old.write(file, 0, &expected).unwrap();
    old.sync().unwrap();
    until("it is published", || old.upload_lag() == Duration::ZERO);
    let stealing = WriterOptions {
        steal: true,
        ..options(Durability::Local, Duration::ZERO)
    };
    let begin = Instant::now();
    let new = b.open_writer(&name("db"), stealing).unwrap();
    // 20 s are promised, and a busy machine adds to that.
    assert!(begin.elapsed() < Duration::from_secs(25));
    assert!(content(&new.committed()) == expected);
    // It is stopped between two instructions, so to say: its log takes records as before.
    for round in 0..40 {
        old.write(file, round * 1000, &noise(round, 5000)).unwrap();
        if round == 20 {
            new.write(file, 0, b"new").unwrap();
            new.sync().unwrap();
            new.rotate().unwrap();
            // Now it is sealed, by whoever comes first.
            std::thread::sleep(Duration::from_secs(4));
        }
    }
    assert!(old.sync().is_err());
    assert!(old.close().is_err());
    expected[..3].copy_from_slice(b"new");
    assert!(content(&new.committed()) == expected);
    new.close().unwrap();
    assert!(read(b, "db") == expected);
    let report = b.verify(None, true, &|_, _| ()).unwrap();
    assert!(report.ok, "{report:?}");
}

#[test]
fn a_replaced_writer_of_the_same_home_harms_nothing() {
    let home = tempfile::tempdir().unwrap();
    let open = || Store::open(&StoreConfig::of_home(home.path())).unwrap();
    replaced_writer_goes_on(&open(), &open());
}

#[test]
fn a_replaced_writer_of_another_home_harms_nothing() {
    let all = tempfile::tempdir().unwrap();
    replaced_writer_goes_on(&host(all.path(), "a"), &host(all.path(), "b"));
}
