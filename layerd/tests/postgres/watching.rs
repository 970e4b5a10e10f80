//! Being told of what others publish.

use std::thread;
use std::time::Instant;

use super::server::Server;
use super::*;

/// So many that they can't be the questions, one each few seconds, that the listener asks.
const COMMITS: u64 = 20;

/// Waits until it is so, for no longer than a server needs to start.
fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_watcher_is_told_of_others_commits_and_of_no_other_stores() {
    let (store, elsewhere) = (Store::new(), Store::new());
    let writer = PostgresCatalog::open(&store.url()).unwrap();
    let stranger = PostgresCatalog::open(&elsewhere.url()).unwrap();
    let reader = PostgresCatalog::open(&store.url()).unwrap();
    let (written, strange) = (Written::new(&writer, "a"), Written::new(&stranger, "a"));
    let changes = reader.changes().unwrap();
    eventually("it is live", || changes.is_live());
    let publish_each = |by: &PostgresCatalog, written: &Written| {
        for lsn in 1..=COMMITS {
            written.publish(by, lsn).unwrap();
        }
    };
    let before = changes.count();
    publish_each(&stranger, &strange);
    thread::sleep(Duration::from_millis(100));
    let grown = changes.count() - before;
    assert!(
        grown <= 2,
        "another store's commits are none of ours ({grown})"
    );
    let (before, begun) = (changes.count(), Instant::now());
    publish_each(&writer, &written);
    eventually("it is told of each", || changes.count() >= before + COMMITS);
    assert!(begun.elapsed() < Duration::from_secs(3));
    assert_eq!(
        reader.database_by_id(written.id).unwrap().head,
        written.head(COMMITS)
    );
    assert!(
        Arc::ptr_eq(&changes, &reader.changes().unwrap()),
        "there is one listener"
    );
}

#[test]
fn a_watcher_knows_when_it_is_not_told_and_what_it_may_have_missed() {
    let server = Server::start();
    let store = Store::at(server.address());
    let catalog = PostgresCatalog::open(&store.url()).unwrap();
    let written = Written::new(&catalog, "a");
    let changes = catalog.changes().unwrap();
    eventually("it is live", || changes.is_live());
    for lsn in 1..=2 {
        let before = changes.count();
        server.stop("fast");
        eventually("it is not live", || !changes.is_live());
        server.resume();
        eventually("it is live again", || changes.is_live());
        assert!(changes.count() > before, "something may have been missed");
        let before = changes.count();
        for commit in 1..=COMMITS {
            written.publish(&catalog, lsn * COMMITS + commit).unwrap();
        }
        eventually("it is told", || changes.count() >= before + COMMITS);
    }
}
