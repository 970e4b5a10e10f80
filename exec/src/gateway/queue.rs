//! The queue: how many statements run at once, and whose is next.
//!
//! There is a limit for all, and one for each token. Where a statement must wait, tokens take turns, each
//! with its oldest statement: who sends a thousand statements delays his own, and not the one statement of
//! another. What waits is bounded in number and time; beyond that a statement is refused, so that a client
//! hears of it while it can still do something.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// How many statements there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Running, of all tokens. A result that is still being read counts.
    pub running_max: usize,
    /// Running, of one token.
    pub running_per_token_max: usize,
    /// Waiting, of one token.
    pub waiting_per_token_max: usize,
    /// How long one waits.
    pub wait_max: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            running_max: 256,
            running_per_token_max: 64,
            waiting_per_token_max: 1024,
            wait_max: Duration::from_secs(60),
        }
    }
}

/// Why a statement was not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// Too many wait already.
    #[error(
        "{0} statements of this token wait already, which is the most that may; send fewer at once"
    )]
    TooMany(usize),
    /// It waited for too long.
    #[error(
        "no place became free within {} s; {running} statements of this token are running or being read", .waited.as_secs()
    )]
    TooLong {
        /// How long it waited.
        waited: Duration,
        /// How many of the token's run.
        running: usize,
    },
}

/// The queue.
#[derive(Debug)]
pub struct Queue {
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    running: usize,
    tokens: HashMap<Arc<str>, Token>,
    /// The tokens that have something waiting and may run more, each once; the first one's turn is next.
    turns: VecDeque<Arc<str>>,
}

#[derive(Debug, Default)]
struct Token {
    running: usize,
    waiting: VecDeque<oneshot::Sender<Place>>,
    has_turn: bool,
}

/// A place among those that run; free again when it is dropped.
#[derive(Debug)]
pub struct Place {
    queue: Arc<Queue>,
    token: Arc<str>,
}

impl Queue {
    /// An empty queue.
    #[must_use]
    pub fn new(limits: Limits) -> Arc<Queue> {
        Arc::new(Queue {
            limits,
            state: Mutex::default(),
        })
    }

    /// Statements that run, and that wait.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let state = self.state.lock();
        let waiting = state.tokens.values().map(|token| token.waiting.len()).sum();
        (state.running, waiting)
    }

    /// Waits for a place. Dropping this gives up waiting.
    ///
    /// # Errors
    /// [`Full`].
    pub async fn enter(self: &Arc<Self>, token: &Arc<str>) -> Result<Place, Full> {
        let begin = Instant::now();
        let waiting = {
            let mut state = self.state.lock();
            let of_token = state.tokens.entry(Arc::clone(token)).or_default();
            of_token.waiting.retain(|waiting| !waiting.is_closed());
            if of_token.waiting.len() >= self.limits.waiting_per_token_max {
                return Err(Full::TooMany(of_token.waiting.len()));
            }
            let (sender, waiting) = oneshot::channel();
            of_token.waiting.push_back(sender);
            state.offer_turn(token, &self.limits);
            waiting
        };
        self.let_in();
        match tokio::time::timeout(self.limits.wait_max, waiting).await {
            Ok(Ok(place)) => Ok(place),
            _ => Err(Full::TooLong {
                waited: begin.elapsed(),
                running: self
                    .state
                    .lock()
                    .tokens
                    .get(token)
                    .map_or(0, |token| token.running),
            }),
        }
    }

    /// Gives the places that are free to those whose turn it is.
    fn let_in(self: &Arc<Self>) {
        // A place that its statement did not wait for is dropped here, outside of the lock, and so
        // comes back by itself.
        while let Some((statement, place)) = self.next() {
            drop(statement.send(place));
        }
    }

    fn next(self: &Arc<Self>) -> Option<(oneshot::Sender<Place>, Place)> {
        let mut state = self.state.lock();
        while state.running < self.limits.running_max {
            let name = state.turns.pop_front()?;
            let token = state.tokens.get_mut(&name)?;
            token.has_turn = false;
            let statement = loop {
                match token.waiting.pop_front() {
                    Some(statement) if statement.is_closed() => {}
                    found => break found,
                }
            };
            let Some(statement) = statement else {
                state.forget_if_empty(&name);
                continue;
            };
            token.running += 1;
            state.running += 1;
            state.offer_turn(&name, &self.limits);
            let place = Place {
                queue: Arc::clone(self),
                token: name,
            };
            return Some((statement, place));
        }
        None
    }
}

impl State {
    fn offer_turn(&mut self, name: &Arc<str>, limits: &Limits) {
        let Some(token) = self.tokens.get_mut(name) else {
            return;
        };
        let may_run = token.running < limits.running_per_token_max;
        if may_run && !token.has_turn && !token.waiting.is_empty() {
            token.has_turn = true;
            self.turns.push_back(Arc::clone(name));
        }
    }

    fn forget_if_empty(&mut self, name: &Arc<str>) {
        let is_empty =
            |token: &Token| token.running == 0 && token.waiting.is_empty() && !token.has_turn;
        if self.tokens.get(name).is_some_and(is_empty) {
            self.tokens.remove(name);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        {
            let mut state = self.queue.state.lock();
            state.running -= 1;
            if let Some(token) = state.tokens.get_mut(&self.token) {
                token.running -= 1;
            }
            state.offer_turn(&self.token, &self.queue.limits);
            state.forget_if_empty(&self.token);
        }
        self.queue.let_in();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(running_max: usize, running_per_token_max: usize) -> Arc<Queue> {
        Queue::new(Limits {
            running_max,
            running_per_token_max,
            waiting_per_token_max: 4,
            wait_max: Duration::from_millis(200),
        })
    }

    fn token(name: &str) -> Arc<str> {
        name.into()
    }

    /// Lets everything that can run do so.
    async fn settle() {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_statement_waits_for_a_place_and_gets_the_next_free_one() {
        let queue = queue(1, 1);
        let first = queue.enter(&token("a")).await.unwrap();
        let waiting = tokio::spawn({
            let queue = Arc::clone(&queue);
            async move { queue.enter(&token("a")).await.map(drop) }
        });
        settle().await;
        assert_eq!(queue.counts(), (1, 1));
        drop(first);
        waiting.await.unwrap().unwrap();
        assert_eq!(queue.counts(), (0, 0));
        assert!(queue.state.lock().tokens.is_empty());
    }

    #[tokio::test]
    async fn one_token_never_takes_all_places() {
        let queue = queue(3, 2);
        let _a = queue.enter(&token("a")).await.unwrap();
        let _b = queue.enter(&token("a")).await.unwrap();
        let refused = queue.enter(&token("a")).await.unwrap_err();
        assert!(matches!(refused, Full::TooLong { running: 2, .. }));
        assert!(queue.enter(&token("b")).await.is_ok());
    }

    #[tokio::test]
    async fn tokens_take_turns() {
        let queue = queue(1, 1);
        let held = queue.enter(&token("z")).await.unwrap();
        let (order, mut came) = tokio::sync::mpsc::unbounded_channel();
        // Many of one token first, then one of another.
        for name in ["a", "a", "a", "b"] {
            let (queue, order) = (Arc::clone(&queue), order.clone());
            tokio::spawn(async move {
                let _place = queue.enter(&token(name)).await;
                order.send(name).unwrap();
            });
            settle().await;
        }
        drop((held, order));
        let mut seen = Vec::new();
        while let Some(name) = came.recv().await {
            seen.push(name);
        }
        assert_eq!(seen, ["a", "b", "a", "a"]);
    }

    #[tokio::test]
    async fn too_many_that_wait_are_refused_at_once() {
        let queue = queue(1, 1);
        let _held = queue.enter(&token("a")).await.unwrap();
        let waiting: Vec<_> = (0..4)
            .map(|_| {
                let queue = Arc::clone(&queue);
                tokio::spawn(async move { queue.enter(&token("a")).await.map(drop) })
            })
            .collect();
        settle().await;
        assert_eq!(
            queue.enter(&token("a")).await.unwrap_err(),
            Full::TooMany(4)
        );
        drop(waiting);
    }

    #[tokio::test]
    async fn who_gives_up_waiting_holds_up_nobody() {
        let queue = queue(1, 1);
        let held = queue.enter(&token("a")).await.unwrap();
        let gone = tokio::spawn({
            let queue = Arc::clone(&queue);
            async move { queue.enter(&token("a")).await.map(drop) }
        });
        settle().await;
        gone.abort();
        settle().await;
        drop(held);
        assert!(queue.enter(&token("a")).await.is_ok());
        assert_eq!(queue.counts(), (0, 0));
    }
}
