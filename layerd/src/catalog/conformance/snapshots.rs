//! Claims about snapshots.

#![allow(
    clippy::unwrap_used,
    reason = "a call that fails is a claim that fails"
)]

use super::Harness;
use super::fixture::*;
use crate::catalog::CatalogError;
use crate::id::{Lsn, SnapshotId};

pub(super) fn a_snapshot_is_found_by_name_and_by_id(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    a.sealed(1..=9, None);
    let now = catalog.now().unwrap();
    let made = a.snapshot("good", 4);
    assert_eq!(made.name, Some("good".parse().unwrap()));
    assert_eq!(
        (made.lsn, made.time, made.written_bytes),
        (Lsn(4), time(4), written(4))
    );
    assert_eq!(made.created, now);
    assert_eq!(
        catalog
            .snapshot_by_name(a.id, &"good".parse().unwrap())
            .unwrap(),
        made
    );
    assert_eq!(catalog.snapshot_by_id(a.id, made.id).unwrap(), made);
    assert_eq!(catalog.snapshots(a.id).unwrap(), [made]);
}

pub(super) fn snapshots_are_listed_by_commit_then_by_creation(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    a.sealed(1..=9, None);
    let made = [("z", 5), ("y", 2), ("a", 5), ("", 9), ("b", 2), ("", 5)]
        .map(|(called, lsn)| a.snapshot(called, lsn));
    let order = [1, 4, 0, 2, 5, 3];
    assert_eq!(
        catalog.snapshots(a.id).unwrap(),
        order.map(|i| made[i].clone())
    );
}

pub(super) fn one_commit_has_any_number_of_snapshots(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    a.sealed(1..=9, None);
    let first = a.snapshot("", 5);
    let second = a.snapshot("", 5);
    assert_ne!(first.id, second.id);
    assert_eq!(catalog.snapshots(a.id).unwrap(), [first, second]);
}

pub(super) fn a_snapshots_name_is_given_once_per_database(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let b = database(&*catalog, "b");
    a.sealed(1..=9, None);
    b.sealed(1..=9, None);
    let made = a.snapshot("s", 5);
    assert_refused!(
        catalog.add_snapshot(a.id, &snapshot("s", 6)),
        CatalogError::SnapshotExists { database, snapshot } if database == "a" && snapshot == "s"
    );
    assert_eq!(catalog.snapshots(a.id).unwrap(), [made]);
    b.snapshot("s", 5);
}

pub(super) fn a_commit_of_the_active_layer_is_snapshotted_before_it_is_published(
    harness: &dyn Harness,
) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    a.active(1, None);
    assert_eq!(a.head(), None);
    a.snapshot("s", 42);
}

pub(super) fn a_commit_in_no_layer_is_not_snapshotted(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    assert_refused!(
        catalog.add_snapshot(a.id, &snapshot("s", 0)),
        CatalogError::Conflict(_)
    );
    let layer = a.sealed(2..=5, None);
    for lsn in [0, 1, 6, u64::MAX] {
        assert_refused!(
            catalog.add_snapshot(a.id, &snapshot("s", lsn)),
            CatalogError::Conflict(_)
        );
    }
    kill(&*catalog, layer);
    assert_refused!(
        catalog.add_snapshot(a.id, &snapshot("s", 3)),
        CatalogError::Conflict(_)
    );
    assert_eq!(catalog.snapshots(a.id).unwrap(), []);
}

pub(super) fn the_base_of_a_clone_is_snapshotted_but_nothing_before_it(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let layer = a.sealed(1..=9, None);
    let b = clone(&a, at(layer, 5), "b");
    b.snapshot("base", 5);
    for lsn in [4, 6] {
        assert_refused!(
            catalog.add_snapshot(b.id, &snapshot("s", lsn)),
            CatalogError::Conflict(_)
        );
    }
}

pub(super) fn a_clone_does_not_inherit_snapshots(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let layer = a.sealed(1..=9, None);
    let made = a.snapshot("s", 3);
    let b = clone(&a, at(layer, 5), "b");
    assert_eq!(catalog.snapshots(b.id).unwrap(), []);
    assert_refused!(
        catalog.snapshot_by_id(b.id, made.id),
        CatalogError::NoSuchSnapshot { .. }
    );
}

pub(super) fn a_removed_snapshot_is_gone_and_its_name_is_free(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    a.sealed(1..=9, None);
    let made = a.snapshot("s", 3);
    let other = a.snapshot("other", 3);
    catalog.remove_snapshot(a.id, made.id).unwrap();
    assert_eq!(catalog.snapshots(a.id).unwrap(), [other]);
    assert_refused!(
        catalog.snapshot_by_name(a.id, &"s".parse().unwrap()),
        CatalogError::NoSuchSnapshot { database, snapshot } if database == "a" && snapshot == "s"
    );
    assert_refused!(
        catalog.remove_snapshot(a.id, made.id),
        CatalogError::NoSuchSnapshot { .. }
    );
    a.snapshot("s", 4);
}

pub(super) fn a_snapshot_of_another_database_is_not_found(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let b = database(&*catalog, "b");
    a.sealed(1..=9, None);
    let made = a.snapshot("s", 3);
    for id in [made.id, SnapshotId(3)] {
        assert_refused!(
            catalog.snapshot_by_id(b.id, id),
            CatalogError::NoSuchSnapshot { database, snapshot }
                if database == "b" && snapshot == id.to_string()
        );
        assert_refused!(
            catalog.remove_snapshot(b.id, id),
            CatalogError::NoSuchSnapshot { .. }
        );
    }
    assert_eq!(catalog.snapshots(a.id).unwrap(), [made]);
}
