//! Orphans: objects in the store that no segment names, left over from what was killed or failed.
//!
//! An object is sent first and named after, so one without a name may be about to get it. An
//! automatic pass therefore leaves it alone for a day: a large import or compaction sends all of
//! its objects before it writes their rows. A grace period that was asked for by hand counts
//! instead, but not for what may be under way: objects of a lease that is held, and of layers
//! that a writer or a sealing may be at.
//!
//! Nothing rests on these rules. Before an orphan is deleted it is condemned: the catalog refuses
//! it as a segment from then on, longer than anything is under way. Whoever comes too late with
//! it is told, and sends it anew. Rather leak than lose.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::catalog::{Inventory, LayerState};
use crate::id::{DatabaseId, Epoch, LayerId};
use crate::remote::key::SegmentKey;
use crate::remote::objects::{Object, Objects};
use crate::store::{Result, Store};

/// How long an automatic pass leaves an object alone that no row names, and how long the catalog
/// refuses one that was condemned.
const UPLOAD_MAX: Duration = Duration::from_secs(24 * 3600);
/// Objects that are condemned in one transaction.
const AT_ONCE: usize = 100;

impl Store {
    /// Deletes the store's orphans that are older than `grace`, or than a day; returns how many
    /// bytes that gives back. Of the databases in `gone`, which have no row any more, nothing can
    /// be under way.
    pub(crate) fn sweep_objects(
        self: &Arc<Self>,
        objects: &Objects,
        grace: Option<Duration>,
        gone: &HashSet<DatabaseId>,
        dry_run: bool,
    ) -> Result<u64> {
        let inventory = self.catalog().inventory()?;
        // What was named until now has a grace period of its own.
        let waiting: HashSet<String> = self
            .catalog()
            .garbage(Duration::ZERO)?
            .into_iter()
            .collect();
        let known = Known::new(&inventory);
        let mut orphans: Vec<Object> = Vec::new();
        objects.list("", |object| -> Result<()> {
            // Whatever else lies in a bucket is not ours, nor is what another catalog knows.
            let Ok(key) = object.key.parse::<SegmentKey>() else {
                return Ok(());
            };
            let age = crate::machine::age(object.modified);
            let may_go = gone.contains(&key.database)
                || known.databases.contains(&key.database)
                    && match grace {
                        _ if age >= UPLOAD_MAX => true,
                        Some(grace) => age >= grace && !known.is_under_way(&key),
                        None => false,
                    };
            let is_named =
                known.keys.contains(object.key.as_str()) || waiting.contains(&object.key);
            if may_go && !is_named {
                orphans.push(object);
            }
            Ok(())
        })?;
        let mut freed = 0;
        for orphans in orphans.chunks(AT_ONCE) {
            let mut condemned: HashSet<String> = HashSet::new();
            if dry_run {
                for orphan in orphans {
                    if !self.catalog().knows_object(&orphan.key)? {
                        condemned.insert(orphan.key.clone());
                    }
                }
            } else {
                let keys: Vec<String> = orphans.iter().map(|orphan| orphan.key.clone()).collect();
                condemned.extend(self.catalog().condemn(&keys, UPLOAD_MAX)?);
            }
            let doomed = || orphans.iter().filter(|it| condemned.contains(&it.key));
            if !dry_run {
                objects.delete(doomed().map(|orphan| orphan.key.clone()))?;
            }
            freed += doomed().map(|orphan| orphan.bytes).sum::<u64>();
        }
        Ok(freed)
    }
}

/// What the catalog knows of objects.
struct Known<'a> {
    databases: HashSet<DatabaseId>,
    /// Leases that are held and have not expired.
    leases: HashMap<DatabaseId, Epoch>,
    states: HashMap<LayerId, LayerState>,
    /// What segments name.
    keys: HashSet<&'a str>,
}

impl<'a> Known<'a> {
    fn new(inventory: &'a Inventory) -> Known<'a> {
        let layers = &inventory.layers;
        let leases = inventory.leases.iter();
        Known {
            databases: inventory.databases.iter().map(|it| it.id).collect(),
            leases: leases.map(|(id, lease)| (*id, lease.epoch)).collect(),
            states: layers.iter().map(|row| (row.id, row.state)).collect(),
            keys: layers
                .iter()
                .flat_map(|row| &row.segments)
                .map(|segment| segment.key.as_str())
                .collect(),
        }
    }

    /// Whether somebody who lives may be about to name the object.
    fn is_under_way(&self, key: &SegmentKey) -> bool {
        let lease = self.leases.get(&key.database);
        match self.states.get(&key.layer) {
            // Whoever comes by seals it.
            Some(LayerState::Rotated) => true,
            // Its own writer, or one that recovers it.
            Some(LayerState::Active) => lease.is_some(),
            Some(LayerState::Sealed) => false,
            None => lease.is_some_and(|epoch| *epoch <= key.layer.epoch),
        }
    }
}
