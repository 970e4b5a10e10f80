//! Processes of their own: this test program again, with the ignored test below.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::*;

/// The directory of store and home.
const ROOT: &str = "REMOTE_TEST_ROOT";
const LENGTH: usize = 12_000_000;

fn store(root: &Path) -> Objects {
    Objects::open(&format!("file:{}?shared", root.join("store").display())).unwrap()
}

fn open(root: &Path, segment: &Segment, bytes_max: u64) -> (Arc<RemoteFile>, Arc<Cache>) {
    let cache = Cache::open(root, config(bytes_max)).unwrap();
    let remote = Tier::new(store(root), Some(Arc::clone(&cache)));
    let file = remote.delta(LAYER, std::slice::from_ref(segment)).unwrap();
    (file, cache)
}

#[test]
#[ignore = "the part of another process; run by a_killed_process_leaves_a_cache_that_reads_right"]
fn role_fill_and_evict() {
    let root = std::env::var_os(ROOT).expect("only another test starts this one");
    let root = Path::new(&root);
    let text = std::fs::read_to_string(root.join("segment")).unwrap();
    let [key, length, tail] = text.split(' ').collect::<Vec<_>>()[..] else {
        panic!("{text}");
    };
    let segment = Segment {
        begin: 0,
        end: LENGTH as u64,
        key: key.to_owned(),
        bytes: length.parse().unwrap(),
        tail: tail.parse().unwrap(),
        commits: None,
    };
    let bytes = layer_bytes(LENGTH, 17);
    let (file, cache) = open(root, &segment, 4 << 20);
    for n in 0_usize.. {
        let at = n * 7_654_321 % LENGTH;
        assert!(read(&file, at, 300_000).unwrap() == slice(&bytes, at, 300_000));
        cache.keep_budget();
    }
}

fn start(root: &Path) -> Child {
    let (_, module) = module_path!().split_once("::").unwrap();
    Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            &format!("{module}::role_fill_and_evict"),
            "--ignored",
        ])
        .env(ROOT, root)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_killed_process_leaves_a_cache_that_reads_right() {
    let root = tempfile::tempdir().unwrap();
    let bytes = layer_bytes(LENGTH, 17);
    let range = Range {
        database: DatabaseId(1),
        layer: LAYER,
        begin: 0,
        end: LENGTH as u64,
        layout: &Layout::log(),
        commits: None,
    };
    let segment = upload(&store(root.path()), range, &mut reader(&bytes)).unwrap();
    let text = format!("{} {} {}", segment.key, segment.bytes, segment.tail);
    std::fs::write(root.path().join("segment"), text).unwrap();
    for round in 0..6 {
        let mut child = start(root.path());
        let deadline = Instant::now() + Duration::from_secs(60);
        let data = root.path().join("cache").join(format!("{LAYER}.data"));
        while !data.exists() {
            assert!(Instant::now() < deadline, "it never began");
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(300 + round * 37));
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none(), "it read something wrong: {ended:?}");
        child.kill().unwrap();
        child.wait().unwrap();
        let (file, _) = open(root.path(), &segment, 64 << 20);
        for at in (0..LENGTH).step_by(500_000) {
            assert!(read(&file, at, 500_000).unwrap() == slice(&bytes, at, 500_000));
        }
    }
}
