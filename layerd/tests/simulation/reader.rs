//! A process that reads: at one commit, or whatever is newest.

use std::sync::Arc;

use layerd::frozen::Frozen;
use layerd::id::{DatabaseId, DatabaseName, Lsn};
use layerd::reference::Ref;
use layerd::store::Store;

use crate::model::hash;
use crate::setting::{Setting, content_of};

pub fn run(setting: &Setting, host: usize) {
    let world = setting.world();
    let store = setting.open(host).unwrap();
    for _ in 0..1 + world.below(4) {
        let databases = setting.databases();
        let database = &databases[world.below(databases.len() as u64) as usize];
        if world.one_in(3) {
            follow(setting, &store, database);
        } else {
            stay(setting, &store, database);
        }
        setting.rest(5);
    }
}

/// The database's id, without a way that fails.
fn id_of(setting: &Setting, database: &DatabaseName) -> DatabaseId {
    use layerd::catalog::Catalog;
    setting.0.catalog.database(database).unwrap().id
}

/// Reads one commit again and again.
fn stay(setting: &Setting, store: &Arc<Store>, database: &DatabaseName) {
    let world = setting.world();
    let id = id_of(setting, database);
    let reference = match world.below(3) {
        0 => {
            let head = setting.model().head(id).0;
            Ref::Lsn(Lsn(world.below(head + 2)))
        }
        _ => Ref::Latest,
    };
    let reader = match store.open_reader(database, &reference) {
        Ok(reader) => reader,
        Err(error) => return setting.excuse("open_reader", &error),
    };
    let frozen = reader.frozen();
    if world.one_in(2) {
        // What it reads first, it reads when much may have come in between.
        setting.rest(60);
    }
    for _ in 0..1 + world.below(5) {
        look(setting, id, database, &frozen);
        setting.rest(if world.one_in(10) { 300 } else { 30 });
    }
}

fn follow(setting: &Setting, store: &Arc<Store>, database: &DatabaseName) {
    let world = setting.world();
    let id = id_of(setting, database);
    let follower = match store.open_follower(database) {
        Ok(follower) => follower,
        Err(error) => return setting.excuse("open_follower", &error),
    };
    let mut newest = Lsn::EMPTY;
    for _ in 0..1 + world.below(8) {
        match follower.latest() {
            Ok(frozen) => {
                assert!(frozen.lsn() >= newest, "{} after {newest}", frozen.lsn());
                newest = frozen.lsn();
                look(setting, id, database, &frozen);
            }
            Err(error) if follower.is_stale() => {
                setting.note(format_args!("follow: {error}"));
                return;
            }
            Err(error) => setting.excuse_fs("follow", &error),
        }
        setting.rest(10);
    }
}

fn look(setting: &Setting, id: DatabaseId, database: &DatabaseName, frozen: &Frozen) {
    let layer = frozen.commit().point.map(|point| point.layer);
    match content_of(frozen, database) {
        Ok(content) => {
            let hash = hash(&content);
            setting.note(format_args!("read {database} at {}", frozen.lsn()));
            setting.model().read(id, frozen.lsn(), layer, hash);
        }
        Err(error) => setting.excuse_fs("read", &error),
    }
}
