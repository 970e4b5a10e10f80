//! Claims about databases: names, removal and return, clones.

#![allow(
    clippy::unwrap_used,
    reason = "a call that fails is a claim that fails"
)]

use std::time::Duration;

use super::Harness;
use super::fixture::*;
use crate::catalog::{Base, CatalogError, Head};
use crate::id::{DatabaseId, Epoch, LayerId, Lsn};

pub(super) fn a_new_database_is_empty(harness: &dyn Harness) {
    let catalog = harness.connect();
    let now = catalog.now().unwrap();
    let made = catalog.create_database(&name("a"), 7, None).unwrap();
    assert_eq!((made.name.as_str(), made.retention_s), ("a", 7));
    assert_eq!((made.created, made.dropped, made.base), (now, None, None));
    assert_eq!(
        made.head,
        Head {
            point: None,
            time: now,
            written_bytes: 0
        }
    );
    assert_eq!(made.head.lsn(), Lsn::EMPTY);
    assert_eq!((made.epoch, made.generation), (Epoch(0), 0));
    assert_eq!(catalog.database(&name("a")).unwrap(), made);
    assert_eq!(catalog.database_by_id(made.id).unwrap(), made);
    assert_eq!(catalog.layers(made.id).unwrap(), []);
    assert_eq!(catalog.snapshots(made.id).unwrap(), []);
    assert_eq!(catalog.lease(made.id).unwrap(), None);
}

pub(super) fn a_name_is_given_once(harness: &dyn Harness) {
    let catalog = harness.connect();
    catalog.create_database(&name("a"), DAY_S, None).unwrap();
    assert_refused!(
        catalog.create_database(&name("a"), DAY_S, None),
        CatalogError::DatabaseExists(taken) if taken == "a"
    );
    // Names differ by case.
    catalog.create_database(&name("A"), DAY_S, None).unwrap();
}

pub(super) fn the_name_of_a_removed_database_is_free_at_once(harness: &dyn Harness) {
    let catalog = harness.connect();
    let first = catalog.create_database(&name("a"), DAY_S, None).unwrap();
    catalog.drop_database(first.id).unwrap();
    let second = catalog.create_database(&name("a"), DAY_S, None).unwrap();
    assert_ne!(first.id, second.id);
    assert_eq!(catalog.database(&name("a")).unwrap().id, second.id);
}

pub(super) fn living_databases_are_listed_by_name(harness: &dyn Harness) {
    let catalog = harness.connect();
    assert_eq!(catalog.databases().unwrap(), []);
    for called in ["b", "c", "a", "10", "9"] {
        catalog.create_database(&name(called), DAY_S, None).unwrap();
    }
    catalog
        .drop_database(catalog.database(&name("c")).unwrap().id)
        .unwrap();
    let listed: Vec<String> = catalog
        .databases()
        .unwrap()
        .iter()
        .map(|database| database.name.to_string())
        .collect();
    assert_eq!(listed, ["10", "9", "a", "b"]);
}

pub(super) fn unknown_databases_are_refused(harness: &dyn Harness) {
    let catalog = harness.connect();
    let id = DatabaseId(17);
    let none = name("none");
    assert_refused!(
        catalog.database(&none),
        CatalogError::NoSuchDatabase(asked) if asked == "none"
    );
    assert_refused!(
        catalog.database_by_id(id),
        CatalogError::NoSuchDatabase(asked) if asked == "0000000000000011"
    );
    assert_refused!(catalog.drop_database(id), CatalogError::NoSuchDatabase(_));
    assert_refused!(
        catalog.undrop_database(&none),
        CatalogError::NoSuchDatabase(_)
    );
    assert_refused!(
        catalog.set_retention(id, 1),
        CatalogError::NoSuchDatabase(_)
    );
    assert_refused!(
        catalog.acquire_lease(id, &holder("x"), TTL, &|_| true),
        CatalogError::NoSuchDatabase(_)
    );
    assert_refused!(
        catalog.renew_lease(id, Epoch(1), TTL),
        CatalogError::NoSuchDatabase(_)
    );
    assert_refused!(catalog.lease(id), CatalogError::NoSuchDatabase(_));
    assert_refused!(catalog.layers(id), CatalogError::NoSuchDatabase(_));
    assert_refused!(
        catalog.find_lsn(id, Lsn(1)),
        CatalogError::NoSuchDatabase(_)
    );
    assert_refused!(catalog.chain(id, None), CatalogError::NoSuchDatabase(_));
    assert_refused!(
        catalog.pin_chain(id, None, 1, &holder("x"), TTL),
        CatalogError::NoSuchDatabase(_)
    );
    assert_refused!(catalog.snapshots(id), CatalogError::NoSuchDatabase(_));
    assert_refused!(
        catalog.add_snapshot(id, &snapshot("s", 1)),
        CatalogError::NoSuchDatabase(_)
    );
    assert_refused!(
        catalog.replace_layers(id, &[], &[], &[]),
        CatalogError::NoSuchDatabase(_)
    );
}

pub(super) fn a_removed_database_is_found_by_its_id_alone(harness: &dyn Harness) {
    let catalog = harness.connect();
    let made = catalog.create_database(&name("a"), DAY_S, None).unwrap();
    harness.advance(SECOND);
    let now = catalog.now().unwrap();
    catalog.drop_database(made.id).unwrap();
    assert_refused!(
        catalog.database(&name("a")),
        CatalogError::NoSuchDatabase(_)
    );
    assert_eq!(catalog.database_by_id(made.id).unwrap().dropped, Some(now));
}

pub(super) fn a_removed_database_takes_no_changes(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let layer = a.active(1, None);
    a.remove();
    let gone = |error: &CatalogError| matches!(error, CatalogError::NoSuchDatabase(_));
    for refused in [
        catalog.drop_database(a.id),
        catalog.set_retention(a.id, 1),
        catalog
            .acquire_lease(a.id, &holder("x"), TTL, &|_| true)
            .map(drop),
        catalog.renew_lease(a.id, a.epoch, TTL).map(drop),
        catalog.add_layer(a.epoch, &a.active_row(1, None)),
        catalog.publish(a.id, a.epoch, &head(layer, 1), None),
        catalog.rotate(a.id, a.epoch, &rotation(layer, 1..=1), &head(layer, 1)),
        catalog.add_snapshot(a.id, &snapshot("s", 1)).map(drop),
    ] {
        assert!(refused.as_ref().is_err_and(gone), "{refused:?}");
    }
}

pub(super) fn a_database_is_not_removed_while_its_lease_is_held(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    assert_refused!(
        catalog.drop_database(a.id),
        CatalogError::LeaseHeld { database, .. } if database == "a"
    );
    assert_eq!(a.row().dropped, None);
    a.release();
    catalog.drop_database(a.id).unwrap();
}

pub(super) fn an_expired_lease_does_not_keep_a_database_from_being_removed(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    harness.advance(TTL);
    catalog.drop_database(a.id).unwrap();
    assert!(a.row().dropped.is_some());
}

pub(super) fn undrop_brings_the_most_recently_removed_one_back(harness: &dyn Harness) {
    let catalog = harness.connect();
    let older = catalog.create_database(&name("a"), DAY_S, None).unwrap();
    catalog.drop_database(older.id).unwrap();
    harness.advance(SECOND);
    let newer = catalog.create_database(&name("a"), DAY_S, None).unwrap();
    catalog.drop_database(newer.id).unwrap();
    let back = catalog.undrop_database(&name("a")).unwrap();
    assert_eq!(back, newer);
    assert_eq!(catalog.database(&name("a")).unwrap(), newer);
}

pub(super) fn undrop_is_refused_while_the_name_is_taken(harness: &dyn Harness) {
    let catalog = harness.connect();
    let removed = catalog.create_database(&name("a"), DAY_S, None).unwrap();
    catalog.drop_database(removed.id).unwrap();
    let living = catalog.create_database(&name("a"), DAY_S, None).unwrap();
    assert_refused!(
        catalog.undrop_database(&name("a")),
        CatalogError::DatabaseExists(_)
    );
    assert_eq!(catalog.database(&name("a")).unwrap(), living);
    assert!(
        catalog
            .database_by_id(removed.id)
            .unwrap()
            .dropped
            .is_some()
    );
}

pub(super) fn undrop_brings_back_layers_that_a_sweep_found_dead(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let image = a.image();
    let low = a.sealed_over(1..=5, None, &[image]);
    let high = a.sealed(6..=9, Some(at(low, 5)));
    a.remove();
    assert_eq!(sweep(&*catalog, GRACE, &[]), []);
    assert_eq!(a.living(), []);
    catalog.undrop_database(&name("a")).unwrap();
    assert_eq!(a.living(), [image, low, high]);
    assert_eq!(a.chain(at(high, 9)), [image, low, high]);
}

pub(super) fn undrop_is_refused_once_layers_are_deleted(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let low = a.sealed(1..=5, None);
    let high = a.sealed(6..=9, Some(at(low, 5)));
    a.remove();
    // A pin holds one of the two.
    catalog
        .pin_chain(a.id, Some(at(low, 5)), 1, &holder("reader"), TTL)
        .unwrap();
    assert_eq!(sweep(&*catalog, Duration::ZERO, &[]), [high]);
    assert_refused!(
        catalog.undrop_database(&name("a")),
        CatalogError::NoSuchDatabase(_)
    );
    assert_eq!(a.living(), []);
}

pub(super) fn retention_is_any_number_of_seconds(harness: &dyn Harness) {
    let catalog = harness.connect();
    for (called, retention_s) in [("a", 0), ("b", 1), ("c", u64::MAX)] {
        let made = catalog.create_database(&name(called), DAY_S, None).unwrap();
        catalog.set_retention(made.id, retention_s).unwrap();
        assert_eq!(
            catalog.database_by_id(made.id).unwrap().retention_s,
            retention_s
        );
    }
}

pub(super) fn a_clone_begins_at_its_base(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let layer = a.sealed(1..=9, None);
    let base = Base {
        database: a.id,
        point: Some(at(layer, 4)),
    };
    let made = catalog
        .create_database(&name("b"), 60, Some((base, time(4), written(4))))
        .unwrap();
    assert_eq!(made.base, Some(base));
    assert_eq!(made.head, head(layer, 4));
    assert_eq!(
        (made.retention_s, made.epoch, made.generation),
        (60, Epoch(0), 0)
    );
    assert_eq!(catalog.database(&name("b")).unwrap(), made);
    assert_eq!(catalog.layers(made.id).unwrap(), []);
    assert_eq!(
        ids(&catalog.chain(made.id, made.head.point).unwrap().layers),
        [layer]
    );
}

pub(super) fn a_clone_of_an_empty_database_is_empty(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = catalog.create_database(&name("a"), DAY_S, None).unwrap();
    let base = Base {
        database: a.id,
        point: None,
    };
    let made = catalog
        .create_database(&name("b"), DAY_S, Some((base, time(0), 0)))
        .unwrap();
    assert_eq!((made.base, made.head.point), (Some(base), None));
    assert_eq!(catalog.database_by_id(made.id).unwrap(), made);
    assert_eq!(catalog.find_lsn(made.id, Lsn(1)).unwrap(), None);
}

pub(super) fn a_clone_needs_a_living_base(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let layer = a.sealed(1..=9, None);
    let create = |database, layer, lsn| {
        let base = Base {
            database,
            point: Some(at(layer, lsn)),
        };
        catalog.create_database(&name("b"), DAY_S, Some((base, time(lsn), 0)))
    };
    let unknown = LayerId::random(a.epoch);
    assert_refused!(
        create(DatabaseId(17), layer, 4),
        CatalogError::NoSuchDatabase(_)
    );
    assert_refused!(create(a.id, unknown, 4), CatalogError::NoSuchLayer(id) if id == unknown);
    assert_refused!(create(a.id, layer, 10), CatalogError::Conflict(_));
    kill(&*catalog, layer);
    assert_refused!(create(a.id, layer, 4), CatalogError::NoSuchLayer(id) if id == layer);
    assert_refused!(
        catalog.database(&name("b")),
        CatalogError::NoSuchDatabase(_)
    );
}

pub(super) fn everything_is_there_after_reconnecting(harness: &dyn Harness) {
    let before = {
        let catalog = harness.connect();
        let a = database(&*catalog, "a");
        let image = a.image();
        let low = a.sealed_over(1..=5, None, &[image]);
        a.active(6, Some(at(low, 5)));
        a.snapshot("kept", 3);
        clone(&a, at(low, 2), "b").remove();
        catalog
            .pin_chain(a.id, Some(at(low, 5)), 7, &holder("reader"), TTL)
            .unwrap();
        catalog.inventory().unwrap()
    };
    let after = harness.connect().inventory().unwrap();
    assert_eq!(after.databases, before.databases);
    assert_eq!(after.layers, before.layers);
    assert_eq!(after.snapshots, before.snapshots);
    assert_eq!(after.pins, before.pins);
    assert_eq!(after.leases, before.leases);
    assert_eq!((after.databases.len(), after.layers.len()), (2, 3));
    assert_eq!(
        (after.snapshots.len(), after.pins.len(), after.leases.len()),
        (1, 1, 1)
    );
}
