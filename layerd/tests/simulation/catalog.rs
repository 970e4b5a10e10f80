//! The catalog as a process of another host sees it: the real one, at the end of a way that fails.
//!
//! What becomes of heads and leases is told to the model in the same moment.

use std::sync::Arc;
use std::time::Duration;

use layerd::catalog::service::{KnownWorker, NewToken, Service, SigningKey, Token, Tokens, Worker};
use layerd::catalog::sqlite::SqliteCatalog;
use layerd::catalog::{
    Base, Catalog, CatalogError, Chain, Database, Head, Holder, Inventory, LayerRow, Lease,
    NewSnapshot, Result, Rotation, Segment, Snapshot, StatePoint,
};
use layerd::id::{
    DatabaseId, DatabaseName, Epoch, LayerId, Lsn, SnapshotId, SnapshotName, Timestamp, TokenId,
    WorkerId,
};
use layerd::machine::world::World;

use crate::faults::{Fault, Faults};
use crate::model::Model;

/// A process's way to the catalog.
pub struct Way {
    pub world: World,
    pub faults: Faults,
    pub model: Model,
    pub catalog: Arc<SqliteCatalog>,
}

impl Way {
    fn call<T>(&self, what: &str, call: impl Fn(&SqliteCatalog) -> Result<T>) -> Result<T> {
        self.call_and(what, call, |_| ())
    }

    /// `done` is told of what was done, in the moment in which it was.
    fn call_and<T>(
        &self,
        what: &str,
        call: impl Fn(&SqliteCatalog) -> Result<T>,
        done: impl Fn(&T),
    ) -> Result<T> {
        let away = |reason: &str| CatalogError::Unavailable {
            catalog: "simulated".to_owned(),
            reason: reason.to_owned(),
        };
        if self.world.is_dying() {
            return Err(away("the process is dead"));
        }
        let fault = self.faults.on_catalog(&self.world, what);
        if fault == Fault::Refused {
            self.world.note(format_args!("catalog: {what}: away"));
            return Err(away("it is away"));
        }
        let answer = call(&self.catalog);
        let shown = match &answer {
            Ok(answer) => {
                done(answer);
                String::new()
            }
            Err(error) => format!(": {error}"),
        };
        self.world.note(format_args!("catalog: {what}{shown}"));
        self.world.pause();
        if fault == Fault::Unsaid && answer.is_ok() {
            self.world.note(format_args!("catalog: {what}: no answer"));
            return Err(away("the answer was lost"));
        }
        answer
    }
}

impl Catalog for Way {
    fn now(&self) -> Result<Timestamp> {
        self.call("now", Catalog::now)
    }

    fn create_database(
        &self,
        name: &DatabaseName,
        retention_s: u64,
        base: Option<(Base, Timestamp, u64)>,
    ) -> Result<Database> {
        self.call_and(
            &format!("create {name}"),
            |it| it.create_database(name, retention_s, base),
            |made| self.model.created(made),
        )
    }

    fn database(&self, name: &DatabaseName) -> Result<Database> {
        self.call("database", |it| it.database(name))
    }

    fn database_by_id(&self, id: DatabaseId) -> Result<Database> {
        self.call("database_by_id", |it| it.database_by_id(id))
    }

    fn databases(&self) -> Result<Vec<Database>> {
        self.call("databases", Catalog::databases)
    }

    fn drop_database(&self, id: DatabaseId) -> Result<()> {
        self.call("drop", |it| it.drop_database(id))
    }

    fn undrop_database(&self, name: &DatabaseName) -> Result<Database> {
        self.call("undrop", |it| it.undrop_database(name))
    }

    fn set_retention(&self, id: DatabaseId, retention_s: u64) -> Result<()> {
        self.call("set_retention", |it| it.set_retention(id, retention_s))
    }

    fn acquire_lease(
        &self,
        id: DatabaseId,
        holder: &Holder,
        ttl: Duration,
        may_take: &dyn Fn(&Lease) -> bool,
    ) -> Result<Lease> {
        self.call_and(
            "acquire_lease",
            |it| it.acquire_lease(id, holder, ttl, may_take),
            |lease| self.model.granted(id, lease.epoch),
        )
    }

    fn renew_lease(&self, id: DatabaseId, epoch: Epoch, ttl: Duration) -> Result<Lease> {
        self.call(&format!("renew {epoch}"), |it| {
            it.renew_lease(id, epoch, ttl)
        })
    }

    fn want_lease(&self, id: DatabaseId) -> Result<()> {
        self.call("want_lease", |it| it.want_lease(id))
    }

    fn release_lease(&self, id: DatabaseId, epoch: Epoch) -> Result<()> {
        self.call(&format!("release {epoch}"), |it| {
            it.release_lease(id, epoch)
        })
    }

    fn lease(&self, id: DatabaseId) -> Result<Option<Lease>> {
        self.call("lease", |it| it.lease(id))
    }

    fn add_layer(&self, epoch: Epoch, layer: &LayerRow) -> Result<()> {
        let what = format!("add_layer {} from {}", layer.id, layer.first_lsn);
        self.call(&what, |it| it.add_layer(epoch, layer))
    }

    fn publish(
        &self,
        id: DatabaseId,
        epoch: Epoch,
        head: &Head,
        segment: Option<&Segment>,
    ) -> Result<()> {
        self.call_and(
            &format!("publish {} under {epoch}", head.lsn()),
            |it| it.publish(id, epoch, head, segment),
            |()| self.model.published(id, epoch, head),
        )
    }

    fn add_segment(
        &self,
        id: DatabaseId,
        epoch: Epoch,
        layer: LayerId,
        segment: &Segment,
    ) -> Result<()> {
        self.call(&format!("add_segment {layer}"), |it| {
            it.add_segment(id, epoch, layer, segment)
        })
    }

    fn rotate(&self, id: DatabaseId, epoch: Epoch, rotation: &Rotation, head: &Head) -> Result<()> {
        self.call_and(
            &format!("rotate {} at {}", rotation.layer, head.lsn()),
            |it| it.rotate(id, epoch, rotation, head),
            |()| self.model.published(id, epoch, head),
        )
    }

    fn seal(
        &self,
        layer: LayerId,
        bytes: u64,
        hash: [u8; 32],
        segments: Option<&[Segment]>,
    ) -> Result<bool> {
        self.call(&format!("seal {layer}"), |it| {
            it.seal(layer, bytes, hash, segments)
        })
    }

    fn layers(&self, id: DatabaseId) -> Result<Vec<LayerRow>> {
        self.call("layers", |it| it.layers(id))
    }

    fn find_lsn(&self, id: DatabaseId, lsn: Lsn) -> Result<Option<LayerRow>> {
        self.call("find_lsn", |it| it.find_lsn(id, lsn))
    }

    fn replace_layers(
        &self,
        id: DatabaseId,
        old: &[LayerId],
        new: &[LayerRow],
        kept: &[Lsn],
    ) -> Result<()> {
        let what = format!("replace {} by {}", old.len(), new.len());
        self.call_and(
            &what,
            |it| it.replace_layers(id, old, new, kept),
            |()| self.model.folded(new.iter().map(|row| row.id)),
        )
    }

    fn add_snapshot(&self, id: DatabaseId, snapshot: &NewSnapshot) -> Result<Snapshot> {
        self.call(&format!("add_snapshot {}", snapshot.lsn), |it| {
            it.add_snapshot(id, snapshot)
        })
    }

    fn snapshots(&self, id: DatabaseId) -> Result<Vec<Snapshot>> {
        self.call("snapshots", |it| it.snapshots(id))
    }

    fn snapshot_by_name(&self, id: DatabaseId, name: &SnapshotName) -> Result<Snapshot> {
        self.call("snapshot_by_name", |it| it.snapshot_by_name(id, name))
    }

    fn snapshot_by_id(&self, id: DatabaseId, snapshot: SnapshotId) -> Result<Snapshot> {
        self.call("snapshot_by_id", |it| it.snapshot_by_id(id, snapshot))
    }

    fn remove_snapshot(&self, id: DatabaseId, snapshot: SnapshotId) -> Result<()> {
        self.call("remove_snapshot", |it| it.remove_snapshot(id, snapshot))
    }

    fn pin_chain(
        &self,
        id: DatabaseId,
        point: Option<StatePoint>,
        pin: u64,
        holder: &Holder,
        ttl: Duration,
    ) -> Result<Chain> {
        self.call("pin_chain", |it| it.pin_chain(id, point, pin, holder, ttl))
    }

    fn chain(&self, id: DatabaseId, point: Option<StatePoint>) -> Result<Chain> {
        self.call("chain", |it| it.chain(id, point))
    }

    fn set_pin(&self, pin: u64, holder: &Holder, layers: &[LayerId], ttl: Duration) -> Result<()> {
        self.call("set_pin", |it| it.set_pin(pin, holder, layers, ttl))
    }

    fn renew_pin(&self, pin: u64, ttl: Duration) -> Result<bool> {
        self.call("renew_pin", |it| it.renew_pin(pin, ttl))
    }

    fn unpin(&self, pin: u64) -> Result<()> {
        self.call("unpin", |it| it.unpin(pin))
    }

    fn inventory(&self) -> Result<Inventory> {
        self.call("inventory", Catalog::inventory)
    }

    fn sweep(
        &self,
        grace: Duration,
        dry_run: bool,
        mark: &mut dyn FnMut(&Inventory) -> Vec<LayerId>,
    ) -> Result<Vec<LayerRow>> {
        let mark = parking_lot::Mutex::new(mark);
        self.call("sweep", |it| {
            it.sweep(grace, dry_run, &mut |inventory| (mark.lock())(inventory))
        })
    }

    fn knows_layer(&self, layer: LayerId) -> Result<bool> {
        self.call("knows_layer", |it| it.knows_layer(layer))
    }

    fn segments(&self, layer: LayerId) -> Result<Vec<Segment>> {
        self.call("segments", |it| it.segments(layer))
    }

    fn knows_object(&self, key: &str) -> Result<bool> {
        self.call("knows_object", |it| it.knows_object(key))
    }

    fn garbage(&self, older_than: Duration) -> Result<Vec<String>> {
        self.call("garbage", |it| it.garbage(older_than))
    }

    fn condemn(&self, keys: &[String], remembered: Duration) -> Result<Vec<String>> {
        self.call("condemn", |it| it.condemn(keys, remembered))
    }

    fn forget_garbage(&self, keys: &[String]) -> Result<()> {
        self.call("forget_garbage", |it| it.forget_garbage(keys))
    }
}

/// No host of the simulation serves; it is passed on all the same.
impl Service for Way {
    fn announce_worker(&self, worker: &Worker) -> Result<()> {
        self.call("announce_worker", |it| it.announce_worker(worker))
    }

    fn workers(&self, ttl: Duration) -> Result<Vec<KnownWorker>> {
        self.call("workers", |it| it.workers(ttl))
    }

    fn remove_worker(&self, id: WorkerId) -> Result<()> {
        self.call("remove_worker", |it| it.remove_worker(id))
    }

    fn add_token(&self, token: &NewToken) -> Result<Token> {
        self.call("add_token", |it| it.add_token(token))
    }

    fn tokens(&self) -> Result<Tokens> {
        self.call("tokens", Service::tokens)
    }

    fn revoke_token(&self, id: TokenId) -> Result<Token> {
        self.call("revoke_token", |it| it.revoke_token(id))
    }

    fn signing_keys(&self, renew_after: Duration, keep: Duration) -> Result<Vec<SigningKey>> {
        self.call("signing_keys", |it| it.signing_keys(renew_after, keep))
    }
}
