//! Places where nothing can be written: what is there can be read.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::thread;

use super::*;

/// Runs `work` where it may read the directory and its files, but not write them.
fn unable_to_write<T: Send>(home: &Home, work: impl FnOnce() -> T + Send) -> T {
    let mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    for entry in fs::read_dir(home.path()).unwrap() {
        mode(&entry.unwrap().path(), 0o444);
    }
    mode(home.path(), 0o555);
    let done = thread::scope(|scope| {
        scope
            .spawn(|| {
                // Root may write everywhere, so this thread (which ends here) becomes nobody.
                // SAFETY: it changes what this one thread may do to files, and no memory.
                unsafe { libc::setfsuid(65_534) };
                work()
            })
            .join()
    });
    mode(home.path(), 0o755);
    done.unwrap()
}

#[test]
fn a_closed_catalog_is_read_without_writing_anything() {
    let home = Home::new();
    create(&home.open().unwrap(), "a").unwrap();
    unable_to_write(&home, || {
        let catalog = home.open().unwrap();
        assert!(catalog.is_read_only());
        assert_eq!(names(&catalog), ["a"]);
        assert_eq!(catalog.inventory().unwrap().databases.len(), 1);
        let swept = catalog
            .sweep(Duration::ZERO, true, &mut |_| Vec::new())
            .unwrap();
        assert_eq!(swept, []);
    });
    assert_eq!(
        fs::read_dir(home.path()).unwrap().count(),
        1,
        "the catalog's file alone"
    );
}

#[test]
fn calls_that_would_write_name_the_catalog() {
    let home = Home::new();
    let database = create(&home.open().unwrap(), "a").unwrap();
    unable_to_write(&home, || {
        let catalog = home.open().unwrap();
        for refused in [
            create(&catalog, "b").map(drop),
            catalog.set_retention(database.id, 1),
            catalog.renew_pin(1, Duration::ZERO).map(drop),
            catalog
                .sweep(Duration::ZERO, false, &mut |_| Vec::new())
                .map(drop),
        ] {
            match refused {
                Err(CatalogError::ReadOnly { catalog }) => {
                    assert_eq!(catalog, home.file().display().to_string());
                }
                other => panic!("{other:?}"),
            }
        }
    });
}

/// As a killed process leaves it: what it committed is in the WAL alone.
fn killed() -> Home {
    let (home, left) = (Home::new(), Home::new());
    let catalog = home.open().unwrap();
    create(&catalog, "a").unwrap();
    for suffix in ["", "-wal", "-shm"] {
        fs::copy(home.beside(suffix), left.beside(suffix)).unwrap();
    }
    left
}

#[test]
fn a_killed_processs_wal_is_read() {
    let home = killed();
    unable_to_write(&home, || {
        let catalog = home.open().unwrap();
        assert!(catalog.is_read_only());
        assert_eq!(names(&catalog), ["a"]);
    });
}

#[test]
fn a_wal_that_cannot_be_read_is_not_passed_over() {
    let home = killed();
    fs::remove_file(home.beside("-shm")).unwrap();
    unable_to_write(&home, || match home.open() {
        Err(CatalogError::Unavailable { .. } | CatalogError::ReadOnly { .. }) => {}
        other => panic!("{:?}", other.map(|catalog| names(&catalog))),
    });
    assert_eq!(names(&home.open().unwrap()), ["a"]);
}

#[test]
fn what_was_read_while_the_file_changed_is_thrown_away() {
    let home = Home::new();
    create(&home.open().unwrap(), "a").unwrap();
    let catalog = unable_to_write(&home, || home.open().unwrap());
    assert_eq!(names(&catalog), ["a"]);
    fs::set_permissions(home.file(), Permissions::from_mode(0o644)).unwrap();
    let writer = home.open().unwrap();
    create(&writer, "b").unwrap();
    let assert_thrown_away = || match catalog.databases() {
        Err(CatalogError::Unavailable { reason, .. }) => {
            assert!(reason.contains("changed"), "{reason}");
        }
        other => panic!("{other:?}"),
    };
    assert_thrown_away();
    drop(writer);
    assert_thrown_away();
}

#[test]
fn nothing_is_made_where_nothing_can_be_written() {
    let home = Home::new();
    unable_to_write(&home, || match home.open() {
        Err(CatalogError::Unavailable { catalog, .. }) => {
            assert_eq!(catalog, home.file().display().to_string());
        }
        other => panic!("{:?}", other.map(drop)),
    });
}
