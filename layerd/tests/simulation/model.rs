//! What must be so: every commit's content as its writer wrote it, and who published what.
//!
//! A *session* is one writer of one epoch. It has a list of states, one per change, and some of them
//! are commits. Which session's commit a number of a database names is settled by the catalog, in
//! the moment in which a head moves over it, and for good.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use layerd::catalog::{Database, Head};
use layerd::id::{DatabaseId, DatabaseName, Epoch, LayerId, Lsn};
use layerd::writer::Durability;
use parking_lot::Mutex;

/// All files of an image and their content.
pub type Content = BTreeMap<String, Vec<u8>>;

/// A hash of a content.
pub type Hash = [u8; 32];

pub fn hash(content: &Content) -> Hash {
    let mut hasher = blake3::Hasher::new();
    for (name, bytes) in content {
        hasher.update(name.as_bytes());
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    }
    *hasher.finalize().as_bytes()
}

/// The model. Clones are the same one.
#[derive(Clone, Default)]
pub struct Model(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    databases: BTreeMap<u64, Truth>,
    /// Layers that compaction made: all their commits are published ones.
    folded: BTreeSet<LayerId>,
}

/// One database.
struct Truth {
    name: DatabaseName,
    base: Option<(DatabaseId, Lsn)>,
    epoch: Epoch,
    head: Lsn,
    /// Up to which commit which session's commits were published.
    owners: BTreeMap<Lsn, Epoch>,
    sessions: BTreeMap<Epoch, Session>,
    /// Contents of published commits that no session told of, as they were read first.
    seen: BTreeMap<Lsn, Hash>,
}

struct Session {
    home: usize,
    states: Vec<Hash>,
    /// Acknowledged commits: which state, and what was promised.
    commits: BTreeMap<Lsn, (usize, Durability)>,
    /// The state of the head that it began with.
    begin: Lsn,
}

impl Session {
    /// Whether a commit of this session may have that content.
    fn may_be(&self, lsn: Lsn, hash: &Hash) -> bool {
        if let Some((state, _)) = self.commits.get(&lsn) {
            return self.states[*state] == *hash;
        }
        let first = self.commits.range(..lsn).next_back();
        let last = self.commits.range(lsn..).next();
        let first = first.map_or(0, |(_, (state, _))| *state);
        let last = last.map_or(self.states.len() - 1, |(_, (state, _))| *state);
        self.states[first..=last].contains(hash)
    }
}

/// A commit that was acknowledged.
pub struct Acknowledged {
    pub database: DatabaseName,
    pub epoch: Epoch,
    pub home: usize,
    pub lsn: Lsn,
    pub hash: Hash,
    pub durability: Durability,
    pub published: bool,
}

impl Model {
    pub fn created(&self, database: &Database) {
        let base = database
            .base
            .and_then(|base| Some((base.database, base.point?.lsn)));
        let truth = Truth {
            name: database.name.clone(),
            base,
            epoch: database.epoch,
            head: database.head.lsn(),
            owners: BTreeMap::new(),
            sessions: BTreeMap::new(),
            seen: BTreeMap::new(),
        };
        self.0.lock().databases.insert(database.id.0, truth);
    }

    pub fn granted(&self, id: DatabaseId, epoch: Epoch) {
        let mut state = self.0.lock();
        let truth = state.databases.get_mut(&id.0).unwrap();
        assert!(epoch > truth.epoch, "epoch {epoch} after {}", truth.epoch);
        truth.epoch = epoch;
    }

    /// A head moved.
    pub fn published(&self, id: DatabaseId, epoch: Epoch, head: &Head) {
        let mut state = self.0.lock();
        let truth = state.databases.get_mut(&id.0).unwrap();
        assert_eq!(
            epoch,
            truth.epoch,
            "a writer that was replaced published commit {}",
            head.lsn()
        );
        assert!(
            head.lsn() >= truth.head,
            "the head fell from {} to {}",
            truth.head,
            head.lsn()
        );
        if let Some(point) = head.point
            && point.lsn > truth.head
        {
            truth.owners.insert(point.lsn, point.layer.epoch);
            truth.head = point.lsn;
        }
    }

    /// Layers were made by compaction.
    pub fn folded(&self, layers: impl Iterator<Item = LayerId>) {
        self.0.lock().folded.extend(layers);
    }

    /// The newest lease's number.
    pub fn epoch(&self, id: DatabaseId) -> Epoch {
        self.0.lock().databases[&id.0].epoch
    }

    /// The newest published commit.
    pub fn head(&self, id: DatabaseId) -> Lsn {
        self.0.lock().databases[&id.0].head
    }

    /// A writer opened the image at `lsn`, with that content.
    pub fn began(&self, id: DatabaseId, epoch: Epoch, home: usize, lsn: Lsn, hash: Hash) {
        let mut state = self.0.lock();
        let truth = state.databases.get_mut(&id.0).unwrap();
        let session = Session {
            home,
            states: vec![hash],
            commits: BTreeMap::new(),
            begin: lsn,
        };
        let before = truth.sessions.insert(epoch, session);
        assert!(before.is_none(), "two writers of epoch {epoch}");
    }

    /// A writer is about to change the image, or did.
    pub fn changes(&self, id: DatabaseId, epoch: Epoch, hash: Hash) {
        let mut state = self.0.lock();
        let truth = state.databases.get_mut(&id.0).unwrap();
        truth.sessions.get_mut(&epoch).unwrap().states.push(hash);
    }

    /// A sync was answered. `excused`: this host's clocks stood still, so it can't know better.
    pub fn acknowledged(
        &self,
        id: DatabaseId,
        epoch: Epoch,
        lsn: Lsn,
        durability: Durability,
        excused: bool,
    ) {
        let mut state = self.0.lock();
        let truth = state.databases.get_mut(&id.0).unwrap();
        let owner = truth.owner(lsn);
        let session = truth.sessions.get_mut(&epoch).unwrap();
        let newest = session.states.len() - 1;
        let before = session.commits.insert(lsn, (newest, durability));
        if let Some((before, _)) = before {
            assert_eq!(before, newest, "commit {lsn} was made twice");
            return;
        }
        if lsn == session.begin {
            // Nothing was new.
            session.commits.remove(&lsn);
            assert_eq!(
                session.states[0], session.states[newest],
                "commit {lsn} is missing"
            );
            return;
        }
        if durability == Durability::Remote {
            assert_eq!(
                owner,
                Some(epoch),
                "commit {lsn} was acknowledged as remote and is not published"
            );
        } else {
            assert!(
                truth.epoch == epoch || excused,
                "commit {lsn} was acknowledged under {epoch} after {} was granted",
                truth.epoch
            );
        }
    }

    /// A state was read: that of commit `lsn`, which `layer` held when it was opened.
    pub fn read(&self, id: DatabaseId, lsn: Lsn, layer: Option<LayerId>, hash: Hash) {
        let mut state = self.0.lock();
        let (id, lsn) = state.origin(id, lsn);
        let State { databases, folded } = &mut *state;
        let Some(truth) = databases.get_mut(&id.0) else {
            return;
        };
        if lsn == Lsn::EMPTY {
            assert_eq!(hash, self::hash(&Content::new()), "the empty database");
            return;
        }
        let is_writers = |layer: &LayerId| !folded.contains(layer);
        let epoch = layer.filter(is_writers);
        let epoch = epoch.map_or(Epoch(u64::MAX), |layer| layer.epoch);
        let published = truth.published_up_to(epoch);
        if lsn > published {
            // Of a writer of the same host, and not published when it was opened, if ever.
            let session = truth.sessions.get(&epoch);
            let may_be = session.is_none_or(|session| session.may_be(lsn, &hash));
            assert!(may_be, "commit {lsn} of {epoch} reads as it never was");
            return;
        }
        let owner = truth.owner(lsn);
        let session = owner.and_then(|epoch| truth.sessions.get(&epoch));
        if let Some(session) = session {
            assert!(
                session.may_be(lsn, &hash),
                "commit {lsn}, published by {owner:?}, reads as it never was"
            );
        }
        let first = *truth.seen.entry(lsn).or_insert(hash);
        assert_eq!(first, hash, "commit {lsn} reads otherwise than before");
    }

    /// A restore added commit `lsn` with the content of an older one.
    pub fn restored(&self, id: DatabaseId, lsn: Lsn, of: Lsn) {
        let mut state = self.0.lock();
        let (from, of) = state.origin(id, of);
        let known = state.databases[&from.0].known(of);
        let truth = state.databases.get_mut(&id.0).unwrap();
        if let Some(hash) = known {
            let first = *truth.seen.entry(lsn).or_insert(hash);
            assert_eq!(first, hash, "restored commit {lsn} reads otherwise");
        }
    }

    /// All commits that were acknowledged.
    pub fn all_acknowledged(&self) -> Vec<Acknowledged> {
        let state = self.0.lock();
        let mut all = Vec::new();
        for truth in state.databases.values() {
            for (epoch, session) in &truth.sessions {
                for (lsn, (at, durability)) in &session.commits {
                    all.push(Acknowledged {
                        database: truth.name.clone(),
                        epoch: *epoch,
                        home: session.home,
                        lsn: *lsn,
                        hash: session.states[*at],
                        durability: *durability,
                        published: truth.owner(*lsn) == Some(*epoch),
                    });
                }
            }
        }
        all
    }
}

impl State {
    /// The database whose own commit it is: a clone's, or one that it was cloned from.
    fn origin(&self, id: DatabaseId, lsn: Lsn) -> (DatabaseId, Lsn) {
        let mut id = id;
        while let Some(truth) = self.databases.get(&id.0)
            && let Some((from, at)) = truth.base
            && lsn <= at
        {
            id = from;
        }
        (id, lsn)
    }
}

impl Truth {
    /// Whose commit that number is.
    fn owner(&self, lsn: Lsn) -> Option<Epoch> {
        self.owners.range(lsn..).next().map(|(_, epoch)| *epoch)
    }

    /// The newest commit that was published under `epoch` or an earlier one.
    fn published_up_to(&self, epoch: Epoch) -> Lsn {
        let own = self.owners.iter().filter(|(_, owner)| **owner <= epoch);
        let own = own.map(|(lsn, _)| *lsn).max().unwrap_or(Lsn::EMPTY);
        own.max(self.base.map_or(Lsn::EMPTY, |(_, at)| at))
    }

    fn known(&self, lsn: Lsn) -> Option<Hash> {
        let session = self.owner(lsn).and_then(|epoch| self.sessions.get(&epoch));
        let commit = session.and_then(|session| {
            let (state, _) = session.commits.get(&lsn)?;
            Some(session.states[*state])
        });
        commit.or_else(|| self.seen.get(&lsn).copied())
    }
}
