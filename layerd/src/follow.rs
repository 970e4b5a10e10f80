//! Following a writer: the newest acknowledged commit, as soon as it is acknowledged.
//!
//! On the writer's host the head word says where the log has got to; the follower reads the new
//! records of the active layer and applies them to its own copy of the image, as the writer did.
//! When the writer goes on in a new layer, the new layer's header says which commit it stands on.
//! Only where that trail is broken (a restore, too many layers at once) is the chain loaded anew.
//! Without a head word (nothing was written on this host) the catalog's head is asked. Where other
//! hosts may write, through a remote store, it is always asked, but not more often than it can have
//! changed; a layer's new segments are then read instead of the local log.

use std::sync::Arc;
use std::time::Duration;

use crate::catalog::{CatalogError, Database, LayerKind, LayerRow, StatePoint};
use crate::error::FsError;
use crate::frozen::{CommitPoint, Frozen, Hold};
use crate::head::{HeadFile, HeadWord};
use crate::id::{DatabaseId, LayerId};
use crate::layer::Layer;
use crate::load::{Images, Loaded, load, open_error};
use crate::machine::{Instant, Mutex};
use crate::names::Naming;
use crate::scan::{LogScan, open_layer};
use crate::store::{Result, Store};

/// A reader that can be asked for the newest commit at any time. On the writer's host that is the
/// newest acknowledged one: a look at the shared head word, then a read of the log's new bytes.
pub struct Follower {
    store: Arc<Store>,
    database: DatabaseId,
    hold: Arc<Hold>,
    state: Mutex<State>,
}

struct State {
    loaded: Loaded,
    frozen: Arc<Frozen>,
    word: Option<HeadFile>,
    generation: u64,
    generation_seen: Instant,
    newest: Option<Newest>,
}

/// What the catalog last said of the database, where other hosts may write it.
struct Newest {
    database: Database,
    asked: Instant,
    changes: u64,
}

/// How often a follower looks whether compaction changed the layers below it.
const GENERATION_EVERY: Duration = Duration::from_secs(5);
/// How often the catalog is asked for the head where other hosts may write: without word from it of
/// changes, and with.
const POLL_EVERY: Duration = Duration::from_millis(200);
const ASK_EVERY: Duration = Duration::from_secs(5);
/// How many new layers are followed one by one before the chain is loaded anew.
const STEPS_MAX: usize = 32;

/// What following from one image to a newer commit came to.
enum Advance {
    Done,
    /// The trail is broken.
    Reload,
}

impl Follower {
    pub(crate) fn open(store: &Arc<Store>, database: Database) -> Result<Follower> {
        let (loaded, pin, generation) = store.load_pinned(database.id, database.head.point)?;
        let hold = Arc::new(Hold {
            naming: Naming::new(&database.name),
            pin,
            hashes: Arc::clone(store.hashes()),
        });
        let head = database.head;
        let commit = CommitPoint {
            point: head.point,
            time: head.time,
            written_bytes: head.written_bytes,
        };
        let frozen = Arc::new(Frozen::new(loaded.image.clone(), commit, Arc::clone(&hold)));
        let state = State {
            loaded,
            frozen,
            word: None,
            generation,
            generation_seen: Instant::now(),
            newest: None,
        };
        Ok(Follower {
            store: Arc::clone(store),
            database: database.id,
            hold,
            state: Mutex::new(state),
        })
    }

    /// The newest commit. Cheap when nothing changed; the returned image stays readable for as
    /// long as it is held.
    pub fn latest(&self) -> std::result::Result<Arc<Frozen>, FsError> {
        let mut state = self.state.lock();
        let state = &mut *state;
        if state.word.is_none() {
            state.word = HeadFile::open(&self.store.files().head(self.database), false).ok();
        }
        let word = state.word.as_ref().and_then(HeadFile::load);
        let (target, word) = self.target(state, word)?;
        let newer = target.filter(|target| target.lsn > state.frozen.lsn());
        if let Some(target) = newer {
            self.follow(state, target, word)?;
        } else if state.generation_seen.elapsed() >= GENERATION_EVERY {
            state.generation_seen = Instant::now();
            match self.store.catalog().database_by_id(self.database) {
                Ok(database) if database.generation != state.generation => {
                    self.reload(state, state.frozen.commit().point)?;
                }
                // What it has goes on without a catalog.
                Ok(_) | Err(CatalogError::Unavailable { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Arc::clone(&state.frozen))
    }

    /// The commit to show, and the head word if it may be trusted.
    fn target(
        &self,
        state: &mut State,
        word: Option<HeadWord>,
    ) -> std::result::Result<(Option<StatePoint>, Option<HeadWord>), FsError> {
        if self.store.remote().is_none() {
            return Ok(match word {
                Some(_) => (word.map(|word| word.point), word),
                None => {
                    let database = self.store.catalog().database_by_id(self.database)?;
                    (database.head.point, None)
                }
            });
        }
        self.ask(state)?;
        let Some(Newest { database, .. }) = &state.newest else {
            return Ok((None, None));
        };
        // A writer of this host is ahead of the store; one that was replaced is not to be followed.
        let word = word.filter(|word| word.epoch == database.epoch);
        let points = [word.map(|word| word.point), database.head.point];
        let newest = points.into_iter().flatten().max_by_key(|point| point.lsn);
        Ok((newest, word))
    }

    /// Asks the catalog for the head, if that may have moved. While the catalog is away, the last
    /// answer stands.
    fn ask(&self, state: &mut State) -> std::result::Result<(), FsError> {
        let catalog = self.store.catalog();
        let watch = catalog.changes().filter(|changes| changes.is_live());
        let changes = watch.as_ref().map_or(0, |changes| changes.count());
        if let Some(newest) = &state.newest {
            let age = newest.asked.elapsed();
            let unchanged = watch.is_some() && newest.changes == changes && age < ASK_EVERY;
            if unchanged || age < POLL_EVERY && watch.is_none() {
                return Ok(());
            }
        }
        let answer = catalog.database_by_id(self.database);
        match (answer, &mut state.newest) {
            (Ok(database), newest) => {
                *newest = Some(Newest {
                    database,
                    asked: Instant::now(),
                    changes,
                });
            }
            (Err(error @ CatalogError::Unavailable { .. }), Some(newest)) => {
                tracing::warn!(%error, "going on with the newest commit that is known");
                newest.asked = Instant::now();
            }
            (Err(error), _) => return Err(error.into()),
        }
        Ok(())
    }

    /// What the catalog says of the layers of a state, where their bytes are in a remote store.
    fn rows(&self, target: StatePoint) -> std::result::Result<Vec<LayerRow>, FsError> {
        if self.store.remote().is_none() {
            return Ok(Vec::new());
        }
        match self.store.catalog().chain(self.database, Some(target)) {
            Ok(chain) => Ok(chain.layers),
            // It is loaded anew, and then found out why.
            Err(CatalogError::NoSuchLayer(_)) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    fn follow(
        &self,
        state: &mut State,
        target: StatePoint,
        word: Option<HeadWord>,
    ) -> std::result::Result<(), FsError> {
        let limit = word
            .filter(|word| word.point == target)
            .map_or(u64::MAX, |word| word.end);
        match self.advance(&mut state.loaded, target, limit) {
            Ok(Advance::Done) => self.freeze(state, target),
            Ok(Advance::Reload) => self.reload(state, Some(target))?,
            // A takeover may have put another file in the place of the one that is open here, and
            // compaction another layer in the place of the one that a header names.
            Err(error) if is_moved(&error) => {
                tracing::debug!(%error, "the log can't be followed; loading it anew");
                self.reload(state, Some(target))?;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn freeze(&self, state: &mut State, target: StatePoint) {
        // No handle of this process is on a file that lost its name in the log.
        state.loaded.image.forget_unlinked();
        let Loaded {
            image,
            time,
            written_bytes,
            ..
        } = &state.loaded;
        let commit = CommitPoint {
            point: Some(target),
            time: *time,
            written_bytes: *written_bytes,
        };
        state.frozen = Arc::new(Frozen::new(image.clone(), commit, Arc::clone(&self.hold)));
    }

    /// Applies the records between the image and `target`.
    fn advance(
        &self,
        loaded: &mut Loaded,
        target: StatePoint,
        limit: u64,
    ) -> std::result::Result<Advance, FsError> {
        let Some(last) = loaded.last.clone() else {
            return Ok(Advance::Reload);
        };
        let rows = self.rows(target)?;
        let row = |layer: LayerId| rows.iter().find(|row| row.id == layer);
        // A layer that is read from the store grows with its segments.
        drop(self.store.files().open_delta(last.id(), row(last.id())));
        // The new layers, newest first, each with the LSN after which its successor goes on.
        let mut steps: Vec<(Arc<Layer>, StatePoint, u64)> = Vec::new();
        let mut want = target;
        while want.layer != last.id() {
            if steps.len() == STEPS_MAX {
                return Ok(Advance::Reload);
            }
            let opened = open_layer(self.store.files(), want.layer, row(want.layer));
            let (layer, header) = opened.map_err(|error| open_error(want.layer, error))?;
            steps.push((layer, want, if want == target { limit } else { u64::MAX }));
            match header.parent {
                Some(parent) if parent.lsn >= loaded.lsn => want = parent,
                _ => return Ok(Advance::Reload),
            }
        }
        if !steps.is_empty() && !self.pin_with(loaded, steps.iter().map(|(layer, ..)| layer.id())) {
            return Ok(Advance::Reload);
        }
        let first_limit = if steps.is_empty() { limit } else { u64::MAX };
        let begin = loaded.end;
        apply_until(loaded, &last, begin, want, first_limit)?;
        for (layer, until, limit) in steps.into_iter().rev() {
            loaded.layers.push(Arc::clone(&layer));
            loaded.last = Some(Arc::clone(&layer));
            apply_until(loaded, &layer, crate::format::RECORDS_AT, until, limit)?;
        }
        Ok(Advance::Done)
    }

    /// Adds layers to the pin; `false` if they are gone already.
    fn pin_with(&self, loaded: &Loaded, new: impl Iterator<Item = LayerId>) -> bool {
        let Some(pin) = &self.hold.pin else {
            return true;
        };
        let layers: Vec<LayerId> = loaded
            .layers
            .iter()
            .map(|layer| layer.id())
            .chain(new)
            .collect();
        match pin.set(&layers) {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(%error, "the layers changed while they were followed");
                false
            }
        }
    }

    /// Loads the chain of a state anew; if compaction took it away meanwhile, that of the head.
    fn reload(
        &self,
        state: &mut State,
        point: Option<StatePoint>,
    ) -> std::result::Result<(), FsError> {
        let catalog = self.store.catalog();
        let current = |point: Option<StatePoint>| match point {
            // The layer that holds a commit may be another one since compaction.
            Some(point) => match catalog.find_lsn(self.database, point.lsn) {
                Ok(Some(row)) if row.kind == LayerKind::Delta => Some(StatePoint {
                    layer: row.id,
                    ..point
                }),
                _ => Some(point),
            },
            None => None,
        };
        let mut point = current(point);
        for attempt in 0.. {
            let chain = match catalog.chain(self.database, point) {
                Err(CatalogError::NoSuchLayer(_)) if attempt < 5 => {
                    point = catalog.database_by_id(self.database)?.head.point;
                    continue;
                }
                result => result?,
            };
            if let Some(pin) = &self.hold.pin {
                let layers: Vec<LayerId> = chain.layers.iter().map(|row| row.id).collect();
                match pin.set(&layers) {
                    Err(CatalogError::NoSuchLayer(_)) if attempt < 5 => continue,
                    result => result?,
                }
            }
            state.loaded = load(self.store.files(), &chain)?;
            state.generation = chain.generation;
            if let Some(point) = point {
                self.freeze(state, point);
            }
            break;
        }
        Ok(())
    }

    /// Layers in the newest chain.
    #[must_use]
    pub fn layers(&self) -> usize {
        self.state.lock().loaded.layers.len()
    }

    /// As [`Reader::is_stale`](crate::store::Reader::is_stale).
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.hold.pin.as_ref().is_some_and(|pin| pin.is_stale())
    }
}

/// Whether what was to be read may be in another place now.
fn is_moved(error: &FsError) -> bool {
    match error {
        FsError::Damaged { .. } => true,
        FsError::Io(error) => error.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}

/// Applies a layer's records from `at` until commit `until`.
fn apply_until(
    loaded: &mut Loaded,
    layer: &Arc<Layer>,
    at: u64,
    until: StatePoint,
    limit: u64,
) -> std::result::Result<(), FsError> {
    let mut scan = LogScan::new(layer, at, limit);
    let images = Images::new();
    while loaded.lsn < until.lsn {
        let at = scan.at();
        let Ok(scanned) = scan.next()? else {
            return Err(layer.damaged(at, "the log ends before a commit that was acknowledged"));
        };
        loaded.apply(layer, &scanned, &images)?;
    }
    Ok(())
}
