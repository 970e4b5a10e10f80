//! A worker over real mounts: LSNs, snapshots, readers, sudden death. Needs FUSE, and `openduck-fs` beside
//! the tests (`cargo build`), or where `OPENDUCK_FS` says.

#![allow(clippy::unwrap_used, reason = "a call that fails is a test that fails")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::*;
use exec::wire::status::detail;
use exec::worker::{Config, Limits, Place, Role};
use proto::v1::{ExecuteQueryRequest, Options, Reason};
use tempfile::TempDir;
use tonic::Code;

fn program() -> PathBuf {
    let beside = std::env::current_exe().unwrap();
    let beside = beside.ancestors().nth(2).unwrap().join("openduck-fs");
    let program = std::env::var_os("OPENDUCK_FS").map_or(beside, PathBuf::from);
    assert!(program.is_file(), "{program:?} is missing: cargo build");
    program
}

fn at(directory: &Path, name: &str, role: Role) -> Config {
    let mount = match role {
        Role::Writer => directory.join("mnt"),
        Role::Reader => directory.join(format!("mnt-{name}")),
    };
    let home = directory.join("home");
    Config {
        name: name.into(),
        role,
        place: Place::Mount {
            directory: mount,
            claim: None,
            program: Some(program()),
            arguments: vec!["--home".into(), home.to_string_lossy().into_owned()],
        },
        scratch: directory.join(format!("scratch-{name}")),
        journal: Some(directory.join(format!("journal-{name}"))),
        ..config(directory, limits())
    }
}

/// Takes away what a test that failed has left mounted below its directory; the servers end with it.
struct Mounts(PathBuf);

impl Drop for Mounts {
    fn drop(&mut self) {
        let table = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        for point in table.lines().filter_map(|row| row.split(' ').nth(1)) {
            if Path::new(point).starts_with(&self.0) {
                let _gone = rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH);
            }
        }
    }
}

/// A directory, and what takes away the mounts in it.
fn place() -> (TempDir, Mounts) {
    let directory = tempfile::tempdir().unwrap();
    let mounts = Mounts(directory.path().to_owned());
    (directory, mounts)
}

fn openduck_fs(directory: &Path, arguments: &[&str]) {
    let mut command = Command::new(program());
    command
        .arg("--home")
        .arg(directory.join("home"))
        .args(arguments);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn after(lsn: u64, sql: &str) -> ExecuteQueryRequest {
    ExecuteQueryRequest {
        min_lsn: lsn,
        ..query(sql)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writes_have_lsns_and_snapshots_can_be_read() {
    let (directory, _mounts) = place();
    let host = Host::of(at(directory.path(), "writer", Role::Writer), directory).await;
    let client = host.client().await;
    let made = client.sql("CREATE TABLE t AS SELECT 1 AS a").await.unwrap();
    let first = made.response.lsn;
    assert!(first > 0 && made.summary.lsn == first);
    openduck_fs(host.directory.path(), &["snapshot", DATABASE, "before"]);
    let second = client
        .sql("INSERT INTO t VALUES (2)")
        .await
        .unwrap()
        .response
        .lsn;
    assert!(second > first);
    let read = client.sql("SELECT count(*) FROM t").await.unwrap();
    assert_eq!(read.value(), "2");
    assert!(read.response.lsn >= second);
    let returned = client
        .sql("INSERT INTO t VALUES (3) RETURNING a")
        .await
        .unwrap();
    assert!(returned.summary.lsn > second);

    for (snapshot, count, lsn) in [
        ("before".to_owned(), "1", first),
        (format!("lsn:{second}"), "2", second),
    ] {
        let request = |sql: &str| ExecuteQueryRequest {
            snapshot: snapshot.clone(),
            ..query(sql)
        };
        let read = client.run(request("SELECT count(*) FROM t")).await.unwrap();
        assert_eq!(
            (read.value().as_str(), read.response.lsn),
            (count, lsn),
            "{snapshot}"
        );
        let error = client
            .run(request("INSERT INTO t VALUES (9)"))
            .await
            .unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition, "{error:?}");
    }
    for nowhere in ["nowhere", "lsn:999999", "../..", "latest", "x/y"] {
        let request = ExecuteQueryRequest {
            snapshot: nowhere.into(),
            ..query("SELECT 1")
        };
        let error = client.run(request).await.unwrap_err();
        assert_eq!(error.code(), Code::NotFound, "{nowhere}: {error:?}");
    }
    let error = client.run(after(1_000_000, "SELECT 1")).await.unwrap_err();
    assert_eq!(error.code(), Code::OutOfRange);
    // Instances of snapshots close behind their last statement.
    let begun = Instant::now();
    while host.worker.figures().instances > 1 {
        assert!(begun.elapsed() < Duration::from_secs(2));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let directory = host.close().await;
    assert!(
        !directory.path().join("mnt/ducks.duckdb").exists(),
        "the mount is gone"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_next_worker_waits_until_the_one_before_has_taken_its_mount_away() {
    let (directory, _mounts) = place();
    let path = directory.path().to_owned();
    let first = Host::of(at(&path, "first", Role::Writer), directory).await;
    let client = first.client().await;
    client.sql("CREATE TABLE t AS SELECT 7 AS a").await.unwrap();
    let next = at(&path, "next", Role::Writer);
    let next = tokio::spawn(Host::of(next, tempfile::tempdir().unwrap()));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!next.is_finished(), "two workers of one mount point");
    let directory = first.close().await;
    let next = next.await.unwrap();
    let read = next.client().await.sql("FROM t").await.unwrap();
    assert_eq!(read.value(), "7");
    next.close().await;
    let left: Vec<_> = std::fs::read_dir(path.join("mnt")).unwrap().collect();
    assert!(left.is_empty(), "beneath the mount: {left:?}");
    drop(directory);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_reader_moves_and_never_under_a_statement() {
    let (directory, _mounts) = place();
    let writer = Host::of(at(directory.path(), "writer", Role::Writer), directory).await;
    let write = writer.client().await;
    let lsn = write
        .sql("CREATE TABLE t AS SELECT range AS a FROM range(3000000)")
        .await
        .unwrap()
        .response
        .lsn;
    let scratch = tempfile::tempdir().unwrap();
    let reader = Host::of(at(writer.directory.path(), "reader", Role::Reader), scratch).await;
    let read = reader.client().await;
    let open = read.execute(after(lsn, "FROM t")).await.unwrap();
    let mut times = Vec::new();
    for count in 3_000_001..3_000_021_u64 {
        let lsn = write
            .sql("INSERT INTO t VALUES (0)")
            .await
            .unwrap()
            .response
            .lsn;
        let begun = Instant::now();
        let seen = read
            .run(after(lsn, "SELECT count(*) FROM t"))
            .await
            .unwrap();
        times.push(begun.elapsed());
        assert_eq!(seen.value(), count.to_string());
        assert!(seen.response.lsn >= lsn);
    }
    times.sort();
    println!(
        "a read of a commit on a reader: median {:?}, worst {:?}",
        times[10], times[19]
    );
    assert_eq!(read.read(open).await.unwrap().rows(), 3_000_000);
    // What it may see late it sees within the staleness that it accepts.
    write.sql("INSERT INTO t VALUES (0)").await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(
        read.sql("SELECT count(*) FROM t").await.unwrap().value(),
        "3000021"
    );
    for sql in ["INSERT INTO t VALUES (0)", "DROP TABLE t"] {
        let error = read.sql(sql).await.unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition, "{error:?}");
        assert_eq!(detail(&error).unwrap().reason(), Reason::NeedsWriter);
    }
    let error = read.run(after(1_000_000, "SELECT 1")).await.unwrap_err();
    assert_eq!(detail(&error).unwrap().reason(), Reason::NeedsWriter);
    let zero = Options {
        max_staleness_ms: Some(0),
        ..Options::default()
    };
    write.sql("INSERT INTO t VALUES (0)").await.unwrap();
    assert_eq!(
        read.run(with_options("SELECT count(*) FROM t", zero))
            .await
            .unwrap()
            .value(),
        "3000022"
    );
    let scratch: TempDir = reader.close().await;
    drop(scratch);
    writer.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_log_that_a_reader_replays_stays_short() {
    let (directory, _mounts) = place();
    let mut config = at(directory.path(), "writer", Role::Writer);
    config.limits = Limits {
        checkpoint_commits: 50,
        ..limits()
    };
    let host = Host::of(config, directory).await;
    let client = host.client().await;
    client
        .sql("CREATE TABLE t (a INTEGER PRIMARY KEY)")
        .await
        .unwrap();
    let wal = host.directory.path().join("mnt/ducks.duckdb.wal");
    let mut largest = 0;
    for number in 0..200 {
        client
            .execute(query(format!("INSERT INTO t VALUES ({number})")))
            .await
            .unwrap();
        largest = largest.max(std::fs::metadata(&wal).map_or(0, |file| file.len()));
    }
    let once = std::fs::metadata(&wal).map_or(0, |file| file.len());
    assert!(once <= largest && largest < 50 * 1000, "{once} {largest}");
    assert_eq!(
        client.sql("SELECT count(*) FROM t").await.unwrap().value(),
        "200"
    );
    host.close().await;
}
