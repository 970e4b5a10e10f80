//! A writer whose way to the catalog comes and goes.

use std::thread;
use std::time::Instant;

use layerd::frozen::FileKind;
use layerd::id::FileId;
use layerd::store::StoreConfig;
use layerd::writer::{NewFile, WriterOptions};

use super::proxy::Proxy;
use super::server::Server;
use super::*;

#[test]
fn a_lease_outlasts_outages_that_fall_together_with_its_heartbeats() {
    let server = Server::start();
    let proxy = Proxy::start(server.port(), Duration::ZERO);
    let store = Store::at(server.address());
    let directory = tempfile::tempdir().unwrap();
    let bucket = directory.path().join("bucket");
    let home = layerd::store::Store::open(&StoreConfig {
        meta: Some(store.url_at(&server.address_at(proxy.port()))),
        objects: Some(format!("file:{}?shared", bucket.display())),
        ..StoreConfig::of_home(directory.path().join("home"))
    })
    .unwrap();
    let name = "db".parse().unwrap();
    home.create(&name).unwrap();
    let options = WriterOptions {
        lag: Duration::from_secs(3600),
        ..WriterOptions::default()
    };
    let writer = home.open_writer(&name, options).unwrap();
    let begun = Instant::now();
    let file = NewFile {
        kind: FileKind::File,
        mode: 0o644,
        uid: 0,
        gid: 0,
    };
    let file = writer.create(FileId::ROOT, b"f", file).unwrap().file;
    // A lease lasts for 15 s, and is renewed each 5 s.
    for beat in [5, 10, 15] {
        let outage = Duration::from_millis(beat * 1000 - 500);
        thread::sleep(outage.saturating_sub(begun.elapsed()));
        proxy.cut();
        thread::sleep(Duration::from_secs(1));
        proxy.mend();
        writer.write(file, beat, b"x").unwrap();
        writer.sync().unwrap();
    }
    thread::sleep(Duration::from_secs(1));
    writer.write(file, 0, b"x").unwrap();
    writer.sync().unwrap();
    writer.close().unwrap();
}
