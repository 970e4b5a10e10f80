//! Uploads: what a writer acknowledged goes to the store beside it, in order.
//!
//! A layer goes as segments, each behind the one before, and each is published with the head that
//! it reaches before the next is begun. So other hosts see a prefix of what was acknowledged, and
//! the catalog's head never names a byte that is not in the store. A layer that the writer has
//! ended stays active in the catalog until its last segment is there; then it is rotated, and the
//! next layer's turn comes.
//!
//! Nothing here is needed for what is on this host's disk to be safe: a store that is away makes
//! the lag grow, and no more. With remote durability the writer waits here before it answers.
//!
//! An object that no segment names is an orphan to garbage collection after its grace period. So
//! a segment is published under the lease under which it was sent: if the lease lapsed in between
//! (the machine slept), it is sent anew under another key.
//!
//! Whoever waits gives up once nothing has come to the store for a while, however long the call
//! takes that another thread is in; the commit goes there later all the same.
//!
//! Lock order: `turn`, then `layers`. `turn` is held over I/O; `layers` never is.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::catalog::{Catalog, CatalogError, CommitRange, Head, Rotation, Segment};
use crate::error::FsError;
use crate::id::{DatabaseId, LayerId, Lsn};
use crate::layer::Layer;
use crate::lease::HeldLease;
use crate::log::Commit;
use crate::machine::{Condvar, Instant, Mutex, MutexGuard, sleep};
use crate::remote::objects::Objects;
use crate::remote::runtime::CALL_MAX;
use crate::remote::upload::UploadError;
use crate::send::{LogRange, send_log};

/// So much is sent without waiting for the lag.
const ENOUGH: u64 = 8 << 20;
/// How long after a failure it is tried again: the first time, and at most.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// How often who waits for another thread's upload looks how it gets on.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Why something is not in the store yet.
#[derive(Debug, thiserror::Error)]
pub enum NotStored {
    /// The store or the local layer; tried again.
    #[error(transparent)]
    Upload(#[from] UploadError),
    /// The catalog did not take the segment; tried again, unless it says that another writer came.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The lease.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// Another thread's upload does not get on.
    #[error("nothing has come to the store for {} s", .0.as_secs())]
    Quiet(Duration),
}

/// What of a writer's layers is not in the store.
pub struct Uploads {
    catalog: Arc<dyn Catalog>,
    objects: Objects,
    database: DatabaseId,
    lag: Duration,
    /// One upload at a time.
    turn: Mutex<Option<Unpublished>>,
    layers: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Layers that are not wholly in the store, oldest first.
    pending: VecDeque<Pending>,
    published: Lsn,
    ended: bool,
}

/// One such layer.
struct Pending {
    layer: Arc<Layer>,
    /// Up to here it is in the store.
    end: u64,
    /// What is being sent.
    sending: Option<Batch>,
    /// What was acknowledged after that began.
    waiting: Option<Batch>,
    /// The writer ended it.
    rotation: Option<(Rotation, Head)>,
}

/// Acknowledged commits of one layer.
#[derive(Clone, Copy)]
struct Batch {
    commits: CommitRange,
    head: Head,
    end: u64,
    since: Instant,
}

/// A segment whose publishing did not answer.
struct Unpublished {
    layer: LayerId,
    segment: Segment,
    lapses: u64,
}

impl Uploads {
    /// For a writer that begins with `layer`. Commits are in the store about `lag` after they were
    /// acknowledged, as long as the store keeps up.
    #[must_use]
    pub fn new(
        catalog: Arc<dyn Catalog>,
        objects: Objects,
        database: DatabaseId,
        layer: &Arc<Layer>,
        published: Lsn,
        lag: Duration,
    ) -> Uploads {
        let uploads = Uploads {
            catalog,
            objects,
            database,
            lag,
            turn: Mutex::new(None),
            layers: Mutex::new(State {
                published,
                ..State::default()
            }),
            changed: Condvar::new(),
        };
        uploads.begun(layer);
        uploads
    }

    /// The writer goes on in this layer.
    pub fn begun(&self, layer: &Arc<Layer>) {
        self.layers.lock().pending.push_back(Pending {
            layer: Arc::clone(layer),
            end: 0,
            sending: None,
            waiting: None,
            rotation: None,
        });
    }

    /// A commit is on this host's disk.
    pub fn committed(&self, commit: &Commit, head: Head) {
        let mut state = self.layers.lock();
        let id = commit.layer.id();
        let Some(pending) = state.pending.iter_mut().find(|it| it.layer.id() == id) else {
            return;
        };
        let alone = Batch {
            commits: CommitRange {
                first_lsn: commit.lsn,
                last_lsn: commit.lsn,
                first_time: commit.time,
                last_time: commit.time,
            },
            head,
            end: commit.end,
            since: Instant::now(),
        };
        // It may come again, after it could not be acknowledged.
        let known = pending.batches().map(|batch| batch.end).max();
        if commit.end <= known.unwrap_or(pending.end) {
            return;
        }
        let batch = pending.waiting.get_or_insert(alone);
        (batch.commits.last_lsn, batch.commits.last_time) = (commit.lsn, commit.time);
        (batch.head, batch.end) = (head, commit.end);
        drop(state);
        self.changed.notify_all();
    }

    /// The writer has ended a layer: nothing more will be acknowledged in it.
    pub fn ended(&self, rotation: Rotation, head: Head) {
        let mut state = self.layers.lock();
        let id = rotation.layer;
        if let Some(pending) = state.pending.iter_mut().find(|it| it.layer.id() == id) {
            pending.rotation = Some((rotation, head));
        }
        drop(state);
        self.changed.notify_all();
    }

    /// How long the oldest commit that is not in the store has been waiting.
    #[must_use]
    pub fn lag(&self) -> Duration {
        let state = self.layers.lock();
        let batches = state.pending.iter().flat_map(Pending::batches);
        batches
            .map(|batch| batch.since.elapsed())
            .max()
            .unwrap_or_default()
    }

    /// Acknowledged bytes of the log that are not in the store.
    #[must_use]
    pub fn waiting_bytes(&self) -> u64 {
        let state = self.layers.lock();
        state.pending.iter().map(Pending::waiting_bytes).sum()
    }

    /// Sends as commits come, until [`Uploads::stop`] is called.
    pub fn run(&self, lease: &HeldLease) {
        // The writer's own work goes first.
        let _ = rustix::process::nice(10);
        let mut pause = RETRY_MIN;
        while self.wait_until_due() {
            match self.step(self.turn.lock(), CALL_MAX, lease) {
                Ok(_) => pause = RETRY_MIN,
                Err(error) => {
                    tracing::warn!(%error, "the store does not have the newest commits yet; trying again");
                    self.rest(pause);
                    pause = (pause * 2).min(RETRY_MAX);
                }
            }
        }
    }

    /// Ends [`Uploads::run`].
    pub fn stop(&self) {
        self.layers.lock().ended = true;
        self.changed.notify_all();
    }

    /// Sends until commit `lsn` is published; fails when nothing came to the store for `time`.
    pub fn wait_for(&self, lsn: Lsn, time: Duration, lease: &HeldLease) -> Result<(), NotStored> {
        self.send_while(&|state| state.published < lsn, time, lease)
    }

    /// Sends all there is; fails when nothing came to the store for `time`.
    pub fn drain(&self, time: Duration, lease: &HeldLease) -> Result<(), NotStored> {
        let is_left = |state: &State| state.pending.iter().any(|it| it.rotation.is_some());
        self.send_while(&is_left, time, lease)
    }

    fn send_while(
        &self,
        is_left: &dyn Fn(&State) -> bool,
        time: Duration,
        lease: &HeldLease,
    ) -> Result<(), NotStored> {
        let mut quiet_since = Instant::now();
        let mut pause = RETRY_MIN;
        while is_left(&self.layers.lock()) {
            let left = time.saturating_sub(quiet_since.elapsed());
            let sent = match self.turn_within(left) {
                Some(turn) => self.step(turn, left, lease),
                None => Err(NotStored::Quiet(time)),
            };
            match sent {
                Ok(false) if is_left(&self.layers.lock()) => {
                    return Err(NotStored::Quiet(quiet_since.elapsed()));
                }
                Ok(_) => (quiet_since, pause) = (Instant::now(), RETRY_MIN),
                Err(error) => {
                    lease.check()?;
                    if quiet_since.elapsed() + pause >= time {
                        return Err(error);
                    }
                    sleep(pause);
                    pause = (pause * 2).min(RETRY_MAX);
                }
            }
        }
        Ok(())
    }

    /// The turn; `None` if who has it brought nothing to the store for so long.
    fn turn_within(&self, time: Duration) -> Option<MutexGuard<'_, Option<Unpublished>>> {
        let (mut arrived, mut since) = (self.objects.arrived(), Instant::now());
        loop {
            let left = time.saturating_sub(since.elapsed());
            if let Some(turn) = self.turn.try_lock_for(left.min(LOOK_EVERY)) {
                return Some(turn);
            }
            if self.objects.arrived() != arrived {
                (arrived, since) = (self.objects.arrived(), Instant::now());
            } else if left.is_zero() {
                return None;
            }
        }
    }

    fn wait_until_due(&self) -> bool {
        let mut state = self.layers.lock();
        loop {
            if state.ended {
                return false;
            }
            let Some(front) = state.pending.front() else {
                self.changed.wait(&mut state);
                continue;
            };
            if front.sending.is_some()
                || front.rotation.is_some()
                || front.waiting_bytes() >= ENOUGH
            {
                return true;
            }
            match front.waiting {
                // Half of the lag is for the way.
                Some(batch) => {
                    let due = batch.since + self.lag / 2;
                    if Instant::now() >= due {
                        return true;
                    }
                    self.changed.wait_until(&mut state, due);
                }
                None => self.changed.wait(&mut state),
            }
        }
    }

    fn rest(&self, pause: Duration) {
        let until = Instant::now() + pause;
        let mut state = self.layers.lock();
        while !state.ended && !self.changed.wait_until(&mut state, until).timed_out() {}
    }

    /// Sends and publishes what the oldest layer has, or ends it in the catalog. `false`: there was
    /// nothing to do.
    fn step(
        &self,
        mut unpublished: MutexGuard<'_, Option<Unpublished>>,
        patience: Duration,
        lease: &HeldLease,
    ) -> Result<bool, NotStored> {
        let (layer, end, batch, rotation) = {
            let mut state = self.layers.lock();
            let Some(front) = state.pending.front_mut() else {
                return Ok(false);
            };
            if front.sending.is_none() {
                front.sending = front.waiting.take();
            }
            let rotation = front.rotation.clone();
            (Arc::clone(&front.layer), front.end, front.sending, rotation)
        };
        let Some(batch) = batch else {
            let Some((rotation, head)) = rotation else {
                return Ok(false);
            };
            let rotated = self
                .catalog
                .rotate(self.database, lease.epoch(), &rotation, &head);
            match rotated {
                // An active layer is never taken away: it was rotated by an earlier call whose
                // answer was lost, and compacted since.
                Err(CatalogError::NoSuchLayer(_)) => {}
                rotated => noticed(rotated, lease)?,
            }
            self.layers.lock().pending.pop_front();
            return Ok(true);
        };
        let lapses = lease.lapses();
        let begin = Segment::begin_behind(end);
        let sent = match unpublished.take() {
            Some(old)
                if (old.layer, old.segment.begin, old.lapses) == (layer.id(), begin, lapses) =>
            {
                old.segment
            }
            _ => {
                let log = LogRange {
                    from: end,
                    end: batch.end,
                    commits: Some(batch.commits),
                };
                send_log(&self.objects.within(patience), self.database, &layer, &log)?
            }
        };
        lease.check()?;
        if lease.lapses() != lapses {
            // The object was sent under a lease that lapsed: it may be taken for an orphan.
            return Ok(true);
        }
        let (piece_end, is_last) = (sent.end, sent.commits.is_some());
        let published = if is_last {
            self.catalog
                .publish(self.database, lease.epoch(), &batch.head, Some(&sent))
        } else {
            self.catalog
                .add_segment(self.database, lease.epoch(), layer.id(), &sent)
        };
        // After a conflict it is sent anew; without an answer it may be there already.
        if !matches!(published, Ok(()) | Err(CatalogError::Conflict(_))) {
            *unpublished = Some(Unpublished {
                layer: layer.id(),
                segment: sent,
                lapses,
            });
        }
        noticed(published, lease)?;
        let mut state = self.layers.lock();
        if let Some(front) = state.pending.front_mut() {
            front.end = piece_end;
            if is_last {
                front.sending = None;
            }
        }
        if is_last {
            state.published = batch.commits.last_lsn;
        }
        Ok(true)
    }
}

/// A catalog's answer; one that says that another writer came ends this one.
fn noticed(result: Result<(), CatalogError>, lease: &HeldLease) -> Result<(), NotStored> {
    if let Err(error @ CatalogError::Fenced { .. }) = &result {
        lease.lose(error);
    }
    Ok(result?)
}

impl Pending {
    fn batches(&self) -> impl Iterator<Item = &Batch> {
        self.sending.iter().chain(&self.waiting)
    }

    fn waiting_bytes(&self) -> u64 {
        self.batches()
            .map(|batch| batch.end)
            .max()
            .map_or(0, |end| end - self.end)
    }
}
