//! What the claims are told with: databases with a few layers, made in one line each.
//!
//! Commit n of every database has the time and the byte count that [`time`] and [`written`] say,
//! so that a head is known by its LSN alone.

#![allow(
    clippy::unwrap_used,
    reason = "a call that fails is a claim that fails"
)]

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use crate::catalog::{
    Base, Catalog, CommitRange, Database, Head, Holder, LayerKind, LayerRow, LayerState,
    NewSnapshot, Rotation, Segment, Snapshot, StatePoint,
};
use crate::id::{DatabaseId, DatabaseName, Epoch, LayerId, Lsn, Timestamp, random_u64};

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const TTL: Duration = Duration::from_secs(15);
pub(super) const GRACE: Duration = Duration::from_secs(900);
pub(super) const DAY_S: u64 = 86_400;
/// An image's length, not whole pages, and that of what belongs to it.
pub(super) const IMAGE_BYTES: u64 = (1 << 20) + 100;
pub(super) const SUMS_BYTES: u64 = 4096 + 132;

/// Checks that a call was refused, and in which way.
macro_rules! assert_refused {
    ($call:expr, $how:pat $(if $guard:expr)?) => {
        match $call {
            Err($how) $(if $guard)? => {}
            other => panic!("{} gave {other:?}, not {}", stringify!($call), stringify!($how)),
        }
    };
}
pub(super) use assert_refused;

pub(super) fn name(text: &str) -> DatabaseName {
    text.parse().unwrap()
}

pub(super) fn holder(instance: &str) -> Holder {
    Holder {
        host: "somewhere".to_owned(),
        pid: 4711,
        instance: instance.to_owned(),
    }
}

pub(super) fn at(layer: LayerId, lsn: u64) -> StatePoint {
    StatePoint {
        layer,
        lsn: Lsn(lsn),
    }
}

pub(super) fn time(lsn: u64) -> Timestamp {
    Timestamp(1_000_000).plus_seconds(i64::try_from(lsn).unwrap_or(i64::MAX))
}

pub(super) fn written(lsn: u64) -> u64 {
    lsn.saturating_mul(4096)
}

pub(super) fn head(layer: LayerId, lsn: u64) -> Head {
    Head {
        point: Some(at(layer, lsn)),
        time: time(lsn),
        written_bytes: written(lsn),
    }
}

pub(super) fn ids(rows: &[LayerRow]) -> Vec<LayerId> {
    rows.iter().map(|row| row.id).collect()
}

pub(super) fn lsns(range: RangeInclusive<u64>) -> Vec<Lsn> {
    range.map(Lsn).collect()
}

/// A database whose lease is held.
pub(super) struct Writing<'a> {
    pub(super) catalog: &'a dyn Catalog,
    pub(super) id: DatabaseId,
    pub(super) epoch: Epoch,
}

/// Makes a database, and takes its lease.
pub(super) fn database<'a>(catalog: &'a dyn Catalog, called: &str) -> Writing<'a> {
    let database = catalog.create_database(&name(called), DAY_S, None).unwrap();
    write(catalog, database.id)
}

/// Makes a clone of a state, and takes its lease.
pub(super) fn clone<'a>(source: &Writing<'a>, point: StatePoint, called: &str) -> Writing<'a> {
    let base = Base {
        database: source.id,
        point: Some(point),
    };
    let made = source
        .catalog
        .create_database(
            &name(called),
            DAY_S,
            Some((base, time(point.lsn.0), written(point.lsn.0))),
        )
        .unwrap();
    write(source.catalog, made.id)
}

fn write(catalog: &dyn Catalog, id: DatabaseId) -> Writing<'_> {
    let lease = catalog
        .acquire_lease(id, &holder("writer"), TTL, &|_| false)
        .unwrap();
    Writing {
        catalog,
        id,
        epoch: lease.epoch,
    }
}

impl Writing<'_> {
    /// The row of a new active layer.
    pub(super) fn active_row(&self, first: u64, parent: Option<StatePoint>) -> LayerRow {
        LayerRow::begun(
            LayerId::random(self.epoch),
            self.id,
            parent,
            Lsn(first),
            time(first),
        )
    }

    /// The row of a sealed layer.
    pub(super) fn sealed_row(
        &self,
        commits: RangeInclusive<u64>,
        parent: Option<StatePoint>,
    ) -> LayerRow {
        LayerRow {
            state: LayerState::Sealed,
            last_lsn: Some(Lsn(*commits.end())),
            first_time: Some(time(*commits.start())),
            last_time: Some(time(*commits.end())),
            end: Some(written(*commits.end())),
            bytes: Some(written(*commits.end()) + 512),
            hash: Some([0xab; 32]),
            ..self.active_row(*commits.start(), parent)
        }
    }

    /// The row of an image layer.
    pub(super) fn image_row(&self) -> LayerRow {
        LayerRow {
            kind: LayerKind::Image,
            state: LayerState::Sealed,
            end: Some(IMAGE_BYTES),
            bytes: Some(IMAGE_BYTES + SUMS_BYTES),
            hash: Some([0xcd; 32]),
            ..self.active_row(0, None)
        }
    }

    /// Adds an image layer.
    pub(super) fn image(&self) -> LayerId {
        self.add(self.image_row())
    }

    /// Adds an active layer.
    pub(super) fn active(&self, first: u64, parent: Option<StatePoint>) -> LayerId {
        self.add(self.active_row(first, parent))
    }

    fn add(&self, row: LayerRow) -> LayerId {
        self.catalog.add_layer(self.epoch, &row).unwrap();
        row.id
    }

    /// Adds a layer, rotates it, and moves the head to its last commit.
    pub(super) fn rotated(
        &self,
        commits: RangeInclusive<u64>,
        parent: Option<StatePoint>,
    ) -> LayerId {
        self.rotated_over(commits, parent, &[])
    }

    fn rotated_over(
        &self,
        commits: RangeInclusive<u64>,
        parent: Option<StatePoint>,
        images: &[LayerId],
    ) -> LayerId {
        let layer = self.active(*commits.start(), parent);
        let rotation = Rotation {
            images: images.to_vec(),
            ..rotation(layer, commits.clone())
        };
        let head = head(layer, *commits.end());
        self.catalog
            .rotate(self.id, self.epoch, &rotation, &head)
            .unwrap();
        layer
    }

    /// Adds a layer, rotates and seals it, and moves the head to its last commit.
    pub(super) fn sealed(
        &self,
        commits: RangeInclusive<u64>,
        parent: Option<StatePoint>,
    ) -> LayerId {
        self.sealed_over(commits, parent, &[])
    }

    /// As [`Writing::sealed`], of a layer that uses these images.
    pub(super) fn sealed_over(
        &self,
        commits: RangeInclusive<u64>,
        parent: Option<StatePoint>,
        images: &[LayerId],
    ) -> LayerId {
        let end = *commits.end();
        let layer = self.rotated_over(commits, parent, images);
        self.catalog
            .seal(layer, written(end) + 512, [0xab; 32], None)
            .unwrap();
        layer
    }

    pub(super) fn row(&self) -> Database {
        self.catalog.database_by_id(self.id).unwrap()
    }

    pub(super) fn head(&self) -> Option<StatePoint> {
        self.row().head.point
    }

    pub(super) fn generation(&self) -> u64 {
        self.row().generation
    }

    /// One layer's row, dead or alive.
    pub(super) fn layer(&self, id: LayerId) -> LayerRow {
        let rows = self.catalog.inventory().unwrap().layers;
        rows.into_iter()
            .find(|row| row.id == id)
            .expect("the layer has a row")
    }

    pub(super) fn living(&self) -> Vec<LayerId> {
        ids(&self.catalog.layers(self.id).unwrap())
    }

    pub(super) fn chain(&self, point: StatePoint) -> Vec<LayerId> {
        ids(&self.catalog.chain(self.id, Some(point)).unwrap().layers)
    }

    pub(super) fn find(&self, lsn: u64) -> Option<LayerId> {
        self.catalog
            .find_lsn(self.id, Lsn(lsn))
            .unwrap()
            .map(|row| row.id)
    }

    pub(super) fn snapshot(&self, called: &str, lsn: u64) -> Snapshot {
        self.catalog
            .add_snapshot(self.id, &snapshot(called, lsn))
            .unwrap()
    }

    pub(super) fn release(&self) {
        self.catalog.release_lease(self.id, self.epoch).unwrap();
    }

    /// Releases the lease, and removes the database.
    pub(super) fn remove(&self) {
        self.release();
        self.catalog.drop_database(self.id).unwrap();
    }
}

pub(super) fn rotation(layer: LayerId, commits: RangeInclusive<u64>) -> Rotation {
    Rotation {
        layer,
        end: written(*commits.end()),
        commits: Some(CommitRange {
            first_lsn: Lsn(*commits.start()),
            last_lsn: Lsn(*commits.end()),
            first_time: time(*commits.start()),
            last_time: time(*commits.end()),
        }),
        images: Vec::new(),
    }
}

/// A new object that holds these bytes of a layer, and these commits.
pub(super) fn segment(bytes: Range<u64>, commits: RangeInclusive<u64>) -> Segment {
    let length = bytes.end - bytes.start;
    Segment {
        begin: bytes.start,
        end: bytes.end,
        key: format!("some/layer/{:012x}-{:016x}", bytes.start, random_u64()),
        bytes: length / 2 + 1,
        tail: length / 4,
        commits: (!commits.is_empty()).then(|| CommitRange {
            first_lsn: Lsn(*commits.start()),
            last_lsn: Lsn(*commits.end()),
            first_time: time(*commits.start()),
            last_time: time(*commits.end()),
        }),
    }
}

pub(super) fn keys(segments: &[Segment]) -> Vec<String> {
    segments.iter().map(|segment| segment.key.clone()).collect()
}

/// No commits.
pub(super) const NONE: RangeInclusive<u64> = RangeInclusive::new(1, 0);

/// A snapshot to be; without a name if that is empty.
pub(super) fn snapshot(called: &str, lsn: u64) -> NewSnapshot {
    NewSnapshot {
        name: (!called.is_empty()).then(|| called.parse().unwrap()),
        lsn: Lsn(lsn),
        time: time(lsn),
        written_bytes: written(lsn),
    }
}

/// Sweeps, keeping these layers alone.
pub(super) fn sweep(catalog: &dyn Catalog, grace: Duration, kept: &[LayerId]) -> Vec<LayerId> {
    let mut deleted = ids(&catalog.sweep(grace, false, &mut |_| kept.to_vec()).unwrap());
    deleted.sort_unstable();
    deleted
}

/// Sweeps as a caller that keeps what lives already.
pub(super) fn sweep_dead(catalog: &dyn Catalog, grace: Duration) -> Vec<LayerId> {
    let mut deleted = ids(&catalog
        .sweep(grace, false, &mut |inventory| {
            inventory
                .layers
                .iter()
                .filter(|row| row.dead_since.is_none())
                .map(|row| row.id)
                .collect()
        })
        .unwrap());
    deleted.sort_unstable();
    deleted
}

/// Makes a layer dead, as a sweep that finds nothing referring to it.
pub(super) fn kill(catalog: &dyn Catalog, layer: LayerId) {
    let all = ids(&catalog.inventory().unwrap().layers);
    let kept: Vec<LayerId> = all.into_iter().filter(|id| *id != layer).collect();
    sweep(catalog, GRACE, &kept);
}
