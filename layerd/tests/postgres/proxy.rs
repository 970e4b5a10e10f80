//! A network between a catalog and its server: slow, or cut.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Forwards every connection, each way after a time.
pub struct Proxy {
    port: u16,
    is_open: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    /// Forwards to a port of this host; bytes travel for `delay` each way.
    pub fn start(to: u16, delay: Duration) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy {
            port: listener.local_addr().unwrap().port(),
            is_open: Arc::new(AtomicBool::new(true)),
            streams: Arc::default(),
        };
        let (is_open, streams) = (Arc::clone(&proxy.is_open), Arc::clone(&proxy.streams));
        thread::spawn(move || {
            while let Ok((near, _)) = listener.accept() {
                let Ok(far) = TcpStream::connect(("127.0.0.1", to)) else {
                    continue;
                };
                if !is_open.load(Ordering::SeqCst) {
                    continue;
                }
                for stream in [&near, &far] {
                    stream.set_nodelay(true).unwrap();
                    streams.lock().unwrap().push(stream.try_clone().unwrap());
                }
                let back = (far.try_clone().unwrap(), near.try_clone().unwrap());
                forward(near, far, delay);
                forward(back.0, back.1, delay);
            }
        });
        proxy
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends all connections, and refuses others until [`Proxy::mend`].
    pub fn cut(&self) {
        self.is_open.store(false, Ordering::SeqCst);
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub fn mend(&self) {
        self.is_open.store(true, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
    }
}

type Queue = Arc<(Mutex<VecDeque<(Instant, Vec<u8>)>>, Condvar)>;

/// Forwards one direction: one thread reads, another writes what has travelled for long enough.
fn forward(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    let queue: Queue = Arc::default();
    let arriving = Arc::clone(&queue);
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let count = from.read(&mut buffer).unwrap_or(0);
            let (bytes, arrived) = &*queue;
            let due = Instant::now() + delay;
            bytes
                .lock()
                .unwrap()
                .push_back((due, buffer[..count].to_vec()));
            arrived.notify_one();
            if count == 0 {
                return;
            }
        }
    });
    thread::spawn(move || {
        loop {
            let (bytes, arrived) = &*arriving;
            let mut bytes = arrived
                .wait_while(bytes.lock().unwrap(), |bytes| bytes.is_empty())
                .unwrap();
            let (due, next) = bytes.pop_front().unwrap();
            drop(bytes);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if next.is_empty() || to.write_all(&next).is_err() {
                let _ = to.shutdown(Shutdown::Both);
                return;
            }
        }
    });
}
