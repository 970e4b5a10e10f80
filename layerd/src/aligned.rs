//! Buffers that begin at a page in memory, so that a disk can fill them without a copy between.

/// What they are aligned to, in bytes: every disk's sectors divide it.
pub const ALIGNMENT: usize = 4096;

/// A buffer that grows to what was asked for, and stays.
#[derive(Debug, Default)]
pub struct AlignedBuffer(Vec<u8>);

impl AlignedBuffer {
    /// An empty one; allocates nothing.
    #[must_use]
    pub const fn new() -> AlignedBuffer {
        AlignedBuffer(Vec::new())
    }

    /// The first `length` bytes, with whatever is in them from before.
    pub fn get(&mut self, length: usize) -> &mut [u8] {
        let room = length + ALIGNMENT;
        if self.0.len() < room {
            self.0.resize(room, 0);
        }
        let skip = self.0.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        &mut self.0[skip..][..length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_aligned_and_as_long_as_asked_whatever_was_asked_before() {
        let mut buffer = AlignedBuffer::new();
        for length in [1, 4096, 1 << 20, 100, 0] {
            let bytes = buffer.get(length);
            assert_eq!(bytes.len(), length);
            assert_eq!(bytes.as_ptr() as usize % ALIGNMENT, 0);
        }
    }
}
