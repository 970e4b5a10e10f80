//! The catalog in PostgreSQL, against a real server: the claims that every catalog is held to, and
//! what is PostgreSQL's own.
//!
//! `OPENDUCK_TEST_POSTGRES` names a server by a URL whose user may create schemas and roles;
//! without it the tests start one. Those that restart a server start one of their own in any case.

#![allow(clippy::unwrap_used, reason = "a call that fails is a test that fails")]

mod credentials;
mod failures;
mod opening;
mod proxy;
mod server;
mod tls;
mod trips;
mod watching;
mod writing;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use layerd::catalog::conformance::Harness;
use layerd::catalog::postgres::{Clock, PostgresCatalog};
use layerd::catalog::{Catalog, Database, Head, Holder, LayerRow, StatePoint};
use layerd::id::{DatabaseId, Epoch, LayerId, Lsn, Timestamp};

use server::Store;

layerd::catalog_conformance!(fresh);

fn fresh() -> PostgresHarness {
    PostgresHarness {
        store: Store::new(),
        now: Arc::new(AtomicI64::new(1_800_000_000_000_000_000)),
    }
}

struct PostgresHarness {
    store: Store,
    now: Arc<AtomicI64>,
}

impl Harness for PostgresHarness {
    fn connect(&self) -> Box<dyn Catalog> {
        let now = Arc::clone(&self.now);
        let clock: Clock = Arc::new(move || Timestamp(now.load(Ordering::SeqCst)));
        Box::new(PostgresCatalog::open_with_clock(&self.store.url(), clock).unwrap())
    }

    fn advance(&self, by: Duration) {
        let by = i64::try_from(by.as_nanos()).unwrap();
        self.now.fetch_add(by, Ordering::SeqCst);
    }

    fn histories(&self) -> u64 {
        1
    }
}

fn create(catalog: &dyn Catalog, called: &str) -> Database {
    catalog
        .create_database(&called.parse().unwrap(), 60, None)
        .unwrap()
}

fn names(catalog: &dyn Catalog) -> Vec<String> {
    catalog
        .databases()
        .unwrap()
        .iter()
        .map(|database| database.name.to_string())
        .collect()
}

fn holder(instance: &str) -> Holder {
    Holder {
        host: "somewhere".to_owned(),
        pid: 4711,
        instance: instance.to_owned(),
    }
}

/// A database that is written: one active layer.
struct Written {
    id: DatabaseId,
    epoch: Epoch,
    layer: LayerId,
}

impl Written {
    fn new(catalog: &dyn Catalog, called: &str) -> Written {
        let id = create(catalog, called).id;
        let ttl = Duration::from_secs(600);
        let lease = catalog.acquire_lease(id, &holder(called), ttl, &|_| false);
        let epoch = lease.unwrap().epoch;
        let layer = LayerId::random(epoch);
        let row = LayerRow::begun(layer, id, None, Lsn(1), Timestamp(0));
        catalog.add_layer(epoch, &row).unwrap();
        Written { id, epoch, layer }
    }

    fn head(&self, lsn: u64) -> Head {
        Head {
            point: Some(StatePoint {
                layer: self.layer,
                lsn: Lsn(lsn),
            }),
            time: Timestamp(0),
            written_bytes: 0,
        }
    }

    fn publish(&self, catalog: &dyn Catalog, lsn: u64) -> layerd::catalog::Result<()> {
        catalog.publish(self.id, self.epoch, &self.head(lsn), None)
    }
}
