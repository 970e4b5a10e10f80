//! A result that has to make room: messages in a file without a name, in the order in which they came.
//!
//! The file is gone with the last one who reads it, whatever happens to the process.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::budget::Quota;
use crate::wire::batch::Message;

/// A file of messages. One thread writes, any number read.
#[derive(Debug)]
pub struct Spool {
    file: Arc<Spooled>,
    end: u64,
}

#[derive(Debug)]
struct Spooled {
    file: File,
    quota: Arc<Quota>,
    /// What was taken of the quota.
    taken: std::sync::atomic::AtomicU64,
}

impl Drop for Spooled {
    fn drop(&mut self) {
        self.quota.give(*self.taken.get_mut());
    }
}

/// Where a message lies.
#[derive(Clone, Debug)]
pub struct Place {
    file: Arc<Spooled>,
    offset: u64,
    bytes: usize,
}

/// Why a message could not be spilled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpoolError {
    /// All results together would pass the limit.
    #[error(
        "results that wait for their readers would take more than the {limit} bytes that may be spilled; read them, or ask for less"
    )]
    Full {
        /// The limit, in bytes.
        limit: u64,
    },
    /// The disk failed, or is full.
    #[error("spilling a result: {0}")]
    Disk(#[from] io::Error),
}

impl Spool {
    /// A new one in `directory`.
    ///
    /// # Errors
    ///
    /// The disk's.
    pub fn new(directory: &Path, quota: Arc<Quota>) -> Result<Spool, SpoolError> {
        let file = tempfile::tempfile_in(directory)?;
        Ok(Spool {
            file: Arc::new(Spooled {
                file,
                quota,
                taken: 0.into(),
            }),
            end: 0,
        })
    }

    /// Writes a message.
    ///
    /// # Errors
    ///
    /// [`SpoolError`].
    pub fn write(&mut self, message: &Message) -> Result<Place, SpoolError> {
        let bytes = message.len() as u64;
        let spooled = &self.file;
        if !spooled.quota.take(bytes) {
            return Err(SpoolError::Full {
                limit: spooled.quota.limit(),
            });
        }
        spooled
            .taken
            .fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
        let place = Place {
            file: Arc::clone(spooled),
            offset: self.end,
            bytes: message.len(),
        };
        for part in message.parts() {
            spooled.file.write_all_at(part, self.end)?;
            self.end += part.len() as u64;
        }
        Ok(place)
    }
}

impl Place {
    /// Reads the message. Blocks.
    ///
    /// # Errors
    ///
    /// The disk's.
    pub fn read(&self) -> io::Result<Message> {
        let mut bytes = vec![0; self.bytes];
        self.file.file.read_exact_at(&mut bytes, self.offset)?;
        Ok(Bytes::from(bytes).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_and_their_room_too() {
        let directory = tempfile::tempdir().unwrap();
        let quota = Arc::new(Quota::new(10));
        let mut spool = Spool::new(directory.path(), Arc::clone(&quota)).unwrap();
        let message = |text: &'static [u8]| Message::from(Bytes::from_static(text));
        let first = spool.write(&message(b"abcd")).unwrap();
        let second = spool.write(&message(b"efg")).unwrap();
        assert!(matches!(
            spool.write(&message(b"hijk")),
            Err(SpoolError::Full { limit: 10 })
        ));
        assert_eq!(second.read().unwrap().to_bytes(), "efg");
        assert_eq!(first.read().unwrap().to_bytes(), "abcd");
        drop((spool, first));
        assert!(!quota.take(10), "the second message still lies there");
        drop(second);
        assert!(quota.take(10));
    }
}
