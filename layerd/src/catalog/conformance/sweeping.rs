//! Claims about the inventory and the sweep.

#![allow(
    clippy::unwrap_used,
    reason = "a call that fails is a claim that fails"
)]

use std::time::Duration;

use super::Harness;
use super::fixture::*;
use crate::catalog::{CatalogError, LayerRow};
use crate::id::{LayerId, Lsn};

pub(super) fn the_inventory_holds_everything(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let image = a.image();
    let low = a.sealed_over(1..=5, None, &[image]);
    let dead = a.sealed(6..=9, Some(at(low, 5)));
    let b = clone(&a, at(low, 3), "b");
    let snapshot = a.snapshot("s", 3);
    b.remove();
    kill(&*catalog, dead);
    catalog
        .pin_chain(a.id, Some(at(low, 5)), 7, &holder("reader"), TTL)
        .unwrap();

    let mut marked = None;
    let inventory = catalog.inventory().unwrap();
    catalog
        .sweep(GRACE, true, &mut |seen| {
            marked = Some(seen.clone());
            Vec::new()
        })
        .unwrap();
    for seen in [inventory, marked.unwrap()] {
        assert_eq!(seen.now, catalog.now().unwrap());
        assert_eq!(seen.databases, [a.row(), b.row()]);
        let mut layers = ids(&seen.layers);
        layers.sort_unstable();
        let mut expected = [image, low, dead];
        expected.sort_unstable();
        assert_eq!(layers, expected);
        let row = seen.layers.iter().find(|row| row.id == low).unwrap();
        assert_eq!(row.images, [image]);
        assert_eq!(seen.snapshots, [(a.id, snapshot.clone())]);
        assert_eq!(seen.pins.iter().map(|pin| pin.id).collect::<Vec<_>>(), [7]);
        let lease = catalog.lease(a.id).unwrap().unwrap();
        assert_eq!(seen.leases, [(a.id, lease)]);
    }
}

pub(super) fn expired_leases_are_not_in_the_inventory(harness: &dyn Harness) {
    let catalog = harness.connect();
    database(&*catalog, "a");
    assert_eq!(catalog.inventory().unwrap().leases.len(), 1);
    harness.advance(TTL);
    assert_eq!(catalog.inventory().unwrap().leases, []);
}

pub(super) fn what_is_not_kept_dies_and_is_deleted_after_the_grace(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let low = a.sealed(1..=5, None);
    let orphan = a.active(20, None);
    assert_eq!(sweep(&*catalog, GRACE, &[low]), []);
    let died = catalog.now().unwrap();
    assert_eq!(a.layer(orphan).dead_since, Some(died));
    assert_eq!(a.living(), [low]);
    harness.advance(GRACE - Duration::from_nanos(1));
    assert_eq!(sweep(&*catalog, GRACE, &[low]), []);
    assert_eq!(a.layer(orphan).dead_since, Some(died), "it died once");
    harness.advance(Duration::from_nanos(1));
    assert_eq!(sweep(&*catalog, GRACE, &[low]), [orphan]);
    assert!(!catalog.knows_layer(orphan).unwrap());
    assert_eq!(a.living(), [low]);
}

pub(super) fn grace_zero_deletes_at_once(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let orphan = a.active(1, None);
    assert_eq!(sweep(&*catalog, Duration::ZERO, &[]), [orphan]);
}

pub(super) fn a_layer_found_dead_by_mistake_lives_again(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let low = a.sealed(1..=5, None);
    kill(&*catalog, low);
    assert_eq!(a.living(), []);
    harness.advance(GRACE);
    assert_eq!(sweep(&*catalog, GRACE, &[low]), []);
    assert_eq!(a.living(), [low]);
    assert_eq!(a.chain(at(low, 5)), [low]);
}

pub(super) fn a_replaced_layer_never_lives_again(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let low = a.sealed(1..=5, None);
    let new = a.sealed_row(1..=5, None);
    catalog
        .replace_layers(a.id, &[low], std::slice::from_ref(&new), &lsns(5..=5))
        .unwrap();
    harness.advance(GRACE);
    assert_eq!(sweep(&*catalog, GRACE, &[low, new.id]), [], "it is kept");
    assert_eq!(a.living(), [new.id], "but does not live");
    assert_eq!(a.find(3), Some(new.id));
    assert_eq!(sweep(&*catalog, GRACE, &[new.id]), [low]);
}

pub(super) fn a_dead_layer_in_anothers_place_stays_dead(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let low = a.sealed(1..=5, None);
    let between = a.sealed(6..=9, Some(at(low, 5)));
    let restored = a.sealed(10..=12, Some(at(low, 5)));
    catalog
        .pin_chain(a.id, Some(at(between, 9)), 7, &holder("reader"), GRACE)
        .unwrap();
    sweep(&*catalog, GRACE, &[low, restored]);
    let new = a.sealed_row(5..=12, None);
    catalog
        .replace_layers(
            a.id,
            &[low, restored],
            std::slice::from_ref(&new),
            &[Lsn(5), Lsn(12)],
        )
        .unwrap();
    assert_eq!(
        sweep(&*catalog, Duration::ZERO, &[new.id, low, between]),
        [restored]
    );
    assert_eq!(a.living(), [new.id]);
    assert_eq!(a.find(7), Some(new.id));
    assert!(
        catalog.knows_layer(between).unwrap(),
        "it is kept all the same"
    );
}

pub(super) fn a_dead_layer_on_a_dead_one_stays_dead(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let image = a.image();
    let low = a.sealed(1..=5, None);
    let middle = a.sealed(6..=7, Some(at(low, 5)));
    let high = a.sealed_over(8..=9, Some(at(low, 5)), &[image]);
    sweep(&*catalog, GRACE, &[]);
    sweep(&*catalog, GRACE, &[middle, high]);
    assert_eq!(a.living(), []);
    sweep(&*catalog, GRACE, &[low, middle, high]);
    assert_eq!(a.living(), [low, middle], "the image is missing");
}

pub(super) fn a_pinned_layer_is_not_deleted_whatever_the_mark(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let low = a.sealed(1..=5, None);
    let top = a.active(6, None);
    catalog.publish(a.id, a.epoch, &head(top, 6), None).unwrap();
    catalog
        .pin_chain(a.id, Some(at(low, 5)), 7, &holder("reader"), 2 * GRACE)
        .unwrap();
    sweep(&*catalog, GRACE, &[top]);
    harness.advance(GRACE);
    assert_eq!(sweep(&*catalog, GRACE, &[top]), []);
    catalog.unpin(7).unwrap();
    assert_eq!(sweep(&*catalog, GRACE, &[top]), [low]);
}

pub(super) fn an_expired_pin_holds_nothing_and_is_deleted(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let orphan = a.active(1, None);
    catalog
        .set_pin(7, &holder("reader"), &[orphan], TTL)
        .unwrap();
    harness.advance(TTL);
    assert_eq!(sweep(&*catalog, Duration::ZERO, &[]), [orphan]);
    assert!(!catalog.renew_pin(7, TTL).unwrap());
}

pub(super) fn a_living_head_is_not_deleted_whatever_the_mark(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let low = a.sealed(1..=5, None);
    assert_eq!(sweep(&*catalog, Duration::ZERO, &[]), []);
    assert!(catalog.knows_layer(low).unwrap());
    assert_eq!(sweep(&*catalog, Duration::ZERO, &[low]), []);
    assert_eq!(a.chain(at(low, 5)), [low]);
}

pub(super) fn what_a_kept_layer_needs_is_not_deleted_whatever_the_mark(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let image = a.image();
    let low = a.sealed(1..=5, None);
    let top = a.sealed_over(6..=9, Some(at(low, 5)), &[image]);
    assert_eq!(sweep(&*catalog, Duration::ZERO, &[top]), []);
    assert_eq!(sweep(&*catalog, Duration::ZERO, &[image, low, top]), []);
    assert_eq!(a.chain(at(top, 9)), [low, image, top]);
}

pub(super) fn deleted_rows_are_returned_whole(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let image = a.image();
    let images = vec![image];
    let row = LayerRow {
        images,
        ..a.sealed_row(1..=5, None)
    };
    catalog.add_layer(a.epoch, &row).unwrap();
    let now = catalog.now().unwrap();
    let deleted = catalog
        .sweep(Duration::ZERO, false, &mut |_| vec![image])
        .unwrap();
    assert_eq!(
        deleted,
        [LayerRow {
            dead_since: Some(now),
            ..row
        }]
    );
}

pub(super) fn a_dry_run_says_the_same_and_changes_nothing(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let low = a.sealed(1..=5, None);
    let dead = a.active(20, None);
    kill(&*catalog, dead);
    harness.advance(GRACE);
    let fresh = a.active(30, None);
    catalog
        .set_pin(7, &holder("reader"), &[low], Duration::ZERO)
        .unwrap();
    for grace in [GRACE, Duration::ZERO] {
        let before = catalog.inventory().unwrap();
        let said = catalog.sweep(grace, true, &mut |_| vec![low]).unwrap();
        let after = catalog.inventory().unwrap();
        assert_eq!(
            (&after.databases, &after.layers),
            (&before.databases, &before.layers)
        );
        assert!(
            catalog.renew_pin(7, Duration::ZERO).unwrap(),
            "the expired pin is there"
        );
        let expected: &[LayerId] = if grace == GRACE {
            &[dead]
        } else {
            &[dead, fresh]
        };
        assert_eq!(ids(&said), expected);
    }
    let said = catalog
        .sweep(Duration::ZERO, true, &mut |_| vec![low])
        .unwrap();
    let done = catalog
        .sweep(Duration::ZERO, false, &mut |_| vec![low])
        .unwrap();
    assert_eq!(said, done);
}

pub(super) fn a_removed_database_goes_after_its_retention(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let low = a.sealed(1..=5, None);
    a.snapshot("s", 3);
    catalog.set_retention(a.id, 60).unwrap();
    a.remove();
    assert_eq!(sweep(&*catalog, Duration::ZERO, &[]), [low]);
    assert_eq!(a.row().id, a.id, "within its retention");
    harness.advance(60 * SECOND);
    assert_eq!(sweep(&*catalog, Duration::ZERO, &[]), []);
    assert_refused!(
        catalog.database_by_id(a.id),
        CatalogError::NoSuchDatabase(_)
    );
    assert_eq!(catalog.inventory().unwrap().snapshots, []);
}

pub(super) fn a_removed_database_stays_while_it_has_layers(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let low = a.sealed(1..=5, None);
    catalog.set_retention(a.id, 0).unwrap();
    a.remove();
    assert_eq!(sweep(&*catalog, GRACE, &[]), []);
    assert_eq!(a.layer(low).database, a.row().id, "a dead layer is one");
    harness.advance(GRACE);
    assert_eq!(sweep(&*catalog, GRACE, &[]), [low]);
    assert_refused!(
        catalog.database_by_id(a.id),
        CatalogError::NoSuchDatabase(_)
    );
}

pub(super) fn a_removed_database_stays_while_it_is_a_base(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = catalog.create_database(&name("a"), 0, None).unwrap();
    let base = crate::catalog::Base {
        database: a.id,
        point: None,
    };
    let b = catalog
        .create_database(&name("b"), 0, Some((base, time(0), 0)))
        .unwrap();
    catalog.drop_database(a.id).unwrap();
    sweep(&*catalog, Duration::ZERO, &[]);
    assert_eq!(catalog.database_by_id(a.id).unwrap().id, a.id);
    catalog.drop_database(b.id).unwrap();
    sweep(&*catalog, Duration::ZERO, &[]);
    for id in [a.id, b.id] {
        assert_refused!(catalog.database_by_id(id), CatalogError::NoSuchDatabase(_));
    }
}

pub(super) fn a_living_database_never_goes(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = catalog.create_database(&name("a"), 0, None).unwrap();
    harness.advance(Duration::from_secs(1_000_000));
    sweep(&*catalog, Duration::ZERO, &[]);
    assert_eq!(catalog.database(&name("a")).unwrap(), a);
}
