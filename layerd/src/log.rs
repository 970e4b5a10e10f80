//! The log: appending to the active layer, and turning what was appended into commit points.
//!
//! **Appending** takes no lock over I/O. A writer reserves its place at the tail (under a lock, a
//! few instructions), writes its record there with one system call, and then the records are
//! applied to the live image in the order of their places: each waits only for those before it.
//! So the image a reader sees is always a prefix of the log, which is what recovery would find.
//!
//! **Committing** is done by one thread for all that wait: it appends a commit record, does one
//! fdatasync, checks the lease, and only then tells everybody. Whoever asked before that commit
//! record got its place is answered by it.
//!
//! **Failing.** Room is reserved on the disk before a place in the log is given out, so a full
//! disk is an error with no trace. If a write into reserved room fails, or a sync does, the log is
//! poisoned: what the disk holds is unknown, and only recovery, which reads it, may go on.
//!
//! Lock order: `sync`, then `state`, then `image`. None is held over I/O, but for reserving room,
//! once in [`ALLOCATE`] bytes.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::catalog::StatePoint;
use crate::checksum::chunk_sums;
use crate::error::FsError;
use crate::format::RECORDS_AT;
use crate::frozen::CommitPoint;
use crate::id::{FileId, Lsn, Timestamp};
use crate::image::Image;
use crate::layer::Layer;
use crate::load::{Images, Loaded, note_payload};
use crate::machine::{Condvar, Mutex};
use crate::record::{
    Change, HEADER_LENGTH, PAYLOAD_MAX, Place, RECORD_ALIGN, Record, align, place_data,
};
use crate::scan::{LogScan, Scanned};

/// The active layer is allocated this far ahead, so that an fdatasync has no new length to
/// journal; the disk has room for what was reserved.
pub const ALLOCATE: u64 = 16 << 20;
/// So much is appended before the disk is told to begin writing it. Small enough that little is left
/// for the fsync at the end of a load, large enough that commits of some rows never ask.
const WRITE_BACK: u64 = 8 << 20;
/// What the kernel writes in.
const PAGE: u64 = 4096;
/// Room that data never takes, so that a commit record always fits: with the disk full, what was
/// written can still be acknowledged.
const SPARE: u64 = 4096;

/// [`Log::replace_image`] holds everybody up only for the last so many bytes of the log.
const CATCH_UP: u64 = 256 << 10;

/// A commit, as the log knows it.
#[derive(Clone)]
pub struct Commit {
    /// Its number.
    pub lsn: Lsn,
    /// Its time.
    pub time: Timestamp,
    /// Payload bytes ever written, up to it.
    pub written_bytes: u64,
    /// The layer that holds it.
    pub layer: Arc<Layer>,
    /// Behind its record in that layer.
    pub end: u64,
    /// The image.
    pub image: Image,
}

impl Commit {
    /// Which one it is.
    #[must_use]
    pub fn point(&self) -> CommitPoint {
        let point = StatePoint {
            layer: self.layer.id(),
            lsn: self.lsn,
        };
        CommitPoint {
            point: Some(point),
            time: self.time,
            written_bytes: self.written_bytes,
        }
    }
}

/// The log of a live database.
pub struct Log {
    sync: Mutex<SyncState>,
    synced: Condvar,
    state: Mutex<State>,
    /// Records were applied, or the log was poisoned.
    moved: Condvar,
    /// The live image. Readers clone what they need and go.
    image: RwLock<Image>,
}

struct SyncState {
    /// Somebody is committing.
    running: bool,
    /// All records with a smaller number are durable.
    durable: u64,
    lsn: Lsn,
}

struct State {
    layer: Arc<Layer>,
    /// Where the next record goes.
    tail: u64,
    /// Up to here the disk has room.
    allocated: u64,
    /// Everything below is known to be durable.
    durable_end: u64,
    /// Everything below is durable, or on its way to the disk.
    written_back: u64,
    /// Behind the last record of the active layer that was applied.
    applied_end: u64,
    /// Records that have a place and are not applied yet, in order.
    slots: VecDeque<Option<(Arc<Layer>, Scanned)>>,
    /// Number of the first of them.
    first: u64,
    /// There are records behind the last commit record.
    dirty: bool,
    lsn: Lsn,
    time: Timestamp,
    written_bytes: u64,
    /// The newest commit whose record was applied.
    committed: Option<Commit>,
    poisoned: Option<String>,
    /// No more changes are taken.
    closed: bool,
}

impl State {
    fn next(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    fn check(&self) -> Result<(), FsError> {
        match &self.poisoned {
            Some(reason) => Err(FsError::Poisoned(reason.clone())),
            None => Ok(()),
        }
    }

    /// Whether changes are still taken.
    fn check_open(&self) -> Result<(), FsError> {
        if self.closed {
            return Err(FsError::Poisoned("the database was closed".to_owned()));
        }
        self.check()
    }

    /// What the disk should begin to write now, if that is enough to be worth a call: whole pages,
    /// which no later record touches.
    fn take_write_back(&mut self) -> Option<(Arc<Layer>, Range<u64>)> {
        let begin = self.written_back.max(self.durable_end) & !(PAGE - 1);
        let end = self.applied_end & !(PAGE - 1);
        if end < begin + WRITE_BACK {
            return None;
        }
        self.written_back = end;
        Some((Arc::clone(&self.layer), begin..end))
    }

    /// Makes sure that the disk has room up to `end`.
    fn make_room(&mut self, end: u64) -> Result<(), FsError> {
        if end <= self.allocated {
            return Ok(());
        }
        let ample = align(end, ALLOCATE) + ALLOCATE;
        let file = self.layer.file();
        self.allocated = match file.allocate(self.allocated, ample) {
            Ok(()) => ample,
            // Nearly full: take just what is needed.
            Err(_) => {
                let exact = align(end, PAGE);
                file.allocate(self.allocated, exact)?;
                exact
            }
        };
        Ok(())
    }
}

/// A reserved place.
struct Slot {
    number: u64,
    at: u64,
    time: Timestamp,
    layer: Arc<Layer>,
}

/// Called with how a layer ends, before anything behind it can be acknowledged.
pub type Ready<'a> = &'a dyn Fn(&Ending) -> Result<(), FsError>;

/// How a layer ends.
pub struct Ending {
    /// The layer.
    pub layer: Arc<Layer>,
    /// Behind its last record.
    pub end: u64,
    /// The log's newest commit.
    pub lsn: Lsn,
    /// That commit, if it is new. It may be one that could not be acknowledged: it is in the log
    /// all the same, and what comes next stands on it.
    pub commit: Option<Commit>,
}

/// What [`Log::rotate`] switches to.
pub struct NextLayer {
    /// A new layer file; its header page is still to be written.
    pub layer: Arc<Layer>,
}

impl Log {
    /// A log that goes on behind `last`, in the fresh `layer`.
    #[must_use]
    pub fn new(
        layer: Arc<Layer>,
        lsn: Lsn,
        time: Timestamp,
        written_bytes: u64,
        image: Image,
    ) -> Log {
        Log {
            sync: Mutex::new(SyncState {
                running: false,
                durable: 0,
                lsn,
            }),
            synced: Condvar::new(),
            state: Mutex::new(State {
                layer,
                tail: RECORDS_AT,
                allocated: 0,
                durable_end: RECORDS_AT,
                written_back: RECORDS_AT,
                applied_end: RECORDS_AT,
                slots: VecDeque::new(),
                first: 0,
                dirty: false,
                lsn,
                time,
                written_bytes,
                committed: None,
                poisoned: None,
                closed: false,
            }),
            moved: Condvar::new(),
            image: RwLock::new(image),
        }
    }

    /// The live image, to look at.
    pub fn image(&self) -> parking_lot::RwLockReadGuard<'_, Image> {
        self.image.read()
    }

    /// Changes the live image in memory only: for what no record speaks of (open handles), or
    /// what says the same in other layers (compaction).
    pub fn with_image<R>(&self, change: impl FnOnce(&mut Image) -> R) -> R {
        change(&mut self.image.write())
    }

    /// Bytes used in the active layer, and its name.
    pub fn position(&self) -> (Arc<Layer>, u64) {
        let state = self.state.lock();
        (Arc::clone(&state.layer), state.tail)
    }

    /// The end of a log in good order: from now on nothing is appended. What was accepted before
    /// can still be committed; the caller does so before it seals the layer.
    pub fn close(&self) {
        self.state.lock().closed = true;
    }

    /// Stops everything: nothing is written or acknowledged any more.
    pub fn poison(&self, reason: &str) {
        let mut state = self.state.lock();
        if state.poisoned.is_none() {
            tracing::error!(
                reason,
                "the log is poisoned: syncs fail until the database is mounted anew"
            );
            state.poisoned = Some(reason.to_owned());
        }
        self.moved.notify_all();
    }

    /// Appends a change without a payload and applies it.
    pub fn append(&self, change: Change) -> Result<(), FsError> {
        let slot = {
            let mut state = self.state.lock();
            state.check_open()?;
            let length = (HEADER_LENGTH as u64) + align(change.body_length(), RECORD_ALIGN);
            let end = state.tail + length;
            state.make_room(end + SPARE)?;
            reserve(&mut state, end, Timestamp::now())
        };
        self.write(slot, change, &[])
    }

    /// Appends data and applies it. Longer data than one record holds becomes several.
    pub fn append_data(&self, file: FileId, offset: u64, data: &[u8]) -> Result<(), FsError> {
        let starts = (offset..).step_by(PAYLOAD_MAX);
        for (payload, offset) in data.chunks(PAYLOAD_MAX).zip(starts) {
            let length = payload.len() as u64;
            let (slot, place) = {
                let mut state = self.state.lock();
                state.check_open()?;
                let place = place_data(state.tail, offset, length);
                state.make_room(place.end + SPARE)?;
                state.written_bytes += length;
                (reserve(&mut state, place.end, Timestamp::now()), place)
            };
            let sums = chunk_sums(slot.layer.id(), place.payload_at, payload).collect();
            self.write(
                slot,
                Change::Data {
                    file,
                    offset,
                    length,
                    payload_at: place.payload_at,
                    sums,
                },
                payload,
            )?;
        }
        Ok(())
    }

    /// Writes the record of a reserved slot and applies what is ready.
    fn write(&self, slot: Slot, change: Change, payload: &[u8]) -> Result<(), FsError> {
        let record = Record {
            time: slot.time,
            change,
        };
        let bytes = record.encode(slot.layer.id(), slot.at);
        let body_end = slot.at + bytes.len() as u64;
        let (payload_at, end) = match record.change {
            Change::Data {
                payload_at, length, ..
            } => (payload_at, align(payload_at + length, RECORD_ALIGN)),
            _ => (body_end, body_end),
        };
        static ZEROS: [u8; 4096] = [0; 4096];
        let pad = &ZEROS[..(payload_at - body_end) as usize];
        if let Err(error) = slot.layer.file().write_at(&[&bytes, pad, payload], slot.at) {
            let reason = format!("cannot write to layer {}: {error}", slot.layer.id());
            self.poison(&reason);
            return Err(FsError::Poisoned(reason));
        }
        let scanned = Scanned {
            at: slot.at,
            record,
            place: Place { payload_at, end },
        };
        self.apply(slot.number, slot.layer, scanned)
    }

    /// Notes that a record is written, applies all records that have no unwritten one before them,
    /// and waits until this one is applied.
    fn apply(&self, number: u64, layer: Arc<Layer>, scanned: Scanned) -> Result<(), FsError> {
        let mut state = self.state.lock();
        let index = (number - state.first) as usize;
        state.slots[index] = Some((layer, scanned));
        let mut applied = false;
        while let Some(Some((layer, scanned))) = state.slots.front_mut().map(Option::take) {
            state.slots.pop_front();
            state.first += 1;
            applied = true;
            self.apply_one(&mut state, &layer, &scanned)?;
        }
        if applied {
            self.moved.notify_all();
        }
        while state.first <= number {
            state.check()?;
            self.moved.wait(&mut state);
        }
        let early = state.take_write_back();
        drop(state);
        if let Some((layer, range)) = early {
            layer.file().begin_write_back(range.start, range.end);
        }
        Ok(())
    }

    fn apply_one(
        &self,
        state: &mut State,
        layer: &Arc<Layer>,
        scanned: &Scanned,
    ) -> Result<(), FsError> {
        note_payload(layer, scanned);
        let mut image = self.image.write();
        if let Err(what) = image.apply(&scanned.record, layer, &|_| None) {
            drop(image);
            // The record is in the log and does not fit: recovery would stop there too.
            state.poisoned = Some(format!(
                "a record at {} of layer {} does not fit: {what}",
                scanned.at,
                layer.id()
            ));
            self.moved.notify_all();
            return state.check();
        }
        if Arc::ptr_eq(layer, &state.layer) {
            state.applied_end = scanned.place.end;
        }
        if let Change::Commit {
            lsn, written_bytes, ..
        } = scanned.record.change
        {
            state.committed = Some(Commit {
                lsn,
                time: scanned.record.time,
                written_bytes,
                layer: Arc::clone(layer),
                end: scanned.place.end,
                image: image.clone(),
            });
        }
        Ok(())
    }

    /// Swaps in an image that says the same in other layers. `loaded` is the state that `active`
    /// stands on; the active layer's records are applied to it, most of them before anybody has
    /// to wait. The caller keeps the log from going on in another layer meanwhile.
    pub fn replace_image(&self, active: &Arc<Layer>, loaded: &mut Loaded) -> Result<(), FsError> {
        let mut at = RECORDS_AT;
        loop {
            let end = self.state.lock().applied_end;
            if end <= at + CATCH_UP {
                break;
            }
            at = replay(active, at, end, loaded)?;
        }
        let state = self.state.lock();
        assert!(
            Arc::ptr_eq(active, &state.layer),
            "the active layer stays while it is replayed"
        );
        replay(active, at, state.applied_end, loaded)?;
        let mut image = self.image.write();
        // Files without a name live on in open handles only; they keep their old layers.
        loaded.image.forget_unlinked();
        loaded.image.adopt_unlinked(&image);
        let old = std::mem::replace(&mut *image, loaded.image.clone());
        drop((image, state));
        drop(old);
        Ok(())
    }

    /// Makes all that was appended before the call durable. `acknowledge` is called, by one
    /// thread at a time, after the fdatasync and before anybody is answered: it checks the lease
    /// and publishes. Returns the newest durable commit.
    pub fn sync(
        &self,
        acknowledge: &dyn Fn(&Commit) -> Result<(), FsError>,
    ) -> Result<Lsn, FsError> {
        let asked = {
            let state = self.state.lock();
            state.check()?;
            state.next()
        };
        let mut sync = self.sync.lock();
        loop {
            if sync.durable >= asked {
                return Ok(sync.lsn);
            }
            if !sync.running {
                break;
            }
            self.synced.wait(&mut sync);
        }
        sync.running = true;
        drop(sync);
        let result = self.commit(None, acknowledge);
        self.finish(result)
    }

    /// As [`Log::sync`], then goes on in another layer. The commit that ends the old layer is
    /// returned, or `None` if the old layer holds no commit at all and stays in use. `ready` is
    /// called before anything in the new layer can be acknowledged; once it was, the log is in the
    /// new layer, also where this returns an error because the commit could not be acknowledged.
    pub fn rotate(
        &self,
        next: &NextLayer,
        first_lsn: Lsn,
        acknowledge: &dyn Fn(&Commit) -> Result<(), FsError>,
        ready: Ready<'_>,
    ) -> Result<bool, FsError> {
        self.state.lock().check_open()?;
        let mut sync = self.sync.lock();
        while sync.running {
            self.synced.wait(&mut sync);
        }
        sync.running = true;
        drop(sync);
        {
            let state = self.state.lock();
            if !state.dirty && state.lsn < first_lsn {
                drop(state);
                // But for what could not be acknowledged before.
                let result = self.commit(None, acknowledge);
                return self.finish(result).map(|_| false);
            }
        }
        let result = self.commit(Some((next, ready)), acknowledge);
        self.finish(result).map(|_| true)
    }

    fn finish(&self, result: Result<(u64, Lsn), FsError>) -> Result<Lsn, FsError> {
        let mut sync = self.sync.lock();
        sync.running = false;
        if let Ok((durable, lsn)) = &result {
            sync.durable = sync.durable.max(*durable);
            sync.lsn = sync.lsn.max(*lsn);
        }
        self.synced.notify_all();
        result.map(|_| sync.lsn)
    }

    /// Appends a commit record if there is anything to commit, makes it durable, acknowledges.
    /// Returns the number of the record behind it, and its LSN.
    fn commit(
        &self,
        rotate: Option<(&NextLayer, Ready<'_>)>,
        acknowledge: &dyn Fn(&Commit) -> Result<(), FsError>,
    ) -> Result<(u64, Lsn), FsError> {
        let (slot, change, durable, old, old_end, lsn) = {
            let mut state = self.state.lock();
            state.check()?;
            let mut slot = None;
            if state.dirty {
                let change = Change::Commit {
                    lsn: state.lsn.next(),
                    durable_end: state.durable_end,
                    written_bytes: state.written_bytes,
                };
                let end = state.tail + HEADER_LENGTH as u64;
                state.make_room(end)?;
                // Times rise strictly, so that a time names one commit.
                let time = Timestamp::now().max(Timestamp(state.time.0 + 1));
                slot = Some((reserve(&mut state, end, time), change));
                state.dirty = false;
                state.lsn = state.lsn.next();
                state.time = time;
            }
            let (old, old_end) = (Arc::clone(&state.layer), state.tail);
            if let Some((next, _)) = rotate {
                state.layer = Arc::clone(&next.layer);
                state.tail = RECORDS_AT;
                state.durable_end = RECORDS_AT;
                state.written_back = RECORDS_AT;
                state.applied_end = RECORDS_AT;
                state.allocated = 0;
            }
            let (slot, change) = slot.unzip();
            (slot, change, state.next(), old, old_end, state.lsn)
        };
        if let (Some(slot), Some(change)) = (slot, change) {
            let end = slot.at + HEADER_LENGTH as u64;
            self.write(slot, change, &[])?;
            if let Err(error) = old.file().sync() {
                let reason = format!("cannot sync layer {}: {error}", old.id());
                self.poison(&reason);
                return Err(FsError::Poisoned(reason));
            }
            if rotate.is_none() {
                self.state.lock().durable_end = end;
            }
        }
        // Also a commit that became durable and could not be acknowledged the last time.
        let commit = self.state.lock().committed.clone();
        let acknowledged = commit.as_ref().map_or(Ok(()), acknowledge);
        // The log goes on in the new layer already, whoever was acknowledged what.
        if let Some((_, ready)) = rotate {
            let ending = Ending {
                layer: old,
                end: old_end,
                lsn,
                commit,
            };
            if let Err(error) = ready(&ending) {
                self.poison(&format!("cannot begin a new layer: {error}"));
                return acknowledged.and(Err(error));
            }
        }
        acknowledged?;
        self.state.lock().committed = None;
        Ok((durable, lsn))
    }
}

/// Applies the records of `layer` from `at` to `end`; returns `end`.
fn replay(layer: &Arc<Layer>, at: u64, end: u64, loaded: &mut Loaded) -> Result<u64, FsError> {
    let mut scan = LogScan::new(layer, at, end);
    while scan.at() < end {
        let at = scan.at();
        let Ok(scanned) = scan.next()? else {
            return Err(layer.damaged(at, "a record that was applied can't be read back"));
        };
        loaded.apply(layer, &scanned, &Images::new())?;
    }
    Ok(end)
}

/// Gives out the tail as a place for a record that ends at `end`.
fn reserve(state: &mut State, end: u64, time: Timestamp) -> Slot {
    let slot = Slot {
        number: state.next(),
        at: state.tail,
        time,
        layer: Arc::clone(&state.layer),
    };
    state.slots.push_back(None);
    state.tail = end;
    state.dirty = true;
    slot
}
