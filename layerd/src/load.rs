//! Building an image from the layers of a chain.

use std::collections::HashMap;
use std::sync::Arc;

use crate::catalog::{Chain, LayerKind, LayerRow, LayerState};
use crate::checksum::chunk_count;
use crate::disk::{DiskFile, read_checked};
use crate::error::FsError;
use crate::files::Files;
use crate::format::{ImageHeader, PAGE_LENGTH, PageError, RECORDS_AT};
use crate::id::{LayerId, Lsn, Timestamp};
use crate::image::Image;
use crate::layer::Layer;
use crate::record::{Change, NotARecord};
use crate::scan::{LogScan, OpenError, Scanned, open_layer, read_footer, scan_index};

/// An image at a commit, and what is needed to go on from there.
#[derive(Clone)]
pub struct Loaded {
    /// The image.
    pub image: Image,
    /// The commit.
    pub lsn: Lsn,
    /// Its time.
    pub time: Timestamp,
    /// Payload bytes ever written, up to it.
    pub written_bytes: u64,
    /// All layers of the chain, image layers too.
    pub layers: Vec<Arc<Layer>>,
    /// The layer that holds the commit.
    pub last: Option<Arc<Layer>>,
    /// Where the record behind the commit begins in that layer.
    pub end: u64,
}

impl Loaded {
    /// The empty database.
    #[must_use]
    pub fn empty() -> Loaded {
        Loaded {
            image: Image::empty(),
            lsn: Lsn::EMPTY,
            time: Timestamp(0),
            written_bytes: 0,
            layers: Vec::new(),
            last: None,
            end: 0,
        }
    }

    /// Applies a record and makes its payload readable. Tells whether it was a commit.
    pub fn apply(
        &mut self,
        layer: &Arc<Layer>,
        scanned: &Scanned,
        images: &Images,
    ) -> Result<bool, FsError> {
        note_payload(layer, scanned);
        self.image
            .apply(&scanned.record, layer, &|id| images.get(&id).cloned())
            .map_err(|what| layer.damaged(scanned.at, what))?;
        if let Change::Commit {
            lsn, written_bytes, ..
        } = scanned.record.change
        {
            (self.lsn, self.time, self.written_bytes, self.end) =
                (lsn, scanned.record.time, written_bytes, scanned.place.end);
            return Ok(true);
        }
        Ok(false)
    }
}

/// Image layers by id.
pub type Images = HashMap<LayerId, Arc<Layer>>;

/// Makes a data record's payload readable through its layer.
pub fn note_payload(layer: &Layer, scanned: &Scanned) {
    if let Change::Data {
        length,
        payload_at,
        sums,
        ..
    } = &scanned.record.change
    {
        layer.add_payload(*payload_at, *length, sums);
    }
}

/// Maps a layer that can't be opened to what a reader is told.
pub fn open_error(layer: LayerId, error: OpenError) -> FsError {
    let damaged = |offset, what: &'static str| {
        tracing::error!(%layer, offset, what, "layer is damaged");
        FsError::Damaged {
            layer,
            offset,
            what,
        }
    };
    match error {
        OpenError::Page {
            at,
            source: PageError::Foreign,
        } => damaged(at, "this is not a page of a layer file"),
        OpenError::Page {
            at,
            source: PageError::Version(_),
        } => damaged(at, "its format version is unknown to this program"),
        OpenError::Page {
            at,
            source: PageError::Checksum,
        } => damaged(at, "a page does not match its checksum"),
        OpenError::Page {
            at,
            source: PageError::OtherLayer,
        } => damaged(at, "it belongs to another layer"),
        OpenError::Index { at, what } => damaged(at, what),
        OpenError::Io(error) => {
            tracing::error!(%layer, %error, "cannot open layer");
            error.into()
        }
    }
}

/// Reads the checksums beside an image layer.
pub fn read_image_header(
    id: LayerId,
    file: &dyn DiskFile,
) -> Result<(ImageHeader, Vec<u32>), OpenError> {
    let header = read_checked(file, 0, PAGE_LENGTH, |page| {
        ImageHeader::decode(page).map_err(|source| OpenError::Page { at: 0, source })
    })?;
    if header.id != id {
        return Err(OpenError::Page {
            at: 0,
            source: PageError::OtherLayer,
        });
    }
    let count = chunk_count(header.size);
    if count * 4 + PAGE_LENGTH as u64 != file.length()? {
        return Err(OpenError::Index {
            at: 0,
            what: "the checksum file has the wrong length",
        });
    }
    let length = count as usize * 4;
    let sums = read_checked(file, PAGE_LENGTH as u64, length, |bytes| {
        if bytes.len() != length || *blake3::hash(bytes).as_bytes() != header.sums_hash {
            return Err(OpenError::Index {
                at: PAGE_LENGTH as u64,
                what: "the checksums do not match their hash",
            });
        }
        let sums = bytes.as_chunks::<4>().0.iter();
        Ok(sums.map(|sum| u32::from_le_bytes(*sum)).collect())
    })?;
    Ok((header, sums))
}

/// Opens an image layer.
pub fn open_image(files: &Files, row: &LayerRow) -> Result<Arc<Layer>, OpenError> {
    let (file, sums) = files.open_image(row)?;
    let (header, sums) = read_image_header(row.id, &*sums)?;
    if file.length()? != header.size {
        return Err(OpenError::Index {
            at: 0,
            what: "the image file has the wrong length",
        });
    }
    Ok(Arc::new(Layer::image(row.id, file, header.size, sums)))
}

/// Loads the image of a chain.
pub fn load(files: &Files, chain: &Chain) -> Result<Loaded, FsError> {
    files.warm(&chain.layers)?;
    let mut loaded = Loaded::empty();
    let mut images = Images::new();
    let deltas: Vec<&LayerRow> = chain
        .layers
        .iter()
        .filter(|row| row.kind == LayerKind::Delta)
        .collect();
    for row in chain
        .layers
        .iter()
        .filter(|row| row.kind == LayerKind::Image)
    {
        let layer = open_image(files, row).map_err(|error| open_error(row.id, error))?;
        loaded.layers.push(Arc::clone(&layer));
        images.insert(row.id, layer);
    }
    for (n, row) in deltas.iter().enumerate() {
        let cut = deltas
            .get(n + 1)
            .map_or(chain.point, |next| next.parent)
            .map(|point| point.lsn);
        let Some(cut) = cut else { continue };
        replay(files, row, cut, &images, &mut loaded)?;
    }
    loaded.image.forget_unlinked();
    Ok(loaded)
}

/// Applies a layer's records up to and with commit `cut`.
fn replay(
    files: &Files,
    row: &LayerRow,
    cut: Lsn,
    images: &Images,
    loaded: &mut Loaded,
) -> Result<(), FsError> {
    let (layer, _) =
        open_layer(files, row.id, Some(row)).map_err(|error| open_error(row.id, error))?;
    loaded.layers.push(Arc::clone(&layer));
    loaded.last = Some(Arc::clone(&layer));
    if row.state == LayerState::Sealed {
        let footer =
            read_footer(row.id, &**layer.file()).map_err(|error| open_error(row.id, error))?;
        let mut failed = None;
        scan_index(&layer, &footer, |scanned| {
            match loaded.apply(&layer, &scanned, images) {
                Ok(true) => Ok(loaded.lsn < cut),
                Ok(false) => Ok(true),
                Err(error) => {
                    failed = Some(error);
                    Ok(false)
                }
            }
        })
        .map_err(|error| open_error(row.id, error))?;
        if let Some(error) = failed {
            return Err(error);
        }
        layer.shrink();
    } else {
        let mut scan = LogScan::new(&layer, RECORDS_AT, row.end.unwrap_or(u64::MAX));
        while loaded.lsn < cut {
            let at = scan.at();
            match scan.next()? {
                Ok(scanned) => {
                    loaded.apply(&layer, &scanned, images)?;
                }
                Err(NotARecord::Bad(what)) => return Err(layer.damaged(at, what)),
                Err(NotARecord::Blank | NotARecord::Short { .. }) => {
                    return Err(
                        layer.damaged(at, "the log ends before a commit that was acknowledged")
                    );
                }
            }
        }
    }
    if loaded.lsn == cut {
        Ok(())
    } else {
        Err(layer.damaged(
            loaded.end,
            "a commit that the catalog names is not in the layer",
        ))
    }
}
