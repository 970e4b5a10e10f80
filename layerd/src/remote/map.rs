//! Which pages of a partial layer are there: one byte for each, in a file that all processes map.
//!
//! | state | |
//! | --- | --- |
//! | 0 | absent |
//! | 1 | present |
//! | 2 | being written: present unless eviction comes in between |
//! | 3 | present, and used since the clock hand passed |
//! | 4 | being evicted: nobody writes here until it is absent |
//!
//! A page becomes present only after its bytes were written, and only from *being written*;
//! eviction first takes it out of any state, then punches the hole, then calls it absent. So a
//! write and an eviction that meet leave an absent page, and a reader that finds a page present
//! before and after its read has read what was written.
//!
//! The map is a hint all the same: a power loss may leave it ahead of the data, and a file may rot.
//! The layer's checksums decide, and what they refuse is taken out of the map. That is why no boot
//! is noted in it, and nothing is synced.
//!
//! The file is allocated, not sparse: a page fault in a hole on a full disk would end the process.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU8, Ordering};

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{FallocateFlags, fallocate};

use super::segment::PAGE;
use crate::id::LayerId;

const ABSENT: u8 = 0;
const PRESENT: u8 = 1;
const WRITING: u8 = 2;
const USED: u8 = 3;
const EVICTING: u8 = 4;
/// Set in both states of a page that is there.
const IS_PRESENT: u8 = 1;

/// Where the states begin in the file.
const STATES_AT: u64 = 4096;
/// The file's length is a multiple of this, so that a layer that grows is mapped anew every 64 MiB
/// only.
const GROWTH: u64 = 16 << 10;
const MAGIC: &[u8; 16] = b"OdPages\0\x01\0\0\0\0\0\0\0";

/// The mapped states of a layer's pages.
pub struct PageMap {
    map: MmapRaw,
    pages: u64,
}

impl PageMap {
    /// Maps the file, which is brought to hold the states of `length` bytes of `layer`. One that is
    /// not this layer's map is emptied.
    pub fn open(file: &File, layer: LayerId, length: u64) -> io::Result<PageMap> {
        let mut header = MAGIC.to_vec();
        header.extend(layer.epoch.0.to_le_bytes());
        header.extend(layer.random.to_le_bytes());
        let mut found = [0; 32];
        let is_right = match file.read_exact_at(&mut found, 0) {
            Ok(()) => found == *header,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
            Err(error) => return Err(error),
        };
        let pages = length.div_ceil(PAGE);
        // Never shorter than another process has it.
        let bytes = (STATES_AT + pages)
            .next_multiple_of(GROWTH)
            .max(file.metadata()?.len());
        fallocate(file, FallocateFlags::empty(), 0, bytes)?;
        let map = MmapOptions::new().len(bytes as usize).map_raw(file)?;
        let map = PageMap {
            map,
            pages: bytes - STATES_AT,
        };
        if !is_right {
            map.clear(0, map.pages);
            file.write_all_at(&header, 0)?;
        }
        Ok(map)
    }

    /// How many pages it can tell about.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.pages
    }

    fn states(&self, first: u64, behind: u64) -> &[AtomicU8] {
        let behind = behind.min(self.pages);
        let count = behind.saturating_sub(first) as usize;
        if count == 0 {
            return &[];
        }
        // SAFETY: the mapping is `STATES_AT + pages` bytes long, `first + count` is within `pages`,
        // it lives as long as self, nobody cuts the file, and all access to these bytes, in every
        // process, is through atomics of one byte (but for the header, which is not among them).
        unsafe {
            let begin = self.map.as_mut_ptr().add((STATES_AT + first) as usize);
            std::slice::from_raw_parts(begin.cast::<AtomicU8>(), count)
        }
    }

    /// Whether all pages from `first` up to `behind` are there.
    #[must_use]
    pub fn is_present(&self, first: u64, behind: u64) -> bool {
        behind <= self.pages
            && self
                .states(first, behind)
                .iter()
                .all(|state| state.load(Ordering::Acquire) & IS_PRESENT != 0)
    }

    /// How many of them are there.
    #[must_use]
    pub fn present(&self, first: u64, behind: u64) -> u64 {
        let states = self.states(first, behind).iter();
        states
            .filter(|state| state.load(Ordering::Acquire) & IS_PRESENT != 0)
            .count() as u64
    }

    /// Notes that they were read.
    pub fn touch(&self, first: u64, behind: u64) {
        for state in self.states(first, behind) {
            if state.load(Ordering::Relaxed) == PRESENT {
                turn(state, PRESENT, USED);
            }
        }
    }

    /// Before pages are written. `false`: eviction is at work here, they must not be.
    #[must_use]
    pub fn begin_write(&self, first: u64, behind: u64) -> bool {
        if behind > self.pages {
            return false;
        }
        self.states(first, behind).iter().all(|state| {
            turn(state, ABSENT, WRITING);
            state.load(Ordering::SeqCst) != EVICTING
        })
    }

    /// After they were written.
    pub fn end_write(&self, first: u64, behind: u64) {
        for state in self.states(first, behind) {
            turn(state, WRITING, USED);
        }
    }

    /// Calls pages absent, whatever they were, but for those that are being evicted.
    pub fn clear(&self, first: u64, behind: u64) {
        for state in self.states(first, behind) {
            for from in [PRESENT, USED, WRITING] {
                turn(state, from, ABSENT);
            }
        }
    }

    /// The clock hand comes by. Pages that were used get their second chance, and `false` is
    /// answered; else they are taken out, and a hole may be punched.
    #[must_use]
    pub fn begin_evict(&self, first: u64, behind: u64) -> bool {
        let states = self.states(first, behind);
        let mut used = false;
        for state in states {
            used |= turn(state, USED, PRESENT);
        }
        if used {
            return false;
        }
        for state in states {
            state.store(EVICTING, Ordering::SeqCst);
        }
        true
    }

    /// The hole was punched.
    pub fn end_evict(&self, first: u64, behind: u64) {
        for state in self.states(first, behind) {
            turn(state, EVICTING, ABSENT);
        }
    }
}

fn turn(state: &AtomicU8, from: u8, to: u8) -> bool {
    state
        .compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst)
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Epoch;

    const LAYER: LayerId = LayerId {
        epoch: Epoch(1),
        random: 2,
    };

    fn map_of(file: &File, layer: LayerId, pages: u64) -> PageMap {
        PageMap::open(file, layer, pages * PAGE).unwrap()
    }

    #[test]
    fn a_page_is_present_only_after_it_was_written() {
        let file = tempfile::tempfile().unwrap();
        let (map, other) = (map_of(&file, LAYER, 10), map_of(&file, LAYER, 10));
        assert!(!map.is_present(2, 5));
        assert!(map.begin_write(2, 5));
        assert!(!other.is_present(2, 3));
        map.end_write(2, 5);
        assert!(other.is_present(2, 5) && !other.is_present(1, 5) && !other.is_present(2, 6));
        other.clear(3, 4);
        assert_eq!(map.present(0, 10), 2);
        assert!(!map.is_present(9, 11), "no page behind the end is there");
    }

    #[test]
    fn a_page_that_was_used_gets_a_second_chance() {
        let file = tempfile::tempfile().unwrap();
        let map = map_of(&file, LAYER, 4);
        assert!(map.begin_write(0, 4));
        map.end_write(0, 4);
        assert!(!map.begin_evict(0, 4));
        assert!(map.is_present(0, 4));
        map.touch(1, 2);
        assert!(!map.begin_evict(0, 4));
        assert!(map.begin_evict(0, 4));
        assert!(!map.is_present(0, 1));
    }

    #[test]
    fn a_write_that_meets_an_eviction_leaves_an_absent_page() {
        let file = tempfile::tempfile().unwrap();
        let map = map_of(&file, LAYER, 4);
        // The write began before: it does not end.
        assert!(map.begin_write(0, 2));
        assert!(map.begin_evict(0, 4));
        map.end_write(0, 2);
        assert!(!map.is_present(0, 1));
        // It begins in between: it is told so.
        assert!(!map.begin_write(2, 4));
        map.end_evict(0, 4);
        assert_eq!(map.present(0, 4), 0);
        assert!(map.begin_write(0, 4));
        map.end_write(0, 4);
        assert!(map.is_present(0, 4));
    }

    #[test]
    fn another_layers_map_is_emptied() {
        let file = tempfile::tempfile().unwrap();
        let map = map_of(&file, LAYER, 4);
        assert!(map.begin_write(0, 4));
        map.end_write(0, 4);
        assert_eq!(map_of(&file, LAYER, 9).present(0, 9), 4);
        let other = LayerId { random: 3, ..LAYER };
        assert_eq!(map_of(&file, other, 2).present(0, 9), 0);
    }
}
