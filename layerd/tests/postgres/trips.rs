//! How often a call crosses the network: counted by its time over a slow one.

use std::time::Instant;

use layerd::catalog::Segment;

use super::proxy::Proxy;
use super::server::Server;
use super::*;

const DELAY: Duration = Duration::from_millis(40);

/// How many round trips it takes: the fewest of some calls, since a busy machine only adds time.
fn trips<T>(mut call: impl FnMut() -> T) -> u128 {
    let once = |_| {
        let begun = Instant::now();
        call();
        begun.elapsed().as_micros() / (2 * DELAY.as_micros())
    };
    (0..4).map(once).min().unwrap()
}

#[test]
fn calls_cross_the_network_as_often_as_they_must() {
    let server = Server::start();
    let proxy = Proxy::start(server.port(), DELAY);
    let store = Store::at(server.address());
    let near = PostgresCatalog::open(&store.url()).unwrap();
    let far = PostgresCatalog::open(&store.url_at(&server.address_at(proxy.port()))).unwrap();
    let written = Written::new(&near, "a");
    let (id, epoch) = (written.id, written.epoch);
    let segment = |lsn: u64| Segment {
        begin: (lsn - 1) * 4096,
        end: lsn * 4096,
        key: format!("a/b/{lsn}"),
        bytes: 10,
        tail: 5,
        commits: None,
    };
    let mut lsns = 1..;
    let with_segment = || {
        let lsn = lsns.next().unwrap();
        far.publish(id, epoch, &written.head(lsn), Some(&segment(lsn)))
            .unwrap()
    };
    assert_eq!(trips(with_segment), 2);
    let last = lsns.next().unwrap();
    assert_eq!(trips(|| written.publish(&far, last).unwrap()), 2);
    assert_eq!(trips(|| far.database_by_id(id).unwrap()), 1);
    assert_eq!(trips(|| far.layers(id).unwrap()), 1);
    assert_eq!(trips(|| far.inventory().unwrap()), 1);
    let point = written.head(last).point;
    assert_eq!(trips(|| far.chain(id, point).unwrap()), 2);
    let pin = || far.pin_chain(id, point, 7, &holder("x"), Duration::from_secs(60));
    assert_eq!(trips(|| pin().unwrap()), 3);
    let renew = || far.renew_lease(id, epoch, Duration::from_secs(60));
    assert_eq!(trips(|| renew().unwrap()), 3);
}
