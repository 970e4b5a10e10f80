//! Futures of simulated threads: polled by the thread that waits for them, as often as others have
//! had their turn.

use std::cell::RefCell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::scheduler::current;

type Task = Pin<Box<dyn Future<Output = ()>>>;

thread_local! {
    static TASKS: RefCell<Vec<Task>> = const { RefCell::new(Vec::new()) };
}

/// How often what another thread is to bring is looked for.
const LOOK: Duration = Duration::from_millis(1);

/// Lets a task run as long as this thread waits for something, or at once if it does not.
pub fn spawn(task: impl Future<Output = ()> + 'static) {
    TASKS.with(|tasks| tasks.borrow_mut().push(Box::pin(task)));
}

/// Waits for a future, and for the tasks that were spawned meanwhile.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    let mut output = None;
    loop {
        if output.is_none()
            && let Poll::Ready(ready) = future.as_mut().poll(&mut context)
        {
            output = Some(ready);
        }
        let before = TASKS.with(RefCell::take);
        let count = before.len();
        let mut left: Vec<Task> = Vec::new();
        for mut task in before {
            if task.as_mut().poll(&mut context).is_pending() {
                left.push(task);
            }
        }
        let goes_on = left.len() < count;
        let is_idle = TASKS.with(|tasks| {
            // What they spawned comes behind them.
            left.append(&mut tasks.borrow_mut());
            std::mem::swap(&mut left, &mut tasks.borrow_mut());
            tasks.borrow().is_empty()
        });
        if is_idle && let Some(output) = output.take() {
            return output;
        }
        if !goes_on && let Some(actor) = current() {
            actor.sleep(LOOK);
        }
    }
}
