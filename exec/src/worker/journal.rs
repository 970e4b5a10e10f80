//! What a worker remembers over its own sudden death: which sessions and idempotency keys there were.
//!
//! A key of an earlier life means that its statement may have been committed, and a session of an
//! earlier life that its transaction is gone: both must be said, not guessed. So each is noted in a file
//! before it is used. A note is 17 bytes; the file is not synced, since it has to survive a killed
//! process, not a power loss (then the clients' connections are long gone, and so are their tries).

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use parking_lot::Mutex;

/// Notes that are kept when a worker starts: 17 MB of file, and some 30 MB of memory.
const NOTE_COUNT_MAX: usize = 1_000_000;

/// The bytes of a note: its kind, and a hash of whose and which it is.
const NOTE_BYTES: usize = 17;

/// What a note is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A session was made.
    Session = 1,
    /// A statement with an idempotency key began.
    Key = 2,
}

type Note = [u8; NOTE_BYTES];

/// The notes of this life and of earlier ones.
#[derive(Debug, Default)]
pub struct Journal {
    former: HashSet<Note>,
    file: Option<Mutex<File>>,
}

impl Journal {
    /// Reads what earlier lives noted, and goes on in the same file.
    ///
    /// # Errors
    ///
    /// The file can't be read or written.
    pub fn open(path: &Path) -> io::Result<Journal> {
        let mut notes = match std::fs::read(path) {
            Ok(notes) => notes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        // A note that was cut by a kill was not acted on.
        notes.truncate(notes.len() / NOTE_BYTES * NOTE_BYTES);
        let surplus = notes.len().saturating_sub(NOTE_COUNT_MAX * NOTE_BYTES);
        notes.drain(..surplus);
        let directory = path.parent().unwrap_or(Path::new("."));
        let mut fresh = tempfile::NamedTempFile::new_in(directory)?;
        fresh.write_all(&notes)?;
        fresh.persist(path).map_err(|error| error.error)?;
        let (former, _) = notes.as_chunks::<NOTE_BYTES>();
        Ok(Journal {
            former: former.iter().copied().collect(),
            file: Some(Mutex::new(OpenOptions::new().append(true).open(path)?)),
        })
    }

    /// Whether an earlier life knew it.
    pub fn was_there(&self, kind: Kind, owner: &str, name: &str) -> bool {
        !self.former.is_empty() && self.former.contains(&note(kind, owner, name))
    }

    /// Notes it, before it is used.
    ///
    /// # Errors
    ///
    /// The disk's.
    pub fn add(&self, kind: Kind, owner: &str, name: &str) -> io::Result<()> {
        match &self.file {
            Some(file) => file.lock().write_all(&note(kind, owner, name)),
            None => Ok(()),
        }
    }
}

fn note(kind: Kind, owner: &str, name: &str) -> Note {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(owner.len() as u64).to_le_bytes());
    hasher.update(owner.as_bytes());
    hasher.update(name.as_bytes());
    let mut note = [kind as u8; NOTE_BYTES];
    hasher.finalize_xof().fill(&mut note[1..]);
    note
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_outlive_the_process() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let journal = Journal::open(&path).unwrap();
        journal.add(Kind::Key, "token", "k").unwrap();
        assert!(
            !journal.was_there(Kind::Key, "token", "k"),
            "this is its own life"
        );
        // A kill in the middle of a note.
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"\x02half").unwrap();
        let journal = Journal::open(&path).unwrap();
        assert!(journal.was_there(Kind::Key, "token", "k"));
        assert!(!journal.was_there(Kind::Session, "token", "k"));
        assert!(!journal.was_there(Kind::Key, "tokenk", ""));
        journal.add(Kind::Session, "token", "s").unwrap();
        let journal = Journal::open(&path).unwrap();
        assert!(journal.was_there(Kind::Key, "token", "k"));
        assert!(journal.was_there(Kind::Session, "token", "s"));
    }
}
