//! Inodes: the numbers that the kernel knows, and what each stands for.
//!
//! Files of the live image need no table: their number is their [`FileId`]. All other numbers are
//! [`TABLE_FIRST`] or larger. A few of those are fixed; the rest are handed out when a name is found
//! and live until the kernel forgets them. A number is never reused within a mount, so that the kernel's
//! cached pages never turn up in another file.
//!
//! Lock order: the table's lock is innermost, and nothing is dropped or computed under it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use layerd::id::{FileId, Lsn};
use parking_lot::RwLock;

use crate::image::{Image, ImageFile};
use crate::scratch::{ScratchDir, ScratchFile};
use crate::snapshot_file::Draft;
use crate::snapshots::SnapshotDir;

/// Numbers below are files of the live image: the engine hands file ids out one after the other,
/// and would need a million a second for nine years to get here.
const TABLE_FIRST: u64 = 1 << 48;

/// The mount's top directory.
pub(crate) const ROOT: u64 = 1;
/// `.snapshots`
pub(crate) const SNAPSHOTS: u64 = TABLE_FIRST + 1;
/// `.snapshots/latest`
pub(crate) const LATEST: u64 = TABLE_FIRST + 2;
/// `.openduck`
pub(crate) const CONTROL: u64 = TABLE_FIRST + 3;
/// `.openduck/status`
pub(crate) const STATUS: u64 = TABLE_FIRST + 4;
/// `.openduck/snapshot`
pub(crate) const SNAPSHOT: u64 = TABLE_FIRST + 5;
/// `.openduck/head_lsn`
pub(crate) const HEAD_LSN: u64 = TABLE_FIRST + 6;
const FIRST_FREE: u64 = TABLE_FIRST + 64;

/// What a number that lives in the table stands for.
#[derive(Clone)]
pub(crate) enum Node {
    /// A directory of an image, below its top; `top` is the inode of that.
    ImageDir {
        image: Arc<Image>,
        file: FileId,
        top: u64,
    },
    /// A file of an image.
    ImageFile(Arc<ImageFile>),
    /// A file of an image that was found on a follow path.
    FollowedFile(Arc<ImageFile>),
    /// `.snapshots/<ref>`
    Snapshot(Arc<SnapshotDir>),
    /// A process's spill directory.
    ScratchDir(Arc<ScratchDir>),
    /// A file in one.
    ScratchFile(Arc<ScratchFile>),
    /// `.openduck/tmp_*`
    Draft(Arc<Draft>),
}

/// Where a number leads.
#[derive(Clone)]
pub(crate) enum Place {
    /// A file or directory of the live image, or [`ROOT`] of any mount.
    Main(FileId),
    Snapshots,
    Latest,
    Control,
    Status,
    Snapshot,
    HeadLsn,
    Node(Node),
}

/// Makes the same thing have the same number as long as the kernel remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// A file at a commit; followed files are numbered apart.
    File {
        commit: Lsn,
        file: FileId,
        is_followed: bool,
    },
    /// A directory at a commit, below one top directory: a directory must not have two names.
    Dir { commit: Lsn, file: FileId, top: u64 },
    /// `.snapshots/<name>`, while it means this commit.
    Snapshot { name: String, commit: Lsn },
}

/// The table.
#[derive(Default)]
pub(crate) struct Nodes {
    table: RwLock<Table>,
    taken: AtomicU64,
}

#[derive(Default)]
struct Table {
    slots: HashMap<u64, Slot>,
    numbers: HashMap<Key, u64>,
}

struct Slot {
    node: Node,
    key: Option<Key>,
    /// How often the kernel was told this number, less what it forgot.
    lookup_count: u64,
}

impl Nodes {
    /// A number that was never used before.
    pub(crate) fn allocate(&self) -> u64 {
        FIRST_FREE + self.taken.fetch_add(1, Ordering::Relaxed)
    }

    /// What a number stands for; `None` if the kernel was never told it, or forgot it.
    pub(crate) fn place(&self, ino: u64) -> Option<Place> {
        Some(match ino {
            SNAPSHOTS => Place::Snapshots,
            LATEST => Place::Latest,
            CONTROL => Place::Control,
            STATUS => Place::Status,
            SNAPSHOT => Place::Snapshot,
            HEAD_LSN => Place::HeadLsn,
            _ if ino < TABLE_FIRST => Place::Main(FileId(ino)),
            _ => Place::Node(self.table.read().slots.get(&ino)?.node.clone()),
        })
    }

    /// Tells the kernel the number of `key`'s thing; if it has none yet, it is made by `make`.
    pub(crate) fn tell(&self, key: Key, make: impl FnOnce(u64) -> Node) -> (u64, Node) {
        if let Some(found) = self.tell_again(&key) {
            return found;
        }
        let ino = self.allocate();
        let node = make(ino);
        let mut table = self.table.write();
        // Somebody else may have been faster.
        if let Some(found) = table.tell_again(&key) {
            drop(table);
            return found;
        }
        table.numbers.insert(key.clone(), ino);
        table.slots.insert(
            ino,
            Slot {
                node: node.clone(),
                key: Some(key),
                lookup_count: 1,
            },
        );
        (ino, node)
    }

    /// As [`Nodes::tell`], for what is known to the table already.
    pub(crate) fn tell_again(&self, key: &Key) -> Option<(u64, Node)> {
        self.table.write().tell_again(key)
    }

    /// Tells the kernel a number that its owner keeps (see [`Nodes::allocate`]).
    pub(crate) fn tell_owned(&self, ino: u64, node: &Node) {
        let mut table = self.table.write();
        let slot = table.slots.entry(ino).or_insert_with(|| Slot {
            node: node.clone(),
            key: None,
            lookup_count: 0,
        });
        slot.lookup_count += 1;
    }

    /// The kernel forgot a number `count` times. Returns what nobody knows any more.
    pub(crate) fn forget(&self, ino: u64, count: u64) -> Option<Node> {
        if ino < FIRST_FREE {
            return None;
        }
        let mut table = self.table.write();
        let slot = table.slots.get_mut(&ino)?;
        slot.lookup_count = slot.lookup_count.saturating_sub(count);
        if slot.lookup_count > 0 {
            return None;
        }
        let slot = table.slots.remove(&ino)?;
        if let Some(key) = slot.key {
            table.numbers.remove(&key);
        }
        Some(slot.node)
    }

    /// The snapshot directories that the kernel knows.
    pub(crate) fn snapshots(&self) -> Vec<Arc<SnapshotDir>> {
        let table = self.table.read();
        let snapshots = table.slots.values().filter_map(|slot| match &slot.node {
            Node::Snapshot(snapshot) => Some(Arc::clone(snapshot)),
            _ => None,
        });
        snapshots.collect()
    }
}

impl Table {
    fn tell_again(&mut self, key: &Key) -> Option<(u64, Node)> {
        let ino = *self.numbers.get(key)?;
        let slot = self.slots.get_mut(&ino)?;
        slot.lookup_count += 1;
        Some((ino, slot.node.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(commit: u64) -> Key {
        Key::Snapshot {
            name: "x".into(),
            commit: Lsn(commit),
        }
    }

    fn node(ino: u64) -> Node {
        Node::Draft(Arc::new(Draft::new(
            ino,
            b"tmp_x".to_vec(),
            crate::attr::Owner::ourselves(),
        )))
    }

    #[test]
    fn one_thing_has_one_number_until_the_kernel_forgot_it_as_often_as_it_was_told() {
        let nodes = Nodes::default();
        let (first, _) = nodes.tell(key(1), node);
        assert_eq!(nodes.tell(key(1), node).0, first);
        assert!(nodes.forget(first, 1).is_none());
        assert!(nodes.place(first).is_some());
        assert!(nodes.forget(first, 1).is_some());
        assert!(nodes.place(first).is_none());
        assert_ne!(
            nodes.tell(key(1), node).0,
            first,
            "a number is never reused"
        );
    }

    #[test]
    fn another_commit_has_another_number() {
        let nodes = Nodes::default();
        assert_ne!(nodes.tell(key(1), node).0, nodes.tell(key(2), node).0);
    }

    #[test]
    fn an_owned_number_is_told_again_after_it_was_forgotten() {
        let nodes = Nodes::default();
        let ino = nodes.allocate();
        nodes.tell_owned(ino, &node(ino));
        assert!(nodes.forget(ino, 1).is_some());
        nodes.tell_owned(ino, &node(ino));
        assert!(nodes.place(ino).is_some());
    }

    #[test]
    fn fixed_numbers_are_never_forgotten() {
        let nodes = Nodes::default();
        for ino in [ROOT, SNAPSHOTS, LATEST, CONTROL, STATUS, SNAPSHOT, HEAD_LSN] {
            assert!(nodes.forget(ino, 1_000).is_none());
            assert!(nodes.place(ino).is_some());
        }
    }

    #[test]
    fn unknown_numbers_lead_nowhere() {
        let nodes = Nodes::default();
        assert!(nodes.place(u64::MAX).is_none());
        assert!(nodes.forget(u64::MAX, 1).is_none());
    }
}
