//! Claims about pins: what a reader holds, and for how long.

#![allow(
    clippy::unwrap_used,
    reason = "a call that fails is a claim that fails"
)]

use std::time::Duration;

use super::Harness;
use super::fixture::*;
use crate::catalog::{Catalog, CatalogError, Pin};
use crate::id::LayerId;

fn pins(catalog: &dyn Catalog) -> Vec<Pin> {
    catalog.inventory().unwrap().pins
}

pub(super) fn a_pin_keeps_the_layers_of_its_chain(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let image = a.image();
    let low = a.sealed_over(1..=5, None, &[image]);
    let top = a.active(6, Some(at(low, 5)));
    let now = catalog.now().unwrap();
    let chain = catalog
        .pin_chain(a.id, Some(at(top, 6)), 7, &holder("reader"), TTL)
        .unwrap();
    assert_eq!(chain, catalog.chain(a.id, Some(at(top, 6))).unwrap());
    let expected = Pin {
        id: 7,
        holder: holder("reader"),
        expires: now.plus_seconds(15),
        layers: vec![image, low, top],
    };
    assert_eq!(pins(&*catalog), [expected]);
}

pub(super) fn the_empty_state_is_pinned_too(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let chain = catalog
        .pin_chain(a.id, None, 7, &holder("reader"), TTL)
        .unwrap();
    assert_eq!(chain.layers, []);
    assert!(catalog.renew_pin(7, TTL).unwrap());
}

pub(super) fn a_refused_chain_pins_nothing(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let dead = a.sealed(1..=5, None);
    kill(&*catalog, dead);
    assert_refused!(
        catalog.pin_chain(a.id, Some(at(dead, 5)), 7, &holder("reader"), TTL),
        CatalogError::NoSuchLayer(id) if id == dead
    );
    assert_eq!(pins(&*catalog), []);
    assert!(!catalog.renew_pin(7, TTL).unwrap());
}

pub(super) fn pinning_again_replaces_the_pin(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let low = a.sealed(1..=5, None);
    let other = a.sealed(6..=9, None);
    for (layer, lsn) in [(low, 5), (other, 9)] {
        catalog
            .pin_chain(a.id, Some(at(layer, lsn)), 7, &holder("reader"), TTL)
            .unwrap();
        let [pin] = &pins(&*catalog)[..] else {
            panic!("one pin")
        };
        assert_eq!(pin.layers, [layer]);
    }
}

pub(super) fn a_pin_expires_by_the_catalogs_clock(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let layer = a.sealed(1..=5, None);
    catalog
        .pin_chain(a.id, Some(at(layer, 5)), 7, &holder("reader"), TTL)
        .unwrap();
    harness.advance(TTL - Duration::from_nanos(1));
    assert_eq!(pins(&*catalog).len(), 1);
    harness.advance(Duration::from_nanos(1));
    assert_eq!(pins(&*catalog), []);
}

pub(super) fn renewal_prolongs_a_pin(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let layer = a.sealed(1..=5, None);
    catalog
        .pin_chain(a.id, Some(at(layer, 5)), 7, &holder("reader"), TTL)
        .unwrap();
    harness.advance(TTL / 2);
    let now = catalog.now().unwrap();
    assert!(catalog.renew_pin(7, TTL).unwrap());
    let [pin] = &pins(&*catalog)[..] else {
        panic!("one pin")
    };
    assert_eq!(
        (pin.expires, &pin.layers[..]),
        (now.plus_seconds(15), &[layer][..])
    );
}

pub(super) fn a_pin_that_is_gone_is_not_renewed(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let layer = a.sealed(1..=5, None);
    assert!(!catalog.renew_pin(7, TTL).unwrap(), "there was none");
    catalog
        .pin_chain(a.id, Some(at(layer, 5)), 7, &holder("reader"), TTL)
        .unwrap();
    harness.advance(TTL);
    sweep_dead(&*catalog, GRACE);
    assert!(
        !catalog.renew_pin(7, TTL).unwrap(),
        "a sweep found it expired"
    );
    assert_eq!(pins(&*catalog), []);
}

pub(super) fn a_pin_ends_when_it_is_taken_away(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let layer = a.sealed(1..=5, None);
    for pin in [7, 8] {
        catalog
            .pin_chain(a.id, Some(at(layer, 5)), pin, &holder("reader"), TTL)
            .unwrap();
    }
    catalog.unpin(7).unwrap();
    catalog.unpin(7).unwrap();
    let left: Vec<u64> = pins(&*catalog).iter().map(|pin| pin.id).collect();
    assert_eq!(left, [8]);
    assert!(!catalog.renew_pin(7, TTL).unwrap());
}

pub(super) fn setting_a_pin_replaces_its_layers(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let low = a.sealed(1..=5, None);
    let top = a.active(6, Some(at(low, 5)));
    catalog
        .pin_chain(a.id, Some(at(low, 5)), 7, &holder("reader"), TTL)
        .unwrap();
    harness.advance(SECOND);
    let now = catalog.now().unwrap();
    catalog
        .set_pin(7, &holder("reader"), &[top], 2 * TTL)
        .unwrap();
    let expected = Pin {
        id: 7,
        holder: holder("reader"),
        expires: now.plus_seconds(30),
        layers: vec![top],
    };
    assert_eq!(pins(&*catalog), [expected]);
}

pub(super) fn a_pin_goes_on_holding_layers_that_died(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let low = a.sealed(1..=5, None);
    let top = a.active(6, Some(at(low, 5)));
    catalog
        .pin_chain(a.id, Some(at(low, 5)), 7, &holder("reader"), TTL)
        .unwrap();
    kill(&*catalog, low);
    catalog
        .set_pin(7, &holder("reader"), &[low, top], TTL)
        .unwrap();
    assert_eq!(pins(&*catalog)[0].layers, [low, top]);
    assert!(catalog.renew_pin(7, TTL).unwrap());
}

pub(super) fn a_pin_does_not_begin_to_hold_dead_layers(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let low = a.sealed(1..=5, None);
    let top = a.active(6, Some(at(low, 5)));
    catalog.set_pin(7, &holder("reader"), &[top], TTL).unwrap();
    kill(&*catalog, low);
    assert_refused!(
        catalog.set_pin(7, &holder("reader"), &[top, low], TTL),
        CatalogError::NoSuchLayer(id) if id == low
    );
    assert_eq!(pins(&*catalog)[0].layers, [top]);
}

pub(super) fn a_pin_does_not_hold_unknown_layers(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let unknown = LayerId::random(a.epoch);
    assert_refused!(
        catalog.set_pin(7, &holder("reader"), &[unknown], TTL),
        CatalogError::NoSuchLayer(id) if id == unknown
    );
    assert_eq!(pins(&*catalog), []);
}

pub(super) fn a_repeated_layer_is_held_once(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let layer = a.active(1, None);
    catalog
        .set_pin(7, &holder("reader"), &[layer, layer], TTL)
        .unwrap();
    assert_eq!(pins(&*catalog)[0].layers, [layer]);
}
