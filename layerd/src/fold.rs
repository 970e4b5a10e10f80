//! Folding: saying in fewer bytes what a run of layers says about the commits that are kept.
//!
//! The run's records are replayed from the state below it. Between two kept commits, names are
//! taken over as they were changed, and of all bytes that were written only those that the later
//! kept commit still has. Every kept commit comes out with its number and time, and with exactly
//! the image it had. If every commit is kept this is concatenation; if only the last is, what
//! remains is its image.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::catalog::{LayerRow, StatePoint};
use crate::error::FsError;
use crate::extents::Extent;
use crate::files::Files;
use crate::format::RECORDS_AT;
use crate::id::{DatabaseId, Epoch, FileId, LayerId, Lsn, Timestamp};
use crate::image::{self, Image, Node};
use crate::layer::{Cache, Layer};
use crate::load::{Images, Loaded, open_error};
use crate::new_image::{NewImage, write_image};
use crate::new_layer::NewLayer;
use crate::ranges::Ranges;
use crate::record::{Change, PAGE, Record};
use crate::scan::{Scanned, open_layer, read_footer, scan_index};

/// Where the folded records go.
pub trait Sink {
    /// A record without payload.
    fn record(&mut self, time: Timestamp, change: Change) -> Result<(), FsError>;
    /// The bytes of a run, to stand at `offset` of `file`.
    fn data(
        &mut self,
        time: Timestamp,
        file: FileId,
        offset: u64,
        run: &Extent,
    ) -> Result<(), FsError>;
    /// A whole file as a new image layer; returns its name.
    fn image(&mut self, node: &Node) -> Result<LayerId, FsError>;
    /// An image layer that the run used is used further.
    fn keep_image(&mut self, layer: LayerId);
    /// The end of a kept commit.
    fn commit(&mut self, lsn: Lsn, time: Timestamp, written_bytes: u64) -> Result<(), FsError>;
}

/// Decides, at the bottom of a database, which files become image layers: given a file and the
/// image layer that it has now, if it has one.
pub type WantsImage<'a> = &'a dyn Fn(&Node, Option<&Layer>) -> bool;

/// Folds the sealed layers `run` (each standing on the one before), which stand on `below`, to the
/// commits `kept`, ascending. `images` holds the image layers that the run refers to.
pub fn fold(
    files: &Files,
    run: &[LayerRow],
    below: Loaded,
    kept: &[Lsn],
    images: &Images,
    wants_image: WantsImage<'_>,
    sink: &mut dyn Sink,
) -> Result<(), FsError> {
    let at_bottom = below.last.is_none();
    let mut window = Window::new(below.image.clone());
    let mut state = below;
    let mut kept = kept.iter().copied().peekable();
    for row in run {
        if kept.peek().is_none() {
            // What is behind the last kept commit goes.
            break;
        }
        let (layer, _) =
            open_layer(files, row.id, Some(row)).map_err(|error| open_error(row.id, error))?;
        let footer =
            read_footer(row.id, &**layer.file()).map_err(|error| open_error(row.id, error))?;
        let mut failed = None;
        let mut step = |scanned: &Scanned| -> Result<bool, FsError> {
            window.note(&scanned.record, &state.image);
            if state.apply(&layer, scanned, images)? && kept.peek() == Some(&state.lsn) {
                kept.next();
                let images = if at_bottom && window.is_first {
                    Some(wants_image)
                } else {
                    None
                };
                window.emit(&state.image, images, sink)?;
                sink.commit(state.lsn, state.time, state.written_bytes)?;
                state.image.forget_unlinked();
                window = Window {
                    is_first: false,
                    ..Window::new(state.image.clone())
                };
            }
            Ok(kept.peek().is_some())
        };
        scan_index(&layer, &footer, |scanned| {
            step(&scanned).or_else(|error| {
                failed = Some(error);
                Ok(false)
            })
        })
        .map_err(|error| open_error(row.id, error))?;
        if let Some(error) = failed {
            return Err(error);
        }
    }
    match kept.next() {
        None => Ok(()),
        Some(_) => Err(FsError::Damaged {
            layer: run.last().map_or(
                LayerId {
                    epoch: Epoch(0),
                    random: 0,
                },
                |row| row.id,
            ),
            offset: RECORDS_AT,
            what: "a commit that is to be kept is not in the layers",
        }),
    }
}

/// What changed since the last kept commit.
struct Window {
    before: Image,
    names: Vec<Record>,
    touched: BTreeMap<FileId, Touched>,
    is_first: bool,
}

#[derive(Default)]
struct Touched {
    ranges: Ranges,
    image: Option<(LayerId, u64)>,
}

impl Window {
    fn new(before: Image) -> Window {
        Window {
            before,
            names: Vec::new(),
            touched: BTreeMap::new(),
            is_first: true,
        }
    }

    /// Notes what a record is about to change in `image`.
    fn note(&mut self, record: &Record, image: &Image) {
        let size = |file: FileId| image.node(file).map_or(0, |node| node.size);
        match &record.change {
            Change::Data {
                file,
                offset,
                length,
                ..
            }
            | Change::Punch {
                file,
                offset,
                length,
            } => {
                self.touch(*file).ranges.add(*offset, *length);
            }
            Change::Truncate { file, size: new } => {
                let cut = size(*file).saturating_sub(*new);
                self.touch(*file).ranges.add(*new, cut);
            }
            Change::Image {
                file,
                layer,
                size: new,
            } => {
                let all = size(*file).max(*new);
                let touched = self.touch(*file);
                touched.ranges.add(0, all);
                touched.image = Some((*layer, *new));
            }
            Change::Create { .. }
            | Change::Unlink { .. }
            | Change::Rename { .. }
            | Change::Attr { .. } => {
                self.names.push(record.clone());
            }
            Change::Commit { .. } => {}
        }
    }

    fn touch(&mut self, file: FileId) -> &mut Touched {
        self.touched.entry(file).or_default()
    }

    fn emit(
        &self,
        after: &Image,
        wants_image: Option<WantsImage<'_>>,
        sink: &mut dyn Sink,
    ) -> Result<(), FsError> {
        for record in &self.names {
            sink.record(record.time, record.change.clone())?;
        }
        for (file, touched) in &self.touched {
            match after.node(*file) {
                Ok(node) if node.parent.is_some() => {
                    self.emit_file(*file, node, touched, wants_image, sink)?
                }
                // It is gone at the kept commit: so are its bytes.
                _ => {}
            }
        }
        Ok(())
    }

    fn emit_file(
        &self,
        file: FileId,
        node: &Arc<Node>,
        touched: &Touched,
        wants_image: Option<WantsImage<'_>>,
        sink: &mut dyn Sink,
    ) -> Result<(), FsError> {
        let time = node.mtime;
        if wants_image.is_some_and(|wants| wants(node, image_of(node).map(|layer| &**layer))) {
            let layer = sink.image(node)?;
            return sink.record(
                time,
                Change::Image {
                    file,
                    layer,
                    size: node.size,
                },
            );
        }
        let before = self.before.node(file).ok();
        let mut size = before.map_or(0, |node| node.size);
        let mut image = None;
        if let Some((layer, image_size)) = touched.image {
            // Worth keeping only while something of it shows through.
            if node.extents.iter().any(|(_, run)| run.layer.id() == layer) {
                sink.keep_image(layer);
                sink.record(
                    time,
                    Change::Image {
                        file,
                        layer,
                        size: image_size,
                    },
                )?;
                size = image_size;
                image = Some(layer);
            }
        }
        // Whether some record carries the time of the last change.
        let mut said = image.is_some() || size != node.size;
        if size != node.size {
            sink.record(
                time,
                Change::Truncate {
                    file,
                    size: node.size,
                },
            )?;
        }
        let had_data = |begin: u64, end: u64| {
            image.is_some()
                || before
                    .is_some_and(|node| node.extents.range(begin, end - begin).next().is_some())
        };
        for (begin, end) in touched
            .ranges
            .iter()
            .map(|(begin, end)| (begin, end.min(node.size)))
        {
            let mut at = begin;
            for (start, run) in node.extents.range(begin, end.saturating_sub(begin)) {
                if start > at && had_data(at, start) {
                    sink.record(
                        time,
                        Change::Punch {
                            file,
                            offset: at,
                            length: start - at,
                        },
                    )?;
                }
                at = start + run.length;
                let shows_through = image == Some(run.layer.id()) && run.at == start;
                if !shows_through {
                    sink.data(time, file, start, &run)?;
                    said = true;
                }
            }
            if at < end && had_data(at, end) {
                sink.record(
                    time,
                    Change::Punch {
                        file,
                        offset: at,
                        length: end - at,
                    },
                )?;
                said = true;
            }
        }
        if before.is_some_and(|node| node.mtime != time) && !said {
            let Node {
                mode,
                uid,
                gid,
                mtime,
                ..
            } = **node;
            sink.record(
                time,
                Change::Attr {
                    file,
                    mode,
                    uid,
                    gid,
                    mtime,
                },
            )?;
        }
        Ok(())
    }
}

/// The image layer that some of a file's runs lie in.
fn image_of(node: &Node) -> Option<&Arc<Layer>> {
    node.extents
        .iter()
        .map(|(_, run)| &run.layer)
        .find(|layer| layer.is_image())
}

/// Counts what a fold would write.
#[derive(Default)]
pub struct DryRun {
    /// Bytes of the result, without the page padding of payloads.
    pub bytes: u64,
    kept: HashSet<LayerId>,
    kept_bytes: BTreeMap<LayerId, u64>,
}

impl DryRun {
    /// A count; `images` are the sizes of the image layers that may stay in use.
    #[must_use]
    pub fn new(images: BTreeMap<LayerId, u64>) -> DryRun {
        DryRun {
            kept_bytes: images,
            ..DryRun::default()
        }
    }
}

impl Sink for DryRun {
    fn record(&mut self, _: Timestamp, change: Change) -> Result<(), FsError> {
        self.bytes += 64 + change.body_length();
        Ok(())
    }

    fn data(&mut self, _: Timestamp, _: FileId, _: u64, run: &Extent) -> Result<(), FsError> {
        let pad = if run.length >= PAGE { PAGE } else { 80 };
        self.bytes += run.length + pad;
        Ok(())
    }

    fn image(&mut self, node: &Node) -> Result<LayerId, FsError> {
        self.bytes += node.extents.allocated();
        Ok(LayerId {
            epoch: Epoch(0),
            random: 0,
        })
    }

    fn keep_image(&mut self, layer: LayerId) {
        if self.kept.insert(layer) {
            self.bytes += self.kept_bytes.get(&layer).copied().unwrap_or(0);
        }
    }

    fn commit(&mut self, _: Lsn, _: Timestamp, _: u64) -> Result<(), FsError> {
        self.bytes += 64;
        Ok(())
    }
}

/// Writes a fold into new layers.
pub struct LayerWriter<'a> {
    files: &'a Files,
    database: DatabaseId,
    epoch: Epoch,
    parent: Option<StatePoint>,
    split_at: u64,
    /// Called with the bytes that were just written; may sleep.
    progress: &'a mut dyn FnMut(u64),
    current: Option<NewLayer>,
    images: Vec<LayerId>,
    /// The finished delta layers and the images that they use.
    pub done: Vec<(NewLayer, Vec<LayerId>)>,
    /// The new image layers.
    pub new_images: Vec<NewImage>,
}

impl<'a> LayerWriter<'a> {
    /// Layers of some `split_at` bytes for a database, the first standing on `parent`.
    pub fn new(
        files: &'a Files,
        database: DatabaseId,
        epoch: Epoch,
        parent: Option<StatePoint>,
        split_at: u64,
        progress: &'a mut dyn FnMut(u64),
    ) -> LayerWriter<'a> {
        LayerWriter {
            files,
            database,
            epoch,
            parent,
            split_at,
            progress,
            current: None,
            images: Vec::new(),
            done: Vec::new(),
            new_images: Vec::new(),
        }
    }

    fn current(&mut self) -> Result<&mut NewLayer, FsError> {
        match &mut self.current {
            Some(layer) => Ok(layer),
            current @ None => {
                let layer = NewLayer::begin(
                    self.files,
                    self.database,
                    self.epoch,
                    self.parent,
                    Lsn::EMPTY,
                    0,
                )?;
                Ok(current.insert(layer))
            }
        }
    }

    /// Ends the layer that is being written.
    pub fn finish(&mut self) -> Result<(), FsError> {
        if let Some(mut layer) = self.current.take() {
            layer.sync()?;
            self.done.push((layer, std::mem::take(&mut self.images)));
        }
        Ok(())
    }
}

impl Sink for LayerWriter<'_> {
    fn record(&mut self, time: Timestamp, change: Change) -> Result<(), FsError> {
        self.current()?.add(time, change)
    }

    fn data(
        &mut self,
        time: Timestamp,
        file: FileId,
        offset: u64,
        run: &Extent,
    ) -> Result<(), FsError> {
        let mut done = 0;
        while done < run.length {
            let length = (run.length - done).min(1 << 20);
            let mut bytes = vec![0; length as usize];
            run.layer.read(
                &[crate::layer::Piece {
                    at: run.at + done,
                    length,
                    to: 0,
                }],
                Cache::Here,
                &mut bytes,
            )?;
            self.current()?
                .add_data(time, file, offset + done, &bytes)?;
            done += length;
            (self.progress)(length);
        }
        Ok(())
    }

    fn image(&mut self, node: &Node) -> Result<LayerId, FsError> {
        let id = LayerId::random(self.epoch);
        let progress = &mut *self.progress;
        let image = write_image(
            self.files,
            id,
            self.database,
            node.size,
            &mut |offset, bytes| {
                image::read(node, offset, Cache::Here, bytes)?;
                progress(bytes.len() as u64);
                Ok(())
            },
        )?;
        self.new_images.push(image);
        self.images.push(id);
        Ok(id)
    }

    fn keep_image(&mut self, layer: LayerId) {
        if !self.images.contains(&layer) {
            self.images.push(layer);
        }
    }

    fn commit(&mut self, lsn: Lsn, time: Timestamp, written_bytes: u64) -> Result<(), FsError> {
        let split_at = self.split_at;
        let layer = self.current()?;
        layer.commit(lsn, time, written_bytes)?;
        if layer.end() >= split_at {
            let parent = StatePoint {
                layer: layer.id(),
                lsn,
            };
            self.finish()?;
            self.parent = Some(parent);
        }
        Ok(())
    }
}
