//! `.openduck/snapshot`: write a name into it, and there is a snapshot.
//!
//! Two ways lead there. A shell writes a line into the file: the snapshot is taken in the write
//! that completes the line. DuckDB's `COPY … TO` makes `tmp_snapshot` beside it and renames it over:
//! the snapshot is taken in that rename. Either call fails if the name is bad or taken.

use std::sync::Arc;

use fuser::Errno;
use layerd::id::{SnapshotName, Timestamp};
use parking_lot::Mutex;

use crate::attr::Owner;

/// What other files in `.openduck` begin with.
const DRAFT_PREFIX: &[u8] = b"tmp_";

/// A name has at most 127 characters; a header line may stand above it.
const DRAFT_LENGTH_MAX: usize = 4096;

/// How many drafts there may be at once.
const DRAFT_COUNT_MAX: usize = 64;

/// The drafts of a mount.
#[derive(Default)]
pub(crate) struct Drafts(Mutex<Vec<Arc<Draft>>>);

impl Drafts {
    pub(crate) fn find(&self, name: &[u8]) -> Option<Arc<Draft>> {
        self.0
            .lock()
            .iter()
            .find(|draft| draft.name == name)
            .cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Draft>> {
        self.0.lock().clone()
    }

    pub(crate) fn make(&self, ino: u64, name: &[u8], owner: Owner) -> Result<Arc<Draft>, Errno> {
        let mut drafts = self.0.lock();
        if !name.starts_with(DRAFT_PREFIX) {
            return Err(Errno::EPERM);
        }
        if drafts.iter().any(|draft| draft.name == name) {
            return Err(Errno::EEXIST);
        }
        if drafts.len() >= DRAFT_COUNT_MAX {
            return Err(Errno::ENOSPC);
        }
        let draft = Arc::new(Draft::new(ino, name.to_vec(), owner));
        drafts.push(Arc::clone(&draft));
        Ok(draft)
    }

    /// Takes a draft away.
    pub(crate) fn take(&self, name: &[u8]) -> Option<Arc<Draft>> {
        let mut drafts = self.0.lock();
        let index = drafts.iter().position(|draft| draft.name == name)?;
        Some(drafts.swap_remove(index))
    }
}

/// A file that is about to be renamed to `snapshot`.
pub(crate) struct Draft {
    pub(crate) ino: u64,
    pub(crate) name: Vec<u8>,
    pub(crate) owner: Owner,
    pub(crate) made: Timestamp,
    content: Mutex<Vec<u8>>,
}

impl Draft {
    pub(crate) fn new(ino: u64, name: Vec<u8>, owner: Owner) -> Draft {
        Draft {
            ino,
            name,
            owner,
            made: Timestamp::now(),
            content: Mutex::default(),
        }
    }

    pub(crate) fn size(&self) -> u64 {
        self.content.lock().len() as u64
    }

    pub(crate) fn set_size(&self, size: u64) -> Result<(), Errno> {
        let size = usize::try_from(size)
            .ok()
            .filter(|size| *size <= DRAFT_LENGTH_MAX)
            .ok_or(Errno::EFBIG)?;
        self.content.lock().resize(size, 0);
        Ok(())
    }

    pub(crate) fn write(&self, offset: u64, data: &[u8]) -> Result<(), Errno> {
        let offset = usize::try_from(offset).map_err(|_| Errno::EFBIG)?;
        let end = offset
            .checked_add(data.len())
            .filter(|end| *end <= DRAFT_LENGTH_MAX)
            .ok_or(Errno::EFBIG)?;
        let mut content = self.content.lock();
        if content.len() < end {
            content.resize(end, 0);
        }
        content[offset..end].copy_from_slice(data);
        Ok(())
    }

    pub(crate) fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        let content = self.content.lock();
        let offset = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(content.len());
        content[offset..].iter().copied().take(length).collect()
    }

    /// The name that it asks for.
    pub(crate) fn snapshot_name(&self) -> Result<SnapshotName, Errno> {
        name_in_copy(&self.content.lock())
    }
}

/// The name in what `COPY` wrote: one line, or two of which the first is the header.
fn name_in_copy(content: &[u8]) -> Result<SnapshotName, Errno> {
    let lines = content
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty());
    match lines.collect::<Vec<_>>()[..] {
        [line] | [_, line] => parse_name(line),
        _ => Err(Errno::EINVAL),
    }
}

/// Bytes that were written to the file and make no whole line yet.
#[derive(Debug, Default)]
pub(crate) struct PartialLine(Mutex<Vec<u8>>);

impl PartialLine {
    /// Adds what was written; returns the names of the lines that are complete now.
    pub(crate) fn add(&self, data: &[u8]) -> Result<Vec<SnapshotName>, Errno> {
        let mut held = self.0.lock();
        if held.len() + data.len() > DRAFT_LENGTH_MAX {
            return Err(Errno::EFBIG);
        }
        held.extend_from_slice(data);
        let Some(end) = held.iter().rposition(|byte| *byte == b'\n') else {
            return Ok(Vec::new());
        };
        let complete: Vec<u8> = held.drain(..=end).collect();
        drop(held);
        let lines = complete.strip_suffix(b"\n").unwrap_or(&complete);
        lines.split(|byte| *byte == b'\n').map(parse_name).collect()
    }

    /// Whether something was written that never became a line.
    pub(crate) fn is_unfinished(&self) -> bool {
        !self.0.lock().is_empty()
    }
}

/// A name, perhaps in CSV's quotes.
fn parse_name(line: &[u8]) -> Result<SnapshotName, Errno> {
    let line = line.trim_ascii();
    let quoted = line
        .strip_prefix(b"\"")
        .and_then(|line| line.strip_suffix(b"\""));
    let text = std::str::from_utf8(quoted.unwrap_or(line)).map_err(|_| Errno::EINVAL)?;
    text.parse().map_err(|error| {
        tracing::warn!("no snapshot: {error}");
        Errno::EINVAL
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> SnapshotName {
        text.parse().unwrap()
    }

    #[test]
    fn copy_may_write_a_header() {
        assert_eq!(name_in_copy(b"v1\n"), Ok(name("v1")));
        assert_eq!(name_in_copy(b"'v1'\nv1\n"), Ok(name("v1")));
        assert_eq!(name_in_copy(b"name\r\n\"v1\"\r\n"), Ok(name("v1")));
        for bad in [
            &b""[..],
            b"\n",
            b"a\nb\nc\n",
            b"a b\n",
            b"\xff\n",
            b"../x\n",
            b"latest\n",
        ] {
            assert_eq!(name_in_copy(bad), Err(Errno::EINVAL), "{bad:?}");
        }
    }

    #[test]
    fn a_line_counts_in_the_write_that_completes_it() {
        let line = PartialLine::default();
        assert_eq!(line.add(b"v"), Ok(vec![]));
        assert_eq!(line.add(b"1\nv2\nv"), Ok(vec![name("v1"), name("v2")]));
        assert_eq!(line.add(b"3"), Ok(vec![]));
        assert!(line.is_unfinished());
        assert_eq!(line.add(b"\n"), Ok(vec![name("v3")]));
        assert!(!line.is_unfinished());
        assert_eq!(line.add(b"\n"), Err(Errno::EINVAL));
    }

    #[test]
    fn endless_lines_are_refused() {
        let line = PartialLine::default();
        assert_eq!(line.add(&[b'x'; DRAFT_LENGTH_MAX + 1]), Err(Errno::EFBIG));
        let draft = Draft::new(9, b"tmp_snapshot".to_vec(), Owner::ourselves());
        assert_eq!(draft.write(u64::MAX, b"x"), Err(Errno::EFBIG));
        assert_eq!(draft.set_size(u64::MAX), Err(Errno::EFBIG));
    }

    #[test]
    fn a_draft_reads_as_it_was_written() {
        let draft = Draft::new(9, b"tmp_snapshot".to_vec(), Owner::ourselves());
        draft.write(2, b"v1").unwrap();
        draft.write(0, b"a\n").unwrap();
        assert_eq!(draft.read(1, 2), b"\nv");
        assert_eq!(draft.read(100, 2), b"");
        assert_eq!(draft.snapshot_name(), Ok(name("v1")));
    }
}
