//! Opening, durability, waiting.

use std::fs;
use std::sync::Barrier;
use std::thread;

use super::*;

#[test]
fn a_missing_file_is_made_and_its_directory_is_not() {
    let home = Home::new();
    home.open().unwrap();
    assert!(home.file().exists());
    let astray = home.path().join("missing/catalog.db");
    match SqliteCatalog::open(&astray) {
        Err(CatalogError::Unavailable { catalog, .. }) => {
            assert_eq!(catalog, astray.display().to_string());
        }
        other => panic!("{:?}", other.map(drop)),
    }
}

#[test]
fn an_empty_file_becomes_a_catalog() {
    let home = Home::new();
    fs::write(home.file(), "").unwrap();
    create(&home.open().unwrap(), "a").unwrap();
    assert_eq!(names(&home.open().unwrap()), ["a"]);
}

#[test]
fn strange_paths_are_no_obstacle() {
    let home = Home::new();
    let path = home.path().join("a b?mode=memory#%41é.db");
    create(&SqliteCatalog::open(&path).unwrap(), "a").unwrap();
    assert!(path.exists());
    assert_eq!(names(&SqliteCatalog::open(&path).unwrap()), ["a"]);
}

#[test]
fn a_catalog_in_memory_is_alone() {
    let one = SqliteCatalog::open_in_memory().unwrap();
    let other = SqliteCatalog::open_in_memory().unwrap();
    create(&one, "a").unwrap();
    assert_eq!((names(&one).len(), names(&other).len()), (1, 0));
    assert!(!one.is_read_only());
}

#[test]
fn the_wall_clock_is_the_clock() {
    let catalog = SqliteCatalog::open_in_memory().unwrap();
    let before = Timestamp::now();
    let now = catalog.now().unwrap();
    assert!(before <= now && now <= Timestamp::now());
}

#[test]
fn many_open_a_new_file_at_one_moment() {
    const THREADS: usize = 6;
    for _ in 0..10 {
        let home = Home::new();
        let ready = Barrier::new(THREADS);
        thread::scope(|scope| {
            for number in 0..THREADS {
                let (home, ready) = (&home, &ready);
                scope.spawn(move || {
                    ready.wait();
                    create(&home.open().unwrap(), &format!("a{number}")).unwrap();
                });
            }
        });
        assert_eq!(names(&home.open().unwrap()).len(), THREADS);
    }
}

#[test]
fn a_file_of_version_one_is_brought_up_to_date_with_what_it_holds() {
    let home = Home::new();
    let old = rusqlite::Connection::open(home.file()).unwrap();
    old.execute_batch(include_str!("../v1.sql")).unwrap();
    old.execute_batch(
        "INSERT INTO databases (id, name, created, retention_s, head_layer, head_lsn, head_time,
             head_written_bytes, epoch)
         VALUES (7, 'a', 1, 60, '00000001-0000000000000002', 3, 4, 5, 1);
         INSERT INTO leases VALUES (7, 1, 'host', 1, 'x', 0, 9000000000000000000, 0);
         INSERT INTO layers (id, database_id, kind, state, first_lsn, created)
         VALUES ('00000001-0000000000000002', 7, 'delta', 'active', 1, 1);
         PRAGMA user_version = 1;
         PRAGMA application_id = 1329884259;",
    )
    .unwrap();
    drop(old);
    let catalog = home.open().unwrap();
    assert_eq!(names(&catalog), ["a"]);
    let database = catalog.database(&"a".parse().unwrap()).unwrap();
    let segment = Segment {
        begin: 0,
        end: 5000,
        key: "a/b/c".to_owned(),
        bytes: 100,
        tail: 10,
        commits: None,
    };
    catalog
        .publish(database.id, Epoch(1), &database.head, Some(&segment))
        .unwrap();
    drop(catalog);
    let layers = home.open().unwrap().layers(database.id).unwrap();
    assert_eq!(layers[0].segments, [segment]);
}

/// The last one to close clears the WAL away, and whoever opens just then must not notice.
#[test]
fn opening_while_others_close_never_fails() {
    let home = Home::new();
    thread::scope(|scope| {
        for number in 0..4 {
            let home = &home;
            scope.spawn(move || {
                for round in 0..25 {
                    let catalog = home.open().unwrap();
                    create(&catalog, &format!("a{number}-{round}")).unwrap();
                }
            });
        }
    });
    assert_eq!(names(&home.open().unwrap()).len(), 100);
}

#[test]
fn a_call_waits_for_another_connections_transaction() {
    let home = Home::new();
    let catalog = home.open().unwrap();
    let mut other = rusqlite::Connection::open(home.file()).unwrap();
    let transaction = other
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| create(&catalog, "a").map(drop));
        thread::sleep(Duration::from_millis(100));
        assert!(!waiting.is_finished());
        transaction.commit().unwrap();
        waiting.join().unwrap().unwrap();
    });
}

#[test]
fn readers_do_not_wait_for_a_writer() {
    let home = Home::new();
    let catalog = home.open().unwrap();
    create(&catalog, "a").unwrap();
    let mut other = rusqlite::Connection::open(home.file()).unwrap();
    let transaction = other
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .unwrap();
    transaction
        .execute("UPDATE databases SET name = 'b'", [])
        .unwrap();
    assert_eq!(names(&catalog), ["a"]);
    transaction.commit().unwrap();
    assert_eq!(names(&catalog), ["b"]);
}

#[test]
fn durable_calls_sync_their_commit_and_others_leave_it_to_the_next() {
    let home = Home::new();
    let catalog = home.open().unwrap();
    let synchronous = || -> i64 {
        let handle = catalog.handle.lock();
        handle
            .connection
            .pragma_query_value(None, "synchronous", |row| row.get(0))
            .unwrap()
    };
    let (normal, full) = (1, 2);
    let database = create(&catalog, "a").unwrap();
    assert_eq!(synchronous(), full);
    catalog.unpin(1).unwrap();
    assert_eq!(synchronous(), normal);
    catalog.set_retention(database.id, 1).unwrap();
    assert_eq!(synchronous(), full);
}

#[test]
fn the_file_is_in_wal_mode_and_marked_as_ours() {
    let home = Home::new();
    home.open().unwrap();
    let plain = rusqlite::Connection::open(home.file()).unwrap();
    let text = |name| -> String {
        plain
            .pragma_query_value(None, name, |row| row.get(0))
            .unwrap()
    };
    let number = |name| -> i64 {
        plain
            .pragma_query_value(None, name, |row| row.get(0))
            .unwrap()
    };
    assert_eq!(text("journal_mode"), "wal");
    assert_eq!(
        (number("application_id"), number("user_version")),
        (0x4f44_6c63, 3)
    );
}
