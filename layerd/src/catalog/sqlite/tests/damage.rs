//! Files that are no catalog, or not a sound one: a clear error each, never a panic or a hang.

use std::fs;

use rusqlite::Connection;

use super::*;
use crate::catalog::{LayerRow, LayerState};

fn assert_corrupt<T>(result: Result<T>, home: &Home, about: &str) {
    match result.map(drop) {
        Err(CatalogError::Corrupt { catalog, reason }) => {
            assert_eq!(catalog, home.file().display().to_string());
            assert!(reason.contains(about), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

fn change(home: &Home, sql: &str) {
    let plain = Connection::open(home.file()).unwrap();
    plain
        .pragma_update(None, "ignore_check_constraints", true)
        .unwrap();
    plain.execute_batch(sql).unwrap();
}

#[test]
fn a_newer_version_is_refused() {
    let home = Home::new();
    create(&home.open().unwrap(), "a").unwrap();
    change(&home, "PRAGMA user_version = 4");
    assert_corrupt(home.open(), &home, "its version is 4");
}

#[test]
fn another_programs_database_is_refused_and_left_alone() {
    let home = Home::new();
    change(&home, "CREATE TABLE theirs (x)");
    let before = fs::read(home.file()).unwrap();
    assert_corrupt(home.open(), &home, "another program");
    change(&home, "PRAGMA user_version = 1");
    assert_corrupt(home.open(), &home, "another program");
    change(&home, "PRAGMA user_version = 0");
    assert_eq!(fs::read(home.file()).unwrap()[100..], before[100..]);
    assert!(!home.beside("-wal").exists());
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let home = Home::new();
    fs::write(home.file(), [b'x'; 8192]).unwrap();
    assert_corrupt(home.open(), &home, "not a database");
    assert_eq!(fs::read(home.file()).unwrap(), [b'x'; 8192]);
}

#[test]
fn a_cut_file_is_refused() {
    let home = Home::new();
    create(&home.open().unwrap(), "a").unwrap();
    let file = fs::OpenOptions::new()
        .write(true)
        .open(home.file())
        .unwrap();
    file.set_len(8192).unwrap();
    let read = home.open().and_then(|catalog| catalog.inventory());
    assert_corrupt(read, &home, "malformed");
}

#[test]
fn values_that_make_no_sense_are_refused() {
    for sql in [
        "UPDATE databases SET name = '../a'",
        "UPDATE databases SET head_layer = 'x', head_lsn = 1",
        "UPDATE databases SET head_layer = '00000001-00000000000000zz', head_lsn = 1",
    ] {
        let home = Home::new();
        create(&home.open().unwrap(), "a").unwrap();
        change(&home, sql);
        assert_corrupt(home.open().unwrap().databases(), &home, "");
    }
}

#[test]
fn a_missing_table_is_refused() {
    let home = Home::new();
    home.open().unwrap();
    change(&home, "DROP TABLE pin_layers; DROP TABLE pins");
    assert_corrupt(home.open().unwrap().inventory(), &home, "no such table");
}

/// A chain of two sealed layers; returns its top.
fn two_layers(catalog: &SqliteCatalog) -> (DatabaseId, StatePoint) {
    let database = create(catalog, "a").unwrap().id;
    let holder = Holder {
        host: String::new(),
        pid: 1,
        instance: String::new(),
    };
    let ttl = Duration::from_secs(1);
    let epoch = catalog
        .acquire_lease(database, &holder, ttl, &|_| false)
        .unwrap()
        .epoch;
    let mut top = None;
    for lsn in [Lsn(1), Lsn(2)] {
        let row = LayerRow {
            state: LayerState::Sealed,
            last_lsn: Some(lsn),
            end: Some(0),
            bytes: Some(0),
            hash: Some([0; 32]),
            ..LayerRow::begun(
                LayerId {
                    epoch,
                    random: lsn.0,
                },
                database,
                top,
                lsn,
                Timestamp(0),
            )
        };
        catalog.add_layer(epoch, &row).unwrap();
        top = Some(StatePoint { layer: row.id, lsn });
    }
    (database, top.unwrap())
}

#[test]
fn layers_that_stand_on_each_other_in_a_ring_are_refused() {
    let home = Home::new();
    let catalog = home.open().unwrap();
    let (database, top) = two_layers(&catalog);
    assert_eq!(catalog.chain(database, Some(top)).unwrap().layers.len(), 2);
    change(
        &home,
        "UPDATE layers SET parent_layer = '00000001-0000000000000002', parent_lsn = 2
         WHERE first_lsn = 1",
    );
    assert_corrupt(
        catalog.chain(database, Some(top)),
        &home,
        "stands on a later commit",
    );
}

#[test]
fn a_parent_without_the_commit_is_refused() {
    let home = Home::new();
    let catalog = home.open().unwrap();
    let (database, top) = two_layers(&catalog);
    change(
        &home,
        "UPDATE layers SET parent_lsn = 0 WHERE first_lsn = 2",
    );
    assert_corrupt(
        catalog.chain(database, Some(top)),
        &home,
        "does not hold commit 0",
    );
}

#[test]
fn a_database_that_is_its_own_ancestor_is_refused() {
    let home = Home::new();
    let catalog = home.open().unwrap();
    let (database, _) = two_layers(&catalog);
    change(
        &home,
        "UPDATE databases SET base_database = id, base_lsn = 9,
             base_layer = '00000001-0000000000000001'",
    );
    assert_corrupt(
        catalog.find_lsn(database, Lsn(1)),
        &home,
        "its own ancestor",
    );
}

#[test]
fn a_full_disk_refuses_the_call_and_nothing_else() {
    let home = Home::new();
    let catalog = home.open().unwrap();
    create(&catalog, "a").unwrap();
    let limit_pages = |count: i64| {
        let handle = catalog.handle.lock();
        handle
            .connection
            .pragma_update_and_check(None, "max_page_count", count, |_| Ok(()))
            .unwrap();
    };
    // SQLite takes the present size for a smaller limit.
    limit_pages(1);
    let refused = (0..1000).find_map(|number| create(&catalog, &format!("b{number}")).err());
    match refused {
        Some(CatalogError::Unavailable { reason, .. }) => {
            assert!(reason.contains("full"), "{reason}")
        }
        other => panic!("{other:?}"),
    }
    let before = names(&catalog).len();
    limit_pages(1_000_000);
    create(&catalog, "c").unwrap();
    assert_eq!(names(&catalog).len(), before + 1);
}
