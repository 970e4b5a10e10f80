//! Claims about leases: one holder at a time, judged by the catalog's clock.

#![allow(
    clippy::unwrap_used,
    reason = "a call that fails is a claim that fails"
)]

use std::cell::Cell;
use std::time::Duration;

use super::Harness;
use super::fixture::*;
use crate::catalog::{Catalog, CatalogError, Lease, Result};
use crate::id::{DatabaseId, Epoch};

fn make(catalog: &dyn Catalog) -> DatabaseId {
    catalog.create_database(&name("a"), DAY_S, None).unwrap().id
}

fn acquire(catalog: &dyn Catalog, id: DatabaseId, by: &str) -> Result<Lease> {
    catalog.acquire_lease(id, &holder(by), TTL, &|_| false)
}

pub(super) fn the_first_lease_has_epoch_one_and_ends_after_its_time(harness: &dyn Harness) {
    let catalog = harness.connect();
    let id = make(&*catalog);
    let now = catalog.now().unwrap();
    let lease = acquire(&*catalog, id, "x").unwrap();
    assert_eq!(lease.epoch, Epoch(1));
    assert_eq!(lease.holder, holder("x"));
    assert_eq!((lease.renewed, lease.expires), (now, now.plus_seconds(15)));
    assert!(!lease.wanted);
    assert_eq!(catalog.lease(id).unwrap(), Some(lease));
    assert_eq!(catalog.database_by_id(id).unwrap().epoch, Epoch(1));
}

pub(super) fn epochs_rise_with_every_grant(harness: &dyn Harness) {
    let catalog = harness.connect();
    let id = make(&*catalog);
    for epoch in 1..5 {
        let lease = acquire(&*catalog, id, "x").unwrap();
        assert_eq!(lease.epoch, Epoch(epoch));
        catalog.release_lease(id, lease.epoch).unwrap();
    }
}

pub(super) fn epochs_rise_through_removal_and_return(harness: &dyn Harness) {
    let catalog = harness.connect();
    let id = make(&*catalog);
    let first = acquire(&*catalog, id, "x").unwrap();
    catalog.release_lease(id, first.epoch).unwrap();
    catalog.drop_database(id).unwrap();
    catalog.undrop_database(&name("a")).unwrap();
    assert_eq!(acquire(&*catalog, id, "x").unwrap().epoch, Epoch(2));
}

pub(super) fn a_held_lease_is_refused_with_its_holder_and_age(harness: &dyn Harness) {
    let catalog = harness.connect();
    let id = make(&*catalog);
    let held = acquire(&*catalog, id, "first").unwrap();
    harness.advance(4 * SECOND);
    harness.advance(Duration::from_millis(500));
    let Err(error) = acquire(&*harness.connect(), id, "second") else {
        panic!("a held lease was granted again");
    };
    let message = error.to_string();
    for part in [
        "process 4711 on somewhere",
        "renewed 4 s ago",
        "expires in 11 s",
        "--steal",
    ] {
        assert!(message.contains(part), "{message}");
    }
    let CatalogError::LeaseHeld {
        database,
        lease,
        age_s,
        expires_s,
    } = error
    else {
        panic!("{message}");
    };
    assert_eq!((database.as_str(), *lease), ("a", held.clone()));
    assert_eq!((age_s, expires_s), (4, 11));
    assert_eq!(catalog.lease(id).unwrap(), Some(held));
}

pub(super) fn a_lease_ends_at_its_expiry(harness: &dyn Harness) {
    let catalog = harness.connect();
    let id = make(&*catalog);
    acquire(&*catalog, id, "first").unwrap();
    harness.advance(TTL - Duration::from_nanos(1));
    assert_refused!(
        acquire(&*catalog, id, "second"),
        CatalogError::LeaseHeld { .. }
    );
    harness.advance(Duration::from_nanos(1));
    assert_eq!(catalog.lease(id).unwrap(), None);
    assert_eq!(acquire(&*catalog, id, "second").unwrap().epoch, Epoch(2));
}

pub(super) fn a_lease_whose_holder_is_dead_is_taken(harness: &dyn Harness) {
    let catalog = harness.connect();
    let id = make(&*catalog);
    let first = acquire(&*catalog, id, "first").unwrap();
    let is_first = |lease: &Lease| *lease == first;
    let taken = catalog
        .acquire_lease(id, &holder("second"), TTL, &is_first)
        .unwrap();
    assert_eq!(
        (taken.epoch, taken.holder.clone()),
        (Epoch(2), holder("second"))
    );
    assert_eq!(catalog.lease(id).unwrap(), Some(taken));
}

pub(super) fn an_expired_lease_is_granted_without_asking_about_its_holder(harness: &dyn Harness) {
    let catalog = harness.connect();
    let id = make(&*catalog);
    let asked = Cell::new(0);
    let ask = |_: &Lease| {
        asked.set(asked.get() + 1);
        false
    };
    catalog
        .acquire_lease(id, &holder("first"), TTL, &ask)
        .unwrap();
    harness.advance(TTL);
    catalog
        .acquire_lease(id, &holder("second"), TTL, &ask)
        .unwrap();
    assert_eq!(asked.get(), 0);
    assert_refused!(
        catalog.acquire_lease(id, &holder("third"), TTL, &ask),
        CatalogError::LeaseHeld { .. }
    );
    assert_eq!(asked.get(), 1);
}

pub(super) fn renewal_counts_from_now(harness: &dyn Harness) {
    let catalog = harness.connect();
    let id = make(&*catalog);
    let lease = acquire(&*catalog, id, "x").unwrap();
    harness.advance(5 * SECOND);
    let now = catalog.now().unwrap();
    let renewed = catalog.renew_lease(id, lease.epoch, 2 * TTL).unwrap();
    assert_eq!(
        (renewed.renewed, renewed.expires),
        (now, now.plus_seconds(30))
    );
    assert_eq!(
        (renewed.epoch, &renewed.holder),
        (lease.epoch, &lease.holder)
    );
    assert_eq!(catalog.lease(id).unwrap(), Some(renewed));
}

pub(super) fn an_expired_lease_that_is_the_newest_is_renewed(harness: &dyn Harness) {
    let catalog = harness.connect();
    let id = make(&*catalog);
    let lease = acquire(&*catalog, id, "x").unwrap();
    harness.advance(100 * TTL);
    assert_eq!(catalog.lease(id).unwrap(), None);
    catalog.renew_lease(id, lease.epoch, TTL).unwrap();
    assert_refused!(acquire(&*catalog, id, "y"), CatalogError::LeaseHeld { .. });
}

pub(super) fn a_superseded_lease_is_fenced(harness: &dyn Harness) {
    let catalog = harness.connect();
    let id = make(&*catalog);
    let first = acquire(&*catalog, id, "first").unwrap();
    harness.advance(TTL);
    let second = acquire(&*catalog, id, "second").unwrap();
    assert_refused!(
        catalog.renew_lease(id, first.epoch, TTL),
        CatalogError::Fenced {
            ours: Epoch(1),
            current: Epoch(2)
        }
    );
    // Nor does it come back when the newer one ends.
    catalog.release_lease(id, second.epoch).unwrap();
    assert_refused!(
        catalog.renew_lease(id, first.epoch, TTL),
        CatalogError::Fenced { .. }
    );
}

pub(super) fn a_released_lease_is_not_renewed(harness: &dyn Harness) {
    let catalog = harness.connect();
    let id = make(&*catalog);
    let lease = acquire(&*catalog, id, "x").unwrap();
    catalog.release_lease(id, lease.epoch).unwrap();
    assert_refused!(
        catalog.renew_lease(id, lease.epoch, TTL),
        CatalogError::Conflict(_)
    );
    assert_eq!(catalog.lease(id).unwrap(), None);
}

pub(super) fn the_holder_sees_that_its_lease_is_wanted(harness: &dyn Harness) {
    let catalog = harness.connect();
    let id = make(&*catalog);
    let lease = acquire(&*catalog, id, "x").unwrap();
    harness.connect().want_lease(id).unwrap();
    assert!(catalog.lease(id).unwrap().unwrap().wanted);
    let renewed = catalog.renew_lease(id, lease.epoch, TTL * 10).unwrap();
    assert!(renewed.wanted);
    assert_eq!(
        renewed.expires, lease.expires,
        "what is wanted is not made longer"
    );
    catalog.release_lease(id, lease.epoch).unwrap();
    assert!(
        !acquire(&*catalog, id, "y").unwrap().wanted,
        "the wish is about one lease"
    );
}

pub(super) fn wanting_a_free_lease_does_nothing(harness: &dyn Harness) {
    let catalog = harness.connect();
    let id = make(&*catalog);
    catalog.want_lease(id).unwrap();
    assert_eq!(catalog.lease(id).unwrap(), None);
    assert!(!acquire(&*catalog, id, "x").unwrap().wanted);
}

pub(super) fn a_released_lease_is_free_at_once(harness: &dyn Harness) {
    let catalog = harness.connect();
    let id = make(&*catalog);
    let lease = acquire(&*catalog, id, "x").unwrap();
    catalog.release_lease(id, lease.epoch).unwrap();
    assert_eq!(catalog.lease(id).unwrap(), None);
    acquire(&*catalog, id, "y").unwrap();
}

pub(super) fn a_stale_release_does_nothing(harness: &dyn Harness) {
    let catalog = harness.connect();
    let id = make(&*catalog);
    let first = acquire(&*catalog, id, "first").unwrap();
    harness.advance(TTL);
    let second = acquire(&*catalog, id, "second").unwrap();
    catalog.release_lease(id, first.epoch).unwrap();
    assert_eq!(catalog.lease(id).unwrap(), Some(second.clone()));
    catalog.release_lease(id, second.epoch).unwrap();
    catalog.release_lease(id, second.epoch).unwrap();
}

pub(super) fn leases_of_two_databases_do_not_meet(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let b = database(&*catalog, "b");
    assert_eq!((a.epoch, b.epoch), (Epoch(1), Epoch(1)));
    a.release();
    assert_eq!(catalog.lease(a.id).unwrap(), None);
    assert!(catalog.lease(b.id).unwrap().is_some());
}
