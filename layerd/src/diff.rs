//! What differs between two states, file by file.
//!
//! Ranges that come from the same place in the same layer are equal without looking; only the rest
//! is read and compared, page by page.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::FsError;
use crate::extents::Extent;
use crate::frozen::{FileKind, Frozen};
use crate::id::{DatabaseName, FileId};
use crate::image::{self, Image, Node};
use crate::layer::Cache;
use crate::reference::Ref;
use crate::store::{FileDiff, Result, Store};

/// Content is compared in units of this size.
const PAGE: u64 = 4096;
/// And read so much at a time.
const STEP: usize = 1 << 20;
/// More ranges than this are not listed, only counted.
const RANGES_MAX: usize = 1000;

impl Store {
    /// Compares two states, of one database or of two.
    pub fn diff(
        self: &Arc<Self>,
        name: &DatabaseName,
        from: &Ref,
        other: &DatabaseName,
        to: &Ref,
    ) -> Result<Vec<FileDiff>> {
        let before = self.open_reader(name, from)?.frozen();
        let after = self.open_reader(other, to)?.frozen();
        let (old, new) = (files(&before), files(&after));
        let mut diffs = Vec::new();
        let nobody = Arc::new(Node::nothing());
        for (path, node) in &old {
            match new.get(path) {
                None => diffs.push(compare(path, "removed", node, &nobody)?),
                Some(other) => {
                    let diff = compare(path, "changed", node, other)?;
                    if diff.changed_bytes > 0 || diff.size.0 != diff.size.1 {
                        diffs.push(diff);
                    }
                }
            }
        }
        for (path, node) in new.iter().filter(|(path, _)| !old.contains_key(*path)) {
            diffs.push(compare(path, "added", &nobody, node)?);
        }
        Ok(diffs)
    }
}

/// All plain files by path. The database's own files are named as in the image, so that a clone
/// can be compared with its source.
fn files(frozen: &Frozen) -> BTreeMap<String, Arc<Node>> {
    let image: &Image = frozen.image();
    let plain = image
        .nodes()
        .filter(|(_, node)| node.kind == FileKind::File && node.parent.is_some());
    plain
        .map(|(file, node)| (shown_path(image, file), Arc::clone(node)))
        .collect()
}

fn shown_path(image: &Image, file: FileId) -> String {
    let parts: Vec<String> = image
        .path(file)
        .iter()
        .map(|part| String::from_utf8_lossy(part).replace('\u{1}', "*.duckdb"))
        .collect();
    parts.join("/")
}

fn compare(
    path: &str,
    change: &'static str,
    old: &Node,
    new: &Node,
) -> std::result::Result<FileDiff, FsError> {
    let mut diff = FileDiff {
        path: path.to_owned(),
        change,
        size: (old.size, new.size),
        changed_bytes: 0,
        ranges: Vec::new(),
    };
    let end = old.size.max(new.size);
    let mut at = 0;
    while at < end {
        let (a, a_end) = source(old, at);
        let (b, b_end) = source(new, at);
        let until = a_end.min(b_end).min(end);
        match (a, b) {
            (None, None) => {}
            (Some(a), Some(b)) if a.layer.id() == b.layer.id() && a.at == b.at => {}
            _ => compare_bytes(old, new, at, until, &mut diff)?,
        }
        at = until;
    }
    Ok(diff)
}

/// What lies at an offset: a run cut to begin there, or a hole; and where that ends.
fn source(node: &Node, at: u64) -> (Option<Extent>, u64) {
    match node.extents.range(at, u64::MAX - at).next() {
        Some((start, run)) if start == at => {
            let end = at + run.length;
            (Some(run), end)
        }
        Some((start, _)) => (None, start),
        None => (None, u64::MAX),
    }
}

fn compare_bytes(
    old: &Node,
    new: &Node,
    begin: u64,
    end: u64,
    diff: &mut FileDiff,
) -> std::result::Result<(), FsError> {
    let (mut a, mut b) = (vec![0; STEP], vec![0; STEP]);
    let mut at = begin;
    while at < end {
        let length = (end - at).min(STEP as u64);
        for (node, bytes) in [(old, &mut a), (new, &mut b)] {
            let bytes = &mut bytes[..length as usize];
            let got = image::read(node, at, Cache::Here, bytes)?;
            bytes[got..].fill(0);
        }
        let mut page = at;
        while page < at + length {
            let page_end = (page / PAGE * PAGE + PAGE).min(at + length);
            let span = (page - at) as usize..(page_end - at) as usize;
            if a[span.clone()] != b[span] {
                note(diff, page, page_end - page);
            }
            page = page_end;
        }
        at += length;
    }
    Ok(())
}

fn note(diff: &mut FileDiff, offset: u64, length: u64) {
    diff.changed_bytes += length;
    if let Some((start, count)) = diff.ranges.last_mut()
        && *start + *count == offset
    {
        *count += length;
    } else if diff.ranges.len() < RANGES_MAX {
        diff.ranges.push((offset, length));
    }
}
