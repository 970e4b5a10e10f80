//! Claims about connections that do the same thing at the same moment.

#![allow(
    clippy::unwrap_used,
    reason = "a call that fails is a claim that fails"
)]

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use super::Harness;
use super::fixture::*;
use crate::catalog::{Base, Catalog, CatalogError, Result};
use crate::id::{Epoch, Lsn};

const THREADS: usize = 6;
const ROUNDS: u64 = 10;

/// Runs `act` in several threads at once, each with a connection and a number of its own.
fn race<T: Send>(harness: &dyn Harness, act: impl Fn(&dyn Catalog, usize) -> T + Sync) -> Vec<T> {
    let ready = Barrier::new(THREADS);
    let (ready, act) = (&ready, &act);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|number| {
                // Here, so that what fails does so before the others wait for it.
                let catalog = harness.connect();
                scope.spawn(move || {
                    ready.wait();
                    act(&*catalog, number)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    })
}

/// Checks that one of the calls succeeded, and all others were refused as `how` says.
fn assert_one_won<T>(results: Vec<Result<T>>, how: impl Fn(&CatalogError) -> bool) {
    let (won, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1, "exactly one wins");
    for refusal in lost.into_iter().filter_map(Result::err) {
        assert!(how(&refusal), "{refusal}");
    }
}

pub(super) fn a_name_is_won_by_one(harness: &dyn Harness) {
    for round in 0..ROUNDS {
        let called = name(&format!("a{round}"));
        let results = race(harness, |catalog, _| {
            catalog.create_database(&called, DAY_S, None)
        });
        assert_one_won(results, |error| {
            matches!(error, CatalogError::DatabaseExists(_))
        });
    }
    assert_eq!(harness.connect().databases().unwrap().len() as u64, ROUNDS);
}

pub(super) fn a_lease_is_won_by_one(harness: &dyn Harness) {
    let catalog = harness.connect();
    let id = catalog.create_database(&name("a"), DAY_S, None).unwrap().id;
    for round in 1..=ROUNDS {
        let results = race(harness, |catalog, number| {
            catalog.acquire_lease(id, &holder(&number.to_string()), TTL, &|_| false)
        });
        assert_one_won(results, |error| {
            matches!(error, CatalogError::LeaseHeld { .. })
        });
        assert_eq!(catalog.lease(id).unwrap().unwrap().epoch, Epoch(round));
        harness.advance(TTL);
    }
}

pub(super) fn a_snapshots_name_is_won_by_one(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let id = a.id;
    a.sealed(1..=9, None);
    for round in 0..ROUNDS {
        let new = snapshot(&format!("s{round}"), 3);
        let results = race(harness, |catalog, _| catalog.add_snapshot(id, &new));
        assert_one_won(results, |error| {
            matches!(error, CatalogError::SnapshotExists { .. })
        });
    }
    assert_eq!(catalog.snapshots(id).unwrap().len() as u64, ROUNDS);
}

pub(super) fn concurrent_publishers_end_at_the_highest_commit(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let layer = a.active(1, None);
    let (id, epoch) = (a.id, a.epoch);
    race(harness, |catalog, number| {
        for step in 1..=30 {
            let lsn = step * THREADS as u64 + number as u64;
            match catalog.publish(id, epoch, &head(layer, lsn), None) {
                Ok(()) => {}
                Err(CatalogError::Conflict(_)) => {
                    let newest = catalog.database_by_id(id).unwrap().head.lsn();
                    assert!(lsn < newest.0, "only what is older is refused");
                }
                Err(other) => panic!("{other}"),
            }
        }
    });
    assert_eq!(a.head(), Some(at(layer, 31 * THREADS as u64 - 1)));
}

pub(super) fn nothing_is_published_under_a_taken_lease(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let layer = a.active(1, None);
    let id = a.id;
    // Each takes the lease over and publishes some commits, until it is fenced; a commit's number
    // begins with its epoch, so that one that was published too late would be refused as older.
    let published = race(harness, |catalog, number| {
        let mut highest = 0;
        for _ in 0..ROUNDS {
            let by = holder(&number.to_string());
            let epoch = catalog
                .acquire_lease(id, &by, TTL, &|_| true)
                .unwrap()
                .epoch;
            for lsn in epoch.0 * 1000..epoch.0 * 1000 + 5 {
                match catalog.publish(id, epoch, &head(layer, lsn), None) {
                    Ok(()) => highest = lsn,
                    Err(CatalogError::Fenced { ours, current }) => {
                        assert!(ours == epoch && epoch < current);
                        break;
                    }
                    Err(other) => panic!("{other}"),
                }
            }
        }
        highest
    });
    let highest = published.into_iter().max().unwrap();
    assert_eq!(a.head(), Some(at(layer, highest)));
}

pub(super) fn a_pinned_chain_is_never_swept_away(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let id = a.id;
    for round in 0..ROUNDS {
        let first = 1 + 10 * round;
        let low = a.sealed(first..=first + 3, None);
        let top = a.sealed(first + 4..=first + 8, Some(at(low, first + 3)));
        // The head goes elsewhere, so that nothing but the pins holds the two.
        let next = a.active(first + 9, None);
        catalog
            .publish(id, a.epoch, &head(next, first + 9), None)
            .unwrap();
        let pinned = race(harness, |catalog, number| {
            if number == 0 {
                for _ in 0..2 {
                    sweep(catalog, Duration::ZERO, &[next]);
                }
                return true;
            }
            let pin = round * 100 + number as u64;
            match catalog.pin_chain(id, Some(at(top, first + 8)), pin, &holder("reader"), TTL) {
                Ok(chain) => {
                    let layers = ids(&chain.layers);
                    assert_eq!(layers, [low, top]);
                    sweep(catalog, Duration::ZERO, &[next]);
                    layers
                        .into_iter()
                        .all(|layer| catalog.knows_layer(layer).unwrap())
                }
                Err(CatalogError::NoSuchLayer(_)) => true,
                Err(other) => panic!("{other}"),
            }
        });
        assert!(
            pinned.into_iter().all(|is_held| is_held),
            "a pinned layer was deleted"
        );
    }
}

pub(super) fn a_replacement_and_a_snapshot_never_both_win(harness: &dyn Harness) {
    let catalog = harness.connect();
    for round in 0..ROUNDS {
        let a = database(&*catalog, &format!("a{round}"));
        let (id, old) = (a.id, a.sealed(1..=9, None));
        // Without commit 1, so that it is in no layer afterwards.
        let new = a.sealed_row(9..=9, None);
        race(harness, |catalog, number| {
            if number == 0 {
                let done =
                    catalog.replace_layers(id, &[old], std::slice::from_ref(&new), &[Lsn(9)]);
                assert!(
                    matches!(done, Ok(()) | Err(CatalogError::Conflict(_))),
                    "{done:?}"
                );
            } else {
                let done = catalog.add_snapshot(id, &snapshot("", 1));
                assert!(
                    matches!(done, Ok(_) | Err(CatalogError::Conflict(_))),
                    "{done:?}"
                );
            }
        });
        let has_snapshots = !catalog.snapshots(id).unwrap().is_empty();
        assert_eq!(a.living(), [if has_snapshots { old } else { new.id }]);
    }
}

pub(super) fn a_replacement_and_a_clone_never_both_win(harness: &dyn Harness) {
    let catalog = harness.connect();
    for round in 0..ROUNDS {
        let a = database(&*catalog, &format!("a{round}"));
        let (id, old) = (a.id, a.sealed(1..=9, None));
        let new = a.sealed_row(1..=9, None);
        let clones = race(harness, |catalog, number| {
            if number == 0 {
                let done =
                    catalog.replace_layers(id, &[old], std::slice::from_ref(&new), &[Lsn(9)]);
                assert!(
                    matches!(done, Ok(()) | Err(CatalogError::Conflict(_))),
                    "{done:?}"
                );
                return None;
            }
            let base = Base {
                database: id,
                point: Some(at(old, 4)),
            };
            let called = name(&format!("c{round}-{number}"));
            match catalog.create_database(&called, DAY_S, Some((base, time(4), written(4)))) {
                Ok(made) => Some(made),
                Err(CatalogError::NoSuchLayer(_)) => None,
                Err(other) => panic!("{other}"),
            }
        });
        let clones: Vec<_> = clones.into_iter().flatten().collect();
        assert_eq!(a.living(), [if clones.is_empty() { new.id } else { old }]);
        for made in clones {
            assert_eq!(
                ids(&catalog.chain(made.id, made.head.point).unwrap().layers),
                [old]
            );
        }
    }
}

pub(super) fn the_next_segment_is_published_by_one(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let layer = a.active(1, None);
    let (id, epoch) = (a.id, a.epoch);
    for round in 1..=ROUNDS {
        let results = race(harness, |catalog, _| {
            let segment = segment(written(round - 1)..written(round), round..=round);
            catalog.publish(id, epoch, &head(layer, round), Some(&segment))
        });
        assert_one_won(results, |error| matches!(error, CatalogError::Conflict(_)));
    }
    assert_eq!(a.layer(layer).segments.len() as u64, ROUNDS);
    assert_eq!(a.head(), Some(at(layer, ROUNDS)));
}
