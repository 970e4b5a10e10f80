//! Reading a layer's records in order: from the log itself, or from the index of a sealed layer.
//!
//! A scan looks at headers and bodies only; payloads are verified when they are read. It stops,
//! without an error, at the first bytes that are not a record: whether that is the end, a torn
//! tail or damage is judged by who knows how far the log must reach.

use std::io;
use std::sync::Arc;

use crate::catalog::LayerRow;
use crate::disk::read_checked;
use crate::format::{LayerFooter, LayerHeader, PAGE_LENGTH, PageError, RECORDS_AT};
use crate::id::LayerId;
use crate::layer::Layer;
use crate::record::{HEADER_LENGTH, NotARecord, Place, Record, u64_at};

/// One record and where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scanned {
    /// Physical offset of its header.
    pub at: u64,
    /// The record.
    pub record: Record,
    /// Where payload and next record are.
    pub place: Place,
}

/// Why a layer file can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A page is not what it should be.
    #[error("page at offset {at}: {source}")]
    Page {
        /// Where.
        at: u64,
        /// Why.
        source: PageError,
    },
    /// An index entry is not a record.
    #[error("index entry at offset {at}: {what}")]
    Index {
        /// Where.
        at: u64,
        /// Why.
        what: &'static str,
    },
    /// The operating system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A window of a file that moves forward.
struct Window {
    bytes: Vec<u8>,
    at: u64,
    /// How much to fetch next: grows while records follow each other closely.
    fetch: usize,
}

const FETCH_MIN: usize = 4 << 10;
const FETCH_MAX: usize = 256 << 10;

impl Window {
    fn new() -> Window {
        Window {
            bytes: Vec::new(),
            at: 0,
            fetch: FETCH_MIN,
        }
    }

    /// What stands at `at` is no record. Where the bytes are a copy, drops them; tells whether it is
    /// worth asking for them again.
    fn mistrust(&mut self, layer: &Layer, at: u64, need: usize) -> bool {
        let again = layer.file().mistrust(at, need as u64);
        if again {
            self.bytes.clear();
        }
        again
    }

    /// The bytes from `at`, at least `need` of them unless `limit` or the file's end comes first.
    fn get(&mut self, layer: &Layer, at: u64, need: usize, limit: u64) -> io::Result<&[u8]> {
        let end = self.at + self.bytes.len() as u64;
        if at < self.at || at + need as u64 > end {
            let near = at >= self.at && at <= end && !self.bytes.is_empty();
            self.fetch = if near {
                (self.fetch * 4).min(FETCH_MAX)
            } else {
                FETCH_MIN
            };
            let length = (self.fetch.max(need) as u64).min(limit.saturating_sub(at));
            self.bytes.resize(length as usize, 0);
            let got = layer.file().read_at(&mut self.bytes, at)?;
            self.bytes.truncate(got);
            self.at = at;
        }
        let skip = ((at - self.at) as usize).min(self.bytes.len());
        Ok(&self.bytes[skip..])
    }
}

/// Scans the log of a layer from one record on.
pub struct LogScan<'a> {
    layer: &'a Layer,
    window: Window,
    at: u64,
    limit: u64,
}

impl<'a> LogScan<'a> {
    /// From the record that begins at `from`, up to `limit` (or the file's end).
    #[must_use]
    pub fn new(layer: &'a Layer, from: u64, limit: u64) -> LogScan<'a> {
        LogScan {
            layer,
            window: Window::new(),
            at: from,
            limit,
        }
    }

    /// Where the next record would begin.
    #[must_use]
    pub fn at(&self) -> u64 {
        self.at
    }

    /// The next record; the inner error says why there is none.
    pub fn next(&mut self) -> io::Result<Result<Scanned, NotARecord>> {
        let mut need = HEADER_LENGTH;
        let mut again = false;
        loop {
            let bytes = self.window.get(self.layer, self.at, need, self.limit)?;
            match Record::decode(self.layer.id(), self.at, bytes) {
                Err(NotARecord::Short { need: more }) if bytes.len() >= need && more > need => {
                    need = more
                }
                Err(_) if !again && self.window.mistrust(self.layer, self.at, need) => again = true,
                Err(reason) => return Ok(Err(reason)),
                Ok((_, place)) if place.end > self.limit => {
                    return Ok(Err(NotARecord::Short { need: 0 }));
                }
                Ok((record, place)) => {
                    let scanned = Scanned {
                        at: self.at,
                        record,
                        place,
                    };
                    self.at = place.end;
                    return Ok(Ok(scanned));
                }
            }
        }
    }
}

/// Reads and checks a layer's header page.
pub fn read_header(
    layer: LayerId,
    file: &dyn crate::disk::DiskFile,
) -> Result<LayerHeader, OpenError> {
    let header = read_checked(file, 0, PAGE_LENGTH, |page| {
        LayerHeader::decode(page).map_err(|source| OpenError::Page { at: 0, source })
    })?;
    if header.id != layer {
        return Err(OpenError::Page {
            at: 0,
            source: PageError::OtherLayer,
        });
    }
    Ok(header)
}

/// Reads and checks the footer page of a sealed layer.
pub fn read_footer(
    layer: LayerId,
    file: &dyn crate::disk::DiskFile,
) -> Result<LayerFooter, OpenError> {
    let length = file.length()?;
    let at = length.saturating_sub(PAGE_LENGTH as u64);
    let footer = read_checked(file, at, PAGE_LENGTH, |page| {
        LayerFooter::decode(page).map_err(|source| OpenError::Page { at, source })
    })?;
    if footer.id != layer {
        return Err(OpenError::Page {
            at,
            source: PageError::OtherLayer,
        });
    }
    if footer.index_at < footer.end
        || footer
            .index_at
            .checked_add(footer.index_length)
            .is_none_or(|end| end > at)
    {
        return Err(OpenError::Page {
            at,
            source: PageError::Checksum,
        });
    }
    Ok(footer)
}

/// One entry of a sealed layer's index: where the record is, and its header and body again.
pub fn encode_index_entry(at: u64, header_and_body: &[u8], out: &mut Vec<u8>) {
    out.extend(at.to_le_bytes());
    out.extend(header_and_body);
}

/// Calls `each` with every record in a sealed layer's index, until it says `false`.
pub fn scan_index(
    layer: &Layer,
    footer: &LayerFooter,
    mut each: impl FnMut(Scanned) -> Result<bool, OpenError>,
) -> Result<(), OpenError> {
    let mut window = Window {
        fetch: FETCH_MAX,
        ..Window::new()
    };
    let limit = footer.index_at + footer.index_length;
    let mut at = footer.index_at;
    let mut expected = RECORDS_AT;
    while at < limit {
        let mut need = 8 + HEADER_LENGTH;
        let mut again = false;
        let (scanned, length) = loop {
            let bytes = window.get(layer, at, need, limit)?;
            let Some((place, record)) = bytes.split_at_checked(8) else {
                return Err(OpenError::Index {
                    at,
                    what: "the index ends too early",
                });
            };
            let record_at = u64_at(place, 0);
            match Record::decode(layer.id(), record_at, record) {
                Ok((decoded, place)) => {
                    let length = 8 + Record::header_and_body_length(record);
                    break (
                        Scanned {
                            at: record_at,
                            record: decoded,
                            place,
                        },
                        length,
                    );
                }
                Err(NotARecord::Short { need: more }) if bytes.len() >= need && more + 8 > need => {
                    need = more + 8
                }
                Err(_) if !again && window.mistrust(layer, at, need) => again = true,
                Err(NotARecord::Bad(what)) => return Err(OpenError::Index { at, what }),
                Err(NotARecord::Blank | NotARecord::Short { .. }) => {
                    return Err(OpenError::Index {
                        at,
                        what: "the index ends too early",
                    });
                }
            }
        };
        if scanned.at != expected {
            return Err(OpenError::Index {
                at,
                what: "a record is missing from the index",
            });
        }
        expected = scanned.place.end;
        at += length as u64;
        if !each(scanned)? {
            return Ok(());
        }
    }
    if expected != footer.end {
        return Err(OpenError::Index {
            at,
            what: "the index does not reach the end of the log",
        });
    }
    Ok(())
}

/// Opens the layer and reads its header.
pub fn open_layer(
    files: &crate::files::Files,
    layer: LayerId,
    row: Option<&LayerRow>,
) -> Result<(Arc<Layer>, LayerHeader), OpenError> {
    let file = files.open_delta(layer, row)?;
    let header = read_header(layer, &*file)?;
    Ok((Arc::new(Layer::new(layer, file)), header))
}
