//! The head word: how the writer tells every process of its host about each commit.
//!
//! One page of a file in the home, mapped shared. The writer stores (epoch, LSN, layer, end
//! offset, time, written bytes) after the fdatasync that made the commit durable; readers take it
//! with a few loads, no system call. It survives the writer's death (the page cache keeps it) and
//! then tells recovery how far the log must reach. After a power loss it may be older than the
//! log, never newer.
//!
//! Order: a sequence number is odd while the words change, so a reader never sees a mix; a
//! checksum over the words rejects a page that a crash tore.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use memmap2::{MmapOptions, MmapRaw};

use crate::catalog::StatePoint;
use crate::id::{Epoch, LayerId, Lsn, Timestamp};

const PAGE: u64 = 4096;
const WORDS: usize = 8;

/// What the word says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadWord {
    /// Lease of the writer that acknowledged the commit.
    pub epoch: Epoch,
    /// The commit and the layer that holds it.
    pub point: StatePoint,
    /// Where the record behind the commit begins in that layer.
    pub end: u64,
    /// The commit's time.
    pub time: Timestamp,
    /// Payload bytes ever written, up to the commit.
    pub written_bytes: u64,
}

/// A mapped head word.
pub struct HeadFile {
    map: MmapRaw,
}

impl HeadFile {
    /// Maps the file, made if it is missing. `write` asks for a mapping that can be stored to.
    pub fn open(path: &Path, write: bool) -> io::Result<HeadFile> {
        let file = OpenOptions::new()
            .read(true)
            .write(write)
            .create(write)
            .truncate(false)
            .open(path)?;
        if file.metadata()?.len() < PAGE {
            if !write {
                return Err(io::Error::new(
                    io::ErrorKind::NotFound,
                    "no head was published on this host yet",
                ));
            }
            file.set_len(PAGE)?;
        }
        let mut options = MmapOptions::new();
        options.len(PAGE as usize);
        let map = if write {
            options.map_raw(&file)?
        } else {
            options.map_raw_read_only(&file)?
        };
        Ok(HeadFile { map })
    }

    /// Word 0 is the sequence number, 1 to 8 the content, 9 its checksum.
    fn word(&self, n: usize) -> &AtomicU64 {
        assert!(n < WORDS + 2);
        // SAFETY: the mapping is one page, page-aligned, lives as long as self, and all access to
        // it, in every process, is through these atomics.
        unsafe { AtomicU64::from_ptr(self.map.as_mut_ptr().cast::<u64>().add(n)) }
    }

    /// Publishes a commit. Only the holder of the lease calls this.
    pub fn store(&self, head: &HeadWord) {
        let words = encode(head);
        let sequence = self.word(0).load(Ordering::Relaxed) | 1;
        self.word(0).store(sequence, Ordering::Relaxed);
        fence(Ordering::Release);
        for (n, word) in words.iter().enumerate() {
            self.word(n + 1).store(*word, Ordering::Relaxed);
        }
        self.word(WORDS + 1).store(sum(&words), Ordering::Relaxed);
        self.word(0)
            .store(sequence.wrapping_add(1), Ordering::Release);
    }

    /// The newest published commit; `None` if there is none, or a crash tore the page.
    #[must_use]
    pub fn load(&self) -> Option<HeadWord> {
        for _ in 0..1000 {
            let sequence = self.word(0).load(Ordering::Acquire);
            let words: [u64; WORDS] =
                std::array::from_fn(|n| self.word(n + 1).load(Ordering::Relaxed));
            let found = self.word(WORDS + 1).load(Ordering::Relaxed);
            fence(Ordering::Acquire);
            if sequence.is_multiple_of(2) && self.word(0).load(Ordering::Relaxed) == sequence {
                return (sequence != 0 && found == sum(&words)).then(|| decode(&words));
            }
            std::thread::yield_now();
        }
        // The writer died between the two stores of the sequence number.
        let words: [u64; WORDS] = std::array::from_fn(|n| self.word(n + 1).load(Ordering::Relaxed));
        (self.word(WORDS + 1).load(Ordering::Relaxed) == sum(&words)).then(|| decode(&words))
    }
}

fn encode(head: &HeadWord) -> [u64; WORDS] {
    let HeadWord {
        epoch,
        point,
        end,
        time,
        written_bytes,
    } = *head;
    [
        epoch.0,
        point.lsn.0,
        point.layer.epoch.0,
        point.layer.random,
        end,
        time.0.cast_unsigned(),
        written_bytes,
        0,
    ]
}

fn decode(words: &[u64; WORDS]) -> HeadWord {
    let [epoch, lsn, layer_epoch, random, end, time, written_bytes, _] = *words;
    let layer = LayerId {
        epoch: Epoch(layer_epoch),
        random,
    };
    HeadWord {
        epoch: Epoch(epoch),
        point: StatePoint {
            layer,
            lsn: Lsn(lsn),
        },
        end,
        time: Timestamp(time.cast_signed()),
        written_bytes,
    }
}

fn sum(words: &[u64; WORDS]) -> u64 {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    // Not zero for a page of zeros.
    u64::from(crc32c::crc32c(&bytes)) | 1 << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(n: u64) -> HeadWord {
        let layer = LayerId {
            epoch: Epoch(n),
            random: n,
        };
        HeadWord {
            epoch: Epoch(n),
            point: StatePoint { layer, lsn: Lsn(n) },
            end: n,
            time: Timestamp(n as i64),
            written_bytes: n,
        }
    }

    #[test]
    fn readers_never_see_a_mix() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("head");
        let writer = HeadFile::open(&path, true).unwrap();
        assert_eq!(writer.load(), None);
        let reader = HeadFile::open(&path, false).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| (1..200_000).for_each(|n| writer.store(&word(n))));
            let mut newest = 0;
            while newest < 199_999 {
                if let Some(head) = reader.load() {
                    assert_eq!(head, word(head.end));
                    assert!(head.end >= newest);
                    newest = head.end;
                }
            }
        });
    }

    #[test]
    fn a_torn_page_is_no_head() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("head");
        let head = HeadFile::open(&path, true).unwrap();
        head.store(&word(3));
        head.word(3).store(99, Ordering::Relaxed);
        assert_eq!(HeadFile::open(&path, false).unwrap().load(), None);
    }
}
