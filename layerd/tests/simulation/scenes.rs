//! Scenes without chance: what random schedules found once, told again.

use std::sync::Arc;
use std::time::Duration;

use layerd::FsError;
use layerd::daemon::Daemon;
use layerd::frozen::FileKind;
use layerd::id::{DatabaseName, FileId, Lsn};
use layerd::reference::Ref;
use layerd::store::{Store, StoreError};
use layerd::writer::{Durability, NewFile, Writer, WriterOptions};

use crate::setting::{HOSTS, Setting, content_of};

/// Longer than a scene: nothing is sent by itself.
const NEVER: Duration = Duration::from_secs(100_000);

/// Plays a scene in a world in which nothing fails by itself.
fn scene(play: impl FnOnce(&Setting) + Send + 'static) {
    scene_of(1, play);
}

/// As [`scene`]; who goes on first where several may is drawn from a seed.
fn scene_of(seed: u64, play: impl FnOnce(&Setting) + Send + 'static) {
    let setting = Setting::new(seed);
    let world = setting.world().clone();
    let process = world.process(setting.0.hosts[HOSTS].host);
    world.spawn(process, "scene", move || {
        setting.0.faults.end(setting.world().now());
        setting.open(HOSTS).unwrap().create(&db()).unwrap();
        play(&setting);
    });
    let outcome = world.run();
    if let Some(failure) = outcome.failure {
        panic!("{failure}\n{}", outcome.trace);
    }
}

/// What a process of a host does, from its begin to its end: what it has not closed then is left as
/// by a kill.
fn act(setting: &Setting, host: usize, act: impl FnOnce(Arc<Store>) + Send + 'static) {
    let world = setting.world();
    let process = world.process(setting.0.hosts[host].host);
    let all = setting.clone();
    world.spawn(process, &format!("act@{host}"), move || {
        act(all.open(host).unwrap());
    });
    world.wait_for(process);
}

fn db() -> DatabaseName {
    "db".parse().unwrap()
}

fn write(store: &Arc<Store>, lag: Duration) -> Writer {
    let options = WriterOptions {
        steal: false,
        durability: Durability::Local,
        lag,
    };
    store.open_writer(&db(), options).unwrap()
}

fn commit(writer: &Writer, text: &[u8]) -> Lsn {
    let new = NewFile {
        kind: FileKind::File,
        mode: 0o644,
        uid: 0,
        gid: 0,
    };
    let file = writer.create(FileId::ROOT, b"db.duckdb", new);
    let file = file.or_else(|_| writer.lookup(FileId::ROOT, b"db.duckdb"));
    writer.write(file.unwrap().file, 0, text).unwrap();
    writer.sync().unwrap()
}

fn read(store: &Arc<Store>, name: &str, reference: &Ref) -> Vec<u8> {
    let name: DatabaseName = name.parse().unwrap();
    let reader = store.open_reader(&name, reference).unwrap();
    content_of(&reader.frozen(), &name).unwrap()["main"].clone()
}

/// Host 0 has acknowledged what nobody else knows, in two layers, and host 1 has gone on without.
fn replaced(setting: &Setting) {
    act(setting, 0, |store| {
        let writer = write(&store, Duration::ZERO);
        commit(&writer, b"published");
        writer.close().unwrap();
    });
    without_store(setting, || {
        act(setting, 0, |store| {
            let writer = write(&store, NEVER);
            commit(&writer, b"lost one!");
            writer.rotate().unwrap();
            commit(&writer, b"lost two!");
            store.snapshot(&db(), None).unwrap();
        });
    });
    setting.world().rest(Duration::from_secs(20));
    act(setting, 1, |store| {
        let writer = write(&store, Duration::ZERO);
        for text in [b"another 1", b"another 2"] {
            commit(&writer, text);
        }
        writer.close().unwrap();
    });
}

/// The store is away while host 0 writes: what a writer has ended waits too.
fn without_store(setting: &Setting, play: impl FnOnce()) {
    setting
        .0
        .faults
        .store_away(setting.world().now().plus_seconds(100_000));
    play();
    setting.0.faults.store_away(setting.world().now());
}

#[test]
fn lost_commits_outlast_collection_and_the_next_writer_of_their_host() {
    for next_writer_first in [false, true] {
        scene(move |setting| {
            replaced(setting);
            if !next_writer_first {
                act(setting, 0, |store| {
                    store.gc(Some(Duration::ZERO), false).unwrap();
                    store.gc(Some(Duration::ZERO), false).unwrap();
                });
            }
            act(setting, 0, |store| {
                let writer = write(&store, Duration::ZERO);
                commit(&writer, b"and on we");
                writer.close().unwrap();
            });
            act(setting, 2, |store| {
                assert_eq!(read(&store, "db", &Ref::Latest), b"and on we");
                let names: Vec<String> = store
                    .list()
                    .unwrap()
                    .into_iter()
                    .map(|database| database.name.to_string())
                    .collect();
                assert_eq!(names.len(), 2, "{names:?}");
                let lost = names
                    .iter()
                    .find(|name| name.starts_with("db-lost-"))
                    .unwrap();
                assert_eq!(read(&store, lost, &Ref::Latest), b"lost two!");
                assert_eq!(read(&store, lost, &Ref::Lsn(Lsn(2))), b"lost one!");
            });
        });
    }
}

#[test]
fn a_replaced_writers_layer_is_sealed_without_what_only_its_host_has() {
    scene(|setting| {
        let (faults, world) = (setting.0.faults.clone(), setting.world().clone());
        act(setting, 0, move |store| {
            let writer = write(&store, Duration::ZERO);
            commit(&writer, b"published");
            while store.catalog().database(&db()).unwrap().head.lsn() < Lsn(1) {
                world.rest(Duration::from_secs(1));
            }
            faults.store_away(world.now().plus_seconds(100_000));
            commit(&writer, b"lost one!");
        });
        setting.0.faults.store_away(setting.world().now());
        setting.world().rest(Duration::from_secs(20));
        // It takes over, and is killed before it seals anything.
        act(setting, 1, |store| drop(write(&store, NEVER)));
        setting.world().rest(Duration::from_secs(20));
        // Who seals may do so before anybody looks for what was lost.
        act(setting, 0, |store| {
            Daemon::new(&store).round(&|| false).unwrap();
            let database = store.catalog().database(&db()).unwrap();
            assert_eq!(store.keep_lost(database.id).unwrap().len(), 1);
            assert_eq!(read(&store, "db-lost-1", &Ref::Latest), b"lost one!");
            assert_eq!(read(&store, "db", &Ref::Lsn(Lsn(1))), b"published");
        });
    });
}

#[test]
fn a_writer_that_overslept_its_lease_acknowledges_nothing() {
    for durability in [Durability::Local, Durability::Remote] {
        scene(move |setting| {
            let world = setting.world().clone();
            let process = world.process(setting.0.hosts[0].host);
            let all = setting.clone();
            world.spawn(process, "sleeper@0", move || {
                let options = WriterOptions {
                    durability,
                    ..WriterOptions::default()
                };
                let store = all.open(0).unwrap();
                let writer = store.open_writer(&db(), options).unwrap();
                commit(&writer, b"published");
                all.world().rest(Duration::from_secs(10));
                // It was stopped meanwhile, longer than its lease lasts.
                let file = writer.lookup(FileId::ROOT, b"db.duckdb").unwrap().file;
                writer.write(file, 0, b"too late!").unwrap();
                let refused = writer.sync();
                assert!(matches!(refused, Err(FsError::LeaseLost(_))), "{refused:?}");
            });
            world.rest(Duration::from_secs(5));
            world.stop(process, Duration::from_secs(60));
            world.rest(Duration::from_secs(20));
            act(setting, 1, |store| {
                let writer = write(&store, Duration::ZERO);
                commit(&writer, b"another 1");
                writer.close().unwrap();
            });
            world.wait_for(process);
            act(setting, 2, |store| {
                assert_eq!(read(&store, "db", &Ref::Latest), b"another 1");
            });
        });
    }
}

#[test]
fn a_layer_that_ends_while_nothing_can_be_acknowledged_is_followed_by_another() {
    let runs = (0..8).map(|seed| (seed, Durability::Local));
    for (seed, durability) in runs.chain([(0, Durability::Remote)]) {
        scene_of(seed, move |setting| {
            let world = setting.world().clone();
            let process = world.process(setting.0.hosts[0].host);
            let all = setting.clone();
            world.spawn(process, "writer@0", move || {
                let options = WriterOptions {
                    durability,
                    ..WriterOptions::default()
                };
                let store = all.open(0).unwrap();
                let writer = store.open_writer(&db(), options).unwrap();
                commit(&writer, b"before it");
                let file = writer.lookup(FileId::ROOT, b"db.duckdb").unwrap().file;
                writer.write(file, 0, b"it ended!").unwrap();
                let (faults, world) = (&all.0.faults, all.world());
                if durability == Durability::Remote {
                    faults.store_away(world.now().plus_seconds(100));
                } else {
                    // It is stopped meanwhile, and nobody takes its place: its lease is renewed,
                    // now or a moment later.
                    world.rest(Duration::from_secs(6));
                }
                let rotated = writer.rotate();
                assert!(rotated.is_err() || durability == Durability::Local);
                world.rest(Duration::from_secs(100));
                assert_eq!(commit(&writer, b"and after"), Lsn(3));
                // And killed.
            });
            if durability == Durability::Local {
                world.rest(Duration::from_secs(3));
                world.stop(process, Duration::from_secs(17));
            }
            world.wait_for(process);
            world.rest(Duration::from_secs(20));
            act(setting, 0, |store| {
                let writer = write(&store, Duration::ZERO);
                assert_eq!(writer.committed().lsn(), Lsn(3));
                writer.close().unwrap();
            });
            act(setting, 1, |store| {
                assert_eq!(read(&store, "db", &Ref::Latest), b"and after");
                assert_eq!(read(&store, "db", &Ref::Lsn(Lsn(2))), b"it ended!");
            });
        });
    }
}

#[test]
fn a_clone_stands_on_what_other_hosts_can_read() {
    scene(|setting| {
        let (faults, world) = (setting.0.faults.clone(), setting.world().clone());
        act(setting, 0, move |store| {
            let [copy, other] = ["copy", "other"].map(|name| name.parse().unwrap());
            let writer = write(&store, Duration::from_secs(5));
            commit(&writer, b"published");
            // It is waited for.
            store.clone_database(&db(), &Ref::Latest, &copy).unwrap();
            faults.store_away(world.now().plus_seconds(100_000));
            commit(&writer, b"only here");
            let refused = store.clone_database(&db(), &Ref::Latest, &other);
            assert!(
                matches!(refused, Err(StoreError::Refused(_))),
                "{refused:?}"
            );
            store
                .clone_database(&db(), &Ref::Lsn(Lsn(1)), &other)
                .unwrap();
            faults.store_away(world.now());
        });
        act(setting, 1, |store| {
            for name in ["copy", "other"] {
                assert_eq!(read(&store, name, &Ref::Latest), b"published");
            }
        });
    });
}

#[test]
fn a_reader_goes_on_where_a_layer_was_sent_anew() {
    scene(|setting| {
        let all = setting.clone();
        act(setting, 0, move |store| {
            let options = WriterOptions {
                durability: Durability::Remote,
                ..WriterOptions::default()
            };
            let writer = store.open_writer(&db(), options).unwrap();
            commit(&writer, b"published");
            let file = writer.lookup(FileId::ROOT, b"db.duckdb").unwrap().file;
            // Each in a segment of its own.
            for n in 0..5 {
                writer.write(file, n * 20_000, &[7; 20_000]).unwrap();
                writer.sync().unwrap();
            }
            let afar = all.open_with(1, false).unwrap();
            let reader = afar.open_reader(&db(), &Ref::Latest).unwrap();
            let before = all.0.bucket.keys();
            writer.close().unwrap();
            store.gc(Some(Duration::ZERO), false).unwrap();
            let after = all.0.bucket.keys();
            assert!(before.iter().all(|key| !after.contains(key)), "{after:?}");
            let content = content_of(&reader.frozen(), &db()).unwrap();
            assert!(content["main"] == [7; 100_000]);
        });
    });
}

#[test]
fn what_is_pinned_stays_whatever_becomes_of_it() {
    scene(|setting| {
        let all = setting.clone();
        act(setting, 0, move |store| {
            let writer = write(&store, Duration::ZERO);
            commit(&writer, &[1; 200_000]);
            writer.close().unwrap();
            let afar = all.open_with(1, false).unwrap();
            let reader = afar.open_reader(&db(), &Ref::Latest).unwrap();
            // So many layers are joined, and most of what they hold is dead.
            for n in 2..12 {
                let writer = write(&store, Duration::ZERO);
                commit(&writer, &[n; 200_000]);
                writer.close().unwrap();
            }
            store.set_retention(&db(), Duration::ZERO).unwrap();
            all.world().rest(Duration::from_secs(1));
            let collect = || {
                store.compact(&db(), &|_, _| ()).unwrap();
                store.gc(Some(Duration::ZERO), false).unwrap();
                store.gc(Some(Duration::ZERO), false).unwrap();
                all.0.bucket.keys().len()
            };
            let before = collect();
            let content = content_of(&reader.frozen(), &db()).unwrap();
            assert!(content["main"] == [1; 200_000]);
            drop((reader, content));
            assert!(collect() < before);
        });
    });
}

#[test]
fn a_snapshot_never_names_another_history() {
    scene(|setting| {
        replaced(setting);
        act(setting, 2, |store| {
            let snapshots = store.snapshots(&db()).unwrap();
            let [snapshot] = &snapshots[..] else {
                panic!("{snapshots:?}");
            };
            assert_eq!(read(&store, "db", &Ref::Lsn(snapshot.lsn)), b"another 2");
            assert!(matches!(
                store.open_reader(&db(), &Ref::Id(snapshot.id)),
                Err(StoreError::NoSuchRef(_))
            ));
        });
    });
}

#[test]
fn commits_are_listed_beside_a_writer_that_has_only_begun() {
    scene(|setting| {
        act(setting, 0, |store| {
            let writer = write(&store, Duration::ZERO);
            commit(&writer, b"published");
            writer.close().unwrap();
            // Killed before anything of its layer is stored.
            drop(write(&store, NEVER));
        });
        act(setting, 1, |store| {
            assert_eq!(store.commits(&db()).unwrap().len(), 1);
            let clone = "copy".parse().unwrap();
            store
                .clone_database(&db(), &Ref::Lsn(Lsn(1)), &clone)
                .unwrap();
        });
    });
}

#[test]
fn a_lease_is_renewed_for_as_long_as_a_recovery_takes() {
    scene(|setting| {
        without_store(setting, || {
            act(setting, 0, |store| {
                let writer = write(&store, NEVER);
                for n in 0..4 {
                    commit(&writer, format!("commit {n}").as_bytes());
                    writer.rotate().unwrap();
                }
            });
        });
        // A fifth of a lease for each call, and there are many.
        setting.0.faults.slow(Duration::from_secs(3));
        act(setting, 0, |store| {
            let writer = write(&store, Duration::ZERO);
            assert_eq!(writer.committed().lsn(), Lsn(4));
        });
    });
}

#[test]
fn an_answer_that_is_lost_stops_no_upload() {
    scene(|setting| {
        let faults = setting.0.faults.clone();
        act(setting, 0, move |store| {
            let writer = write(&store, Duration::ZERO);
            commit(&writer, b"published");
            faults.lose_answer_to("rotate");
            writer.rotate().unwrap();
            commit(&writer, b"and more!");
            writer.close().unwrap();
        });
        act(setting, 1, |store| {
            assert_eq!(read(&store, "db", &Ref::Latest), b"and more!");
        });
    });
}
