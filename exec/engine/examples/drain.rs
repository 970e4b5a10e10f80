//! How fast results leave: `drain [--batch-bytes N] [--threads N] DATABASE SQL`.
use std::time::Instant;

use engine::{Access, Instance, InstanceConfig};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let threads = args[3].parse().unwrap();
    let instance = Instance::open(&InstanceConfig {
        path: Some(args[1].clone().into()),
        access: Access::ReadOnly,
        memory_bytes: 4 << 30,
        threads,
        temp_directory: "/work/tmp/wt-e1.tmp/spill".into(),
        temp_bytes_max: 1 << 30,
        storage_version: None,
        allowed_directories: Vec::new(),
        locked_down: false,
    })
    .unwrap();
    let mut c = instance.connect().unwrap();
    let mut flow = engine::Flow::default();
    if let Some(bytes) = args.get(4) {
        flow.batch_bytes = bytes.parse().unwrap();
    }
    c.set_flow(flow);
    for _ in 0..5 {
        let start = Instant::now();
        let p = c.prepare(&args[2]).unwrap();
        let mut r = c.execute(&p, None).unwrap();
        let (mut rows, mut batches, mut bytes) = (0, 0, 0);
        while let Some(b) = r.next().unwrap() {
            rows += b.num_rows();
            batches += 1;
            bytes += b.get_array_memory_size();
        }
        let s = start.elapsed().as_secs_f64();
        println!(
            "{rows} rows in {s:.3} s, {:.2} M/s, {batches} batches, {:.1} MB, {:.0} MB/s",
            rows as f64 / s / 1e6,
            bytes as f64 / 1e6,
            bytes as f64 / s / 1e6
        );
    }
    for sql in [
        "select 42",
        "select * from lineitem where rowid = 17",
        "select count(*) from nation",
    ] {
        let mut t = Vec::new();
        let mut u = Vec::new();
        for _ in 0..500 {
            let start = Instant::now();
            let mut r = c.start(sql, None, engine::Start::default()).unwrap();
            u.push(start.elapsed().as_micros());
            while r.next().unwrap().is_some() {}
            t.push(start.elapsed().as_micros());
        }
        t.sort();
        u.sort();
        println!(
            "{sql}: p50 {} us (prepare {}), p99 {}",
            t[250], u[250], t[495]
        );
    }
}
