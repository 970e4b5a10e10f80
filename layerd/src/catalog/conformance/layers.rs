//! Claims about layers' rows through their life, and about the head: fenced, never backwards,
//! never dangling.

#![allow(
    clippy::unwrap_used,
    reason = "a call that fails is a claim that fails"
)]

use super::Harness;
use super::fixture::*;
use crate::catalog::{CatalogError, LayerRow, LayerState, Rotation};
use crate::id::{Epoch, LayerId, Lsn};

pub(super) fn rows_come_back_as_they_were_added(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let first_image = a.image_row();
    let second_image = a.image_row();
    catalog.add_layer(a.epoch, &first_image).unwrap();
    catalog.add_layer(a.epoch, &second_image).unwrap();
    // The order of the images is the caller's.
    let images = vec![second_image.id, first_image.id];
    let sealed = LayerRow {
        images,
        ..a.sealed_row(1..=5, None)
    };
    catalog.add_layer(a.epoch, &sealed).unwrap();
    let active = a.active_row(6, Some(at(sealed.id, 5)));
    catalog.add_layer(a.epoch, &active).unwrap();
    for row in [first_image, second_image, sealed, active] {
        assert_eq!(a.layer(row.id), row);
    }
}

pub(super) fn any_sixty_four_bits_are_an_id(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    for random in [0, 1, u64::MAX, 1 << 63, (1 << 63) - 1] {
        let id = LayerId {
            epoch: a.epoch,
            random,
        };
        let row = LayerRow {
            id,
            ..a.image_row()
        };
        catalog.add_layer(a.epoch, &row).unwrap();
        assert_eq!(a.layer(id), row);
        catalog.set_pin(random, &holder("x"), &[id], TTL).unwrap();
    }
    assert_eq!(catalog.inventory().unwrap().pins.len(), 5);
}

pub(super) fn a_stale_epoch_cannot_add_a_layer(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    take_over(&a);
    assert_refused!(
        catalog.add_layer(a.epoch, &a.active_row(1, None)),
        CatalogError::Fenced {
            ours: Epoch(1),
            current: Epoch(2)
        }
    );
    assert_eq!(a.living(), []);
}

pub(super) fn a_stale_epoch_cannot_publish(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let layer = a.active(1, None);
    take_over(&a);
    assert_refused!(
        catalog.publish(a.id, a.epoch, &head(layer, 1), None),
        CatalogError::Fenced {
            ours: Epoch(1),
            current: Epoch(2)
        }
    );
    assert_eq!(a.head(), None);
}

pub(super) fn a_stale_epoch_cannot_rotate(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let layer = a.active(1, None);
    take_over(&a);
    assert_refused!(
        catalog.rotate(a.id, a.epoch, &rotation(layer, 1..=3), &head(layer, 3)),
        CatalogError::Fenced {
            ours: Epoch(1),
            current: Epoch(2)
        }
    );
    assert_eq!((a.layer(layer).state, a.head()), (LayerState::Active, None));
}

fn take_over(a: &Writing<'_>) {
    a.catalog
        .acquire_lease(a.id, &holder("another"), TTL, &|_| true)
        .unwrap();
}

pub(super) fn an_epoch_that_was_never_granted_is_fenced(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    assert_refused!(
        catalog.add_layer(Epoch(2), &a.active_row(1, None)),
        CatalogError::Fenced {
            ours: Epoch(2),
            current: Epoch(1)
        }
    );
    let without = catalog.create_database(&name("b"), DAY_S, None).unwrap();
    let row = LayerRow {
        database: without.id,
        ..a.active_row(1, None)
    };
    assert_refused!(
        catalog.add_layer(Epoch(1), &row),
        CatalogError::Fenced { .. }
    );
}

pub(super) fn an_expired_lease_still_publishes_until_another_is_granted(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let layer = a.active(1, None);
    harness.advance(10 * TTL);
    catalog
        .publish(a.id, a.epoch, &head(layer, 1), None)
        .unwrap();
    take_over(&a);
    assert_refused!(
        catalog.publish(a.id, a.epoch, &head(layer, 2), None),
        CatalogError::Fenced { .. }
    );
}

pub(super) fn a_layer_needs_a_living_parent(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let unknown = LayerId::random(a.epoch);
    assert_refused!(
        catalog.add_layer(a.epoch, &a.active_row(6, Some(at(unknown, 5)))),
        CatalogError::NoSuchLayer(id) if id == unknown
    );
    let dead = a.sealed(1..=5, None);
    kill(&*catalog, dead);
    assert_refused!(
        catalog.add_layer(a.epoch, &a.active_row(6, Some(at(dead, 5)))),
        CatalogError::NoSuchLayer(id) if id == dead
    );
}

pub(super) fn a_layer_needs_living_images(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let dead = a.image();
    kill(&*catalog, dead);
    for image in [LayerId::random(a.epoch), dead] {
        let row = LayerRow {
            images: vec![image],
            ..a.active_row(1, None)
        };
        assert_refused!(
            catalog.add_layer(a.epoch, &row),
            CatalogError::NoSuchLayer(id) if id == image
        );
    }
    let delta = a.sealed(1..=5, None);
    let row = LayerRow {
        images: vec![delta],
        ..a.active_row(6, None)
    };
    assert_refused!(catalog.add_layer(a.epoch, &row), CatalogError::Conflict(_));
}

pub(super) fn a_layer_stands_on_a_commit_that_its_parent_holds(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let low = a.sealed(3..=5, None);
    for lsn in [2, 6] {
        assert_refused!(
            catalog.add_layer(a.epoch, &a.active_row(9, Some(at(low, lsn)))),
            CatalogError::Conflict(_)
        );
    }
    // A restore stands on an older commit.
    a.active(9, Some(at(low, 4)));
}

pub(super) fn a_layer_stands_on_an_earlier_commit(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let low = a.sealed(3..=5, None);
    assert_refused!(
        catalog.add_layer(a.epoch, &a.active_row(5, Some(at(low, 5)))),
        CatalogError::Conflict(_)
    );
}

pub(super) fn a_layer_is_added_once(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let row = a.active_row(1, None);
    catalog.add_layer(a.epoch, &row).unwrap();
    assert_refused!(catalog.add_layer(a.epoch, &row), CatalogError::Conflict(_));
    assert_eq!(a.living(), [row.id]);
}

pub(super) fn living_layers_are_listed_by_lsn_behind_the_images(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let b = database(&*catalog, "b");
    let low = a.sealed(1..=5, None);
    let dead = a.sealed(6..=9, Some(at(low, 5)));
    let top = a.active(10, Some(at(low, 5)));
    let image = a.image();
    let other = b.active(1, None);
    kill(&*catalog, dead);
    assert_eq!(a.living(), [image, low, top]);
    assert_eq!(b.living(), [other]);
}

pub(super) fn publishing_moves_the_head(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let layer = a.active(1, None);
    for lsn in [1, 2, 9] {
        catalog
            .publish(a.id, a.epoch, &head(layer, lsn), None)
            .unwrap();
        assert_eq!(
            harness.connect().database_by_id(a.id).unwrap().head,
            head(layer, lsn)
        );
    }
}

pub(super) fn the_head_never_goes_back(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let layer = a.active(1, None);
    catalog
        .publish(a.id, a.epoch, &head(layer, 7), None)
        .unwrap();
    assert_refused!(
        catalog.publish(a.id, a.epoch, &head(layer, 6), None),
        CatalogError::Conflict(_)
    );
    let empty = crate::catalog::Head {
        point: None,
        ..head(layer, 8)
    };
    assert_refused!(
        catalog.publish(a.id, a.epoch, &empty, None),
        CatalogError::Conflict(_)
    );
    assert_refused!(
        catalog.rotate(a.id, a.epoch, &rotation(layer, 1..=7), &head(layer, 6)),
        CatalogError::Conflict(_)
    );
    assert_eq!(a.head(), Some(at(layer, 7)));
}

pub(super) fn a_head_is_published_again_at_the_same_commit(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let layer = a.active(1, None);
    catalog
        .publish(a.id, a.epoch, &head(layer, 7), None)
        .unwrap();
    catalog
        .publish(a.id, a.epoch, &head(layer, 7), None)
        .unwrap();
    assert_eq!(a.head(), Some(at(layer, 7)));
}

pub(super) fn a_head_needs_a_living_layer_that_holds_it(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let unknown = LayerId::random(a.epoch);
    assert_refused!(
        catalog.publish(a.id, a.epoch, &head(unknown, 1), None),
        CatalogError::NoSuchLayer(id) if id == unknown
    );
    let layer = a.sealed(1..=5, None);
    assert_refused!(
        catalog.publish(a.id, a.epoch, &head(layer, 6), None),
        CatalogError::Conflict(_)
    );
    let dead = a.active(6, Some(at(layer, 5)));
    kill(&*catalog, dead);
    assert_refused!(
        catalog.publish(a.id, a.epoch, &head(dead, 6), None),
        CatalogError::NoSuchLayer(id) if id == dead
    );
    assert_eq!(a.head(), Some(at(layer, 5)));
}

pub(super) fn rotation_fixes_the_end_and_moves_the_head(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let row = a.active_row(3, None);
    catalog.add_layer(a.epoch, &row).unwrap();
    catalog
        .rotate(a.id, a.epoch, &rotation(row.id, 3..=8), &head(row.id, 8))
        .unwrap();
    let expected = LayerRow {
        state: LayerState::Rotated,
        last_lsn: Some(Lsn(8)),
        first_time: Some(time(3)),
        last_time: Some(time(8)),
        end: Some(written(8)),
        ..row
    };
    assert_eq!(a.layer(expected.id), expected);
    assert_eq!(a.row().head, head(expected.id, 8));
}

pub(super) fn rotation_names_the_images(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let images = vec![a.image(), a.image()];
    let layer = a.active(1, None);
    let unknown = LayerId::random(a.epoch);
    let rotate = |images: Vec<LayerId>| {
        let rotation = Rotation {
            images,
            ..rotation(layer, 1..=2)
        };
        catalog.rotate(a.id, a.epoch, &rotation, &head(layer, 2))
    };
    assert_refused!(rotate(vec![unknown]), CatalogError::NoSuchLayer(id) if id == unknown);
    rotate(images.clone()).unwrap();
    assert_eq!(a.layer(layer).images, images);
}

pub(super) fn a_layer_is_rotated_once(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let layer = a.rotated(1..=5, None);
    assert_refused!(
        catalog.rotate(a.id, a.epoch, &rotation(layer, 1..=6), &head(layer, 6)),
        CatalogError::Conflict(_)
    );
    // As after an answer that was lost.
    let again = catalog.rotate(a.id, a.epoch, &rotation(layer, 1..=5), &head(layer, 5));
    again.unwrap();
    let unknown = LayerId::random(a.epoch);
    assert_refused!(
        catalog.rotate(a.id, a.epoch, &rotation(unknown, 6..=6), &head(layer, 5)),
        CatalogError::NoSuchLayer(id) if id == unknown
    );
    assert_eq!(a.layer(layer).last_lsn, Some(Lsn(5)));
}

pub(super) fn another_databases_layer_is_not_rotated(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let b = database(&*catalog, "b");
    let layer = b.active(1, None);
    assert_refused!(
        catalog.rotate(a.id, a.epoch, &rotation(layer, 1..=1), &head(layer, 1)),
        CatalogError::Conflict(_)
    );
    assert_eq!(b.layer(layer).state, LayerState::Active);
}

pub(super) fn a_layer_without_commits_is_dead_when_it_is_rotated(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let low = a.sealed(1..=5, None);
    let empty = a.active(6, Some(at(low, 5)));
    let rotate = |head| {
        let rotation = Rotation {
            commits: None,
            ..rotation(empty, 6..=6)
        };
        catalog.rotate(a.id, a.epoch, &rotation, &head)
    };
    assert_refused!(rotate(head(empty, 6)), CatalogError::NoSuchLayer(id) if id == empty);
    let now = catalog.now().unwrap();
    rotate(head(low, 5)).unwrap();
    let row = a.layer(empty);
    assert_eq!((row.state, row.last_lsn), (LayerState::Rotated, None));
    assert_eq!(row.dead_since, Some(now));
    assert_eq!(a.living(), [low]);
    assert_eq!(a.find(6), None);
    sweep(&*catalog, GRACE, &[low, empty]);
    assert_eq!(a.living(), [low], "and it stays so");
}

pub(super) fn a_refused_rotation_changes_nothing(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let low = a.sealed(1..=5, None);
    let layer = a.active(6, Some(at(low, 5)));
    let before = a.layer(layer);
    // The head that is asked for is not in the layer as it would become.
    assert_refused!(
        catalog.rotate(a.id, a.epoch, &rotation(layer, 6..=8), &head(layer, 9)),
        CatalogError::Conflict(_)
    );
    assert_eq!(a.layer(layer), before);
    assert_eq!(a.head(), Some(at(low, 5)));
}

pub(super) fn sealing_notes_length_and_hash(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let layer = a.rotated(1..=5, None);
    let rotated = a.layer(layer);
    assert!(catalog.seal(layer, 12_345, [9; 32], None).unwrap());
    let expected = LayerRow {
        state: LayerState::Sealed,
        bytes: Some(12_345),
        hash: Some([9; 32]),
        ..rotated
    };
    assert_eq!(a.layer(layer), expected);
}

pub(super) fn sealing_twice_does_nothing(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let layer = a.sealed(1..=5, None);
    let sealed = a.layer(layer);
    assert!(!catalog.seal(layer, 1, [1; 32], None).unwrap());
    assert_eq!(a.layer(layer), sealed);
}

pub(super) fn an_active_layer_is_not_sealed(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let layer = a.active(1, None);
    assert_refused!(
        catalog.seal(layer, 1, [1; 32], None),
        CatalogError::Conflict(_)
    );
    assert_eq!(a.layer(layer).state, LayerState::Active);
}

pub(super) fn an_unknown_layer_is_not_sealed(harness: &dyn Harness) {
    let catalog = harness.connect();
    let unknown = LayerId::random(Epoch(1));
    assert_refused!(
        catalog.seal(unknown, 1, [1; 32], None),
        CatalogError::NoSuchLayer(id) if id == unknown
    );
}

pub(super) fn a_layer_is_known_dead_or_alive(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let layer = a.active(1, None);
    assert!(catalog.knows_layer(layer).unwrap());
    kill(&*catalog, layer);
    assert!(catalog.knows_layer(layer).unwrap());
    harness.advance(GRACE);
    assert_eq!(sweep(&*catalog, GRACE, &[]), [layer]);
    assert!(!catalog.knows_layer(layer).unwrap());
}
