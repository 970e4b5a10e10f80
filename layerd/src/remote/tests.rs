//! The tier as a whole, over a store that misbehaves.

mod by_hand;
mod processes;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::cache::{Cache, CacheConfig};
use super::check::check;
use super::file::RemoteFile;
use super::layout::{Layout, image_end};
use super::objects::{Object, Objects, ObjectsError};
use super::prefetch::prefetch;
use super::segment::SegmentError;
use super::testing::{Fault, Faulty, LAYER, layer_bytes, reader};
use super::tier::Tier;
use super::upload::{Range, split, upload};
use crate::catalog::Segment;
use crate::checksum::chunk_sums;
use crate::disk::DiskFile;
use crate::error::FsError;
use crate::id::{DatabaseId, Epoch, LayerId, Lsn, Timestamp, random_u64};
use crate::layer::{self, Layer, Piece};
use crate::record::{Change, Record};
use crate::scan::LogScan;

/// Puts `bytes[begin..end]` into the store.
fn put(store: &Arc<Faulty>, bytes: &[u8], begin: usize, end: usize, layout: &Layout) -> Segment {
    let range = Range {
        database: DatabaseId(1),
        layer: LAYER,
        begin: begin as u64,
        end: end as u64,
        layout,
        commits: None,
    };
    upload(&store.objects(), range, &mut reader(bytes)).unwrap()
}

/// Puts bytes into the store as segments that end at `ends`.
fn put_all(store: &Arc<Faulty>, bytes: &[u8], ends: &[usize]) -> Vec<Segment> {
    let mut begin = 0;
    let mut segments = Vec::new();
    for end in ends {
        segments.push(put(store, bytes, begin, *end, &Layout::log()));
        begin = end / 4096 * 4096;
    }
    segments
}

fn config(bytes_max: u64) -> CacheConfig {
    CacheConfig {
        bytes_max,
        free_percent_min: 0,
    }
}

fn tier(store: &Arc<Faulty>, home: &std::path::Path, bytes_max: u64) -> Arc<Tier> {
    let cache = Cache::open(home, config(bytes_max)).unwrap();
    Tier::new(store.objects(), Some(cache))
}

fn read(file: &RemoteFile, at: usize, length: usize) -> std::io::Result<Vec<u8>> {
    let mut out = vec![0xee; length];
    let got = file.read_at(&mut out, at as u64)?;
    out.truncate(got);
    Ok(out)
}

fn slice(bytes: &[u8], at: usize, length: usize) -> &[u8] {
    &bytes[at.min(bytes.len())..(at + length).min(bytes.len())]
}

/// Waits for what other threads do, 30 s at most.
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: not within 30 s");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_cold_read_fetches_and_a_warm_one_does_not() {
    let (store, home) = (Faulty::new(), tempfile::tempdir().unwrap());
    let bytes = layer_bytes(5_000_000, 1);
    let segments = put_all(&store, &bytes, &[5_000_000]);
    let before = store.gets();
    let remote = tier(&store, home.path(), 1 << 30);
    let file = remote.delta(LAYER, &segments).unwrap();
    assert_eq!(file.length().unwrap(), 5_000_000);
    assert!(read(&file, 1_000_000, 100_000).unwrap() == slice(&bytes, 1_000_000, 100_000));
    wait_until("what lies ahead is fetched", || {
        file.is_here(5 << 18, 1 << 18)
    });
    let cold = store.gets() - before;
    assert!((2..=3).contains(&cold), "table and frames: {cold}");
    assert!(read(&file, 1_000_100, 90_000).unwrap() == slice(&bytes, 1_000_100, 90_000));
    assert_eq!(store.gets() - before, cold);
    let stats = remote.stats().now();
    assert_eq!((stats.hits, stats.misses, stats.errors), (1, 1, 0));
    assert_eq!(stats.gets, cold);
    // Another process of the home.
    let other = tier(&store, home.path(), 1 << 30);
    let file = other.delta(LAYER, &segments).unwrap();
    assert!(read(&file, 1_000_000, 100_000).unwrap() == slice(&bytes, 1_000_000, 100_000));
    assert_eq!(store.gets() - before, cold);
}

#[test]
fn a_layer_whose_ends_are_cached_is_opened_without_the_store() {
    let (store, home) = (Faulty::new(), tempfile::tempdir().unwrap());
    let length = 488 * 4096;
    let bytes = layer_bytes(length, 3);
    let segments = put_all(&store, &bytes, &[900_000, length]);
    let open = || {
        let remote = tier(&store, home.path(), 1 << 30);
        let file = remote.delta(LAYER, &segments).unwrap();
        (remote, file)
    };
    let (remote, file) = open();
    assert!(read(&file, 0, length).unwrap() == bytes);
    drop((remote, file));
    store.fail_reads(Fault::Gone, 100);
    let (remote, file) = open();
    remote.warm(&[(Arc::clone(&file), false)]).unwrap();
    assert!(read(&file, 0, length).unwrap() == bytes);
    // The log of a layer that still grows is read by its segments.
    assert!(remote.warm(&[(file, true)]).is_err());
}

#[test]
fn reads_end_where_the_layer_ends_and_writes_are_refused() {
    let (store, home) = (Faulty::new(), tempfile::tempdir().unwrap());
    let bytes = layer_bytes(10_000, 1);
    let segments = put_all(&store, &bytes, &[5000, 10_000]);
    let remote = tier(&store, home.path(), 1 << 30);
    let file = remote.delta(LAYER, &segments[..1]).unwrap();
    assert!(read(&file, 4000, 9000).unwrap() == slice(&bytes, 4000, 1000));
    assert_eq!(read(&file, 5000, 10).unwrap(), [0; 0]);
    assert_eq!(read(&file, usize::MAX / 2, 10).unwrap(), [0; 0]);
    file.extend(&segments[1..]).unwrap();
    assert!(read(&file, 4000, 9000).unwrap() == slice(&bytes, 4000, 6000));
    assert!(file.write_at(&[b"x"], 0).is_err());
    assert!(file.set_length(0).is_err());
    assert!(file.allocate(0, 1).is_err());
    assert!(file.file().is_none());
}

#[test]
fn an_image_and_its_sums_are_two_files() {
    let (store, home) = (Faulty::new(), tempfile::tempdir().unwrap());
    let size = 3_000_001;
    let bytes = layer_bytes(image_end(size) as usize, 2);
    let segment = put(&store, &bytes, 0, bytes.len(), &Layout::image(size));
    let remote = tier(&store, home.path(), 1 << 30);
    let segments = [segment];
    let (image, sums) = remote.image(LAYER, size, &segments).unwrap();
    let before = store.gets();
    remote.warm(&[(Arc::clone(&sums), false)]).unwrap();
    assert_eq!(store.gets() - before, 1);
    let sums_at = 3_002_368;
    assert!(read(&sums, 0, 10_000).unwrap() == bytes[sums_at..]);
    assert!(image.is_here(0, 12_288), "one request opens the layer");
    assert!(read(&image, 0, 12_288).unwrap() == bytes[..12_288]);
    assert!(read(&image, 2_999_000, 9999).unwrap() == bytes[2_999_000..3_000_001]);
    assert!(remote.image(LAYER, size + 40_000, &segments).is_err());
    assert!(remote.image(LAYER, u64::MAX, &segments).is_err());
}

#[test]
fn faults_of_the_store_are_errors_and_heal() {
    let bytes = layer_bytes(3_000_000, 7);
    for fault in [Fault::Error, Fault::Cut, Fault::Flip, Fault::Gone] {
        for count in [1, 2, 3, 4, 100] {
            let (store, home) = (Faulty::new(), tempfile::tempdir().unwrap());
            let segments = put_all(&store, &bytes, &[1_500_000, 3_000_000]);
            let remote = tier(&store, home.path(), 1 << 30);
            let file = remote.delta(LAYER, &segments).unwrap();
            store.fail_reads(fault, count);
            let mut failed = 0;
            for at in (0..3_000_000).step_by(300_000) {
                match read(&file, at, 250_000) {
                    Ok(found) => assert!(found == slice(&bytes, at, 250_000)),
                    Err(_) => failed += 1,
                }
            }
            // A flipped bit may hit what nobody asked for.
            let least = match (fault, count) {
                (Fault::Flip, 100) => 1,
                (_, 100) => 10,
                _ => 0,
            };
            let most = if count == 100 { 10 } else { 9 };
            assert!(
                (least..=most).contains(&failed),
                "{fault:?} {count}: {failed}"
            );
            assert!(remote.stats().now().errors > 0);
            store.heal();
            assert!(read(&file, 0, 4_000_000).unwrap() == bytes);
        }
    }
}

#[test]
fn errors_name_the_layer_and_the_object() {
    let (store, home) = (Faulty::new(), tempfile::tempdir().unwrap());
    let bytes = layer_bytes(3_000_000, 7);
    let segments = put_all(&store, &bytes, &[3_000_000]);
    let remote = tier(&store, home.path(), 1 << 30);
    let file = remote.delta(LAYER, &segments).unwrap();
    for fault in [Fault::Error, Fault::Cut, Fault::Flip, Fault::Gone] {
        store.fail_reads(fault, 100);
        let error = read(&file, 0, 10).unwrap_err().to_string();
        assert!(error.contains(&segments[0].key), "{error}");
        assert!(error.contains(&LAYER.to_string()), "{error}");
        assert!(error.contains("memory:test"), "{error}");
    }
}

#[test]
fn many_threads_share_what_they_fetch() {
    let (store, home) = (Faulty::new(), tempfile::tempdir().unwrap());
    let bytes = layer_bytes(4_000_000, 9);
    let segments = put_all(&store, &bytes, &[4_000_000]);
    store.limit(Duration::from_millis(30), 0);
    let remote = tier(&store, home.path(), 1 << 30);
    let file = remote.delta(LAYER, &segments).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert!(read(&file, 0, 4_000_000).unwrap() == bytes));
        }
    });
    // A frame that lands between a thread's look at the cache and its request comes once more.
    let fetched = remote.stats().now().bytes;
    assert!(fetched <= segments[0].bytes * 2, "{fetched}");
}

#[test]
fn a_home_without_room_reads_all_the_same() {
    let (store, home) = (Faulty::new(), tempfile::tempdir().unwrap());
    let bytes = layer_bytes(4_000_000, 9);
    let segments = put_all(&store, &bytes, &[2_000_000, 4_000_000]);
    // All of the disk is to stay free.
    let cache = Cache::open(
        home.path(),
        CacheConfig {
            bytes_max: 1 << 30,
            free_percent_min: 100,
        },
    )
    .unwrap();
    cache.keep_budget();
    for cache in [Some(cache), None] {
        let file = Tier::new(store.objects(), cache)
            .delta(LAYER, &segments)
            .unwrap();
        for at in (0..4_000_000).step_by(700_000) {
            assert!(read(&file, at, 700_000).unwrap() == slice(&bytes, at, 700_000));
        }
        assert_eq!(file.cached_bytes(), 0);
    }
}

#[test]
fn the_budget_is_kept_and_what_was_evicted_comes_back() {
    let (store, home) = (Faulty::new(), tempfile::tempdir().unwrap());
    let bytes = layer_bytes(40_000_000, 11);
    let segments = put_all(&store, &bytes, &[40_000_000]);
    let remote = tier(&store, home.path(), 8 << 20);
    let file = remote.delta(LAYER, &segments).unwrap();
    for _ in 0..2 {
        for at in (0..40_000_000).step_by(1_000_000) {
            assert!(read(&file, at, 1_000_000).unwrap() == slice(&bytes, at, 1_000_000));
        }
    }
    // What was read ahead may still be arriving.
    let deadline = Instant::now() + Duration::from_secs(10);
    while disk_bytes(home.path()) > 8 << 20 {
        assert!(Instant::now() < deadline, "{}", disk_bytes(home.path()));
        remote.cache().unwrap().keep_budget();
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What the cache of a home takes on the disk.
fn disk_bytes(home: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(home.join("cache")).unwrap();
    let blocks = entries.map(|entry| entry.unwrap().metadata().unwrap().blocks());
    blocks.sum::<u64>() * 512
}

#[test]
fn a_file_with_nothing_left_is_removed_unless_it_is_open() {
    let (store, home) = (Faulty::new(), tempfile::tempdir().unwrap());
    let bytes = layer_bytes(4_000_000, 9);
    let segments = put_all(&store, &bytes, &[4_000_000]);
    let remote = tier(&store, home.path(), 1 << 30);
    let file = remote.delta(LAYER, &segments).unwrap();
    assert!(read(&file, 0, 4_000_000).unwrap() == bytes);
    let data = home.path().join("cache").join(format!("{LAYER}.data"));
    let other = Cache::open(home.path(), config(0)).unwrap();
    other.keep_budget();
    assert!(data.exists(), "somebody reads it");
    assert_eq!(file.cached_bytes() / (1 << 20), 0);
    assert!(read(&file, 0, 4_000_000).unwrap() == bytes);
    other.forget(LAYER).unwrap();
    assert!(data.exists());
    drop((file, remote));
    // A process that another test forks may hold the lock for a moment.
    let deadline = Instant::now() + Duration::from_secs(10);
    while data.exists() {
        assert!(Instant::now() < deadline, "nobody reads it");
        other.keep_budget();
    }
    other.forget(LAYER).unwrap();
}

#[test]
fn rot_in_the_cache_is_healed_by_mistrust() {
    let (store, home) = (Faulty::new(), tempfile::tempdir().unwrap());
    let bytes = layer_bytes(2_000_000, 9);
    let segments = put_all(&store, &bytes, &[2_000_000]);
    let remote = tier(&store, home.path(), 1 << 30);
    let file = remote.delta(LAYER, &segments).unwrap();
    assert!(read(&file, 0, 2_000_000).unwrap() == bytes);
    let data = home.path().join("cache").join(format!("{LAYER}.data"));
    let rot = std::fs::OpenOptions::new().write(true).open(&data).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&rot, b"rotten", 500_000).unwrap();
    assert_eq!(read(&file, 500_000, 6).unwrap(), b"rotten");
    assert!(file.mistrust(500_000, 6));
    assert!(read(&file, 0, 2_000_000).unwrap() == bytes);
    assert!(
        !file.mistrust(2_000_000, 1),
        "nothing is there to be mistrusted"
    );
}

#[test]
fn a_layer_over_a_rotten_cache_reads_right() {
    let (store, home) = (Faulty::new(), tempfile::tempdir().unwrap());
    // A log of one record, and an image that is the same bytes.
    let change = Change::Commit {
        lsn: Lsn(1),
        durable_end: 0,
        written_bytes: 0,
    };
    let record = Record {
        time: Timestamp(5),
        change,
    };
    let mut bytes = layer_bytes(300_000, 21);
    let encoded = record.encode(LAYER, 4096);
    bytes[4096..4096 + encoded.len()].copy_from_slice(&encoded);
    let segments = put_all(&store, &bytes, &[300_000]);
    let remote = tier(&store, home.path(), 1 << 30);
    let file = remote.delta(LAYER, &segments).unwrap();
    let sums = chunk_sums(LAYER, 0, &bytes).collect();
    let layer = Layer::image(LAYER, Arc::clone(&file) as Arc<dyn DiskFile>, 300_000, sums);
    let data = home.path().join("cache").join(format!("{LAYER}.data"));
    let rot = || {
        assert!(read(&file, 0, 300_000).unwrap() == bytes);
        let data = std::fs::OpenOptions::new().write(true).open(&data).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&data, &[0; 4096], 4096).unwrap();
        assert!(read(&file, 0, 8192).unwrap() != bytes[..8192]);
    };
    rot();
    assert_eq!(
        LogScan::new(&layer, 4096, 300_000)
            .next()
            .unwrap()
            .unwrap()
            .record,
        record
    );
    for (at, length) in [(0, 8192), (0, 300_000), (100, 50)] {
        rot();
        let mut out = vec![0; length];
        let piece = Piece {
            at,
            length: length as u64,
            to: 0,
        };
        layer.read(&[piece], layer::Cache::Here, &mut out).unwrap();
        assert!(out == slice(&bytes, at as usize, length));
    }
    // Wrong in the store as well: damage, and nothing is returned.
    let damaged = Layer::image(LAYER, file, 300_000, vec![7; 10]);
    let piece = Piece {
        at: 0,
        length: 32_768,
        to: 0,
    };
    let result = damaged.read(&[piece], layer::Cache::Here, &mut vec![0; 32_768]);
    assert!(matches!(result, Err(FsError::Damaged { .. })));
}

#[test]
fn a_check_reads_the_whole_object_and_names_what_is_damaged() {
    let store = Faulty::new();
    let bytes = layer_bytes(20_000_000, 41);
    let segments = put_all(&store, &bytes, &[20_000_000]);
    let check = |segment: &Segment| {
        let (mut problems, mut read) = (Vec::new(), 0);
        let result = check(
            &store.objects(),
            LAYER,
            segment,
            &mut |at, error| problems.push((at, error)),
            &mut |bytes| read += bytes,
        );
        result.map(|()| (problems, read))
    };
    let (problems, read) = check(&segments[0]).unwrap();
    assert_eq!(problems, []);
    assert!(read > segments[0].bytes - 200 * 32 - 64, "{read}");
    store.rot(&segments[0].key, segments[0].bytes as usize / 3);
    let (problems, _) = check(&segments[0]).unwrap();
    assert!(
        matches!(problems[..], [(_, SegmentError::Checksum("frame"))]),
        "{problems:?}"
    );
    let file = Tier::new(store.objects(), None)
        .delta(LAYER, &segments)
        .unwrap();
    let error = self::read(&file, problems[0].0 as usize, 10).unwrap_err();
    assert!(error.to_string().contains("damaged"), "{error}");
    // The rest of the layer can be read.
    let other = (problems[0].0 as usize + 8_000_000) % 19_000_000;
    assert!(self::read(&file, other, 10).unwrap() == slice(&bytes, other, 10));
    store.rot(&segments[0].key, segments[0].bytes as usize - 80);
    assert!(check(&segments[0]).is_err());
}

#[test]
fn prefetch_brings_everything_and_can_be_stopped() {
    let (store, home) = (Faulty::new(), tempfile::tempdir().unwrap());
    let bytes = layer_bytes(40_000_000, 11);
    let segments = put_all(&store, &bytes, &[20_000_000, 40_000_000]);
    let remote = tier(&store, home.path(), 1 << 30);
    let files = [remote.delta(LAYER, &segments).unwrap()];
    prefetch(&files, &|_, _| {}, &AtomicBool::new(true)).unwrap();
    assert_eq!(remote.stats().now().gets, 0);
    store.fail_reads(Fault::Error, 1);
    assert!(prefetch(&files, &|_, _| {}, &AtomicBool::new(false)).is_err());
    let last = parking_lot::Mutex::new((0, 0));
    prefetch(
        &files,
        &|done, total| *last.lock() = (done, total),
        &AtomicBool::new(false),
    )
    .unwrap();
    assert_eq!(*last.lock(), (40_000_000, 40_000_000));
    let gets = remote.stats().now().gets;
    assert!(read(&files[0], 0, 40_000_000).unwrap() == bytes);
    assert_eq!(remote.stats().now().gets, gets, "all of it is local");
}

/// Two homes' worth of processes over one cache, each with less budget than the layer has, while
/// somebody damages map and data: whatever is read, after at most a mistrust, is the layer.
#[test]
fn two_caches_fill_and_evict_one_directory_at_once() {
    let (store, home) = (Faulty::new(), tempfile::tempdir().unwrap());
    let bytes = layer_bytes(12_000_000, 13);
    let segments = put_all(&store, &bytes, &[5_000_000, 12_000_000]);
    let tiers = [(); 2].map(|()| tier(&store, home.path(), 3 << 20));
    let stop = AtomicBool::new(false);
    let mistrusted = std::sync::atomic::AtomicU32::new(0);
    std::thread::scope(|scope| {
        for (n, tier) in tiers.iter().enumerate() {
            let file = tier.delta(LAYER, &segments).unwrap();
            let (bytes, stop, mistrusted) = (&bytes, &stop, &mistrusted);
            for thread in 0..2 {
                let file = Arc::clone(&file);
                scope.spawn(move || {
                    let mut state = (n * 2 + thread) as u64 + 1;
                    while !stop.load(Ordering::Relaxed) {
                        state = state
                            .wrapping_mul(6_364_136_223_846_793_005)
                            .wrapping_add(1);
                        let at = (state >> 33) as usize % 12_000_000;
                        let length = (state >> 20) as usize % 600_000 + 1;
                        if read(&file, at, length).unwrap() != slice(bytes, at, length) {
                            assert!(file.mistrust(at as u64, length as u64));
                            mistrusted.fetch_add(1, Ordering::Relaxed);
                            assert!(read(&file, at, length).unwrap() == slice(bytes, at, length));
                        }
                    }
                });
            }
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    tier.cache().unwrap().keep_budget();
                    std::thread::sleep(Duration::from_millis(2));
                }
            });
        }
        std::thread::sleep(Duration::from_secs(3));
        // A busy machine takes longer.
        let deadline = Instant::now() + Duration::from_secs(60);
        let has_worked = |tier: &Arc<Tier>| {
            let stats = tier.stats().now();
            stats.hits > 0 && stats.misses > 100
        };
        while !tiers.iter().all(has_worked) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(100));
        }
        stop.store(true, Ordering::Relaxed);
        assert!(tiers.iter().all(has_worked));
    });
    // The rare read in which a page went and came back.
    assert!(mistrusted.into_inner() < 10);
}

#[derive(Clone, Debug)]
enum Op {
    Read { at: usize, length: usize },
    Evict,
    SpoilMap { page: usize, state: u8 },
    SpoilData { at: usize },
    Fault { fault: Fault, count: u32 },
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    let fault = prop::sample::select(vec![Fault::Error, Fault::Cut, Fault::Flip, Fault::Gone]);
    prop_oneof![
        12 => (0_usize..3_100_000, 1_usize..400_000).prop_map(|(at, length)| Op::Read { at, length }),
        1 => Just(Op::Evict),
        2 => (0_usize..800, any::<u8>()).prop_map(|(page, state)| Op::SpoilMap { page, state }),
        1 => (0_usize..3_000_000).prop_map(|at| Op::SpoilData { at }),
        1 => (fault, 1_u32..6).prop_map(|(fault, count)| Op::Fault { fault, count }),
        1 => Just(Op::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// What was read is the layer, or an error, or (where map or data were spoilt) the layer once
    /// it was mistrusted.
    #[test]
    fn reads_equal_the_plain_bytes(
        seed in any::<u64>(),
        mut ends in prop::collection::vec(1_usize..3_000_000, 0..5),
        ops in prop::collection::vec(op(), 1..60),
    ) {
        use std::os::unix::fs::FileExt;
        let (store, home) = (Faulty::new(), tempfile::tempdir().unwrap());
        let bytes = layer_bytes(3_000_000, seed);
        ends.push(3_000_000);
        ends.sort_unstable();
        ends.dedup();
        let segments = put_all(&store, &bytes, &ends);
        let mut remote = tier(&store, home.path(), 1 << 20);
        let mut file = remote.delta(LAYER, &segments).unwrap();
        let (mut spoilt, mut faulty) = (false, false);
        let open = |end: &str| {
            std::fs::OpenOptions::new()
                .write(true)
                .open(home.path().join("cache").join(format!("{LAYER}.{end}")))
                .unwrap()
        };
        for op in ops {
            match op {
                Op::Read { at, length } => {
                    let expected = slice(&bytes, at, length);
                    match read(&file, at, length) {
                        Ok(found) if found == expected => {}
                        Ok(_) => {
                            prop_assert!(spoilt, "wrong bytes");
                            prop_assert!(file.mistrust(at as u64, length as u64));
                            store.heal();
                            prop_assert!(read(&file, at, length).unwrap() == expected);
                        }
                        Err(error) => prop_assert!(faulty, "{error}"),
                    }
                }
                Op::Evict => remote.cache().unwrap().keep_budget(),
                Op::SpoilMap { page, state } => {
                    spoilt = true;
                    open("map").write_all_at(&[state], 4096 + page as u64).unwrap();
                }
                Op::SpoilData { at } => {
                    spoilt = true;
                    open("data").write_all_at(b"rot", at as u64).unwrap();
                }
                Op::Fault { fault, count } => {
                    faulty = true;
                    store.fail_reads(fault, count);
                }
                Op::Reopen => {
                    drop(file);
                    remote = tier(&store, home.path(), 1 << 20);
                    file = remote.delta(LAYER, &segments).unwrap();
                }
            }
        }
        store.heal();
        file.mistrust(0, 3_000_000);
        prop_assert!(read(&file, 0, 4_000_000).unwrap() == bytes);
    }
}
