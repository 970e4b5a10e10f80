//! How far ahead of a reader to fetch.
//!
//! DuckDB scans a table with several threads, row group by row group and column by column, and a
//! column's blocks lie together for a few row groups: its reads move through the file at some twenty
//! places at once, each a few blocks at a time, and out of order. So what is behind a read is looked
//! at, not the read before.
//!
//! *A run* is where most of the units behind a read were read as well. Ahead of it is fetched an eighth
//! of its length, one unit at least: at each of many places one is enough, since by the time the reader
//! comes back there, it is here. But a run may end at any block. One column out of many is some runs
//! with gaps between them, and what was fetched behind each is for nothing. So that is paid for by
//! reading: no more than an eighth ([`SHARE`]) of what was read, and [`BEGINNING`], may lie there
//! unread.
//!
//! *A sweep* is where [`SWEEP`] units behind a read were read or fetched ahead, with hardly a gap: a
//! column's blocks alone never are. Then everything is being read, and [`AHEAD`] is fetched, as long
//! as no more lies unread than was read.
//!
//! Reads that lie long apart say nothing about each other: what was not touched for [`MEMORY`] reads
//! is forgotten.
//!
//! Arithmetic: at 50 ms and 1 Gbit/s the link holds 6 MB; 32 MiB keep it full five times over, since
//! readers take their bytes in bursts. Seen on a table of twenty columns (the reads of DuckDB 2.0, two
//! threads, replayed at 50 ms and 1 Gbit/s): a full scan of its first 440 MB takes 6 s, of which 2 are
//! the first row groups; 50 s without reading ahead. One column fetches 1.08 of what it reads.

use std::collections::HashMap;
use std::ops::Range;

/// Reads are counted in units of this: a frame.
const UNIT: u64 = 256 << 10;
/// Units are remembered in regions of so many.
const REGION: u64 = 64;
/// One part in so many of a run is fetched ahead of it.
const RUN_SHARE: u64 = 8;
/// One part in so many of what was read may lie unread …
const SHARE: u64 = 8;
/// … and this much, 6 MiB, so that there is a beginning at each of twenty places.
const BEGINNING: u64 = 24;
/// So many units without a gap, 16 MiB, make a sweep: three times what a column has in one place.
const SWEEP: u64 = 64;
/// What is fetched ahead of a sweep, and the most that is ahead of a run: 32 MiB.
const AHEAD: u64 = 128;
/// A run is not looked at further back than that.
const RUN_MAX: u64 = AHEAD * RUN_SHARE;
/// So much of what was read counts: then what was long ago counts half.
const REMEMBERED: u64 = 1024;
/// For how many reads a region is remembered.
const MEMORY: u64 = 4096;

/// The reads of one file.
#[derive(Debug, Default)]
pub struct ReadAhead {
    regions: HashMap<u64, Region>,
    /// Counts reads.
    clock: u64,
    /// Units that were read …
    read: u64,
    /// … and those that were fetched ahead, and not read so far.
    unread: u64,
}

/// A bit for each of its units.
#[derive(Clone, Copy, Debug, Default)]
struct Region {
    read: u64,
    /// Fetched ahead and not read.
    ahead: u64,
    touched_at: u64,
}

impl ReadAhead {
    /// A read of `begin..end`: what should be fetched as well.
    pub fn read(&mut self, begin: u64, end: u64) -> Option<Range<u64>> {
        self.clock += 1;
        self.forget();
        // A unit counts if about half of it is read: blocks do not begin at multiples of it.
        let first = begin.saturating_add(UNIT / 2) / UNIT;
        let last = (end.saturating_add(UNIT / 2) / UNIT).max(first + 1);
        for unit in first..last {
            self.touch(unit);
        }
        let known = |region: &Region| region.read | region.ahead;
        let is_sweep = self.run_before(last, SWEEP, known) >= SWEEP;
        let (distance, may) = if is_sweep {
            (AHEAD, self.read)
        } else {
            let run = self.run_before(last, RUN_MAX, |region| region.read);
            ((run / RUN_SHARE).max(1), self.read / SHARE)
        };
        let may = (may + BEGINNING).saturating_sub(self.unread);
        let is_known = |unit: &u64| self.bits_of(*unit, known) & bit(*unit) != 0;
        let known = (last..last + distance).take_while(is_known).count() as u64;
        // Rarely and much, rather than often and little: each time is a request.
        if known * 2 > distance || known == distance {
            return None;
        }
        let from = last + known;
        let to = from + may.min(distance - known);
        let to = (from..to).find(is_known).unwrap_or(to);
        for unit in from..to {
            self.region(unit).ahead |= bit(unit);
        }
        self.unread += to - from;
        (from < to).then(|| from.saturating_mul(UNIT)..to.saturating_mul(UNIT))
    }

    /// For how many units before this one three quarters have their bit set, up to `most`.
    fn run_before(&self, unit: u64, most: u64, bits: impl Fn(&Region) -> u64 + Copy) -> u64 {
        let (mut run, mut count, mut length) = (0, 0, 0);
        while length < unit.min(most) {
            let before = unit - length - 1;
            let found = self.bits_of(before, bits);
            if before % REGION == REGION - 1 && found == u64::MAX {
                (length, count) = (length + REGION, count + REGION);
                run = length;
                continue;
            }
            length += 1;
            if found & bit(before) != 0 {
                count += 1;
                run = length;
            } else if count * 4 < length * 3 {
                break;
            }
        }
        run
    }

    /// The bits of a unit's region, as it is remembered.
    fn bits_of(&self, unit: u64, bits: impl Fn(&Region) -> u64) -> u64 {
        match self.regions.get(&(unit / REGION)) {
            Some(region) if self.clock - region.touched_at <= MEMORY => bits(region),
            _ => 0,
        }
    }

    /// The region of a unit, as it is remembered.
    fn region(&mut self, unit: u64) -> &mut Region {
        let clock = self.clock;
        let region = self.regions.entry(unit / REGION).or_default();
        if clock - region.touched_at > MEMORY {
            *region = Region::default();
        }
        region.touched_at = clock;
        region
    }

    fn touch(&mut self, unit: u64) {
        let (mut is_new, mut was_ahead) = (false, false);
        let region = self.region(unit);
        if region.read & bit(unit) == 0 {
            is_new = true;
            was_ahead = region.ahead & bit(unit) != 0;
            region.read |= bit(unit);
            region.ahead &= !bit(unit);
        }
        self.unread = self.unread.saturating_sub(u64::from(was_ahead));
        self.read += u64::from(is_new);
        if self.read >= REMEMBERED {
            self.read /= 2;
            self.unread -= self.unread.saturating_sub(BEGINNING) / 2;
        }
    }

    /// Drops what is not remembered any more, now and then.
    fn forget(&mut self) {
        if self.clock.is_multiple_of(MEMORY) {
            let clock = self.clock;
            self.regions
                .retain(|_, region| clock - region.touched_at <= MEMORY);
        }
    }
}

fn bit(unit: u64) -> u64 {
    1 << (unit % REGION)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const MIB: u64 = 1 << 20;
    const BLOCKS_AT: u64 = 12_288;

    /// A file that is read from afar, block by block.
    #[derive(Default)]
    struct Reader {
        ahead: ReadAhead,
        here: HashSet<u64>,
        read: u64,
        missed: u64,
        fetched: u64,
    }

    impl Reader {
        fn block(&mut self, block: u64) {
            self.read += 1;
            if self.here.insert(block) {
                (self.missed, self.fetched) = (self.missed + 1, self.fetched + 1);
            }
            let at = BLOCKS_AT + block * UNIT;
            if let Some(range) = self.ahead.read(at, at + UNIT) {
                for block in range.start / UNIT..range.end / UNIT {
                    self.fetched += u64::from(self.here.insert(block));
                }
            }
        }
    }

    #[test]
    fn a_scan_is_read_ahead_further_and_further() {
        let mut ahead = ReadAhead::default();
        let mut fetched = 0;
        let mut distance = |n: u64| {
            if let Some(range) = ahead.read(n * MIB, (n + 1) * MIB) {
                fetched = range.end;
            }
            fetched.saturating_sub((n + 1) * MIB) / MIB
        };
        let distances: Vec<u64> = (0..1000).map(&mut distance).collect();
        assert!(distances[8] >= 1 && distances[64] >= 16, "{distances:?}");
        let (least, most) = (distances[200..].iter().min(), distances.iter().max());
        assert!(least >= Some(&15) && most <= Some(&33), "{distances:?}");
    }

    #[test]
    fn a_cloud_of_reads_that_moves_on_is_a_scan() {
        let mut reader = Reader::default();
        // Blocks in another order, 64 at a time.
        for n in 0..1600_u64 {
            reader.block(n / 64 * 64 + n * 37 % 64);
        }
        assert!(reader.missed < 60, "{}", reader.missed);
        assert!(reader.fetched <= 1600 + 200, "{}", reader.fetched);
    }

    #[test]
    fn a_scan_of_many_columns_that_lie_apart_seldom_waits() {
        let mut reader = Reader::default();
        // Stripes of 20 columns of 16 blocks; 3 blocks of each column at a time.
        for stripe in 0..12 {
            for group in 0..16_u64.div_ceil(3) {
                for column in 0..20 {
                    for block in group * 3..(group * 3 + 3).min(16) {
                        reader.block((stripe * 20 + column) * 16 + block);
                    }
                }
            }
        }
        assert_eq!(reader.read, 12 * 320);
        assert!(reader.missed < reader.read / 20, "{}", reader.missed);
    }

    #[test]
    fn one_column_of_many_fetches_little_else() {
        for (length, step) in [(3, 60), (16, 320), (22, 440), (40, 100)] {
            let mut reader = Reader::default();
            for run in 0..30 {
                for block in 0..length {
                    reader.block(run * step + block);
                }
            }
            let most = reader.read + reader.read / SHARE + 2 * BEGINNING;
            assert!(reader.fetched <= most, "{length}: {}", reader.fetched);
        }
    }

    #[test]
    fn one_column_fetches_little_else_also_after_long_scans() {
        let mut reader = Reader::default();
        (0..20_000).for_each(|block| reader.block(block));
        let before = reader.fetched;
        for run in 0..50 {
            for block in 0..16 {
                reader.block(30_000 + run * 320 + block);
            }
        }
        let fetched = reader.fetched - before;
        assert!(
            fetched <= 800 + 800 / SHARE + AHEAD + BEGINNING,
            "{fetched}"
        );
    }

    #[test]
    fn reads_that_lie_long_apart_fetch_little_else() {
        let mut ahead = ReadAhead::default();
        let mut fetched = 0;
        for n in 0..100_000_u64 {
            let at = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % (200 << 30);
            let more = ahead.read(at, at + 4096);
            fetched += more.map_or(0, |range| (range.end - range.start) / UNIT);
        }
        assert!(fetched <= 100_000 / SHARE + 2 * BEGINNING, "{fetched}");
        assert!(ahead.regions.len() <= 2 * MEMORY as usize + 2 * BEGINNING as usize);
    }

    #[test]
    fn any_offset_will_do() {
        let mut ahead = ReadAhead::default();
        for at in [0, 1, u64::MAX / 2, u64::MAX - 1] {
            for _ in 0..3 {
                ahead.read(at, at + 1);
            }
        }
        let end = ahead.read(u64::MAX - (40 << 20), u64::MAX - (20 << 20));
        assert!(end.is_some_and(|range| range.start < range.end));
        ahead.read(u64::MAX - (4 << 20), u64::MAX);
    }
}
