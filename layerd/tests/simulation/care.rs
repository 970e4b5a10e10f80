//! Processes that look after databases: the daemon, and what people ask for by hand.

use std::sync::Arc;
use std::time::Duration;

use layerd::daemon::{Daemon, ROUND};
use layerd::id::{DatabaseName, Lsn};
use layerd::reference::Ref;
use layerd::store::{Store, StoreError};

use crate::setting::Setting;

/// Clones that are made by hand, at most.
const CLONES_MAX: usize = 2;

/// Compaction, collection, the daemon's rounds.
pub fn run(setting: &Setting, host: usize) {
    let world = setting.world();
    let store = setting.open(host).unwrap();
    let mut daemon = Daemon::new(&store);
    for _ in 0..1 + world.below(6) {
        let (what, done) = match world.below(3) {
            0 => {
                let grace = [
                    Duration::ZERO,
                    Duration::from_secs(30),
                    Duration::from_secs(900),
                ];
                let grace = grace[world.below(3) as usize];
                setting.note(format_args!("gc with a grace of {grace:?}"));
                ("gc", store.gc(Some(grace), false).map(drop))
            }
            1 => {
                let database = pick(setting);
                setting.note(format_args!("compact {database}"));
                ("compact", store.compact(&database, &|_, _| ()).map(drop))
            }
            _ => {
                world.rest(ROUND);
                ("daemon", daemon.round(&|| false))
            }
        };
        if let Err(error) = done {
            setting.excuse(what, &error);
        }
        setting.rest(10);
    }
}

/// Snapshots, clones, restores, retention.
pub fn by_hand(setting: &Setting, host: usize) {
    let world = setting.world();
    let store = setting.open(host).unwrap();
    for _ in 0..1 + world.below(3) {
        let database = pick(setting);
        let (what, done) = match world.below(6) {
            0 | 1 => ("snapshot", store.snapshot(&database, None).map(drop)),
            2 => ("unsnapshot", unsnapshot(setting, &store, &database)),
            3 => ("clone", clone(setting, &store, &database)),
            4 => ("restore", restore(setting, &store, &database)),
            _ => {
                let seconds = [0, 20, 7 * 24 * 3600][world.below(3) as usize];
                setting.note(format_args!("keep {database} for {seconds} s"));
                setting
                    .0
                    .retention_was_short
                    .fetch_or(seconds < 3600, std::sync::atomic::Ordering::SeqCst);
                let retention = Duration::from_secs(seconds);
                ("retention", store.set_retention(&database, retention))
            }
        };
        if let Err(error) = done {
            setting.excuse(what, &error);
        }
        setting.rest(10);
    }
}

fn pick(setting: &Setting) -> DatabaseName {
    let databases = setting.databases();
    let n = setting.world().below(databases.len() as u64);
    databases[n as usize].clone()
}

fn unsnapshot(
    setting: &Setting,
    store: &Arc<Store>,
    database: &DatabaseName,
) -> Result<(), StoreError> {
    let snapshots = store.snapshots(database)?;
    if snapshots.is_empty() {
        return Ok(());
    }
    let n = setting.world().below(snapshots.len() as u64);
    store.unsnapshot(database, &Ref::Id(snapshots[n as usize].id))
}

fn clone(setting: &Setting, store: &Arc<Store>, database: &DatabaseName) -> Result<(), StoreError> {
    let made = setting.databases();
    let made = made
        .iter()
        .filter(|name| name.as_str().starts_with("clone"));
    let made = made.count();
    if made >= CLONES_MAX {
        return Ok(());
    }
    let name: DatabaseName = format!("clone{made}").parse().unwrap();
    let reference = some_commit(setting, store, database)?;
    setting.note(format_args!("clone {database}@{reference} as {name}"));
    store.clone_database(database, &reference, &name).map(drop)
}

fn restore(
    setting: &Setting,
    store: &Arc<Store>,
    database: &DatabaseName,
) -> Result<(), StoreError> {
    let Ref::Lsn(of) = some_commit(setting, store, database)? else {
        return Ok(());
    };
    let id = store.catalog().database(database)?.id;
    let lsn = store.restore(database, &Ref::Lsn(of))?;
    setting.note(format_args!("restored {database} to {of}, as {lsn}"));
    setting.model().restored(id, lsn, of);
    Ok(())
}

/// The newest state, or one that is kept.
fn some_commit(
    setting: &Setting,
    store: &Arc<Store>,
    database: &DatabaseName,
) -> Result<Ref, StoreError> {
    let commits = store.commits(database)?;
    let lsns: Vec<Lsn> = commits.iter().map(|commit| commit.lsn).collect();
    if lsns.is_empty() || setting.world().one_in(2) {
        return Ok(Ref::Latest);
    }
    let n = setting.world().below(lsns.len() as u64);
    Ok(Ref::Lsn(lsns[n as usize]))
}
