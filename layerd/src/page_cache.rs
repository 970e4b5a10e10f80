//! What the kernel's page cache holds of a file, by cachestat(2) (Linux 6.5 and later).

use std::fs::File;
use std::os::fd::AsRawFd;

/// The system call's number on every architecture but alpha, where it means nothing that exists.
const CACHESTAT: libc::c_long = 451;

/// `struct cachestat_range`, as linux/mman.h has it.
#[repr(C)]
struct Range {
    offset: u64,
    length: u64,
}

/// `struct cachestat`.
#[repr(C)]
#[derive(Default)]
struct Counts {
    cached: u64,
    dirty: u64,
    written_back: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// How many pages of the range are cached; `None` where the kernel can't tell or won't.
pub fn cached_pages(file: &File, offset: u64, length: u64) -> Option<u64> {
    let range = Range { offset, length };
    let mut counts = Counts::default();
    let (range, into) = (&raw const range, &raw mut counts);
    // SAFETY: both structures have the kernel's layout, are valid for the length of the call, and
    // the kernel writes nothing but `counts`.
    let result = unsafe { libc::syscall(CACHESTAT, file.as_raw_fd(), range, into, 0) };
    (result == 0).then_some(counts.cached)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn what_was_just_written_is_cached_and_a_hole_is_not() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[1; 8192], 0).unwrap();
        // Linux before 6.5 says nothing at all.
        let known = cached_pages(&file, 0, 8192);
        assert!(matches!(known, None | Some(2)));
        assert_eq!(cached_pages(&file, 1 << 20, 4096), known.map(|_| 0));
    }
}
