//! The end: nothing fails any more, and everything that was promised must be there, and no more
//! than that.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use layerd::catalog::{Catalog, LayerKind, LayerState};
use layerd::id::{DatabaseName, LayerId};
use layerd::reference::Ref;
use layerd::store::{Store, StoreError};
use layerd::writer::{Durability, WriterOptions};

use crate::model::{Acknowledged, Hash, hash};
use crate::setting::{HOSTS, Setting, content_of};

pub fn run(setting: &Setting) {
    // Leases of the dead run out.
    setting.world().rest(Duration::from_secs(20));
    let stores: Vec<Arc<Store>> = (0..HOSTS).map(|host| setting.open(host).unwrap()).collect();
    // Each home brings what only it has.
    for store in &stores {
        store.list().unwrap();
    }
    let fresh = setting.open(HOSTS).unwrap();
    for database in setting.databases() {
        every_database_opens(setting, &fresh, &database);
    }
    let was_short = setting.0.retention_was_short.load(Ordering::SeqCst);
    let mut logs_stay = false;
    // And lets go of what became of other layers.
    for store in &stores {
        for database in store.catalog().databases().unwrap() {
            match store.keep_lost(database.id) {
                Ok(_) => {}
                // What they stand on expired: their log stays where it is.
                Err(StoreError::Refused(_)) if was_short => logs_stay = true,
                Err(error) => panic!("lost commits of {}: {error}", database.name),
            }
        }
    }
    for commit in setting.model().all_acknowledged() {
        promise_is_kept(setting, &fresh, &commit, was_short);
    }
    let one = setting.world().below(HOSTS as u64) as usize;
    for store in [&stores[one], &fresh] {
        let report = store.verify(None, true, &|_, _| ()).unwrap();
        assert!(report.ok, "{:?}", report.problems);
    }
    space_returns(setting, &stores, &fresh, logs_stay);
}

fn every_database_opens(setting: &Setting, store: &Arc<Store>, database: &DatabaseName) {
    let writer = store.open_writer(database, WriterOptions::default());
    let writer = writer.unwrap_or_else(|error| panic!("{database} does not open: {error}"));
    let committed = writer.committed();
    let content = content_of(&committed, database).unwrap();
    let layer = committed.commit().point.map(|point| point.layer);
    let (id, lsn) = (writer.database(), committed.lsn());
    setting.model().read(id, lsn, layer, hash(&content));
    writer.close().unwrap();
}

fn promise_is_kept(
    setting: &Setting,
    store: &Arc<Store>,
    commit: &Acknowledged,
    retention_was_short: bool,
) {
    let Acknowledged {
        database,
        epoch,
        lsn,
        ..
    } = commit;
    let name: DatabaseName = if commit.published {
        database.clone()
    } else {
        assert!(
            commit.durability == Durability::Local,
            "commit {lsn} of {database} under {epoch} was acknowledged as remote, and is gone"
        );
        let is_home_alive = (0..HOSTS).any(|host| setting.home_of(host) == commit.home);
        if !is_home_alive {
            return;
        }
        // Somebody may have taken the first name.
        let prefix = format!("{database}-lost-{epoch}");
        let kept = setting.databases().into_iter().any(|name| {
            let is_it = name.as_str().strip_prefix(&prefix);
            is_it.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
                && read(store, &name, commit).is_ok_and(|hash| hash == commit.hash)
        });
        assert!(
            kept || retention_was_short,
            "commit {lsn} of {database}, acknowledged under {epoch}, is in no {prefix}"
        );
        return;
    };
    match read(store, &name, commit) {
        Ok(hash) => assert_eq!(
            hash, commit.hash,
            "commit {lsn} of {name}, acknowledged under {epoch}, has changed"
        ),
        Err(error) => assert!(
            retention_was_short,
            "commit {lsn} of {database} under {epoch}: {error}"
        ),
    }
}

fn read(
    store: &Arc<Store>,
    name: &DatabaseName,
    commit: &Acknowledged,
) -> Result<Hash, StoreError> {
    let reader = store.open_reader(name, &Ref::Lsn(commit.lsn))?;
    Ok(hash(&content_of(&reader.frozen(), name).unwrap()))
}

/// With nothing retained, what heads, snapshots and clones need is there, and nothing else.
fn space_returns(setting: &Setting, stores: &[Arc<Store>], fresh: &Arc<Store>, logs_stay: bool) {
    let world = setting.world();
    let databases = setting.databases();
    for database in &databases {
        fresh.set_retention(database, Duration::ZERO).unwrap();
        if world.one_in(2) {
            for snapshot in fresh.snapshots(database).unwrap() {
                fresh.unsnapshot(database, &Ref::Id(snapshot.id)).unwrap();
            }
        }
    }
    let heads = || -> Vec<_> {
        let heads = databases.iter().map(|database| {
            let reader = fresh.open_reader(database, &Ref::Latest).unwrap();
            (
                database.clone(),
                hash(&content_of(&reader.frozen(), database).unwrap()),
            )
        });
        heads.collect()
    };
    let before = heads();
    world.rest(Duration::from_secs(1));
    for database in &databases {
        fresh.compact(database, &|_, _| ()).unwrap();
    }
    // Orphans in the store are left alone for a day.
    world.rest(Duration::from_secs(25 * 3600));
    for store in [fresh].into_iter().chain(stores).chain([fresh]) {
        store.gc(Some(Duration::ZERO), false).unwrap();
        world.rest(Duration::from_secs(1));
    }
    assert!(heads() == before, "compaction or collection changed a head");
    let catalog = &setting.0.catalog;
    let inventory = catalog.inventory().unwrap();
    let mut needed: BTreeSet<LayerId> = BTreeSet::new();
    for database in &inventory.databases {
        let mut points = vec![database.head.point];
        points.push(database.base.and_then(|base| base.point));
        for snapshot in catalog.snapshots(database.id).unwrap() {
            let layer = catalog.find_lsn(database.id, snapshot.lsn).unwrap();
            let Some(layer) = layer else {
                // Of a commit that only a host had which is no more.
                assert!(snapshot.lsn > database.head.lsn(), "{snapshot:?} is gone");
                continue;
            };
            points.push(Some(layerd::catalog::StatePoint {
                layer: layer.id,
                lsn: snapshot.lsn,
            }));
        }
        for point in points {
            let chain = catalog.chain(database.id, point).unwrap();
            needed.extend(chain.layers.iter().map(|row| row.id));
        }
    }
    let there: BTreeSet<LayerId> = inventory.layers.iter().map(|row| row.id).collect();
    assert_eq!(
        there, needed,
        "layers that are there, and layers that are needed"
    );
    for row in &inventory.layers {
        assert!(
            row.state == LayerState::Sealed || row.kind == LayerKind::Image,
            "{} is {:?}",
            row.id,
            row.state
        );
    }
    let named: BTreeSet<String> = inventory
        .layers
        .iter()
        .flat_map(|row| row.segments.iter().map(|segment| segment.key.clone()))
        .collect();
    let stored: BTreeSet<String> = setting.0.bucket.keys().into_iter().collect();
    assert_eq!(
        stored, named,
        "objects in the bucket, and objects of segments"
    );
    for store in stores {
        for directory in ["active", "layers"] {
            let path = store.home().join("objects").join(directory);
            for entry in std::fs::read_dir(path).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                let layer = name.split('.').next().unwrap().parse().unwrap();
                let is_log = logs_stay && directory == "active";
                assert!(
                    needed.contains(&layer) || is_log,
                    "{name} is left in {directory}"
                );
            }
        }
    }
}
