//! Claims about what remote execution keeps: workers, tokens, signing keys.

#![allow(
    clippy::unwrap_used,
    reason = "a call that fails is a claim that fails"
)]

use std::time::Duration;

use super::Harness;
use super::fixture::*;
use crate::catalog::service::{NewToken, Worker, WorkerKind};
use crate::catalog::{Catalog, CatalogError};
use crate::id::{TokenId, WorkerId};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

fn worker(id: u64) -> Worker {
    Worker {
        id: WorkerId(id),
        address: format!("http://127.0.0.1:{id}"),
        kind: WorkerKind::Writer,
        database: name("a"),
        host: "somewhere".to_owned(),
        pid: 4711,
        secret: [7; 32],
    }
}

fn known(catalog: &dyn Catalog) -> Vec<Worker> {
    let workers = catalog.workers(TTL).unwrap();
    workers.into_iter().map(|known| known.worker).collect()
}

pub(super) fn an_announced_worker_is_known_while_it_is_seen(harness: &dyn Harness) {
    let catalog = harness.connect();
    let reader = Worker {
        kind: WorkerKind::Reader,
        ..worker(u64::MAX)
    };
    catalog.announce_worker(&worker(1)).unwrap();
    harness.advance(SECOND);
    catalog.announce_worker(&reader).unwrap();
    assert_eq!(known(&*harness.connect()), [worker(1), reader.clone()]);
    harness.advance(TTL - SECOND);
    assert_eq!(known(&*catalog), [reader]);
    harness.advance(SECOND);
    assert_eq!(known(&*catalog), []);
}

pub(super) fn a_worker_that_is_announced_again_keeps_its_beginning(harness: &dyn Harness) {
    let catalog = harness.connect();
    let began = catalog.now().unwrap();
    catalog.announce_worker(&worker(1)).unwrap();
    harness.advance(SECOND);
    let moved = Worker {
        address: "http://elsewhere:1".to_owned(),
        ..worker(1)
    };
    catalog.announce_worker(&moved).unwrap();
    let [known] = &catalog.workers(TTL).unwrap()[..] else {
        panic!("one worker")
    };
    assert_eq!(known.worker, moved);
    assert_eq!((known.started, known.seen), (began, began.plus_seconds(1)));
}

pub(super) fn a_removed_worker_is_forgotten(harness: &dyn Harness) {
    let catalog = harness.connect();
    catalog.announce_worker(&worker(1)).unwrap();
    catalog.announce_worker(&worker(2)).unwrap();
    catalog.remove_worker(WorkerId(1)).unwrap();
    catalog.remove_worker(WorkerId(1)).unwrap();
    assert_eq!(known(&*catalog), [worker(2)]);
}

pub(super) fn workers_that_are_long_gone_are_forgotten(harness: &dyn Harness) {
    let catalog = harness.connect();
    catalog.announce_worker(&worker(1)).unwrap();
    harness.advance(DAY + SECOND);
    assert_eq!(catalog.workers(2 * DAY).unwrap().len(), 1);
    catalog.announce_worker(&worker(2)).unwrap();
    assert_eq!(catalog.workers(2 * DAY).unwrap().len(), 1);
}

fn new_token(id: u64) -> NewToken {
    NewToken {
        id: TokenId(id),
        hash: [9; 32],
        databases: Some(vec![name("a"), name("b-2")]),
        read_only: true,
        lifetime: Some(HOUR),
    }
}

pub(super) fn a_token_comes_back_as_it_was_made(harness: &dyn Harness) {
    let catalog = harness.connect();
    let now = catalog.now().unwrap();
    let first = catalog.add_token(&new_token(u64::MAX)).unwrap();
    let all = NewToken {
        databases: None,
        read_only: false,
        lifetime: None,
        ..new_token(1)
    };
    harness.advance(SECOND);
    let second = catalog.add_token(&all).unwrap();
    assert_eq!(first.databases, new_token(1).databases);
    assert_eq!((first.hash, first.read_only), ([9; 32], true));
    assert_eq!(first.expires, Some(now.plus_seconds(3600)));
    assert_eq!((&second.databases, second.read_only), (&None, false));
    assert_eq!(second.expires, None);
    let found = harness.connect().tokens().unwrap();
    assert_eq!(found.tokens, [first, second]);
    assert_eq!(found.now, now.plus_seconds(1));
}

pub(super) fn a_token_ends_at_its_expiry(harness: &dyn Harness) {
    let catalog = harness.connect();
    let token = catalog.add_token(&new_token(1)).unwrap();
    harness.advance(HOUR - Duration::from_nanos(1));
    assert!(token.is_good_at(catalog.tokens().unwrap().now));
    harness.advance(Duration::from_nanos(1));
    assert!(!token.is_good_at(catalog.tokens().unwrap().now));
}

pub(super) fn a_revoked_token_stays_revoked(harness: &dyn Harness) {
    let catalog = harness.connect();
    catalog.add_token(&new_token(1)).unwrap();
    let other = catalog.add_token(&new_token(2)).unwrap();
    let now = catalog.now().unwrap();
    let revoked = catalog.revoke_token(TokenId(1)).unwrap();
    assert_eq!(revoked.revoked, Some(now));
    assert!(!revoked.is_good_at(now));
    harness.advance(SECOND);
    assert_eq!(catalog.revoke_token(TokenId(1)).unwrap(), revoked);
    assert_eq!(catalog.tokens().unwrap().tokens, [revoked, other]);
}

pub(super) fn an_unknown_token_is_not_revoked(harness: &dyn Harness) {
    let catalog = harness.connect();
    assert_refused!(
        catalog.revoke_token(TokenId(1)),
        CatalogError::NoSuchToken(TokenId(1))
    );
}

fn numbers(catalog: &dyn Catalog) -> Vec<u32> {
    let keys = catalog.signing_keys(HOUR, DAY).unwrap();
    keys.iter().map(|key| key.number).collect()
}

pub(super) fn the_first_signing_key_is_made_by_who_asks(harness: &dyn Harness) {
    let catalog = harness.connect();
    let keys = catalog.signing_keys(HOUR, DAY).unwrap();
    assert_eq!(keys.len(), 1);
    assert_ne!(keys[0].key, [0; 32]);
    assert_eq!(keys[0].created, catalog.now().unwrap());
    assert_eq!(catalog.signing_keys(HOUR, DAY).unwrap(), keys);
}

pub(super) fn a_signing_key_is_renewed_when_it_is_old(harness: &dyn Harness) {
    let catalog = harness.connect();
    let first = catalog.signing_keys(HOUR, DAY).unwrap();
    harness.advance(HOUR - Duration::from_nanos(1));
    assert_eq!(catalog.signing_keys(HOUR, DAY).unwrap(), first);
    harness.advance(Duration::from_nanos(1));
    let both = catalog.signing_keys(HOUR, DAY).unwrap();
    assert_eq!(both[1..], first);
    assert_ne!(both[0].key, first[0].key);
    assert!(first[0].number < both[0].number);
}

pub(super) fn an_old_signing_key_goes_once_nothing_can_be_signed_with_it(harness: &dyn Harness) {
    let catalog = harness.connect();
    assert_eq!(numbers(&*catalog), [1]);
    // It is the newest for all this time.
    harness.advance(2 * DAY);
    assert_eq!(numbers(&*catalog), [2, 1]);
    harness.advance(DAY - SECOND);
    assert_eq!(numbers(&*catalog), [3, 2, 1]);
    harness.advance(HOUR);
    assert_eq!(numbers(&*catalog), [4, 3, 2]);
}

pub(super) fn signing_keys_are_the_same_for_all(harness: &dyn Harness) {
    std::thread::scope(|scope| {
        let asked: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| harness.connect().signing_keys(HOUR, DAY).unwrap()))
            .collect();
        let answers: Vec<_> = asked.into_iter().map(|one| one.join().unwrap()).collect();
        assert!(answers.iter().all(|answer| *answer == answers[0]));
    });
}
