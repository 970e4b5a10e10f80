//! Servers that go away and come back, and processes that stop in the middle.

use std::env;
use std::process::Command;
use std::sync::Barrier;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Instant;

use layerd::catalog::CatalogError;

use super::proxy::Proxy;
use super::server::Server;
use super::*;

#[test]
fn calls_go_on_after_the_server_was_restarted() {
    let server = Server::start();
    let store = Store::at(server.address());
    let catalog = PostgresCatalog::open(&store.url()).unwrap();
    let is_over = AtomicBool::new(false);
    let told = thread::scope(|scope| {
        let callers: Vec<_> = (0..3)
            .map(|caller| {
                let (catalog, is_over) = (&catalog, &is_over);
                scope.spawn(move || {
                    let mut told = Vec::new();
                    for number in 0.. {
                        let called = format!("c{caller}-{number}");
                        match catalog.create_database(&called.parse().unwrap(), 60, None) {
                            Ok(_) => told.push(called),
                            Err(CatalogError::Unavailable { .. }) => {}
                            // It was made, and the answer was lost.
                            Err(CatalogError::DatabaseExists(_)) => panic!("made twice"),
                            Err(other) => panic!("{other}"),
                        }
                        if is_over.load(Ordering::SeqCst) {
                            return told;
                        }
                    }
                    unreachable!("there are numbers for ever")
                })
            })
            .collect();
        for how in ["fast", "immediate", "fast"] {
            thread::sleep(Duration::from_millis(300));
            server.stop(how);
            thread::sleep(Duration::from_millis(100));
            server.resume();
        }
        thread::sleep(Duration::from_millis(300));
        is_over.store(true, Ordering::SeqCst);
        callers
            .into_iter()
            .flat_map(|caller| caller.join().unwrap())
            .collect::<Vec<_>>()
    });
    let found = names(&catalog);
    assert!(told.len() > 10);
    assert!(told.iter().all(|called| found.contains(called)));
}

#[test]
fn a_call_after_a_restart_succeeds_at_once() {
    let server = Server::start();
    let store = Store::at(server.address());
    let catalog = PostgresCatalog::open(&store.url()).unwrap();
    let written = Written::new(&catalog, "a");
    for lsn in 1..5 {
        server.stop("fast");
        let error = written.publish(&catalog, lsn).unwrap_err();
        assert!(matches!(error, CatalogError::Unavailable { .. }), "{error}");
        server.resume();
        written.publish(&catalog, lsn).unwrap();
    }
}

#[test]
fn an_unreachable_server_is_said_to_be_so_soon() {
    // Nobody listens on it, and nobody else gets it while it is bound.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // A server that takes connections, and says nothing.
    let begun = Instant::now();
    let url = format!("postgres://me@127.0.0.1:{port}/d");
    match PostgresCatalog::open(&url).map(drop) {
        Err(CatalogError::Unavailable { catalog, .. }) => {
            assert_eq!(catalog, format!("postgres://127.0.0.1:{port}/d"));
        }
        other => panic!("{other:?}"),
    }
    assert!(begun.elapsed() < Duration::from_secs(8));
    drop(listener);
    let begun = Instant::now();
    let error = PostgresCatalog::open(&url).map(drop).unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_cut_connection_is_made_anew() {
    let server = Server::start();
    let proxy = Proxy::start(server.port(), Duration::ZERO);
    let store = Store::at(server.address());
    let catalog = PostgresCatalog::open(&store.url_at(&server.address_at(proxy.port()))).unwrap();
    let written = Written::new(&catalog, "a");
    written.publish(&catalog, 1).unwrap();
    for lsn in 2..6 {
        proxy.cut();
        assert!(matches!(
            written.publish(&catalog, lsn),
            Err(CatalogError::Unavailable { .. })
        ));
        proxy.mend();
        written.publish(&catalog, lsn).unwrap();
    }
}

/// Runs in a network of its own, see `a_cut_network_is_noticed`.
#[test]
#[ignore = "the part of another process; run by a_cut_network_is_noticed"]
fn role_cut_network() {
    let set_loopback = |state| {
        let ip = ["link", "set", "lo", state];
        assert!(Command::new("ip").args(ip).status().unwrap().success());
    };
    set_loopback("up");
    let server = Server::start();
    let store = Store::at(server.address());
    let catalog = PostgresCatalog::open(&store.url()).unwrap();
    let written = Written::new(&catalog, "a");
    let changes = catalog.changes().unwrap();
    while !changes.is_live() {
        thread::sleep(Duration::from_millis(5));
    }
    for lsn in [1, 3] {
        written.publish(&catalog, lsn).unwrap();
        set_loopback("down");
        let begun = Instant::now();
        let error = written.publish(&catalog, lsn + 1).unwrap_err();
        assert!(matches!(error, CatalogError::Unavailable { .. }), "{error}");
        let noticed = begun.elapsed();
        while changes.is_live() {
            thread::sleep(Duration::from_millis(5));
        }
        let silent = begun.elapsed();
        assert!(
            noticed.max(silent) < Duration::from_secs(11),
            "{noticed:?} {silent:?}"
        );
        set_loopback("up");
        written.publish(&catalog, lsn + 1).unwrap();
        while !changes.is_live() {
            assert!(begun.elapsed() < Duration::from_secs(30));
            thread::sleep(Duration::from_millis(5));
        }
    }
    println!("\nthe network was cut, and came back");
}

#[test]
fn a_cut_network_is_noticed() {
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        // PostgreSQL does not run as root, not even as a namespace's.
        command.args(["--map-current-user", "--keep-caps"]);
    }
    command
        .args(["--net", "--"])
        .arg(env::current_exe().unwrap());
    command.args([
        "--exact",
        "failures::role_cut_network",
        "--ignored",
        "--nocapture",
    ]);
    let done = command
        .output()
        .expect("unshare (Debian package util-linux) runs");
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(
        done.status.success() && said.contains("came back"),
        "{said}{}",
        String::from_utf8_lossy(&done.stderr)
    );
}

/// As a process does that is stopped with the store locked.
#[test]
fn who_stops_in_the_middle_holds_nobody_up() {
    let store = Store::new();
    let catalog = PostgresCatalog::open(&store.url()).unwrap();
    let written = Written::new(&catalog, "a");
    let layer = written.layer;
    let other = PostgresCatalog::open(&store.url()).unwrap();
    let is_locked = Barrier::new(2);
    thread::scope(|scope| {
        let sweeping = scope.spawn(|| {
            let mut count = 0;
            let swept = catalog.sweep(Duration::ZERO, false, &mut |_| {
                count += 1;
                if count == 1 {
                    is_locked.wait();
                    thread::sleep(Duration::from_secs(8));
                }
                vec![layer]
            });
            (swept, count)
        });
        is_locked.wait();
        let begun = Instant::now();
        written.publish(&other, 1).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(7));
        assert!(!sweeping.is_finished());
        let (swept, count) = sweeping.join().unwrap();
        assert_eq!((swept.unwrap(), count), (vec![], 2), "it was begun anew");
    });
}

#[test]
fn writers_of_different_databases_do_not_wait_for_each_other() {
    let store = Store::new();
    let catalog = PostgresCatalog::open(&store.url()).unwrap();
    let (one, other) = (Written::new(&catalog, "a"), Written::new(&catalog, "b"));
    let is_locked = Barrier::new(2);
    thread::scope(|scope| {
        let catalog = &catalog;
        let acquiring = scope.spawn(|| {
            let may_take = |_: &_| {
                is_locked.wait();
                thread::sleep(Duration::from_secs(2));
                false
            };
            let ttl = Duration::from_secs(1);
            catalog.acquire_lease(one.id, &holder("x"), ttl, &may_take)
        });
        is_locked.wait();
        let begun = Instant::now();
        other.publish(catalog, 1).unwrap();
        catalog
            .renew_lease(other.id, other.epoch, Duration::from_secs(60))
            .unwrap();
        assert!(begun.elapsed() < Duration::from_secs(1));
        assert!(!acquiring.is_finished());
        one.publish(catalog, 1).unwrap();
        assert!(
            begun.elapsed() > Duration::from_secs(1),
            "its own database's row is locked"
        );
        assert!(matches!(
            acquiring.join().unwrap(),
            Err(CatalogError::LeaseHeld { .. })
        ));
    });
}

#[test]
fn two_hosts_race_for_a_lease_a_hundred_times_and_one_wins_each() {
    let store = Store::new();
    let hosts = [
        PostgresCatalog::open(&store.url()).unwrap(),
        PostgresCatalog::open(&store.url()).unwrap(),
    ];
    let id = create(&hosts[0], "a").id;
    let mut wins = [0, 0];
    for round in 1..=100 {
        let ready = Barrier::new(2);
        let results = thread::scope(|scope| {
            let racers = [0, 1].map(|host| {
                let (catalog, ready) = (&hosts[host], &ready);
                scope.spawn(move || {
                    ready.wait();
                    let ttl = Duration::from_secs(60);
                    catalog.acquire_lease(id, &holder(&host.to_string()), ttl, &|_| false)
                })
            });
            racers.map(|racer| racer.join().unwrap())
        });
        let winner = match results {
            [Ok(lease), Err(CatalogError::LeaseHeld { lease: held, .. })] => {
                assert_eq!(lease, *held);
                wins[0] += 1;
                lease
            }
            [Err(CatalogError::LeaseHeld { lease: held, .. }), Ok(lease)] => {
                assert_eq!(lease, *held);
                wins[1] += 1;
                lease
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(winner.epoch, Epoch(round));
        hosts[0].release_lease(id, winner.epoch).unwrap();
    }
    assert_eq!(wins[0] + wins[1], 100);
}
