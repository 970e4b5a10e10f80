//! Claims about resolving: which layers make a state, and which layer holds a commit.

#![allow(
    clippy::unwrap_used,
    reason = "a call that fails is a claim that fails"
)]

use super::Harness;
use super::fixture::*;
use crate::catalog::CatalogError;
use crate::id::{LayerId, Lsn};

pub(super) fn the_empty_state_has_no_layers(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let chain = catalog.chain(a.id, None).unwrap();
    assert_eq!(
        (chain.point, chain.layers, chain.generation),
        (None, vec![], 0)
    );
}

pub(super) fn a_chain_is_listed_from_the_bottom(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let low = a.sealed(1..=5, None);
    let middle = a.rotated(6..=9, Some(at(low, 5)));
    let top = a.active(10, Some(at(middle, 9)));
    let chain = catalog.chain(a.id, Some(at(top, 12))).unwrap();
    assert_eq!(chain.point, Some(at(top, 12)));
    assert_eq!(chain.layers, [a.layer(low), a.layer(middle), a.layer(top)]);
    assert_eq!(a.chain(at(middle, 6)), [low, middle]);
    assert_eq!(a.chain(at(low, 1)), [low]);
}

pub(super) fn images_stand_before_their_first_user_and_once(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let (first, second, unused) = (a.image(), a.image(), a.image());
    let low = a.sealed_over(1..=5, None, &[second]);
    let middle = a.sealed_over(6..=9, Some(at(low, 5)), &[first, second]);
    let top = a.active(10, Some(at(middle, 9)));
    assert_eq!(a.chain(at(top, 10)), [second, low, first, middle, top]);
    assert!(a.living().contains(&unused));
}

pub(super) fn a_chain_crosses_into_the_bases_of_clones(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let image = a.image();
    let low = a.sealed_over(1..=5, None, &[image]);
    let b = clone(&a, at(low, 3), "b");
    let of_b = b.sealed(4..=8, Some(at(low, 3)));
    let c = clone(&b, at(of_b, 6), "c");
    let of_c = c.active(7, Some(at(of_b, 6)));
    assert_eq!(c.chain(at(of_c, 7)), [image, low, of_b, of_c]);
    assert_eq!(c.chain(at(of_b, 6)), [image, low, of_b]);
    assert_eq!(b.chain(at(low, 3)), [image, low]);
}

pub(super) fn a_restored_state_leaves_out_the_layers_between(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let low = a.sealed(1..=5, None);
    let between = a.sealed(6..=9, Some(at(low, 5)));
    let restored = a.sealed(10..=10, Some(at(low, 4)));
    assert_eq!(a.chain(at(restored, 10)), [low, restored]);
    assert_eq!(a.chain(at(between, 9)), [low, between]);
    assert_eq!(
        a.find(7),
        Some(between),
        "the commits between stay addressable"
    );
}

pub(super) fn a_chain_says_its_databases_generation(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let low = a.sealed(1..=5, None);
    let new = a.sealed_row(1..=5, None);
    catalog
        .replace_layers(a.id, &[low], std::slice::from_ref(&new), &lsns(1..=5))
        .unwrap();
    assert_eq!(
        catalog.chain(a.id, Some(at(new.id, 5))).unwrap().generation,
        1
    );
    assert_eq!(a.generation(), 1);
}

pub(super) fn a_point_in_a_dead_layer_is_refused(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let layer = a.sealed(1..=5, None);
    kill(&*catalog, layer);
    assert_refused!(
        catalog.chain(a.id, Some(at(layer, 5))),
        CatalogError::NoSuchLayer(id) if id == layer
    );
}

pub(super) fn a_point_in_an_unknown_layer_is_refused(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let unknown = LayerId::random(a.epoch);
    assert_refused!(
        catalog.chain(a.id, Some(at(unknown, 5))),
        CatalogError::NoSuchLayer(id) if id == unknown
    );
}

pub(super) fn a_point_outside_its_layer_is_refused(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let layer = a.sealed(3..=5, None);
    for lsn in [2, 6] {
        assert_refused!(
            catalog.chain(a.id, Some(at(layer, lsn))),
            CatalogError::Conflict(_)
        );
    }
}

pub(super) fn a_chain_of_hundreds_of_layers_is_found(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let mut layers: Vec<LayerId> = Vec::new();
    for lsn in 1..=300 {
        let row = a.sealed_row(lsn..=lsn, layers.last().map(|below| at(*below, lsn - 1)));
        catalog.add_layer(a.epoch, &row).unwrap();
        layers.push(row.id);
    }
    assert_eq!(a.chain(at(layers[299], 300)), layers);
    assert_eq!(a.find(150), Some(layers[149]));
}

pub(super) fn a_commit_is_found_in_the_layer_that_holds_it(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    a.image();
    let low = a.sealed(1..=5, None);
    let middle = a.rotated(6..=9, Some(at(low, 5)));
    for (lsn, layer) in [(1, low), (5, low), (6, middle), (9, middle)] {
        assert_eq!(a.find(lsn), Some(layer), "commit {lsn}");
    }
    let found = catalog.find_lsn(a.id, Lsn(7)).unwrap();
    assert_eq!(found, Some(a.layer(middle)));
}

pub(super) fn an_active_layer_may_hold_every_later_commit(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let low = a.sealed(1..=5, None);
    let active = a.active(6, Some(at(low, 5)));
    for lsn in [6, 7, 1_000_000, u64::MAX] {
        assert_eq!(a.find(lsn), Some(active), "commit {lsn}");
    }
    assert_eq!(a.find(5), Some(low));
}

pub(super) fn a_commit_that_no_layer_covers_is_not_found(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    assert_eq!(a.find(1), None);
    let low = a.sealed(2..=3, None);
    a.sealed(7..=8, Some(at(low, 3)));
    for lsn in [0, 1, 4, 6, 9, u64::MAX] {
        assert_eq!(a.find(lsn), None, "commit {lsn}");
    }
}

pub(super) fn a_dead_layers_commits_are_not_found(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let layer = a.sealed(1..=5, None);
    kill(&*catalog, layer);
    assert_eq!(a.find(3), None);
}

pub(super) fn a_clone_finds_commits_up_to_its_base_in_its_source(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let low = a.sealed(1..=5, None);
    let high = a.sealed(6..=9, Some(at(low, 5)));
    let b = clone(&a, at(high, 7), "b");
    for (lsn, layer) in [
        (1, Some(low)),
        (6, Some(high)),
        (7, Some(high)),
        (8, None),
        (9, None),
    ] {
        assert_eq!(b.find(lsn), layer, "commit {lsn}");
    }
    let of_b = b.active(8, Some(at(high, 7)));
    assert_eq!((b.find(7), b.find(8)), (Some(high), Some(of_b)));
    assert_eq!(a.find(8), Some(high));
}

pub(super) fn a_clone_of_a_clone_finds_each_commit_where_it_was_written(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let of_a = a.sealed(1..=9, None);
    let b = clone(&a, at(of_a, 3), "b");
    let of_b = b.sealed(4..=8, Some(at(of_a, 3)));
    let c = clone(&b, at(of_b, 6), "c");
    let of_c = c.sealed(7..=7, Some(at(of_b, 6)));
    let expected = [
        (3, Some(of_a)),
        (4, Some(of_b)),
        (6, Some(of_b)),
        (7, Some(of_c)),
        (8, None),
    ];
    for (lsn, layer) in expected {
        assert_eq!(c.find(lsn), layer, "commit {lsn}");
    }
    // A clone that has written nothing, of a commit that its source inherited.
    let d = clone(&c, at(of_a, 2), "d");
    assert_eq!((d.find(2), d.find(3)), (Some(of_a), None));
}

pub(super) fn a_removed_source_still_resolves(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let of_a = a.sealed(1..=9, None);
    let b = clone(&a, at(of_a, 3), "b");
    a.remove();
    assert_eq!(b.find(2), Some(of_a));
    assert_eq!(b.chain(at(of_a, 3)), [of_a]);
}
