//! Segments: the objects that hold a layer's bytes in a remote store.
//!
//! Together a layer's segments hold its bytes from the first on. Each begins at the page in which
//! the one before it ended (which may be the page that this one began in), so that every page is
//! whole in one of them: the last that has it. That rule is here; which layer may get a segment,
//! and when, the catalog's calls say.

use serde::Serialize;

use super::{CommitRange, LayerRow, LayerState};

/// Segments begin at multiples of this.
pub(super) const PAGE: u64 = 4096;

/// An object in the remote store: a byte range of one layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Segment {
    /// First byte of the layer that it holds; a multiple of 4096.
    pub begin: u64,
    /// Behind the last byte that it holds.
    pub end: u64,
    /// The object's key, below the store's prefix:
    /// `<database>/<layer>/<begin, 12 hex digits>-<random, 16 hex digits>`.
    pub key: String,
    /// The object's length.
    pub bytes: u64,
    /// How much of the object's end is worth fetching when the layer is opened: its frame table,
    /// and frames with the layer's header, index, footer (or an image's sums).
    pub tail: u64,
    /// The commits whose records lie in it.
    pub commits: Option<CommitRange>,
}

impl Segment {
    /// Where the segment behind one that ends at `end` begins; the first one begins where nothing
    /// ended.
    #[must_use]
    pub fn begin_behind(end: u64) -> u64 {
        end - end % PAGE
    }
}

/// Checks that `next` goes on where the last of a layer's segments ended; says what is wrong.
pub(super) fn check_next(last: Option<&Segment>, next: &Segment) -> Result<(), String> {
    let end = last.map_or(0, |last| last.end);
    let begin = Segment::begin_behind(end);
    if next.begin != begin {
        return Err(format!(
            "the segment that begins at {} does not go on at {begin}, where the last one ended",
            next.begin
        ));
    }
    if next.end <= end {
        return Err(format!(
            "the segment that ends at {} holds nothing that was not there",
            next.end
        ));
    }
    if next.key.is_empty() || next.tail > next.bytes {
        return Err("the segment has no key, or a tail that is longer than its object".to_owned());
    }
    Ok(())
}

/// Checks that the segment ends within the layer.
pub(super) fn check_within(layer: &LayerRow, segment: &Segment) -> Result<(), String> {
    match layer.length() {
        Some(length) if length < segment.end => Err(format!(
            "the segment ends at {}, and layer {} at {length}",
            segment.end, layer.id
        )),
        _ => Ok(()),
    }
}

/// Checks the segments that come with a layer's row: none, or all from the first byte on, within
/// the layer, and to its end once it is sealed.
pub(super) fn check_all(layer: &LayerRow) -> Result<(), String> {
    let mut last = None;
    for segment in &layer.segments {
        check_next(last, segment)?;
        check_within(layer, segment)?;
        last = Some(segment);
    }
    let covered = last.map_or(0, |last| last.end);
    if layer.state == LayerState::Sealed && last.is_some() && Some(covered) != layer.length() {
        return Err(format!(
            "the segments of layer {} end at {covered}, before it ends",
            layer.id
        ));
    }
    Ok(())
}
