//! What remote execution keeps in the catalog: its workers, the tokens of its clients, and the keys
//! that sign handles.
//!
//! The catalog only remembers. Who may do what, and what a signature covers, is the matter of those
//! who serve. Whoever can read the catalog can read workers' secrets and signing keys, and so can
//! pass for any client; of tokens it holds hashes only.
//!
//! A token is 256 random bits, so its plain SHA-256 is enough: a slow hash protects what people
//! choose from being guessed, and these can't be guessed.

use std::time::Duration;

use serde::Serialize;

use super::Result;
use crate::id::{DatabaseName, Timestamp, TokenId, WorkerId};

/// What a worker is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkerKind {
    /// It holds the live mount of its database.
    Writer,
    /// It reads snapshots of it.
    Reader,
}

/// One life of a worker's process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worker {
    /// Its name, chosen at random when the process begins: a worker that was started anew has
    /// another one.
    pub id: WorkerId,
    /// Where it listens, as a URL: `http://HOST:PORT`, or `https://…`.
    pub address: String,
    /// What it is for.
    pub kind: WorkerKind,
    /// The database that it serves.
    pub database: DatabaseName,
    /// Its host's name and its process there, for people.
    pub host: String,
    /// See [`Worker::host`].
    pub pid: u32,
    /// What a gateway shows to it, to be believed.
    pub secret: [u8; 32],
}

/// A worker, and when it was heard of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownWorker {
    /// What it said of itself.
    pub worker: Worker,
    /// When it was first announced.
    pub started: Timestamp,
    /// When it was last announced.
    pub seen: Timestamp,
}

/// What a client may do who shows a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Token {
    /// Its name, which is no secret.
    pub id: TokenId,
    /// SHA-256 of the token.
    #[serde(skip)]
    pub hash: [u8; 32],
    /// The databases that it opens, also those that are made later; `None`: all.
    pub databases: Option<Vec<DatabaseName>>,
    /// Whether it only reads.
    pub read_only: bool,
    /// When it was made.
    pub created: Timestamp,
    /// From when on it is refused.
    pub expires: Option<Timestamp>,
    /// When it was taken back.
    pub revoked: Option<Timestamp>,
}

impl Token {
    /// Whether it opens anything at `now`, by the catalog's clock.
    #[must_use]
    pub fn is_good_at(&self, now: Timestamp) -> bool {
        self.revoked.is_none() && self.expires.is_none_or(|expires| now < expires)
    }
}

/// A token that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewToken {
    /// Its name, chosen at random: the token's text begins with it, so it stands before the row.
    pub id: TokenId,
    /// SHA-256 of the token.
    pub hash: [u8; 32],
    /// As [`Token::databases`].
    pub databases: Option<Vec<DatabaseName>>,
    /// As [`Token::read_only`].
    pub read_only: bool,
    /// How long it is good for; `None`: until it is taken back.
    pub lifetime: Option<Duration>,
}

/// All tokens at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// The catalog's clock at the reading.
    pub now: Timestamp,
    /// The tokens, expired and revoked ones too, in the order in which they were made.
    pub tokens: Vec<Token>,
}

/// A key that handles are signed with.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey {
    /// Names it in what it signed. Numbers rise.
    pub number: u32,
    /// The key.
    pub key: [u8; 32],
    /// When it was made.
    pub created: Timestamp,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.number)
    }
}

/// The calls; see the catalog's text for what holds for all of them.
pub trait Service: Send + Sync {
    /// Notes that a worker lives. Called again and again: nobody is announced for longer than
    /// whoever asks believes. Workers that were not seen for a day are forgotten.
    fn announce_worker(&self, worker: &Worker) -> Result<()>;

    /// The workers that were seen within `ttl`, by the catalog's clock, in the order in which they
    /// began.
    fn workers(&self, ttl: Duration) -> Result<Vec<KnownWorker>>;

    /// Forgets a worker.
    fn remove_worker(&self, id: WorkerId) -> Result<()>;

    /// Makes a token. Durable.
    fn add_token(&self, token: &NewToken) -> Result<Token>;

    /// All tokens.
    fn tokens(&self) -> Result<Tokens>;

    /// Takes a token back, and returns it; one that was taken back already stays as it was.
    /// [`CatalogError::NoSuchToken`](super::CatalogError::NoSuchToken). Durable.
    fn revoke_token(&self, id: TokenId) -> Result<Token>;

    /// The signing keys, newest first. If the newest is older than `renew_after`, or there is none,
    /// a new one is made first; keys that have not been the newest for `keep` are forgotten then.
    /// Durable.
    fn signing_keys(&self, renew_after: Duration, keep: Duration) -> Result<Vec<SigningKey>>;
}
