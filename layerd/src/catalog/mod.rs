//! The catalog: the one place that defines what exists.
//!
//! Databases, layers and how they stand on each other, heads, snapshots, leases, pins. A layer
//! file that the catalog does not list does not exist, whatever a directory listing says; a layer
//! that it lists is kept until garbage collection takes the row away, and only then the file.
//!
//! **How layers form an image.** A delta layer stands on a [`StatePoint`], (layer, LSN) or
//! nothing: its `parent`. The manifest of a state is found by walking parents: the layer that
//! holds the LSN, cut after that commit; then its parent, cut after the parent's LSN; and so on.
//! A clone's first layer, and a layer made by a restore, merely stand on an older point. An image
//! layer has no parent and no LSNs; delta layers name the image layers they use (`images`).
//!
//! **Invariants**, which every implementation keeps within its transactions:
//! - *epoch rises*: a lease is granted with a larger epoch than any before for that database.
//! - *publishing is fenced*: whatever moves a head or adds a layer to a database compares the
//!   epoch in the same transaction and fails with [`CatalogError::Fenced`].
//! - *LSNs never fall*: a head is never moved to a smaller LSN.
//! - *nothing dangles*: a row that refers to a layer is only written while that layer's row is
//!   there and not dead; [`Catalog::replace_layers`] moves all references at once or fails.
//! - *resolve and pin are one*: [`Catalog::pin_chain`] reads a chain and pins its layers in one
//!   transaction, so that garbage collection can't come in between.
//! - *one clock*: expiry of leases and pins is judged by the catalog's clock ([`Catalog::now`]).
//!
//! All calls block; each is one transaction and may wait for other processes' transactions.
//! Durability: calls marked *durable* are on stable storage when they return; the others may be
//! undone by a power loss (never by a killed process), and callers are built for that.

mod changes;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod postgres;
mod segment;
pub mod service;
mod sql;
pub mod sqlite;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

pub use self::changes::Changes;
pub use self::segment::Segment;

use crate::id::{
    DatabaseId, DatabaseName, Epoch, LayerId, Lsn, SnapshotId, SnapshotName, Timestamp, TokenId,
};

/// Opens the catalog at a URL: `sqlite:PATH`, or `postgres://…` (`postgresql://…`) as
/// [`PostgresCatalog::open`](postgres::PostgresCatalog::open) says.
pub fn open(url: &str) -> Result<Arc<dyn Catalog>> {
    match url.strip_prefix("sqlite:") {
        Some(path) if !path.is_empty() => {
            Ok(Arc::new(sqlite::SqliteCatalog::open(Path::new(path))?))
        }
        None if postgres::is_postgres(url) => Ok(Arc::new(postgres::PostgresCatalog::open(url)?)),
        _ => Err(CatalogError::NoSuchKind(without_credentials(url))),
    }
}

/// As much of a catalog's URL as may be told: all of it where it holds no credentials, what stands
/// before them where it may.
#[must_use]
pub fn without_credentials(url: &str) -> String {
    let is_plain = url.starts_with("sqlite:") || !url.contains(['@', '?', '=']);
    match url.split_once(':') {
        Some((scheme, _)) if !is_plain => format!("{scheme}:…"),
        None if !is_plain => "…".to_owned(),
        _ => url.to_owned(),
    }
}

/// What went wrong in a catalog call.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogError {
    /// There is no catalog of this kind. The user must name another place.
    #[error(
        "{0:?} is no place for a catalog; OPENDUCK_META must be sqlite:PATH or postgres://USER:PASSWORD@HOST/DATABASE"
    )]
    NoSuchKind(String),
    /// No such database (or it was removed). The user must name another.
    #[error("there is no database {0:?}; `openduck-fs list` shows what there is")]
    NoSuchDatabase(String),
    /// A database of this name is there already.
    #[error("database {0:?} exists already; choose another name or remove it first")]
    DatabaseExists(String),
    /// No snapshot of that name or id in the database.
    #[error(
        "database {database:?} has no snapshot {snapshot:?}; `openduck-fs log {database}` lists them"
    )]
    NoSuchSnapshot {
        /// The database's name.
        database: String,
        /// The name or id that was asked for.
        snapshot: String,
    },
    /// A snapshot of this name is there already.
    #[error(
        "database {database:?} has a snapshot {snapshot:?} already; choose another name or `unsnapshot` it first"
    )]
    SnapshotExists {
        /// The database's name.
        database: String,
        /// The taken name.
        snapshot: String,
    },
    /// A layer row that should be there is not, or is dead.
    #[error("layer {0} is not in the catalog")]
    NoSuchLayer(LayerId),
    /// Somebody else holds the lease.
    #[error("database {database:?} is being written by process {} on {} (lease {}, renewed {} s ago, expires in {} s); unmount it there, or take it over with `openduck-fs mount --steal`", .lease.holder.pid, .lease.holder.host, .lease.epoch, .age_s, .expires_s)]
    LeaseHeld {
        /// The database's name.
        database: String,
        /// Who holds it.
        lease: Box<Lease>,
        /// Seconds since the last renewal, by the catalog's clock.
        age_s: i64,
        /// Seconds, rounded up, until it ends unless it is renewed, by the catalog's clock.
        expires_s: i64,
    },
    /// A newer lease was granted since: the caller must stop writing. Retrying cannot help.
    #[error("fenced: this writer holds epoch {ours} of the database, the current one is {current}")]
    Fenced {
        /// The epoch that came with the call.
        ours: Epoch,
        /// The epoch in the catalog.
        current: Epoch,
    },
    /// No such token.
    #[error("there is no token {0}; `openduck token list` shows what there is")]
    NoSuchToken(TokenId),
    /// The call conflicts with something done meanwhile; read again, then retry.
    #[error("the catalog changed meanwhile: {0}; try again")]
    Conflict(String),
    /// The catalog's file or server can't be used.
    #[error("the catalog {catalog} cannot be used: {reason}")]
    Unavailable {
        /// Which catalog (a path or URL without credentials).
        catalog: String,
        /// What it said.
        reason: String,
    },
    /// The catalog can be read but not written.
    #[error("the catalog {catalog} is read-only")]
    ReadOnly {
        /// Which catalog.
        catalog: String,
    },
    /// What the catalog holds makes no sense: it was damaged, or written by a newer version.
    #[error("the catalog {catalog} is damaged or of another version: {reason}")]
    Corrupt {
        /// Which catalog.
        catalog: String,
        /// What was found.
        reason: String,
    },
}

impl CatalogError {
    /// The refusal while somebody else holds the lease; `now` is the catalog's clock.
    #[must_use]
    pub fn lease_held(database: &DatabaseName, lease: Lease, now: Timestamp) -> CatalogError {
        const SECOND: i64 = 1_000_000_000;
        let left = lease.expires.0.saturating_sub(now.0).max(0);
        CatalogError::LeaseHeld {
            database: database.to_string(),
            age_s: now.0.saturating_sub(lease.renewed.0) / SECOND,
            expires_s: left / SECOND + i64::from(left % SECOND > 0),
            lease: Box::new(lease),
        }
    }
}

/// Result of a catalog call.
pub type Result<T> = std::result::Result<T, CatalogError>;

/// One state: the commit `lsn` in the layer that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct StatePoint {
    /// The layer that holds the commit record.
    pub layer: LayerId,
    /// The commit.
    pub lsn: Lsn,
}

/// The newest published commit of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Head {
    /// The layer that holds the commit record, and the commit; `None` in a database that has no
    /// commit yet and was not cloned.
    pub point: Option<StatePoint>,
    /// Its time; the database's creation where there is no commit.
    pub time: Timestamp,
    /// Payload bytes ever written to the database (and before it, to its ancestors), up to here.
    pub written_bytes: u64,
}

impl Head {
    /// The head's LSN; [`Lsn::EMPTY`] where there is no commit.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.point.map_or(Lsn::EMPTY, |point| point.lsn)
    }
}

/// A database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Database {
    /// Its identity.
    pub id: DatabaseId,
    /// Its name; names of living databases are unique, a removed one may share a living one's.
    pub name: DatabaseName,
    /// When it was made.
    pub created: Timestamp,
    /// When it was removed, if it was.
    pub dropped: Option<Timestamp>,
    /// How long expired commits, and the database itself once removed, are kept: seconds.
    pub retention_s: u64,
    /// The newest published commit.
    pub head: Head,
    /// The state that a clone began with, and the database it belongs to.
    pub base: Option<Base>,
    /// The epoch of the newest lease ever granted.
    pub epoch: Epoch,
    /// Grows whenever [`Catalog::replace_layers`] changed the database's layers: who holds a map
    /// of them may want to load it anew.
    pub generation: u64,
}

/// Where a clone came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Base {
    /// The database that was cloned.
    pub database: DatabaseId,
    /// The state that was cloned; `None` if it was empty.
    pub point: Option<StatePoint>,
}

/// How a layer came to be and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LayerKind {
    /// A log of changes.
    Delta,
    /// One whole file.
    Image,
}

/// A layer's life: active, then rotated (no more appends, its end is known), then sealed
/// (immutable and hashed), at last dead (nothing refers to it; swept after the grace period).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LayerState {
    /// A writer appends to it.
    Active,
    /// Its end is fixed; index and hash are still to be written.
    Rotated,
    /// Immutable.
    Sealed,
}

/// One layer's row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LayerRow {
    /// Its name.
    pub id: LayerId,
    /// The database that it was written for.
    pub database: DatabaseId,
    /// Delta or image.
    pub kind: LayerKind,
    /// Where it is in its life.
    pub state: LayerState,
    /// What a delta layer stands on; `None` at the bottom, and for image layers.
    pub parent: Option<StatePoint>,
    /// First commit in it (delta only). An active layer has its first LSN from the start: the
    /// one that its first commit will get.
    pub first_lsn: Lsn,
    /// Last commit in it; `None` while active, and in image layers.
    pub last_lsn: Option<Lsn>,
    /// Time of the first commit; `None` while active, and in image layers.
    pub first_time: Option<Timestamp>,
    /// Time of the last commit; `None` while active, and in image layers.
    pub last_time: Option<Timestamp>,
    /// Offset just behind the last record; `None` while active. Of an image layer: its length.
    pub end: Option<u64>,
    /// Length of the sealed file, and of the index file beside an image.
    pub bytes: Option<u64>,
    /// blake3 of the sealed content, as FORMAT.md says.
    pub hash: Option<[u8; 32]>,
    /// The image layers that its records refer to.
    pub images: Vec<LayerId>,
    /// The objects that hold its bytes, in order, from its first byte on without a gap; empty where
    /// the store of layers is local.
    pub segments: Vec<Segment>,
    /// When the row was made.
    pub created: Timestamp,
    /// When garbage collection, or a replacement, found that nothing refers to it.
    pub dead_since: Option<Timestamp>,
}

impl LayerRow {
    /// The row of a delta layer that has just begun: active, with no images and no segments.
    #[must_use]
    pub fn begun(
        id: LayerId,
        database: DatabaseId,
        parent: Option<StatePoint>,
        first_lsn: Lsn,
        created: Timestamp,
    ) -> LayerRow {
        LayerRow {
            id,
            database,
            kind: LayerKind::Delta,
            state: LayerState::Active,
            parent,
            first_lsn,
            last_lsn: None,
            first_time: None,
            last_time: None,
            end: None,
            bytes: None,
            hash: None,
            images: Vec::new(),
            segments: Vec::new(),
            created,
            dead_since: None,
        }
    }

    /// Length of the bytes that segments cover, once it is known: of a rotated layer its records,
    /// of a sealed one its file, of an image the image, zeros up to the next page, and what
    /// belongs to it.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        match (self.state, self.kind) {
            (LayerState::Active, _) => None,
            (LayerState::Rotated, _) => self.end,
            (LayerState::Sealed, LayerKind::Delta) => self.bytes,
            (LayerState::Sealed, LayerKind::Image) => {
                let (size, bytes) = (self.end?, self.bytes?);
                size.checked_next_multiple_of(segment::PAGE)?
                    .checked_add(bytes.checked_sub(size)?)
            }
        }
    }
}

/// What is known of a delta layer when it stops being active.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// The layer.
    pub layer: LayerId,
    /// Offset just behind its last record.
    pub end: u64,
    /// First and last commit and their times; `None` if the layer has no commit: then it is
    /// marked dead at once.
    pub commits: Option<CommitRange>,
    /// The image layers that its records refer to.
    pub images: Vec<LayerId>,
}

/// The commits of a layer, or of a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct CommitRange {
    /// First commit.
    pub first_lsn: Lsn,
    /// Last commit.
    pub last_lsn: Lsn,
    /// Time of the first.
    pub first_time: Timestamp,
    /// Time of the last.
    pub last_time: Timestamp,
}

/// Who holds a lease or a pin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// Host name, for people.
    pub host: String,
    /// Process id on that host, for people: never used to judge whether it lives.
    pub pid: u32,
    /// Names the home's lock file that the holder keeps locked for as long as it lives; unique
    /// among all holders. Only processes of the same home can test it.
    pub instance: String,
}

/// The right to write one database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lease {
    /// The fencing number.
    pub epoch: Epoch,
    /// Who holds it.
    pub holder: Holder,
    /// When it was last renewed.
    pub renewed: Timestamp,
    /// When it ends unless renewed.
    pub expires: Timestamp,
    /// Another writer asked for it: the holder should flush, publish and release.
    pub wanted: bool,
}

/// A commit that was asked to be kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// Its id.
    pub id: SnapshotId,
    /// Its name, if it has one. A snapshot without a name lives as long as retention keeps its
    /// commit; a named one until it is un-named.
    pub name: Option<SnapshotName>,
    /// The commit.
    pub lsn: Lsn,
    /// The commit's time.
    pub time: Timestamp,
    /// [`Head::written_bytes`] at that commit.
    pub written_bytes: u64,
    /// When the snapshot was taken.
    pub created: Timestamp,
}

/// A reader's claim on layers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pin {
    /// Names the pin.
    pub id: u64,
    /// Who reads.
    pub holder: Holder,
    /// When it ends unless renewed.
    pub expires: Timestamp,
    /// The layers that are kept for it.
    pub layers: Vec<LayerId>,
}

/// What [`Catalog::pin_chain`] found: the layers of one state, bottom first, image layers before
/// the delta layers that use them. The last delta layer is cut after [`Chain::point`]'s LSN, each
/// other one after the LSN in its successor's `parent`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The state; `None` for the empty database.
    pub point: Option<StatePoint>,
    /// Its layers.
    pub layers: Vec<LayerRow>,
    /// [`Database::generation`] of the database whose state was asked for.
    pub generation: u64,
}

/// A new snapshot: what the caller knows of the commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSnapshot {
    /// The name, if it is to have one.
    pub name: Option<SnapshotName>,
    /// The commit; it must be in a living layer of the database (an active layer counts for all
    /// LSNs from its first), or be the base of a clone.
    pub lsn: Lsn,
    /// The commit's time.
    pub time: Timestamp,
    /// [`Head::written_bytes`] at the commit.
    pub written_bytes: u64,
}

/// Everything the catalog holds about layers and what refers to them, read in one transaction:
/// the input of garbage collection and compaction planning.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// The catalog's clock at the reading.
    pub now: Timestamp,
    /// All databases, removed ones too.
    pub databases: Vec<Database>,
    /// All layers, dead ones too.
    pub layers: Vec<LayerRow>,
    /// All snapshots.
    pub snapshots: Vec<(DatabaseId, Snapshot)>,
    /// All pins that have not expired.
    pub pins: Vec<Pin>,
    /// Databases with an unexpired lease.
    pub leases: Vec<(DatabaseId, Lease)>,
}

/// The catalog's calls. See the module's text for what holds for all of them.
///
/// A database that was removed is read like any other, by its id, but takes no changes:
/// [`CatalogError::NoSuchDatabase`]. What a call is asked to refer to must be there and alive
/// ([`CatalogError::NoSuchLayer`]), and a [`StatePoint`]'s layer must hold its commit, an active
/// one any from its first ([`CatalogError::Conflict`]). Callbacks run inside the transaction, and
/// must not call the catalog.
pub trait Catalog: service::Service + Send + Sync {
    /// The catalog's clock.
    fn now(&self) -> Result<Timestamp>;

    // ---- databases ----

    /// Makes an empty database, or, with `base`, a clone whose head is the base's point, with the
    /// time and written bytes given. Durable.
    fn create_database(
        &self,
        name: &DatabaseName,
        retention_s: u64,
        base: Option<(Base, Timestamp, u64)>,
    ) -> Result<Database>;

    /// The living database of that name.
    fn database(&self, name: &DatabaseName) -> Result<Database>;

    /// Any database by id, removed ones too.
    fn database_by_id(&self, id: DatabaseId) -> Result<Database>;

    /// All living databases by name.
    fn databases(&self) -> Result<Vec<Database>>;

    /// Removes a database: its name is free at once, its layers stay for the retention time.
    /// Fails with [`CatalogError::LeaseHeld`] while an unexpired lease is held. Durable.
    fn drop_database(&self, id: DatabaseId) -> Result<()>;

    /// Brings the most recently removed database of that name back, with all layers of its head,
    /// also where a sweep found them dead; [`CatalogError::NoSuchDatabase`] once one of them was
    /// deleted. Durable.
    fn undrop_database(&self, name: &DatabaseName) -> Result<Database>;

    /// Sets how long commits are kept. Durable.
    fn set_retention(&self, id: DatabaseId, retention_s: u64) -> Result<()>;

    // ---- leases ----

    /// Grants the lease with the next epoch for `ttl`, if none is held, or the held one expired,
    /// or `may_take` says that its holder is known to be dead. Durable.
    fn acquire_lease(
        &self,
        id: DatabaseId,
        holder: &Holder,
        ttl: Duration,
        may_take: &dyn Fn(&Lease) -> bool,
    ) -> Result<Lease>;

    /// Renews a lease that is still the newest (even if it had expired), and returns it; one that
    /// another writer wants is returned as it is: what is left of it is the holder's time to flush.
    /// [`CatalogError::Conflict`] if it was released.
    fn renew_lease(&self, id: DatabaseId, epoch: Epoch, ttl: Duration) -> Result<Lease>;

    /// Marks the lease as wanted by another writer ([`Lease::wanted`]).
    fn want_lease(&self, id: DatabaseId) -> Result<()>;

    /// Ends a lease; does nothing if it is not the newest any more. Durable.
    fn release_lease(&self, id: DatabaseId, epoch: Epoch) -> Result<()>;

    /// The lease that is held now, if one is and has not expired.
    fn lease(&self, id: DatabaseId) -> Result<Option<Lease>>;

    // ---- layers ----

    /// Adds a layer's row under the writer's epoch. Durable: it is called before the first commit
    /// in the layer is acknowledged. The parent and the images must be living. A layer is added
    /// once, and stands on an earlier commit than its first. Its segments, if it has some, have
    /// no gap, and cover all of it if it is sealed ([`LayerRow::length`]).
    fn add_layer(&self, epoch: Epoch, layer: &LayerRow) -> Result<()>;

    /// Moves the head under the writer's epoch; never backwards (an older LSN is
    /// [`CatalogError::Conflict`]). Without a segment it is not durable: the layer itself is.
    ///
    /// With a segment, that is added to the head's layer in the same transaction, which is
    /// durable. It must go on where the layer's last one ended, at the beginning of that page,
    /// reach further, and stay within the layer ([`LayerRow::length`]); its object must belong to
    /// no other segment, and must not be garbage: otherwise [`CatalogError::Conflict`]. A call
    /// that repeats the layer's last segment is the repetition of one whose answer was lost: the
    /// head moves, and nothing else is done.
    ///
    /// The lease must then be held and unexpired by the catalog's clock, or it is a `Conflict`.
    /// An object that no segment names, and that is older than the grace period, is an orphan to
    /// garbage collection: a writer that slept for longer between uploading and publishing would
    /// name an object that is gone. For the same reason a writer that renews a lease which had
    /// expired must upload anew, under other keys, what it has not published yet.
    fn publish(
        &self,
        id: DatabaseId,
        epoch: Epoch,
        head: &Head,
        segment: Option<&Segment>,
    ) -> Result<()>;

    /// Adds a segment to a living layer of the database as [`Catalog::publish`] does, without
    /// moving the head: to an older layer whose end is not in the store yet. Durable.
    fn add_segment(
        &self,
        id: DatabaseId,
        epoch: Epoch,
        layer: LayerId,
        segment: &Segment,
    ) -> Result<()>;

    /// Ends an active layer: state becomes rotated (dead at once where it has no commit), and the
    /// head moves to `head`. Fenced by epoch. Durable. A call that repeats one that was done, because
    /// the answer was lost, does nothing.
    fn rotate(&self, id: DatabaseId, epoch: Epoch, rotation: &Rotation, head: &Head) -> Result<()>;

    /// Notes that a rotated layer is sealed. Needs no epoch: a rotated layer's content can't
    /// change. Durable.
    ///
    /// With segments, these replace all that the layer has; they must cover all of its `bytes`
    /// without a gap ([`CatalogError::Conflict`]). Objects that the layer does not use any more
    /// become garbage. Without, the layer keeps the segments it has.
    ///
    /// `false`, and nothing is done, if the layer was sealed already: no row names the objects of
    /// the segments given, and the caller may delete those it has just made. `true` also if it was
    /// sealed with exactly these segments, by a call whose answer was lost.
    fn seal(
        &self,
        layer: LayerId,
        bytes: u64,
        hash: [u8; 32],
        segments: Option<&[Segment]>,
    ) -> Result<bool>;

    /// A database's living layers (state not dead), by first LSN; image layers first.
    fn layers(&self, id: DatabaseId) -> Result<Vec<LayerRow>>;

    /// The living layer of the database (or, for a clone, of its ancestors, each only up to the
    /// LSN it was cloned at) that holds or, if active, may hold commit `lsn`; `None` where no
    /// living layer covers it.
    fn find_lsn(&self, id: DatabaseId, lsn: Lsn) -> Result<Option<LayerRow>>;

    /// Replaces sealed delta layers of one database by others that hold the commits `kept` of
    /// them (ascending), in one durable transaction: adds the rows `new` (sealed, disjoint LSN
    /// ranges), moves every reference (children's parents, clones' bases, heads) to the new layer
    /// that covers its LSN, marks `old`, and images used by nobody living any more, dead, and
    /// raises the generation of every database that was touched. Fails with
    /// [`CatalogError::Conflict`], changing nothing, if one of `old` is not living and sealed, if
    /// one of `new` has segments that do not cover all of it, or if any reference or any snapshot of the database has an LSN within the old layers' ranges
    /// that is not in `kept`.
    fn replace_layers(
        &self,
        id: DatabaseId,
        old: &[LayerId],
        new: &[LayerRow],
        kept: &[Lsn],
    ) -> Result<()>;

    // ---- snapshots ----

    /// Makes a snapshot. Taking the same commit twice makes two snapshots.
    /// [`CatalogError::Conflict`] where no living layer covers the commit. Durable.
    fn add_snapshot(&self, id: DatabaseId, snapshot: &NewSnapshot) -> Result<Snapshot>;

    /// A database's snapshots by LSN, then by creation. A clone does not inherit its source's.
    fn snapshots(&self, id: DatabaseId) -> Result<Vec<Snapshot>>;

    /// One snapshot by name.
    fn snapshot_by_name(&self, id: DatabaseId, name: &SnapshotName) -> Result<Snapshot>;

    /// One snapshot by id.
    fn snapshot_by_id(&self, id: DatabaseId, snapshot: SnapshotId) -> Result<Snapshot>;

    /// Takes a snapshot away; its commit is then under retention alone. Durable.
    fn remove_snapshot(&self, id: DatabaseId, snapshot: SnapshotId) -> Result<()>;

    // ---- pins ----

    /// Resolves the chain of the state `point` (`None`: the empty one) and pins its layers for
    /// `ttl`, in one transaction. [`CatalogError::NoSuchLayer`] if the point's layer is not living
    /// (then resolve again).
    fn pin_chain(
        &self,
        id: DatabaseId,
        point: Option<StatePoint>,
        pin: u64,
        holder: &Holder,
        ttl: Duration,
    ) -> Result<Chain>;

    /// Resolves the chain of a state without pinning it.
    fn chain(&self, id: DatabaseId, point: Option<StatePoint>) -> Result<Chain>;

    /// Replaces the set of layers that a pin keeps by `layers`, which must all be in the catalog
    /// (dead ones may be, if the pin held them), and renews it.
    fn set_pin(&self, pin: u64, holder: &Holder, layers: &[LayerId], ttl: Duration) -> Result<()>;

    /// Renews a pin. `false` if it is gone: the reader must answer ESTALE from then on.
    fn renew_pin(&self, pin: u64, ttl: Duration) -> Result<bool>;

    /// Ends a pin.
    fn unpin(&self, pin: u64) -> Result<()>;

    // ---- garbage collection ----

    /// Everything, in one reading.
    fn inventory(&self) -> Result<Inventory>;

    /// The sweep, in one durable transaction: `mark` gets the inventory as it is inside the
    /// transaction and returns the layers to keep. Layers that are not kept get `dead_since` (if
    /// they have none); kept ones that have it by mistake lose it (not by mistake: what was
    /// replaced or rotated without a commit, what stands on or uses a dead layer, and whose commits
    /// another living layer covers); rows that have been dead for `grace` or longer and are not
    /// kept are deleted and returned. Whatever `mark` says, no row is deleted
    /// that an unexpired pin, a living database's head or a kept layer refers to. Removed
    /// databases that own no layer, are beyond their retention and are no clone's base are deleted
    /// too, with their snapshots, and so are expired pins. The objects of deleted rows become
    /// garbage. With `dry_run` nothing changes and the
    /// return value is what would be deleted.
    fn sweep(
        &self,
        grace: Duration,
        dry_run: bool,
        mark: &mut dyn FnMut(&Inventory) -> Vec<LayerId>,
    ) -> Result<Vec<LayerRow>>;

    /// Whether a layer has a row, dead or alive: what has none, and is older than the grace
    /// period, is an orphan.
    fn knows_layer(&self, layer: LayerId) -> Result<bool>;

    /// The segments that a layer has now, dead or alive; none where it has no row. Sealing may replace
    /// them, and their objects go after the grace period, while somebody reads the layer.
    fn segments(&self, layer: LayerId) -> Result<Vec<Segment>>;

    /// Whether a segment names the object: what none names, and is older than the grace period,
    /// is an orphan.
    fn knows_object(&self, key: &str) -> Result<bool>;

    /// The objects that were a segment's and have not been for `older_than`, oldest first: delete
    /// them from the store, then [`Catalog::forget_garbage`].
    fn garbage(&self, older_than: Duration) -> Result<Vec<String>>;

    /// Condemns orphans: those of the objects that no segment names, and that are not garbage, can
    /// not become a segment for `remembered` from now on, and may be deleted from the store. They
    /// are returned, with those that were condemned before. Then they are garbage, to be forgotten.
    /// Durable.
    fn condemn(&self, keys: &[String], remembered: Duration) -> Result<Vec<String>>;

    /// Notes that these objects are deleted; those that are no garbage are passed over. Not
    /// durable: to delete an object again does no harm.
    fn forget_garbage(&self, keys: &[String]) -> Result<()>;

    // ---- watching ----

    /// Word of other processes' changes, where the catalog has a way to be told; a follower of
    /// one that has none polls.
    fn changes(&self) -> Option<Arc<Changes>> {
        None
    }
}
