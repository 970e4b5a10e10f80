//! Keeping the cache within its budget, and a part of the disk free.
//!
//! The CLOCK algorithm over all partial layers of a home, in runs of 1 MiB: a run in which a page
//! was used since the hand passed last stays this time, another becomes a hole. One process does it
//! at a time (it holds `evict.lock`, in which the hand's position is kept); the others go on
//! reading and writing. Files in which nothing is left, and that nobody has open, are removed.
//!
//! Runs with bytes and no pages in the map are what killed processes left: they go as well.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate};

use super::cache::Cache;
use super::map::PageMap;
use super::segment::PAGE;
use crate::id::LayerId;

/// How much is evicted at a time.
const RUN: u64 = 1 << 20;
/// This part of the budget is evicted ahead, so that not every look finds something to do.
const AHEAD: u64 = 16;

/// Evicts what is too much; tells whether there is room for more.
pub fn evict(cache: &Cache) -> io::Result<bool> {
    let mut lock = open_lock(cache)?;
    match lock.try_lock() {
        Ok(()) => {}
        // Another process is at it: what it makes of it is seen next time.
        Err(TryLockError::WouldBlock) => return Ok(true),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let layers = layers(cache.directory())?;
    let excess = excess(cache, &layers)?;
    if excess == 0 {
        return Ok(true);
    }
    let mut hand = Hand::read(&mut lock)?;
    let freed = hand.sweep(cache, &layers, excess + cache.config().bytes_max / AHEAD)?;
    hand.write(&mut lock)?;
    tracing::debug!(freed, "evicted from the cache");
    // It is not enough where the disk is full of other things.
    Ok(self::excess(cache, &layers)? == 0)
}

fn open_lock(cache: &Cache) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(cache.directory().join("evict.lock"))
}

/// Whether no process evicts now.
pub fn is_idle(cache: &Cache) -> bool {
    open_lock(cache).is_ok_and(|lock| lock.try_lock().is_ok())
}

/// The layers of which something is cached, in order.
pub fn layers(directory: &Path) -> io::Result<Vec<LayerId>> {
    let mut layers = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name();
        let layer = name
            .to_str()
            .and_then(|name| name.strip_suffix(".data"))
            .map(str::parse::<LayerId>);
        if let Some(Ok(layer)) = layer {
            layers.push(layer);
        }
    }
    layers.sort_unstable_by_key(|layer| (layer.epoch, layer.random));
    Ok(layers)
}

/// How much has to go.
fn excess(cache: &Cache, layers: &[LayerId]) -> io::Result<u64> {
    let config = cache.config();
    let mut used = 0;
    for layer in layers {
        for path in [cache.data_path(*layer), cache.map_path(*layer)] {
            used += std::fs::metadata(path).map_or(0, |meta| meta.blocks() * 512);
        }
    }
    let disk = rustix::fs::statvfs(cache.directory())?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let floor = disk.f_blocks.saturating_mul(disk.f_frsize) / 100
        * u64::from(config.free_percent_min.min(100));
    Ok(used
        .saturating_sub(config.bytes_max)
        .max(floor.saturating_sub(free)))
}

/// Where the clock hand is: the next run of a layer.
struct Hand {
    layer: Option<LayerId>,
    at: u64,
}

impl Hand {
    fn read(lock: &mut File) -> io::Result<Hand> {
        let mut text = String::new();
        lock.seek(SeekFrom::Start(0))?;
        // Whatever else stands there: the hand begins anew.
        if lock.take(100).read_to_string(&mut text).is_err() {
            text.clear();
        }
        let mut words = text.split_whitespace();
        let layer = words.next().and_then(|word| word.parse().ok());
        let at = words.next().and_then(|word| word.parse().ok());
        Ok(Hand {
            layer,
            at: at.unwrap_or(0),
        })
    }

    fn write(&self, lock: &mut File) -> io::Result<()> {
        let layer = self.layer.map(|layer| layer.to_string());
        lock.set_len(0)?;
        lock.seek(SeekFrom::Start(0))?;
        writeln!(lock, "{} {}", layer.unwrap_or_default(), self.at)
    }

    /// Goes round until `excess` bytes are free, at most three times: all were used, all were used
    /// again meanwhile, and then those that come last.
    fn sweep(&mut self, cache: &Cache, layers: &[LayerId], excess: u64) -> io::Result<u64> {
        let key = |layer: &LayerId| (layer.epoch, layer.random);
        let begin = self.layer.map_or(0, |hand| {
            layers.partition_point(|layer| key(layer) < key(&hand))
        });
        let mut freed = 0;
        let rounds = layers.iter().cycle().skip(begin).take(3 * layers.len() + 1);
        for layer in rounds {
            if self.layer != Some(*layer) {
                (self.layer, self.at) = (Some(*layer), 0);
            }
            freed += self.sweep_layer(cache, *layer, excess - freed)?;
            if freed >= excess {
                break;
            }
            // The next one from its begin, also if it is the same again.
            self.layer = None;
        }
        Ok(freed)
    }

    fn sweep_layer(&mut self, cache: &Cache, layer: LayerId, excess: u64) -> io::Result<u64> {
        let open = |path| OpenOptions::new().read(true).write(true).open(path);
        let (Ok(data), Ok(map_file)) = (open(cache.data_path(layer)), open(cache.map_path(layer)))
        else {
            return Ok(0);
        };
        let length = data.metadata()?.len();
        let map = PageMap::open(&map_file, layer, length)?;
        let mut freed = 0;
        while freed < excess {
            let Some(found) = next_data(&data, self.at)? else {
                break;
            };
            let run = found / RUN * RUN;
            self.at = run + RUN;
            let (first, behind) = (run / PAGE, (run + RUN) / PAGE);
            if map.begin_evict(first, behind) {
                let before = data.metadata()?.blocks();
                let punched = punch(&data, run, RUN);
                map.end_evict(first, behind);
                punched?;
                freed += before.saturating_sub(data.metadata()?.blocks()) * 512;
            }
        }
        if next_data(&data, 0)?.is_none() {
            cache.remove(layer, &data)?;
        }
        Ok(freed)
    }
}

/// The first byte at or behind `at` that is not in a hole.
fn next_data(file: &File, at: u64) -> io::Result<Option<u64>> {
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
        Ok(found) => Ok(Some(found)),
        Err(rustix::io::Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Makes a hole, which reads as zeros.
pub fn punch(file: &File, begin: u64, length: u64) -> io::Result<()> {
    Ok(fallocate(
        file,
        FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
        begin,
        length,
    )?)
}
