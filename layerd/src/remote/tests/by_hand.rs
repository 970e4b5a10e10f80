//! What needs a bucket, or is a measurement.

use super::*;

/// By hand, with a bucket: `OPENDUCK_OBJECTS=s3://… cargo test -p layerd --lib real_store -- --ignored`.
#[test]
#[ignore = "needs a bucket and credentials"]
fn a_real_store_takes_and_gives_segments() {
    let objects = Objects::open(&std::env::var("OPENDUCK_OBJECTS").unwrap()).unwrap();
    let home = tempfile::tempdir().unwrap();
    // One PUT, and a multipart upload.
    for length in [100_000, 60_000_000] {
        let bytes = layer_bytes(length, 31);
        let range = Range {
            database: DatabaseId(random_u64()),
            layer: LayerId::random(Epoch(1)),
            begin: 0,
            end: length as u64,
            layout: &Layout::log(),
            commits: None,
        };
        let segment = upload(&objects, range, &mut reader(&bytes)).unwrap();
        let cache = Cache::open(home.path(), config(1 << 30)).unwrap();
        let remote = Tier::new(objects.clone(), Some(cache));
        let segments = [segment.clone()];
        let file = remote.delta(range.layer, &segments).unwrap();
        assert!(read(&file, 0, length).unwrap() == bytes);
        let mut found = Vec::new();
        let list = |folder: &str, found: &mut Vec<(String, u64)>| {
            found.clear();
            let note = |object: Object| {
                found.push((object.key, object.bytes));
                Ok::<(), ObjectsError>(())
            };
            objects.list(folder, note).unwrap();
        };
        list(&range.database.to_string(), &mut found);
        assert_eq!(found, [(segment.key.clone(), segment.bytes)]);
        objects.delete([segment.key.clone()]).unwrap();
        objects.delete([segment.key.clone()]).unwrap();
        list(&range.database.to_string(), &mut found);
        assert_eq!(found, []);
    }
}

/// By hand: `MEASURE_FILE=… cargo test --release -p layerd --lib measure -- --ignored --nocapture`,
/// through a link of 50 ms and 1 Gbit/s, or with the store that `OPENDUCK_OBJECTS` names.
#[test]
#[ignore = "a measurement, not a check"]
fn measure() {
    use std::os::unix::fs::FileExt;
    let (store, home) = (Faulty::new(), tempfile::tempdir().unwrap());
    let objects = match std::env::var("OPENDUCK_OBJECTS") {
        Ok(url) => Objects::open(&url).unwrap(),
        Err(_) => store.objects(),
    };
    let plain = std::fs::File::open(std::env::var("MEASURE_FILE").unwrap()).unwrap();
    let size = plain.metadata().unwrap().len();
    let length = image_end(size);
    let begin = Instant::now();
    let mut segments = Vec::new();
    for part in split(0, length) {
        let range = Range {
            database: DatabaseId(1),
            layer: LAYER,
            begin: part.start,
            end: part.end,
            layout: &Layout::image(size),
            commits: None,
        };
        let read = &mut |at: u64, out: &mut [u8]| {
            out.fill(1);
            plain.read_at(out, at).map(|_| ())
        };
        segments.push(upload(&objects, range, read).unwrap());
    }
    let took = begin.elapsed().as_secs_f64();
    let stored: u64 = segments.iter().map(|segment| segment.bytes).sum();
    let ratio = stored as f64 / length as f64;
    println!(
        "upload: {:.0} MB/s, {ratio:.3} of raw",
        length as f64 / took / 1e6
    );
    store.limit(Duration::from_millis(50), 125_000_000);
    let cache = Cache::open(home.path(), config(4 << 30)).unwrap();
    let remote = Tier::new(objects, Some(cache));
    let (image, _) = remote.image(LAYER, size, &segments).unwrap();
    let scan = |what: &str, read: &dyn Fn(&mut [u8], u64)| {
        let begin = Instant::now();
        let mut buffer = vec![0; 1 << 20];
        for at in (0..size).step_by(1 << 20) {
            read(&mut buffer, at);
        }
        let took = begin.elapsed().as_secs_f64();
        println!("{what}: {took:.3} s, {:.0} MB/s", size as f64 / took / 1e6);
        took
    };
    let remote_read = |buffer: &mut [u8], at: u64| {
        image.read_at(buffer, at).unwrap();
    };
    let took = scan("cold", &remote_read);
    let stats = remote.stats().now();
    println!(
        "{stats:?}: {:.2} of the link",
        stats.bytes as f64 / took / 125e6
    );
    let local_read = |buffer: &mut [u8], at: u64| {
        plain.read_at(buffer, at).unwrap();
    };
    for _ in 0..3 {
        scan("cached", &remote_read);
        scan("plain", &local_read);
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    println!(
        "{}",
        status
            .lines()
            .find(|line| line.starts_with("VmHWM"))
            .unwrap()
    );
}
