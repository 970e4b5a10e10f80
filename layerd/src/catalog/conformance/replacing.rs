//! Claims about replacing layers: all references move at once, or nothing changes.

#![allow(
    clippy::unwrap_used,
    reason = "a call that fails is a claim that fails"
)]

use std::time::Duration;

use super::Harness;
use super::fixture::*;
use crate::catalog::{Catalog, CatalogError, LayerRow, Result};
use crate::id::{LayerId, Lsn};

/// Replaces layers of `a`, keeping these commits.
fn replace(a: &Writing<'_>, old: &[LayerId], new: &[LayerRow], kept: &[u64]) -> Result<()> {
    let kept: Vec<Lsn> = kept.iter().copied().map(Lsn).collect();
    a.catalog.replace_layers(a.id, old, new, &kept)
}

/// Checks that a replacement meets a conflict, and changes nothing.
fn assert_conflict(catalog: &dyn Catalog, replace: impl FnOnce() -> Result<()>) {
    let before = catalog.inventory().unwrap();
    assert_refused!(replace(), CatalogError::Conflict(_));
    let after = catalog.inventory().unwrap();
    assert_eq!(
        (after.databases, after.layers),
        (before.databases, before.layers)
    );
}

pub(super) fn old_layers_die_and_new_ones_take_their_place(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let low = a.sealed(1..=5, None);
    let high = a.sealed(6..=9, Some(at(low, 5)));
    let new = a.sealed_row(1..=9, None);
    let now = catalog.now().unwrap();
    replace(&a, &[low, high], std::slice::from_ref(&new), &[3, 9]).unwrap();
    assert_eq!(catalog.layers(a.id).unwrap(), [new]);
    assert_eq!(a.layer(low).dead_since, Some(now));
    assert_eq!(a.layer(high).dead_since, Some(now));
}

pub(super) fn the_head_moves_to_the_new_layer(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let low = a.sealed(1..=9, None);
    let new = a.sealed_row(9..=9, None);
    replace(&a, &[low], std::slice::from_ref(&new), &[9]).unwrap();
    assert_eq!(a.row().head, head(new.id, 9));
    assert_eq!(a.chain(at(new.id, 9)), [new.id]);
}

pub(super) fn children_move_to_the_new_layer(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let low = a.sealed(1..=5, None);
    let middle = a.sealed(6..=9, Some(at(low, 5)));
    let top = a.active(10, Some(at(middle, 9)));
    let restored = a.active(20, Some(at(low, 2)));
    let new = a.sealed_row(2..=9, None);
    replace(&a, &[low, middle], std::slice::from_ref(&new), &[2, 9]).unwrap();
    assert_eq!(a.layer(top).parent, Some(at(new.id, 9)));
    assert_eq!(a.layer(restored).parent, Some(at(new.id, 2)));
    assert_eq!(a.chain(at(top, 10)), [new.id, top]);
}

pub(super) fn clones_and_their_layers_move_to_the_new_layer(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let low = a.sealed(1..=9, None);
    let unwritten = clone(&a, at(low, 3), "unwritten");
    let writing = clone(&a, at(low, 4), "writing");
    let of_clone = writing.sealed(5..=6, Some(at(low, 4)));
    let new = a.sealed_row(1..=9, None);
    replace(&a, &[low], std::slice::from_ref(&new), &[3, 4, 9]).unwrap();
    assert_eq!(unwritten.row().base.unwrap().point, Some(at(new.id, 3)));
    assert_eq!(unwritten.row().head, head(new.id, 3));
    assert_eq!(writing.row().base.unwrap().point, Some(at(new.id, 4)));
    assert_eq!(writing.head(), Some(at(of_clone, 6)));
    assert_eq!(writing.chain(at(of_clone, 6)), [new.id, of_clone]);
    assert_eq!(unwritten.find(2), Some(new.id));
}

pub(super) fn references_to_a_removed_database_move_too(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let low = a.sealed(1..=9, None);
    let b = clone(&a, at(low, 3), "b");
    b.remove();
    assert_conflict(&*catalog, || {
        replace(&a, &[low], &[a.sealed_row(9..=9, None)], &[9])
    });
    let new = a.sealed_row(3..=9, None);
    replace(&a, &[low], std::slice::from_ref(&new), &[3, 9]).unwrap();
    assert_eq!(
        catalog.undrop_database(&name("b")).unwrap().head,
        head(new.id, 3)
    );
}

pub(super) fn each_reference_moves_to_the_layer_that_covers_it(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let low = a.sealed(1..=9, None);
    let b = clone(&a, at(low, 3), "b");
    let first = a.sealed_row(1..=4, None);
    let second = a.sealed_row(5..=9, Some(at(first.id, 4)));
    // In any order: a layer may stand on one that comes behind it.
    replace(&a, &[low], &[second.clone(), first.clone()], &[3, 4, 9]).unwrap();
    assert_eq!(b.head(), Some(at(first.id, 3)));
    assert_eq!(a.head(), Some(at(second.id, 9)));
    assert_eq!(a.chain(at(second.id, 9)), [first.id, second.id]);
}

pub(super) fn generations_of_touched_databases_rise_and_no_others(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let low = a.sealed(1..=5, None);
    let high = a.sealed(6..=9, Some(at(low, 5)));
    let on_low = clone(&a, at(low, 3), "on_low");
    let on_high = clone(&a, at(high, 7), "on_high");
    let far = clone(&on_high, at(high, 7), "far");
    far.sealed(8..=8, Some(at(high, 7)));
    let alone = database(&*catalog, "alone");
    alone.sealed(1..=5, None);
    let new = a.sealed_row(6..=9, Some(at(low, 5)));
    replace(&a, &[high], &[new], &[7, 9]).unwrap();
    assert_eq!(
        (a.generation(), on_high.generation(), far.generation()),
        (1, 1, 1)
    );
    assert_eq!((on_low.generation(), alone.generation()), (0, 0));
    let new = a.sealed_row(1..=5, None);
    replace(&a, &[low], &[new], &[3, 5]).unwrap();
    assert_eq!(
        (a.generation(), on_high.generation(), far.generation()),
        (2, 2, 2)
    );
    assert_eq!((on_low.generation(), alone.generation()), (1, 0));
}

pub(super) fn images_that_nobody_living_uses_die(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let (gone, shared, unused) = (a.image(), a.image(), a.image());
    let low = a.sealed_over(1..=5, None, &[gone, shared]);
    let high = a.sealed_over(6..=9, Some(at(low, 5)), &[shared]);
    let new = a.sealed_row(5..=5, None);
    replace(&a, &[low], std::slice::from_ref(&new), &[5]).unwrap();
    assert!(a.layer(gone).dead_since.is_some());
    assert!(
        a.layer(shared).dead_since.is_none(),
        "a living layer uses it"
    );
    assert!(
        a.layer(unused).dead_since.is_none(),
        "it may be about to be used"
    );
    assert_eq!(a.chain(at(high, 9)), [new.id, shared, high]);
}

pub(super) fn images_that_a_new_layer_uses_live(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let old_image = a.image();
    let low = a.sealed_over(1..=5, None, &[old_image]);
    let new_image = a.image_row();
    let images = vec![old_image, new_image.id];
    let new = LayerRow {
        images,
        ..a.sealed_row(5..=5, None)
    };
    replace(&a, &[low], &[new.clone(), new_image.clone()], &[5]).unwrap();
    assert_eq!(a.chain(at(new.id, 5)), [old_image, new_image.id, new.id]);
}

pub(super) fn a_head_at_a_dropped_commit_stops_it(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let low = a.sealed(1..=9, None);
    assert_conflict(&*catalog, || {
        replace(&a, &[low], &[a.sealed_row(1..=9, None)], &[1, 8])
    });
}

pub(super) fn a_child_on_a_dropped_commit_stops_it(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let low = a.sealed(1..=5, None);
    let high = a.sealed(6..=9, Some(at(low, 5)));
    assert_conflict(&*catalog, || {
        replace(&a, &[low], &[a.sealed_row(1..=5, None)], &[1, 4])
    });
    // A dead one is no obstacle.
    catalog
        .publish(a.id, a.epoch, &head(a.active(10, None), 10), None)
        .unwrap();
    kill(&*catalog, high);
    replace(&a, &[low], &[a.sealed_row(1..=5, None)], &[1, 4]).unwrap();
}

pub(super) fn a_clone_at_a_dropped_commit_stops_it(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let low = a.sealed(1..=9, None);
    clone(&a, at(low, 3), "b");
    assert_conflict(&*catalog, || {
        replace(&a, &[low], &[a.sealed_row(1..=9, None)], &[9])
    });
}

pub(super) fn a_snapshot_at_a_dropped_commit_stops_it(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let low = a.sealed(1..=9, None);
    let named = a.snapshot("s", 3);
    assert_conflict(&*catalog, || {
        replace(&a, &[low], &[a.sealed_row(1..=9, None)], &[9])
    });
    catalog.remove_snapshot(a.id, named.id).unwrap();
    let unnamed = a.snapshot("", 4);
    assert_conflict(&*catalog, || {
        replace(&a, &[low], &[a.sealed_row(1..=9, None)], &[9])
    });
    replace(&a, &[low], &[a.sealed_row(1..=9, None)], &[4, 9]).unwrap();
    assert_eq!(catalog.snapshots(a.id).unwrap(), [unnamed]);
}

pub(super) fn a_clones_snapshots_do_not_stop_it(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let low = a.sealed(1..=9, None);
    let b = clone(&a, at(low, 3), "b");
    b.sealed(4..=6, Some(at(low, 3)));
    b.snapshot("s", 5);
    replace(&a, &[low], &[a.sealed_row(1..=9, None)], &[3, 9]).unwrap();
}

pub(super) fn an_active_or_rotated_layer_is_not_replaced(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let rotated = a.rotated(1..=5, None);
    let active = a.active(6, Some(at(rotated, 5)));
    let image = a.image();
    for old in [rotated, active, image] {
        assert_conflict(&*catalog, || {
            replace(&a, &[old], &[a.sealed_row(1..=5, None)], &[5])
        });
    }
}

pub(super) fn a_dead_layer_is_not_replaced(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let low = a.sealed(1..=5, None);
    replace(&a, &[low], &[a.sealed_row(1..=5, None)], &[5]).unwrap();
    assert_conflict(&*catalog, || {
        replace(&a, &[low], &[a.sealed_row(1..=5, None)], &[5])
    });
    let unknown = LayerId::random(a.epoch);
    assert_conflict(&*catalog, || replace(&a, &[unknown], &[], &[]));
}

pub(super) fn another_databases_layer_is_not_replaced(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let b = database(&*catalog, "b");
    let of_b = b.sealed(1..=5, None);
    assert_conflict(&*catalog, || {
        replace(&a, &[of_b], &[a.sealed_row(1..=5, None)], &[5])
    });
    let of_a = a.sealed(1..=5, None);
    assert_conflict(&*catalog, || {
        replace(&a, &[of_a], &[b.sealed_row(1..=5, None)], &[5])
    });
}

pub(super) fn kept_commits_must_be_in_old_and_new_layers(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let low = a.sealed(1..=5, None);
    let high = a.sealed(6..=9, Some(at(low, 5)));
    assert_conflict(&*catalog, || {
        replace(&a, &[low], &[a.sealed_row(3..=5, None)], &[2, 5])
    });
    assert_conflict(&*catalog, || {
        replace(&a, &[low], &[a.sealed_row(1..=5, None)], &[5, 6])
    });
    let row = || a.sealed_row(9..=9, None);
    assert_conflict(&*catalog, || replace(&a, &[low, high], &[row()], &[5, 9]));
    replace(&a, &[low, high], &[row()], &[9]).unwrap();
}

pub(super) fn new_layers_must_not_share_commits(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let low = a.sealed(1..=5, None);
    let high = a.sealed(6..=9, Some(at(low, 5)));
    let first = a.sealed_row(1..=3, None);
    let second = a.sealed_row(3..=5, None);
    assert_conflict(&*catalog, || replace(&a, &[low], &[first, second], &[5]));
    let into_high = a.sealed_row(1..=6, None);
    assert_conflict(&*catalog, || replace(&a, &[low], &[into_high], &[5]));
    assert_eq!(a.find(6), Some(high));
}

pub(super) fn a_new_layer_needs_a_living_parent(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let low = a.sealed(1..=5, None);
    let high = a.sealed(6..=9, Some(at(low, 5)));
    let on_unknown = a.sealed_row(6..=9, Some(at(LayerId::random(a.epoch), 5)));
    assert_conflict(&*catalog, || replace(&a, &[high], &[on_unknown], &[9]));
    let on_old = a.sealed_row(6..=9, Some(at(low, 5)));
    assert_conflict(&*catalog, || replace(&a, &[low, high], &[on_old], &[9]));
    let images = vec![LayerId::random(a.epoch)];
    let over_unknown = LayerRow {
        images,
        ..a.sealed_row(6..=9, Some(at(low, 5)))
    };
    assert_conflict(&*catalog, || replace(&a, &[high], &[over_unknown], &[9]));
}

pub(super) fn replacing_needs_no_lease(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let low = a.sealed(1..=5, None);
    let new = a.sealed_row(1..=5, None);
    a.release();
    replace(&a, &[low], &[new], &[5]).unwrap();
}

pub(super) fn pins_still_hold_replaced_layers(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let image = a.image();
    let low = a.sealed_over(1..=5, None, &[image]);
    catalog
        .pin_chain(a.id, Some(at(low, 5)), 7, &holder("reader"), TTL)
        .unwrap();
    replace(&a, &[low], &[a.sealed_row(1..=5, None)], &[5]).unwrap();
    assert_eq!(catalog.inventory().unwrap().pins[0].layers, [image, low]);
    assert_eq!(sweep_dead(&*catalog, Duration::ZERO), []);
    assert!(catalog.renew_pin(7, TTL).unwrap());
    catalog.unpin(7).unwrap();
    let mut expected = [image, low];
    expected.sort_unstable();
    assert_eq!(sweep_dead(&*catalog, Duration::ZERO), expected);
}
