//! Background: where slow answers are worked out.
//!
//! The threads that read requests must stay free for reads, writes and syncs. Whatever asks the
//! catalog (finding a reference, taking a snapshot, counting layers) runs here and answers from
//! here; a request's reply may be sent from any thread.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use parking_lot::{Condvar, Mutex};

/// Enough that one slow catalog call does not hold up a second one.
const THREAD_COUNT: usize = 2;

type Job = Box<dyn FnOnce() + Send>;

/// A few threads and a queue. Dropping it lets the queued jobs run out.
pub(crate) struct Background {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    more: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

impl Background {
    pub(crate) fn start() -> io::Result<Background> {
        let shared = Arc::new(Shared::default());
        for _ in 0..THREAD_COUNT {
            let shared = Arc::clone(&shared);
            thread::Builder::new()
                .name("background".into())
                .spawn(move || work(&shared))?;
        }
        Ok(Background { shared })
    }

    /// Runs `job` soon. A job that panics takes nothing else down; the reply that it held answers
    /// EIO when it is dropped.
    pub(crate) fn run(&self, job: impl FnOnce() + Send + 'static) {
        self.shared.queue.lock().jobs.push_back(Box::new(job));
        self.shared.more.notify_one();
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.shared.queue.lock().closed = true;
        self.shared.more.notify_all();
    }
}

fn work(shared: &Shared) {
    loop {
        let mut queue = shared.queue.lock();
        let job = loop {
            match queue.jobs.pop_front() {
                Some(job) => break job,
                None if queue.closed => return,
                None => shared.more.wait(&mut queue),
            }
        };
        drop(queue);
        if catch_unwind(AssertUnwindSafe(job)).is_err() {
            tracing::error!("a background job panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_panicking_job_takes_nothing_down() {
        let background = Background::start().unwrap();
        for _ in 0..2 * THREAD_COUNT {
            background.run(|| panic!("as the test wants it"));
        }
        let (done, wait) = channel();
        background.run(move || done.send(7).unwrap());
        assert_eq!(wait.recv(), Ok(7));
    }

    #[test]
    fn queued_jobs_run_out_when_it_is_dropped() {
        let background = Background::start().unwrap();
        let (done, wait) = channel();
        for _ in 0..100 {
            let done = done.clone();
            background.run(move || done.send(()).unwrap());
        }
        drop((background, done));
        assert_eq!(wait.iter().count(), 100);
    }
}
