//! Fetching frames: which, with which requests, once.
//!
//! What a read misses becomes frames; frames that lie close together in an object become one
//! ranged GET. A frame that somebody is fetching already is waited for. Each is verified by its
//! checksum, kept in the cache, and handed to those who wait, so that a reader needs no second look
//! at a cache that may be full. What does not match is asked for once more, and then an error.
//!
//! How long a read may take: each call to the store ends after
//! [`CALL_MAX`](super::runtime::CALL_MAX), and a read makes at most six, one behind the other
//! (table, frames, frames whose fetch by somebody else failed; each twice where bytes are wrong).

use std::collections::{HashMap, HashSet};
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::try_join_all;
use object_store::ObjectStoreExt;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Semaphore, watch};

use super::cache::CacheFile;
use super::frame::FrameDecoder;
use super::parts::{Part, Parts};
use super::runtime::{block_on, bounded, spawn, unblock};
use super::segment::{Frame, FrameKind, PAGE, SegmentError, TRAILER_LENGTH, Table};
use super::tier::Tier;
use crate::catalog::Segment;
use crate::id::LayerId;

/// The most that one GET brings, as stored and as decoded. A link of less than 6 Mbit/s would not
/// bring [`IN_FLIGHT`] of them within the time that a call may take.
pub const GET_MAX: u64 = 4 << 20;
/// The most that all GETs bring that are under way in this process at the same time, in GETs of the
/// greatest length. Arithmetic: 16 of them, twice 4 MiB, are 128 MiB; at 50 ms each they bring
/// 1 GB/s, more than the link does.
pub const IN_FLIGHT: usize = 16;
/// Of these, so many may be for what nobody waits for yet.
const IN_FLIGHT_AHEAD: usize = 12;
/// A GET counts by what it brings, and at least as so much: many places of a file are read ahead
/// block by block. Arithmetic: 64 at a time, and 48 blocks of 256 KiB ahead bring 250 MB/s at 50 ms.
const GET_MIN: u64 = 1 << 20;
/// One permit stands for so much.
const PERMIT: u64 = 256 << 10;
/// Bytes between two frames that are fetched along rather than asked for apart: 256 KiB take 2 ms
/// at 1 Gbit/s, a request takes longer.
const GAP_MAX: u64 = 256 << 10;
/// Objects up to this length are fetched whole, when their table is.
const SMALL: u64 = 1 << 20;

const PERMITS_EACH: usize = (GET_MAX / PERMIT) as usize;
static ALL: Semaphore = Semaphore::const_new(IN_FLIGHT * PERMITS_EACH);
static AHEAD: Semaphore = Semaphore::const_new(IN_FLIGHT_AHEAD * PERMITS_EACH);

/// How many permits a GET takes.
fn permits(bytes: u64) -> u32 {
    bytes.clamp(GET_MIN, GET_MAX).div_ceil(PERMIT) as u32
}

/// Why bytes of a remote layer can't be had.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FetchError {
    /// The store refused or did not answer; a later read may find it well again.
    #[error("segment {key} of layer {layer} cannot be fetched from {store}: {reason}")]
    Store {
        /// The layer.
        layer: LayerId,
        /// The object.
        key: String,
        /// The store's URL.
        store: Arc<str>,
        /// What the store, or the client, said.
        reason: String,
    },
    /// The store has no such object; the layer may have other segments by now.
    #[error("segment {key} of layer {layer} is not in {store}: there is no such object")]
    Gone {
        /// The layer.
        layer: LayerId,
        /// The object.
        key: String,
        /// The store's URL.
        store: Arc<str>,
    },
    /// What the store has is not what was uploaded.
    #[error(
        "segment {key} of layer {layer} is damaged in {store}: {source}; `openduck-fs verify --deep` names all damage"
    )]
    Damaged {
        /// The layer.
        layer: LayerId,
        /// The object.
        key: String,
        /// The store's URL.
        store: Arc<str>,
        /// What does not fit.
        source: SegmentError,
    },
    /// The catalog lists no segment for these bytes.
    #[error("no segment holds offset {at} of layer {layer}")]
    Missing {
        /// The layer.
        layer: LayerId,
        /// The first such byte.
        at: u64,
    },
}

impl FetchError {
    /// The layer whose bytes they are.
    #[must_use]
    pub fn layer(&self) -> LayerId {
        match self {
            FetchError::Store { layer, .. }
            | FetchError::Gone { layer, .. }
            | FetchError::Damaged { layer, .. }
            | FetchError::Missing { layer, .. } => *layer,
        }
    }
}

impl From<FetchError> for io::Error {
    fn from(error: FetchError) -> Self {
        let kind = match error {
            FetchError::Store { .. } | FetchError::Gone { .. } => io::ErrorKind::Other,
            FetchError::Damaged { .. } | FetchError::Missing { .. } => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, error)
    }
}

/// The outcome of one GET: its frames' bytes by their begin, and why others are missing.
type Outcome = Arc<(HashMap<u64, Vec<u8>>, Option<FetchError>)>;
/// Where the outcome of a GET that is under way will be.
type Flight = watch::Receiver<Option<Outcome>>;
/// The frames of one GET.
type Group = (Arc<Part>, Vec<Frame>, watch::Sender<Option<Outcome>>);
/// A frame's segment and begin.
type FrameKey = (u64, u64);

/// A frame that is on its way.
struct Claim {
    flight: Flight,
    /// Asked for by this read; else by another, before.
    is_ours: bool,
}

impl Claim {
    /// Waits for the outcome with the piece's frame in it.
    async fn frame(mut self, piece: &Piece, layer: &RemoteLayer) -> Result<Outcome, FetchError> {
        let outcome = match self.flight.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone(),
            Err(_) => None,
        };
        let given_up = || layer.store_error(&piece.part, "the request was given up");
        let outcome = outcome.ok_or_else(given_up)?;
        if outcome.0.contains_key(&piece.frame.begin) {
            return Ok(outcome);
        }
        Err(outcome.1.clone().unwrap_or_else(given_up))
    }
}

/// Tells those who wait when a GET ends, however it ends.
struct Landing {
    layer: Arc<RemoteLayer>,
    keys: Vec<FrameKey>,
    sender: watch::Sender<Option<Outcome>>,
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut flights = self.layer.flights.lock();
        for key in &self.keys {
            flights.remove(key);
        }
    }
}

/// A layer in the store, shared by all files that show a part of it.
pub struct RemoteLayer {
    id: LayerId,
    tier: Arc<Tier>,
    parts: RwLock<Parts>,
    /// `None` where the local disk has no place for it.
    cached: Option<Arc<CacheFile>>,
    flights: Mutex<HashMap<FrameKey, Flight>>,
}

/// A piece of a read: a range of the layer within one frame.
struct Piece {
    frame: Frame,
    part: Arc<Part>,
    begin: u64,
    end: u64,
}

impl Piece {
    fn key(&self) -> FrameKey {
        (self.part.number, self.frame.begin)
    }
}

impl RemoteLayer {
    pub(super) fn new(
        tier: &Arc<Tier>,
        id: LayerId,
        segments: &[Segment],
    ) -> io::Result<RemoteLayer> {
        let mut parts = Parts::default();
        parts.extend(id, segments)?;
        let cached = tier.cache().and_then(|cache| {
            let file = cache.file(id, parts.end());
            file.inspect_err(|error| tracing::warn!(layer = %id, %error, "not cached"))
                .ok()
        });
        Ok(RemoteLayer {
            id,
            tier: Arc::clone(tier),
            parts: RwLock::new(parts),
            cached,
            flights: Mutex::default(),
        })
    }

    pub(super) fn extend(&self, segments: &[Segment]) -> io::Result<()> {
        let mut parts = self.parts.read().clone();
        parts.extend(self.id, segments)?;
        if let Some(cached) = &self.cached
            && let Err(error) = cached.grow(parts.end())
        {
            tracing::warn!(layer = %self.id, %error, "what was added is not cached");
        }
        let mut current = self.parts.write();
        // Another thread may have taken over a newer list.
        if current.end() <= parts.end() {
            *current = parts;
        }
        Ok(())
    }

    /// Which layer it is.
    pub(super) fn id(&self) -> LayerId {
        self.id
    }

    /// Behind the layer's last byte.
    pub(super) fn end(&self) -> u64 {
        self.parts.read().end()
    }

    pub(super) fn cached(&self) -> Option<&Arc<CacheFile>> {
        self.cached.as_ref()
    }

    /// What was read there did not match the layer's own checksums.
    pub(super) fn mistrust(&self, range: Range<u64>) {
        if let Some(cached) = &self.cached {
            cached.mistrust(range.start, range.end);
        }
    }

    /// Whether all of `begin..end` is in the cache.
    pub(super) fn is_cached(&self, range: &Range<u64>) -> bool {
        let cached = self.cached.as_ref();
        cached.is_some_and(|cached| cached.is_present(range.start, range.end))
    }

    /// Fills `out` with the bytes from `at` on, all of which the layer has.
    pub(super) fn read(self: &Arc<Self>, out: &mut [u8], at: u64) -> io::Result<()> {
        if let Some(cached) = &self.cached
            && cached.read(out, at)
        {
            self.tier.stats().hit();
            return Ok(());
        }
        self.tier.stats().miss();
        match block_on(self.read_pieces(out, at))? {
            Err(error) if self.has_moved(&error)? => block_on(self.read_pieces(out, at))??,
            read => read?,
        }
        Ok(())
    }

    async fn read_pieces(self: &Arc<Self>, out: &mut [u8], at: u64) -> Result<(), FetchError> {
        let pieces = self.pieces(at, at + out.len() as u64).await?;
        let missing = self.take_local(&pieces, out, at);
        self.take_remote(missing, out, at).await
    }

    /// Whether an object is gone because the layer has other segments now, which are taken over:
    /// sealing sends a layer of many small ones anew.
    pub(super) fn has_moved(&self, error: &FetchError) -> io::Result<bool> {
        let FetchError::Gone { key, .. } = error else {
            return Ok(false);
        };
        let segments = self.tier.segments(self.id)?;
        if segments.is_empty() || segments.iter().any(|segment| segment.key == *key) {
            return Ok(false);
        }
        self.extend(&segments)?;
        Ok(true)
    }

    /// Begins to fetch what is missing of a range, and does not wait for it. The reader itself
    /// asks for `read`, at once and with nothing else.
    pub(super) fn fetch_ahead(self: &Arc<Self>, range: Range<u64>, read: Range<u64>) {
        // What can't be kept would be fetched again.
        if !self.cached.as_ref().is_some_and(|cached| cached.has_room()) {
            return;
        }
        let end = range.end.min(self.end());
        if range.start >= end || self.is_cached(&(range.start..end)) {
            return;
        }
        let this = Arc::clone(self);
        spawn(async move {
            match this.pieces(range.start, end).await {
                Ok(pieces) => {
                    let mut missing = this.missing(&pieces);
                    missing.retain(|piece| {
                        piece.frame.end() <= read.start || piece.frame.begin >= read.end
                    });
                    drop(this.claim(&missing, true));
                }
                Err(error) => tracing::debug!(%error, "cannot read ahead"),
            }
        });
    }

    /// Fetches what is missing of a range into the cache.
    pub(super) async fn fetch(self: Arc<Self>, range: Range<u64>) -> Result<(), FetchError> {
        if self.is_cached(&range) {
            return Ok(());
        }
        let pieces = self.pieces(range.start, range.end).await?;
        let missing = self.missing(&pieces);
        for (piece, claim) in missing.iter().zip(self.claim(&missing, true)) {
            claim.frame(piece, &self).await?;
        }
        Ok(())
    }

    /// Fetches the tables of its segments, and with them the frames that stand beside them:
    /// of the first and the last, or of all.
    pub(super) async fn open(self: Arc<Self>, all: bool) -> Result<(), FetchError> {
        let mut parts = self.parts.read().to_open(all);
        parts.retain(|part| all || !self.has_ends(part));
        try_join_all(parts.iter().map(|part| self.table(part))).await?;
        Ok(())
    }

    /// Whether the cache has the layer's first and its last page, as far as the segment has them: so
    /// what opening the layer reads was fetched before, and the store need not be there.
    fn has_ends(&self, part: &Part) -> bool {
        let end = part.segment.end;
        let is_last = end == self.parts.read().end();
        let has = |begin: u64| {
            let cached = self.cached.as_ref();
            cached.is_some_and(|cached| cached.is_present(begin, begin + PAGE))
        };
        (part.segment.begin > 0 || has(0))
            && (!is_last || part.whole_end() == end && has(end.saturating_sub(PAGE)))
    }

    /// The pieces of a range, frame by frame.
    async fn pieces(&self, begin: u64, end: u64) -> Result<Vec<Piece>, FetchError> {
        let parts = self.parts.read().pieces(begin, end);
        let reached = parts.last().map_or(begin, |(_, _, to)| *to);
        if reached < end {
            return Err(FetchError::Missing {
                layer: self.id,
                at: reached,
            });
        }
        let tables = try_join_all(parts.iter().map(|(part, ..)| self.table(part))).await?;
        let mut pieces = Vec::new();
        for ((part, from, to), table) in parts.iter().zip(tables) {
            let mut at = *from;
            let first = table.find(at).unwrap_or(table.frames.len());
            for frame in &table.frames[first..] {
                if at >= *to {
                    break;
                }
                let end = frame.end().min(*to);
                pieces.push(Piece {
                    frame: *frame,
                    part: Arc::clone(part),
                    begin: at,
                    end,
                });
                at = end;
            }
        }
        Ok(pieces)
    }

    /// The pieces that are neither here nor zeros. Zeros are noted in the cache.
    fn missing<'a>(&self, pieces: &'a [Piece]) -> Vec<&'a Piece> {
        let is_missing = |piece: &&Piece| {
            let whole_end = piece.end.min(piece.part.whole_end());
            let has_pages = whole_end <= piece.begin
                || self
                    .cached
                    .as_ref()
                    .is_some_and(|cached| cached.is_present(piece.begin, whole_end));
            let has_last = piece.end <= piece.part.whole_end() || piece.part.last().is_some();
            if has_pages && has_last {
                return false;
            }
            if piece.frame.kind == FrameKind::Zeros {
                self.keep(&piece.part, &piece.frame, None);
                return false;
            }
            true
        };
        pieces.iter().filter(is_missing).collect()
    }

    /// Copies what is here to the reader's buffer; returns the other pieces.
    fn take_local<'a>(&self, pieces: &'a [Piece], out: &mut [u8], at: u64) -> Vec<&'a Piece> {
        let mut missing = Vec::new();
        for piece in pieces {
            let target = &mut out[(piece.begin - at) as usize..(piece.end - at) as usize];
            if piece.frame.kind == FrameKind::Zeros {
                target.fill(0);
                self.keep(&piece.part, &piece.frame, None);
            } else if !self.take_piece(piece, target) {
                missing.push(piece);
            }
        }
        missing
    }

    fn take_piece(&self, piece: &Piece, target: &mut [u8]) -> bool {
        let whole_end = piece.part.whole_end().clamp(piece.begin, piece.end);
        let (pages, rest) = target.split_at_mut((whole_end - piece.begin) as usize);
        if !rest.is_empty() {
            let Some(last) = piece.part.last() else {
                return false;
            };
            let skip = (whole_end - piece.part.whole_end()) as usize;
            rest.copy_from_slice(&last[skip..skip + rest.len()]);
        }
        pages.is_empty()
            || self
                .cached
                .as_ref()
                .is_some_and(|cached| cached.read(pages, piece.begin))
    }

    /// Fetches pieces and copies them to the reader's buffer.
    async fn take_remote(
        self: &Arc<Self>,
        mut missing: Vec<&Piece>,
        out: &mut [u8],
        at: u64,
    ) -> Result<(), FetchError> {
        let mut is_second = false;
        while !missing.is_empty() {
            let mut failed = Vec::new();
            let claims = self.claim(&missing, false);
            for (piece, claim) in missing.into_iter().zip(claims) {
                let is_ours = claim.is_ours;
                match claim.frame(piece, self).await {
                    Ok(outcome) => {
                        let frame = &outcome.0[&piece.frame.begin];
                        let from = (piece.begin - piece.frame.begin) as usize;
                        let to = (piece.end - piece.frame.begin) as usize;
                        out[(piece.begin - at) as usize..(piece.end - at) as usize]
                            .copy_from_slice(&frame[from..to]);
                    }
                    // What failed for somebody else, who may have asked long ago.
                    Err(_) if !is_ours && !is_second => failed.push(piece),
                    Err(error) => return Err(error),
                }
            }
            is_second = true;
            missing = failed;
        }
        Ok(())
    }

    /// Begins to fetch the frames of pieces, but for those that are on their way already.
    fn claim(self: &Arc<Self>, pieces: &[&Piece], ahead: bool) -> Vec<Claim> {
        let mut groups: Vec<Group> = Vec::new();
        let mut flights = self.flights.lock();
        let mut new: Vec<&&Piece> = pieces
            .iter()
            .filter(|piece| !flights.contains_key(&piece.key()))
            .collect();
        new.sort_by_key(|piece| (piece.part.number, piece.frame.at));
        let asked: HashSet<FrameKey> = new.iter().map(|piece| piece.key()).collect();
        for piece in new {
            let fits = groups.last().is_some_and(|(part, frames, _)| {
                part.number == piece.part.number && fits(frames, &piece.frame)
            });
            if !fits {
                groups.push((
                    Arc::clone(&piece.part),
                    Vec::new(),
                    watch::Sender::new(None),
                ));
            }
            if let Some((_, frames, sender)) = groups.last_mut() {
                frames.push(piece.frame);
                flights.insert(piece.key(), sender.subscribe());
            }
        }
        let claims = pieces.iter().filter_map(|piece| {
            Some(Claim {
                flight: flights.get(&piece.key())?.clone(),
                is_ours: asked.contains(&piece.key()),
            })
        });
        let claims = claims.collect();
        drop(flights);
        for (part, frames, sender) in groups {
            let landing = Landing {
                layer: Arc::clone(self),
                keys: frames
                    .iter()
                    .map(|frame| (part.number, frame.begin))
                    .collect(),
                sender,
            };
            spawn(async move {
                let outcome = landing.layer.get_frames(&part, frames, ahead).await;
                landing.sender.send_replace(Some(Arc::new(outcome)));
            });
        }
        claims
    }

    /// One GET, and one more for each frame that came damaged.
    async fn get_frames(
        self: &Arc<Self>,
        part: &Arc<Part>,
        frames: Vec<Frame>,
        ahead: bool,
    ) -> (HashMap<u64, Vec<u8>>, Option<FetchError>) {
        let begin = frames.first().map_or(0, |frame| frame.at);
        let end = frames.last().map_or(0, Frame::stored_end);
        let decoded: u64 = frames.iter().map(|frame| u64::from(frame.length)).sum();
        let count = permits(decoded.max(end - begin));
        // Neither is ever closed.
        let _ahead = if ahead {
            AHEAD.acquire_many(count).await.ok()
        } else {
            None
        };
        let _all = ALL.acquire_many(count).await.ok();
        let mut done = HashMap::new();
        let bytes = match self.get(part, begin..end).await {
            Ok(bytes) => bytes,
            Err(error) => return (done, Some(error)),
        };
        let bad = self.decode(part, frames, bytes, begin, &mut done).await;
        let mut failed = None;
        for (frame, source) in bad {
            self.tier.stats().failed();
            tracing::warn!(layer = %self.id, key = %part.segment.key, offset = frame.begin, "a frame came damaged; asking again");
            match self.get(part, frame.at..frame.stored_end()).await {
                Ok(bytes) => {
                    let bad = self
                        .decode(part, vec![frame], bytes, frame.at, &mut done)
                        .await;
                    if !bad.is_empty() {
                        failed = Some(self.damaged(part, source));
                    }
                }
                Err(error) => failed = Some(error),
            }
        }
        (done, failed)
    }

    /// Decodes frames, of which the stored bytes stand in `bytes`, and keeps them in the cache;
    /// returns those that are damaged.
    async fn decode(
        self: &Arc<Self>,
        part: &Arc<Part>,
        frames: Vec<Frame>,
        bytes: Bytes,
        begin: u64,
        done: &mut HashMap<u64, Vec<u8>>,
    ) -> Vec<(Frame, SegmentError)> {
        let (this, on) = (Arc::clone(self), Arc::clone(part));
        let spare = frames.clone();
        let work = move || {
            let (mut good, mut bad) = (Vec::with_capacity(frames.len()), Vec::new());
            let mut decoder = FrameDecoder::new();
            for frame in frames {
                let stored = (frame.at - begin) as usize..(frame.stored_end() - begin) as usize;
                let decoded = match (&mut decoder, bytes.get(stored)) {
                    (Ok(decoder), Some(stored)) => decoder.decode(this.id, &frame, stored),
                    _ => Err(SegmentError::Frame),
                };
                match decoded {
                    Ok(content) => {
                        this.keep(&on, &frame, Some(&content));
                        good.push((frame.begin, content));
                    }
                    Err(error) => bad.push((frame, error)),
                }
            }
            (good, bad)
        };
        match unblock(work).await {
            Some((good, bad)) => {
                done.extend(good);
                bad
            }
            None => {
                let bad = |frame| (frame, SegmentError::Frame);
                spare.into_iter().map(bad).collect()
            }
        }
    }

    /// Keeps a frame's bytes (zeros, where there are none) in the cache.
    fn keep(&self, part: &Part, frame: &Frame, bytes: Option<&[u8]>) {
        if let Some(cached) = &self.cached {
            cached.store(frame.begin, u64::from(frame.length), bytes);
        }
        match bytes {
            Some(bytes) => part.keep_last(frame.begin, bytes),
            None if frame.end() == part.segment.end => {
                let begin = part.whole_end().max(frame.begin);
                part.keep_last(begin, &vec![0; (frame.end() - begin) as usize]);
            }
            None => {}
        }
    }

    /// A segment's table. Where it is not here, it is fetched, and the frames beside it are kept.
    async fn table(&self, part: &Arc<Part>) -> Result<Arc<Table>, FetchError> {
        let segment = &part.segment;
        if let Some(table) = self.tier.tables().get(part.number) {
            return Ok(table);
        }
        let _gate = part.gate.lock().await;
        if let Some(table) = self.tier.tables().get(part.number) {
            return Ok(table);
        }
        let _all = ALL.acquire_many(permits(SMALL)).await.ok();
        let mut length = if segment.bytes <= SMALL {
            segment.bytes
        } else {
            segment.tail.clamp(TRAILER_LENGTH as u64, GET_MAX)
        };
        let mut is_second = false;
        loop {
            let from = segment.bytes.saturating_sub(length);
            let bytes = self.get(part, from..segment.bytes).await?;
            match Table::decode(self.id, segment.begin, segment.end, segment.bytes, &bytes) {
                Ok(table) => {
                    let table = Arc::new(table);
                    self.tier.tables().put(part.number, &table);
                    self.keep_along(part, &table, &bytes, from);
                    return Ok(table);
                }
                Err(SegmentError::Short(need)) if need > length && need <= segment.bytes => {
                    length = need;
                }
                Err(_) if !is_second => {
                    self.tier.stats().failed();
                    is_second = true;
                }
                Err(source) => return Err(self.damaged(part, source)),
            }
        }
    }

    /// Keeps the frames that came along with a table. One that is damaged is asked for again when
    /// it is read.
    fn keep_along(&self, part: &Part, table: &Table, bytes: &[u8], from: u64) {
        let Ok(mut decoder) = FrameDecoder::new() else {
            return;
        };
        let along = |frame: &&Frame| frame.at >= from && frame.kind != FrameKind::Zeros;
        for frame in table.frames.iter().filter(along) {
            let stored = (frame.at - from) as usize..(frame.stored_end() - from) as usize;
            match bytes
                .get(stored)
                .map(|stored| decoder.decode(self.id, frame, stored))
            {
                Some(Ok(content)) => self.keep(part, frame, Some(&content)),
                Some(Err(_)) => self.tier.stats().failed(),
                None => {}
            }
        }
    }

    /// A range of an object; one that came too short is asked for once more.
    async fn get(&self, part: &Part, range: Range<u64>) -> Result<Bytes, FetchError> {
        let store = self.tier.objects().store();
        let length = range.end - range.start;
        for _ in 0..2 {
            match bounded(store.get_range(&part.key, range.clone())).await {
                Ok(bytes) => {
                    self.tier.stats().got(bytes.len() as u64);
                    if bytes.len() as u64 == length {
                        return Ok(bytes);
                    }
                    self.tier.stats().failed();
                }
                Err(object_store::Error::NotFound { .. }) => {
                    self.tier.stats().failed();
                    return Err(FetchError::Gone {
                        layer: self.id,
                        key: part.segment.key.clone(),
                        store: self.tier.objects().url().into(),
                    });
                }
                Err(error) => {
                    self.tier.stats().failed();
                    return Err(self.store_error(part, &error.to_string()));
                }
            }
        }
        Err(self.store_error(part, "it sends less than the object has"))
    }

    fn store_error(&self, part: &Part, reason: &str) -> FetchError {
        FetchError::Store {
            layer: self.id,
            key: part.segment.key.clone(),
            store: self.tier.objects().url().into(),
            reason: reason.to_owned(),
        }
    }

    fn damaged(&self, part: &Part, source: SegmentError) -> FetchError {
        FetchError::Damaged {
            layer: self.id,
            key: part.segment.key.clone(),
            store: self.tier.objects().url().into(),
            source,
        }
    }
}

/// Whether one GET may bring a frame behind others, which are sorted by their place in the object.
fn fits(frames: &[Frame], next: &Frame) -> bool {
    let (Some(first), Some(last)) = (frames.first(), frames.last()) else {
        return true;
    };
    let decoded: u64 = frames.iter().map(|frame| u64::from(frame.length)).sum();
    next.at.saturating_sub(last.stored_end()) <= GAP_MAX
        && next.stored_end() - first.at <= GET_MAX
        && decoded + u64::from(next.length) <= GET_MAX
}
