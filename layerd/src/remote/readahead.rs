//! How far ahead of a reader to fetch.
//!
//! A file may be read at several places at once: each run of reads that follow each other is told
//! from the others. A run is read ahead once it is [`START`] long, by half its length: so what is
//! fetched for nothing is never more than half of what was read, a reader of single blocks fetches
//! no others, and a scan has [`WINDOW_MAX`] on the way after 64 MiB. A seek begins a new run.
//!
//! Arithmetic: at 50 ms and 1 Gbit/s the link holds 6 MB; a window of 32 MiB keeps it full five
//! times over, since a reader takes its bytes in bursts.

use std::ops::Range;

/// A run this long is read ahead.
const START: u64 = 2 << 20;
/// The least and the most that is read ahead.
const WINDOW_MIN: u64 = 1 << 20;
const WINDOW_MAX: u64 = 32 << 20;
/// Runs that are told apart in one file; the one that was quiet longest is forgotten.
const RUNS: usize = 8;
/// Reads of one run may come in another order, being asked for in parallel: this far behind …
const BEHIND: u64 = 4 << 20;
/// … and this far ahead of where the run is.
const AHEAD: u64 = 1 << 20;

/// The runs of one file.
#[derive(Debug, Default)]
pub struct ReadAhead {
    runs: Vec<Run>,
    clock: u64,
}

#[derive(Debug)]
struct Run {
    /// Where the next read is expected.
    next: u64,
    /// How much was read.
    length: u64,
    /// Up to here it was fetched ahead.
    ahead: u64,
    used: u64,
}

impl ReadAhead {
    /// A read of `begin..end`: what should be fetched ahead now.
    pub fn read(&mut self, begin: u64, end: u64) -> Option<Range<u64>> {
        self.clock += 1;
        let used = self.clock;
        let near =
            |run: &&mut Run| begin + BEHIND >= run.next && begin <= run.next.saturating_add(AHEAD);
        let Some(run) = self.runs.iter_mut().find(near) else {
            let run = Run {
                next: end,
                length: end - begin,
                ahead: end,
                used,
            };
            let oldest = (self.runs.len() >= RUNS)
                .then(|| self.runs.iter_mut().min_by_key(|run| run.used))
                .flatten();
            match oldest {
                Some(oldest) => *oldest = run,
                None => self.runs.push(run),
            }
            return None;
        };
        run.used = used;
        run.length += end.saturating_sub(run.next).min(end - begin);
        run.next = run.next.max(end);
        run.ahead = run.ahead.max(run.next);
        if run.length < START {
            return None;
        }
        let window = (run.length / 2).clamp(WINDOW_MIN, WINDOW_MAX);
        let target = run.next.saturating_add(window);
        // In pieces that are worth a request.
        if target.saturating_sub(run.ahead) < window / 4 {
            return None;
        }
        let from = std::mem::replace(&mut run.ahead, target);
        Some(from..target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_scan_is_read_ahead_further_and_further() {
        let mut ahead = ReadAhead::default();
        let mut fetched = 0;
        for n in 0..200 {
            if let Some(range) = ahead.read(n * MIB, (n + 1) * MIB) {
                assert!(range.start >= fetched, "nothing is fetched twice");
                fetched = range.end;
                let window = fetched - (n + 1) * MIB;
                assert!((MIB..=WINDOW_MAX).contains(&window) && window <= (n + 1) * MIB);
            }
            assert!(n < 3 || fetched > (n + 1) * MIB, "{n}");
        }
        assert!(fetched >= (200 + 24) * MIB, "{fetched}");
    }

    #[test]
    fn requests_of_one_scan_may_come_in_another_order() {
        let mut ahead = ReadAhead::default();
        let fetched = [1, 0, 3, 2, 5, 4, 7, 6]
            .iter()
            .filter_map(|n| ahead.read(n * MIB, (n + 1) * MIB))
            .count();
        assert!(fetched > 1);
        assert_eq!(ahead.runs.len(), 1);
    }

    #[test]
    fn seeks_fetch_nothing_ahead() {
        let mut ahead = ReadAhead::default();
        for n in 0..1000 {
            let at = (n * 7919 % 1009) * 20 * MIB;
            assert_eq!(ahead.read(at, at + MIB), None);
        }
    }

    #[test]
    fn scans_side_by_side_are_told_apart() {
        let mut ahead = ReadAhead::default();
        let mut fetched = [0, 0, 0];
        for n in 0..20 {
            for (scan, fetched) in fetched.iter_mut().enumerate() {
                let at = scan as u64 * 1000 * MIB + n * MIB;
                if let Some(range) = ahead.read(at, at + MIB) {
                    *fetched += range.end - range.start;
                }
            }
        }
        assert!(
            fetched.iter().all(|bytes| *bytes >= 20 * MIB),
            "{fetched:?}"
        );
    }
}
