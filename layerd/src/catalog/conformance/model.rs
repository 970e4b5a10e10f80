//! The claim about everything together: whatever is done in whatever order, each state that is
//! held reads as it was written.
//!
//! The model knows no layers, parents or references. To it a database's commit is the list of the
//! tokens that were written on the way to it, one per commit. Beside it stands what layer *files*
//! would hold: per layer its commits, each with the tokens that it adds. Reading a state through
//! the catalog's chain and those files must give the model's list.
//!
//! Some databases are in a remote store. Of their objects the model knows the keys alone: each that
//! was ever published is named by one segment, or garbage, or was forgotten.
//!
//! Histories are made from a seed. `CATALOG_MODEL_SEEDS=500` runs so many of them by hand.

#![allow(
    clippy::unwrap_used,
    reason = "a call that fails is a claim that fails"
)]

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use super::Harness;
use super::fixture::*;
use crate::catalog::{
    Base, Catalog, CatalogError, Inventory, LayerKind, LayerRow, LayerState, Rotation, StatePoint,
};
use crate::id::{DatabaseId, Epoch, LayerId, Lsn};

const STEPS: usize = 120;

type Tokens = Vec<u64>;

/// Random numbers that a seed fixes (splitmix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of `0..count`.
    fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.roll() % count as u64).unwrap()
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| from[self.below(from.len())])
    }

    /// True in one of `of` cases.
    fn once_in(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }
}

struct Known {
    id: DatabaseId,
    called: String,
    epoch: Epoch,
    is_remote: bool,
    is_removed: bool,
    active: Option<LayerId>,
    head: Option<u64>,
    base: Option<u64>,
    last_lsn: u64,
    /// What each commit was when it was written or inherited.
    states: BTreeMap<u64, Tokens>,
    snapshots: Vec<(crate::id::SnapshotId, u64)>,
}

struct History<'a> {
    harness: &'a dyn Harness,
    catalog: Box<dyn Catalog>,
    dice: Dice,
    seed: u64,
    databases: Vec<Known>,
    /// What the layers' files hold: commits, and the tokens that each adds.
    files: HashMap<LayerId, Vec<(u64, Tokens)>>,
    pins: HashMap<u64, Vec<LayerId>>,
    /// The keys of all objects that were published and not forgotten.
    objects: BTreeSet<String>,
    token: u64,
}

pub(super) fn any_history_is_what_a_simple_model_makes_of_it(harness: &dyn Harness) {
    let seeds = std::env::var("CATALOG_MODEL_SEEDS").map_or(harness.histories(), |count| {
        count.parse().expect("CATALOG_MODEL_SEEDS is a number")
    });
    for seed in 0..seeds {
        let mut history = History {
            harness,
            catalog: harness.connect(),
            dice: Dice(seed),
            seed,
            databases: Vec::new(),
            files: HashMap::new(),
            pins: HashMap::new(),
            objects: BTreeSet::new(),
            token: 0,
        };
        history.create();
        for step in 0..STEPS {
            history.step();
            history.check(&format!("seed {seed}, step {step}"));
        }
        history.end();
    }
}

impl History<'_> {
    fn step(&mut self) {
        if self.dice.once_in(20) {
            return self.create();
        }
        let n = self.dice.below(self.databases.len());
        if self.databases[n].is_removed {
            return self.undrop(n);
        }
        match self.dice.below(16) {
            0..=3 => self.commit(n),
            4 | 5 => self.rotate(n),
            6 => self.snapshot(n),
            7 => self.unsnapshot(n),
            8 => self.clone(n),
            9 => self.restore(n),
            10..=12 => self.replace(n),
            13 => self.pin(n),
            14 => self.sweep(),
            _ if self.dice.once_in(3) => self.remove(n),
            _ => self
                .harness
                .advance(Duration::from_secs(self.dice.roll() % 600)),
        }
    }

    // ---- what may happen ----

    fn create(&mut self) {
        let called = self.new_name();
        let id = self
            .catalog
            .create_database(&name(&called), DAY_S, None)
            .unwrap()
            .id;
        self.adopt(id, called, None, BTreeMap::new());
    }

    fn new_name(&self) -> String {
        format!("s{}-{}", self.seed, self.databases.len())
    }

    fn adopt(
        &mut self,
        id: DatabaseId,
        called: String,
        base: Option<u64>,
        states: BTreeMap<u64, Tokens>,
    ) {
        let epoch = self.lease(id);
        let is_remote = self.dice.once_in(2);
        self.databases.push(Known {
            id,
            called,
            epoch,
            is_remote,
            is_removed: false,
            active: None,
            head: base,
            base,
            last_lsn: base.unwrap_or(0),
            states,
            snapshots: Vec::new(),
        });
    }

    fn lease(&self, id: DatabaseId) -> Epoch {
        self.catalog
            .acquire_lease(id, &holder("writer"), TTL, &|_| true)
            .unwrap()
            .epoch
    }

    fn commit(&mut self, n: usize) {
        let parent = self
            .catalog
            .database_by_id(self.databases[n].id)
            .unwrap()
            .head
            .point;
        let layer = match self.databases[n].active {
            Some(layer) => layer,
            None => self.add_layer(n, parent),
        };
        let before = self.databases[n]
            .head
            .map(|lsn| self.databases[n].states[&lsn].clone());
        self.write_commit(n, layer, before.unwrap_or_default());
        let database = &self.databases[n];
        let (id, epoch) = (database.id, database.epoch);
        let head = head(layer, database.last_lsn);
        if !database.is_remote || self.dice.once_in(4) {
            return self.catalog.publish(id, epoch, &head, None).unwrap();
        }
        let begin = self.segments_end(n, layer);
        let end = written(self.databases[n].last_lsn) - 96;
        let segment = segment(begin - begin % 4096..end, NONE);
        let publish = || self.catalog.publish(id, epoch, &head, Some(&segment));
        if self.catalog.lease(id).unwrap().is_none() {
            assert_refused!(publish(), CatalogError::Conflict(_));
            self.catalog.renew_lease(id, epoch, TTL).unwrap();
        }
        publish().unwrap();
        self.objects.insert(segment.key);
    }

    /// Where the layer's segments end.
    fn segments_end(&self, n: usize, layer: LayerId) -> u64 {
        let segments = self.writing(n).layer(layer).segments;
        segments.last().map_or(0, |last| last.end)
    }

    fn add_layer(&mut self, n: usize, parent: Option<StatePoint>) -> LayerId {
        let image = self.dice.once_in(3).then(|| self.writing(n).image());
        let database = &self.databases[n];
        let writing = self.writing(n);
        let images = image.into_iter().collect();
        let row = LayerRow {
            images,
            ..writing.active_row(database.last_lsn + 1, parent)
        };
        self.catalog.add_layer(database.epoch, &row).unwrap();
        self.databases[n].active = Some(row.id);
        self.files.insert(row.id, Vec::new());
        row.id
    }

    fn writing(&self, n: usize) -> Writing<'_> {
        let database = &self.databases[n];
        Writing {
            catalog: &*self.catalog,
            id: database.id,
            epoch: database.epoch,
        }
    }

    /// Adds the next commit, on the state `before`, to a layer's file.
    fn write_commit(&mut self, n: usize, layer: LayerId, before: Tokens) {
        self.token += 1;
        let database = &mut self.databases[n];
        database.last_lsn += 1;
        database.head = Some(database.last_lsn);
        let state = before.into_iter().chain([self.token]).collect();
        database.states.insert(database.last_lsn, state);
        self.files
            .get_mut(&layer)
            .unwrap()
            .push((database.last_lsn, vec![self.token]));
    }

    fn rotate(&mut self, n: usize) {
        let writing = self.writing(n);
        if let Some(layer) = self.databases[n].active {
            let commits = &self.files[&layer];
            let (first, last) = (commits[0].0, commits[commits.len() - 1].0);
            let images = writing.layer(layer).images;
            let rotation = Rotation {
                images,
                ..rotation(layer, first..=last)
            };
            self.catalog
                .rotate(writing.id, writing.epoch, &rotation, &head(layer, last))
                .unwrap();
        }
        for row in self.catalog.layers(writing.id).unwrap() {
            if row.state == LayerState::Rotated {
                self.seal(n, row);
            }
        }
        self.databases[n].active = None;
    }

    /// Seals a layer; a remote one with a new object at the end, and perhaps the old ones before.
    fn seal(&mut self, n: usize, row: LayerRow) {
        let bytes = row.end.unwrap() + 512;
        let segments = self.databases[n].is_remote.then(|| {
            let mut segments = row.segments;
            segments.truncate(self.dice.below(1 + segments.len()));
            let begin = segments.last().map_or(0, |last| last.end);
            segments.push(segment(begin - begin % 4096..bytes, NONE));
            segments
        });
        let sealed = self
            .catalog
            .seal(row.id, bytes, [1; 32], segments.as_deref());
        assert!(sealed.unwrap());
        self.objects.extend(keys(&segments.unwrap_or_default()));
    }

    /// A commit that a living layer of the database holds.
    fn any_commit(&mut self, n: usize) -> Option<StatePoint> {
        let layers = self.catalog.layers(self.databases[n].id).unwrap();
        let commits: Vec<StatePoint> = layers
            .iter()
            .filter_map(|row| self.files.get(&row.id).map(|commits| (row.id, commits)))
            .flat_map(|(layer, commits)| commits.iter().map(move |(lsn, _)| at(layer, *lsn)))
            .collect();
        self.dice.pick(&commits)
    }

    fn snapshot(&mut self, n: usize) {
        let Some(point) = self.any_commit(n) else {
            return;
        };
        let database = &mut self.databases[n];
        let made = self
            .catalog
            .add_snapshot(database.id, &snapshot("", point.lsn.0))
            .unwrap();
        database.snapshots.push((made.id, point.lsn.0));
    }

    fn unsnapshot(&mut self, n: usize) {
        let database = &mut self.databases[n];
        if let Some((id, _)) = database.snapshots.pop() {
            self.catalog.remove_snapshot(database.id, id).unwrap();
        }
    }

    fn clone(&mut self, n: usize) {
        let Some(point) = self.any_commit(n) else {
            return;
        };
        let lsn = point.lsn.0;
        let base = Base {
            database: self.databases[n].id,
            point: Some(point),
        };
        let called = self.new_name();
        let id = self
            .catalog
            .create_database(&name(&called), DAY_S, Some((base, time(lsn), written(lsn))))
            .unwrap()
            .id;
        let state = self.databases[n].states[&lsn].clone();
        self.adopt(id, called, Some(lsn), BTreeMap::from([(lsn, state)]));
    }

    fn restore(&mut self, n: usize) {
        let Some(point) = self.any_commit(n) else {
            return;
        };
        self.rotate(n);
        let layer = self.add_layer(n, Some(point));
        let before = self.databases[n].states[&point.lsn.0].clone();
        self.write_commit(n, layer, before);
        self.rotate(n);
    }

    fn replace(&mut self, n: usize) {
        let id = self.databases[n].id;
        let run = self.any_run(n);
        let (Some(first), Some(last)) = (run.first(), run.last()) else {
            return;
        };
        let old = ids(&run);
        let inventory = self.catalog.inventory().unwrap();
        let needed = needed(
            &inventory,
            id,
            first.first_lsn..=last.last_lsn.unwrap(),
            &old,
        );
        let mut kept = needed.clone();
        let all: Vec<(u64, Tokens)> = old
            .iter()
            .flat_map(|layer| self.files[layer].clone())
            .collect();
        kept.extend(
            all.iter()
                .map(|(lsn, _)| *lsn)
                .filter(|_| self.dice.once_in(4)),
        );
        let forgotten = self
            .dice
            .once_in(8)
            .then(|| kept.iter().next().copied())
            .flatten();
        if let Some(lsn) = forgotten {
            kept.remove(&lsn);
        }
        // Folds what each kept commit and the dropped ones before it add.
        let mut folded: Vec<(u64, Tokens)> = Vec::new();
        let mut pending = Vec::new();
        for (lsn, tokens) in all {
            pending.extend(tokens);
            if kept.contains(&lsn) {
                folded.push((lsn, std::mem::take(&mut pending)));
            }
        }
        let new: Vec<LayerRow> = folded
            .first()
            .zip(folded.last())
            .map(|(from, to)| {
                let row = self.writing(n).sealed_row(from.0..=to.0, first.parent);
                let object = segment(0..row.length().unwrap(), NONE);
                LayerRow {
                    images: run.iter().flat_map(|row| row.images.clone()).collect(),
                    segments: Vec::from_iter(self.databases[n].is_remote.then_some(object)),
                    ..row
                }
            })
            .into_iter()
            .collect();
        let kept: Vec<Lsn> = kept.into_iter().map(Lsn).collect();
        let replaced = self.catalog.replace_layers(id, &old, &new, &kept);
        if forgotten.is_some_and(|lsn| needed.contains(&lsn)) {
            assert_refused!(replaced, CatalogError::Conflict(_));
            return;
        }
        replaced.unwrap();
        for row in new {
            self.files.insert(row.id, folded.clone());
            self.objects.extend(keys(&row.segments));
        }
    }

    /// Sealed layers of the database that stand on each other's ends.
    fn any_run(&mut self, n: usize) -> Vec<LayerRow> {
        let layers = self.catalog.layers(self.databases[n].id).unwrap();
        let sealed: Vec<LayerRow> = layers
            .into_iter()
            .filter(|row| row.kind == LayerKind::Delta && row.state == LayerState::Sealed)
            .collect();
        let mut run: Vec<LayerRow> = Vec::new();
        if sealed.is_empty() {
            return run;
        }
        let length = 1 + self.dice.below(4);
        let from = self.dice.below(sealed.len());
        for row in sealed.into_iter().skip(from).take(length) {
            let fits = run.last().is_none_or(|below| {
                row.parent
                    == Some(StatePoint {
                        layer: below.id,
                        lsn: below.last_lsn.unwrap(),
                    })
            });
            if !fits {
                break;
            }
            run.push(row);
        }
        run
    }

    fn pin(&mut self, n: usize) {
        let pin = self.dice.roll();
        let id = self.databases[n].id;
        let point = self.catalog.database_by_id(id).unwrap().head.point;
        let chain = self
            .catalog
            .pin_chain(id, point, pin, &holder("reader"), 2 * GRACE)
            .unwrap();
        self.pins.insert(pin, ids(&chain.layers));
        if self.pins.len() > 2 {
            let gone = *self.pins.keys().next().unwrap();
            self.catalog.unpin(gone).unwrap();
            self.pins.remove(&gone);
        }
    }

    fn sweep(&mut self) {
        let grace = if self.dice.once_in(2) {
            Duration::ZERO
        } else {
            GRACE
        };
        // What is pinned the catalog must hold by itself, and must not take for living.
        let names_pinned = self.dice.once_in(2);
        let deleted = self
            .catalog
            .sweep(grace, false, &mut |inventory| {
                let mut kept = reachable(inventory);
                if names_pinned {
                    kept.extend(inventory.pins.iter().flat_map(|pin| &pin.layers));
                }
                kept.into_iter().collect()
            })
            .unwrap();
        for row in deleted {
            self.files.remove(&row.id);
        }
        self.pins
            .retain(|pin, _| self.catalog.renew_pin(*pin, 2 * GRACE).unwrap());
        if self.dice.once_in(2) {
            let deleted = self.catalog.garbage(grace).unwrap();
            self.catalog.forget_garbage(&deleted).unwrap();
            self.objects.retain(|key| !deleted.contains(key));
        }
    }

    fn remove(&mut self, n: usize) {
        self.rotate(n);
        self.writing(n).remove();
        self.databases[n].is_removed = true;
    }

    fn undrop(&mut self, n: usize) {
        let back = self
            .catalog
            .undrop_database(&name(&self.databases[n].called))
            .unwrap();
        assert_eq!(back.id, self.databases[n].id);
        self.databases[n].epoch = self.lease(back.id);
        self.databases[n].is_removed = false;
    }

    /// When all is removed and nothing retained, nothing stays.
    fn end(&mut self) {
        for n in 0..self.databases.len() {
            if self.databases[n].is_removed {
                self.undrop(n);
            }
            self.catalog.set_retention(self.databases[n].id, 0).unwrap();
            self.writing(n).remove();
        }
        for pin in self.pins.keys() {
            self.catalog.unpin(*pin).unwrap();
        }
        sweep(&*self.catalog, Duration::ZERO, &[]);
        let left = self.catalog.inventory().unwrap();
        assert_eq!((left.databases, left.layers), (vec![], vec![]));
        assert_eq!((left.snapshots, left.leases), (vec![], vec![]));
        let garbage: BTreeSet<String> = self.garbage().into_iter().collect();
        assert_eq!(garbage, self.objects);
        self.catalog.forget_garbage(&self.garbage()).unwrap();
    }

    fn garbage(&self) -> Vec<String> {
        self.catalog.garbage(Duration::ZERO).unwrap()
    }

    // ---- what must hold ----

    fn check(&self, when: &str) {
        for database in self
            .databases
            .iter()
            .filter(|database| !database.is_removed)
        {
            let row = self.catalog.database_by_id(database.id).unwrap();
            assert_eq!(
                row.head.point.map(|point| point.lsn.0),
                database.head,
                "{when}"
            );
            let held = database.snapshots.iter().map(|(_, lsn)| *lsn);
            for lsn in held.chain(database.head).chain(database.base) {
                let found = self.catalog.find_lsn(database.id, Lsn(lsn)).unwrap();
                let layer = found
                    .unwrap_or_else(|| panic!("{when}: commit {lsn} is lost"))
                    .id;
                let read = self.read(database.id, at(layer, lsn));
                assert_eq!(read, database.states[&lsn], "{when}: commit {lsn}");
            }
            if let Some(point) = row.head.point {
                assert_eq!(
                    self.read(database.id, point),
                    database.states[&point.lsn.0],
                    "{when}"
                );
            }
        }
        let inventory = self.catalog.inventory().unwrap();
        check_rows(&inventory, when);
        self.check_objects(&inventory, when);
        for layer in self.pins.values().flatten() {
            assert!(
                self.catalog.knows_layer(*layer).unwrap(),
                "{when}: {layer} was pinned"
            );
        }
    }

    /// Every object is in one segment, or garbage, and segments have no gaps.
    fn check_objects(&self, inventory: &Inventory, when: &str) {
        let mut objects = self.garbage();
        for key in &objects {
            assert!(!self.catalog.knows_object(key).unwrap(), "{when}");
        }
        for row in &inventory.layers {
            let mut end = 0;
            for segment in &row.segments {
                assert_eq!(segment.begin, end - end % 4096, "{when}: {}", row.id);
                end = segment.end;
                assert!(self.catalog.knows_object(&segment.key).unwrap(), "{when}");
            }
            let is_whole = end == 0 || row.state != LayerState::Sealed || Some(end) == row.length();
            assert!(is_whole, "{when}: {} ends at {end}", row.id);
            objects.extend(keys(&row.segments));
        }
        objects.sort_unstable();
        let expected: Vec<&String> = self.objects.iter().collect();
        assert_eq!(objects.iter().collect::<Vec<_>>(), expected, "{when}");
    }

    /// What a reader of the state finds.
    fn read(&self, id: DatabaseId, point: StatePoint) -> Tokens {
        let chain = self.catalog.chain(id, Some(point)).unwrap();
        let deltas: Vec<&LayerRow> = chain
            .layers
            .iter()
            .filter(|row| row.kind == LayerKind::Delta)
            .collect();
        let mut found = Vec::new();
        for (position, row) in deltas.iter().enumerate() {
            let cut = match deltas.get(position + 1) {
                Some(above) => above.parent.expect("only the bottom has no parent"),
                None => point,
            };
            assert_eq!(cut.layer, row.id);
            let commits = &self.files[&row.id];
            assert!(
                commits.iter().any(|(lsn, _)| *lsn == cut.lsn.0),
                "the commit is there"
            );
            let read = commits.iter().take_while(|(lsn, _)| *lsn <= cut.lsn.0);
            found.extend(read.flat_map(|(_, tokens)| tokens));
        }
        found
    }
}

/// The commits within the range that something refers to.
fn needed(
    inventory: &Inventory,
    id: DatabaseId,
    range: std::ops::RangeInclusive<Lsn>,
    old: &[LayerId],
) -> BTreeSet<u64> {
    let parents = inventory
        .layers
        .iter()
        .filter(|row| row.dead_since.is_none() && !old.contains(&row.id))
        .filter_map(|row| row.parent);
    let heads = inventory
        .databases
        .iter()
        .filter_map(|database| database.head.point);
    let bases = inventory
        .databases
        .iter()
        .filter_map(|database| database.base?.point);
    let snapshots = inventory
        .snapshots
        .iter()
        .filter(|(of, snapshot)| *of == id && range.contains(&snapshot.lsn))
        .map(|(_, snapshot)| snapshot.lsn.0);
    parents
        .chain(heads)
        .chain(bases)
        .filter(|point| old.contains(&point.layer))
        .map(|point| point.lsn.0)
        .chain(snapshots)
        .collect()
}

/// What is not garbage: chains of heads, bases and snapshots, and active layers.
fn reachable(inventory: &Inventory) -> HashSet<LayerId> {
    let living = || {
        inventory
            .layers
            .iter()
            .filter(|row| row.dead_since.is_none())
    };
    let mut todo: Vec<LayerId> = living()
        .filter(|row| row.state == LayerState::Active)
        .map(|row| row.id)
        .collect();
    for database in &inventory.databases {
        let base = database.base.and_then(|base| base.point);
        todo.extend(
            database
                .head
                .point
                .into_iter()
                .chain(base)
                .map(|point| point.layer),
        );
    }
    for (id, snapshot) in &inventory.snapshots {
        todo.extend(
            living()
                .filter(|row| {
                    row.database == *id
                        && row.first_lsn <= snapshot.lsn
                        && row.last_lsn.is_some_and(|last| snapshot.lsn <= last)
                })
                .map(|row| row.id),
        );
    }
    let rows: HashMap<LayerId, &LayerRow> =
        inventory.layers.iter().map(|row| (row.id, row)).collect();
    let mut found = HashSet::new();
    while let Some(layer) = todo.pop() {
        let Some(row) = rows.get(&layer) else {
            continue;
        };
        if found.insert(layer) {
            todo.extend(
                row.parent
                    .map(|point| point.layer)
                    .into_iter()
                    .chain(row.images.clone()),
            );
        }
    }
    found
}

/// The invariants over all rows: nothing that lives dangles, and no two living layers of a
/// database hold one commit.
fn check_rows(inventory: &Inventory, when: &str) {
    let rows: HashMap<LayerId, &LayerRow> = inventory
        .layers
        .iter()
        .filter(|row| row.dead_since.is_none())
        .map(|row| (row.id, row))
        .collect();
    let mut ranges: BTreeMap<(DatabaseId, Lsn), Option<Lsn>> = BTreeMap::new();
    for row in rows.values() {
        if let Some(parent) = row.parent {
            let below = rows.get(&parent.layer);
            let below = below.unwrap_or_else(|| panic!("{when}: {} dangles", row.id));
            assert!(
                below.first_lsn <= parent.lsn && parent.lsn < row.first_lsn,
                "{when}"
            );
        }
        assert!(
            row.images.iter().all(|image| rows.contains_key(image)),
            "{when}"
        );
        if row.kind == LayerKind::Delta {
            let is_new = ranges
                .insert((row.database, row.first_lsn), row.last_lsn)
                .is_none();
            assert!(is_new, "{when}: two layers begin with one commit");
        }
    }
    let ranges: Vec<_> = ranges.into_iter().collect();
    for pair in ranges.windows(2) {
        let (((one, _), last), ((other, first), _)) = (pair[0], pair[1]);
        assert!(
            one != other || last.is_some_and(|last| last < first),
            "{when}: layers overlap"
        );
    }
    let names: HashSet<_> = inventory
        .databases
        .iter()
        .filter(|database| database.dropped.is_none())
        .map(|database| &database.name)
        .collect();
    let living = inventory
        .databases
        .iter()
        .filter(|database| database.dropped.is_none());
    assert_eq!(
        names.len(),
        living.count(),
        "{when}: two databases have one name"
    );
}
