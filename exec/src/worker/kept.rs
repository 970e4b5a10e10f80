//! Answers that are kept: a statement with an idempotency key runs once, however often it is called.
//!
//! Within one life of the worker a repeated call gets what the first one got, or waits for it. An answer
//! that has become too old, or was given by an earlier life, is not there any more: then a statement
//! that writes is answered "outcome unknown", and one that reads simply runs.
//!
//! A statement that was interrupted is forgotten: it was rolled back, so its repetition may run.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prost::Message as _;
use proto::v1::{ExecuteQueryRequest, ExecuteQueryResponse};
use tokio::sync::watch;
use tonic::{Code, Status};

/// The longest key.
pub const KEY_BYTES_MAX: usize = 64;

/// How many old keys of each of two generations are remembered: some 50 MB together.
const OLD_COUNT_MAX: usize = 250_000;

type Key = (Arc<str>, String);
type Outcome = Option<Result<ExecuteQueryResponse, Status>>;

/// Answers by key.
#[derive(Debug)]
pub struct Kept {
    time_max: Duration,
    bytes_max: usize,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    entries: HashMap<Key, Entry>,
    /// Those that were answered, oldest first, with their sizes.
    order: VecDeque<(Key, Instant, usize)>,
    bytes: usize,
    /// Keys whose answers are not kept any more: the newer and the older half.
    old: [HashSet<Key>; 2],
}

#[derive(Debug)]
struct Entry {
    fingerprint: blake3::Hash,
    outcome: watch::Receiver<Outcome>,
}

/// What is known of a key.
#[derive(Debug)]
pub enum Known {
    /// Nothing: the statement runs, and its outcome is to be told.
    New(Running),
    /// It was used, and its answer is not there any more; the statement runs if it only reads.
    Old(Running),
    /// It runs, or has run.
    Same(watch::Receiver<Outcome>),
}

/// A statement whose outcome others may wait for.
#[derive(Debug)]
pub struct Running {
    is_told: bool,
    kept: Arc<Kept>,
    key: Key,
    outcome: watch::Sender<Outcome>,
}

impl Kept {
    /// Keeps answers for `time_max`, and at most `bytes_max` of them.
    pub fn new(time_max: Duration, bytes_max: usize) -> Arc<Kept> {
        Arc::new(Kept {
            time_max,
            bytes_max,
            table: Mutex::default(),
        })
    }

    /// Looks a call's key up, and takes it if it is new.
    ///
    /// # Errors
    ///
    /// The key came with another statement before.
    pub fn look_up(
        self: &Arc<Self>,
        owner: &Arc<str>,
        request: &ExecuteQueryRequest,
    ) -> Result<Known, Status> {
        let key = (Arc::clone(owner), request.idempotency_key.clone());
        let fingerprint = fingerprint(request);
        let mut table = self.table.lock();
        table.make_room(self.time_max, self.bytes_max);
        if let Some(entry) = table.entries.get(&key) {
            if entry.fingerprint != fingerprint {
                return Err(Status::invalid_argument(
                    "this idempotency key came with another statement before; each needs its own",
                ));
            }
            return Ok(Known::Same(entry.outcome.clone()));
        }
        let is_old = table.old.iter().any(|old| old.contains(&key));
        let (sender, outcome) = watch::channel(None);
        let entry = Entry {
            fingerprint,
            outcome,
        };
        table.entries.insert(key.clone(), entry);
        drop(table);
        let running = Running {
            is_told: false,
            kept: Arc::clone(self),
            key,
            outcome: sender,
        };
        Ok(match is_old {
            true => Known::Old(running),
            false => Known::New(running),
        })
    }
}

/// What two calls have in common that are one.
fn fingerprint(request: &ExecuteQueryRequest) -> blake3::Hash {
    let mut request = request.clone();
    let options = request.options.get_or_insert_default();
    // A map has no order of its own.
    let settings: BTreeMap<_, _> = std::mem::take(&mut options.settings).into_iter().collect();
    let mut hasher = blake3::Hasher::new();
    hasher.update(&request.encode_to_vec());
    hasher.update(format!("{settings:?}").as_bytes());
    hasher.finalize()
}

impl Running {
    /// Tells the outcome to all who wait, and keeps it.
    pub fn tell(mut self, outcome: &Result<ExecuteQueryResponse, Status>) {
        let is_undone = outcome.as_ref().is_err_and(|status| {
            matches!(
                status.code(),
                Code::Cancelled
                    | Code::DeadlineExceeded
                    | Code::Unavailable
                    | Code::ResourceExhausted
            )
        });
        if is_undone {
            // Dropping it forgets the key; who waits already gets this.
            self.outcome.send_replace(Some(outcome.clone()));
            return;
        }
        let bytes = match outcome {
            Ok(response) => response.encoded_len(),
            Err(status) => status.message().len(),
        };
        self.outcome.send_replace(Some(outcome.clone()));
        self.is_told = true;
        let mut table = self.kept.table.lock();
        table.bytes += bytes;
        table
            .order
            .push_back((self.key.clone(), Instant::now(), bytes));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.is_told {
            self.kept.table.lock().entries.remove(&self.key);
        }
    }
}

impl Table {
    fn make_room(&mut self, time_max: Duration, bytes_max: usize) {
        while let Some((_, at, _)) = self.order.front()
            && (self.bytes > bytes_max || at.elapsed() > time_max)
            && let Some((key, _, bytes)) = self.order.pop_front()
        {
            self.bytes -= bytes;
            self.entries.remove(&key);
            if self.old[0].len() >= OLD_COUNT_MAX {
                self.old.swap(0, 1);
                self.old[0].clear();
            }
            self.old[0].insert(key);
        }
    }
}

/// Waits for the outcome of a statement that another call began.
///
/// # Errors
///
/// What that call failed with.
pub async fn outcome(
    mut outcome: watch::Receiver<Outcome>,
) -> Result<ExecuteQueryResponse, Status> {
    match outcome.wait_for(Option::is_some).await {
        Ok(outcome) => outcome
            .clone()
            .unwrap_or_else(|| Err(Status::internal("no outcome"))),
        Err(_) => Err(Status::unavailable(
            "the first call with this key was lost; repeat it",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(key: &str, sql: &str) -> ExecuteQueryRequest {
        ExecuteQueryRequest {
            idempotency_key: key.into(),
            sql: sql.into(),
            ..ExecuteQueryRequest::default()
        }
    }

    fn answer(id: &str) -> Result<ExecuteQueryResponse, Status> {
        Ok(ExecuteQueryResponse {
            query_id: id.into(),
            ..ExecuteQueryResponse::default()
        })
    }

    #[tokio::test]
    async fn a_repeated_call_gets_the_first_ones_answer() {
        let kept = Kept::new(Duration::from_secs(60), 1000);
        let owner: Arc<str> = "t".into();
        let Ok(Known::New(running)) = kept.look_up(&owner, &request("k", "INSERT")) else {
            panic!("the key is new");
        };
        let Ok(Known::Same(waiting)) = kept.look_up(&owner, &request("k", "INSERT")) else {
            panic!("the key is in use");
        };
        running.tell(&answer("1"));
        assert_eq!(outcome(waiting).await.unwrap().query_id, "1");
        let Ok(Known::Same(later)) = kept.look_up(&owner, &request("k", "INSERT")) else {
            panic!("the answer is kept");
        };
        assert_eq!(outcome(later).await.unwrap().query_id, "1");
        assert!(kept.look_up(&owner, &request("k", "DELETE")).is_err());
        let other: Arc<str> = "u".into();
        assert!(matches!(
            kept.look_up(&other, &request("k", "INSERT")),
            Ok(Known::New(_))
        ));
    }

    #[tokio::test]
    async fn what_was_rolled_back_may_run_again() {
        let kept = Kept::new(Duration::from_secs(60), 1000);
        let owner: Arc<str> = "t".into();
        let Ok(Known::New(running)) = kept.look_up(&owner, &request("k", "INSERT")) else {
            panic!("the key is new");
        };
        running.tell(&Err(Status::cancelled("interrupted")));
        assert!(matches!(
            kept.look_up(&owner, &request("k", "INSERT")),
            Ok(Known::New(_))
        ));
    }

    #[tokio::test]
    async fn what_is_too_old_is_unknown() {
        let kept = Kept::new(Duration::ZERO, 1000);
        let owner: Arc<str> = "t".into();
        let Ok(Known::New(running)) = kept.look_up(&owner, &request("k", "INSERT")) else {
            panic!("the key is new");
        };
        running.tell(&answer("1"));
        std::thread::sleep(Duration::from_millis(1));
        assert!(matches!(
            kept.look_up(&owner, &request("k", "INSERT")),
            Ok(Known::Old(_))
        ));
    }
}
