//! Having dirty pages written early, by sync_file_range(2).
//!
//! Left alone, the kernel keeps a bulk load's pages until the next fsync, which then waits for all of
//! them at disk speed. Begun early, the disk works while the load computes.

use std::fs::File;
use std::os::fd::AsRawFd;

/// Begins to write the range's dirty pages, and returns once they are queued. It is a hint: where the
/// kernel can't, the next fsync has more to do, and that one tells of a disk that fails.
pub fn begin(file: &File, begin: u64, end: u64) {
    let (Ok(offset), Ok(length)) = (i64::try_from(begin), i64::try_from(end - begin)) else {
        return;
    };
    // SAFETY: a system call on an open descriptor; no memory is handed over.
    unsafe {
        libc::sync_file_range(
            file.as_raw_fd(),
            offset,
            length,
            libc::SYNC_FILE_RANGE_WRITE,
        )
    };
}
