//! A worker, as the gateway sees it: where it is, how to be believed there, and how much it has to do.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use layerd::catalog::service::WorkerKind;
use layerd::id::WorkerId;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tonic::metadata::MetadataMap;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Status};

use crate::access::Caller;
use crate::access::peer::{self, Secret};

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A worker that could not be reached is left alone for this long while there are others.
const DOWN_FOR: Duration = Duration::from_millis(500);
/// As much as a result may have under way between worker and gateway: the first is a stream's, the
/// second all streams'. It is what bounds a gateway's memory for slow clients.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;
const FRAME_BYTES_MAX: u32 = 1 << 20;

/// How the gateway is believed by a worker.
#[derive(Clone, Debug)]
pub enum Credential {
    /// By a secret; the worker is told for whom.
    Secret(Secret),
    /// Not at all: the worker checks the client's own token.
    Clients,
}

/// Where a worker came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This gateway started it.
    Local,
    /// It announced itself in the catalog.
    Announced,
    /// The operator named it.
    Named,
}

/// A worker.
#[derive(Debug)]
pub struct Member {
    /// One life of its process.
    pub id: WorkerId,
    /// What it is for.
    pub kind: WorkerKind,
    /// The database that it serves; `None`: any.
    pub database: Option<String>,
    /// Its URL.
    pub address: String,
    /// Where it came from.
    pub origin: Origin,
    credential: Credential,
    channel: Channel,
    running: AtomicUsize,
    lsn: AtomicU64,
    down_until: Mutex<Option<Instant>>,
}

/// What the gateway is told of a worker.
#[derive(Clone, Debug)]
pub struct NewMember {
    /// See [`Member::id`].
    pub id: WorkerId,
    /// See [`Member::kind`].
    pub kind: WorkerKind,
    /// See [`Member::database`].
    pub database: Option<String>,
    /// See [`Member::address`].
    pub address: String,
    /// See [`Member::origin`].
    pub origin: Origin,
    /// How the gateway is believed there.
    pub credential: Credential,
    /// A local socket that it listens on as well.
    pub socket: Option<PathBuf>,
}

impl Member {
    /// A worker that is connected to when it is first called. `authority`: in PEM, whom to trust where
    /// the address is `https`; the system's authorities otherwise.
    ///
    /// # Errors
    /// Where the address is no URL.
    pub fn new(
        new: NewMember,
        authority: Option<&str>,
    ) -> Result<Arc<Member>, tonic::transport::Error> {
        let socket = new.socket.as_deref().and_then(Path::to_str);
        let url = socket.map_or_else(|| new.address.clone(), |path| format!("unix:{path}"));
        let mut endpoint = Endpoint::from_shared(url)?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES_MAX)
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(10));
        if socket.is_none() && new.address.starts_with("https:") {
            let tls = match authority {
                Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
                None => ClientTlsConfig::new().with_native_roots(),
            };
            endpoint = endpoint.tls_config(tls)?;
        }
        Ok(Arc::new(Member {
            id: new.id,
            kind: new.kind,
            database: new.database,
            address: new.address,
            origin: new.origin,
            credential: new.credential,
            channel: endpoint.connect_lazy(),
            running: AtomicUsize::new(0),
            lsn: AtomicU64::new(0),
            down_until: Mutex::new(None),
        }))
    }

    /// The id of a worker that the operator named: the same in every replica.
    #[must_use]
    pub fn id_of_named(address: &str) -> WorkerId {
        let hash: [u8; 32] = Sha256::digest(address.as_bytes()).into();
        let (first, _) = hash.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
        WorkerId(u64::from_be_bytes(*first))
    }

    /// Its name, for people.
    #[must_use]
    pub fn name(&self) -> String {
        let kind = match self.kind {
            WorkerKind::Writer => "writer",
            WorkerKind::Reader => "reader",
        };
        format!("{kind}-{}", self.id)
    }

    /// The way to it.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Whether it serves the database.
    #[must_use]
    pub fn serves(&self, database: &str) -> bool {
        self.database.as_deref().is_none_or(|mine| mine == database)
    }

    /// Puts into a call's metadata what makes the worker believe it. `clients` are the metadata that
    /// the client sent.
    pub fn credentials(&self, caller: &Caller, clients: &MetadataMap, metadata: &mut MetadataMap) {
        match &self.credential {
            Credential::Secret(secret) => peer::act_for(secret, caller, metadata),
            Credential::Clients => {
                if let Some(token) = clients.get("authorization") {
                    metadata.insert("authorization", token.clone());
                }
            }
        }
    }

    /// Whether an answer says that another process is there by now, which does not know this gateway's
    /// secret: nothing was run, and the client is not to blame.
    #[must_use]
    pub fn disowns(&self, status: &Status) -> bool {
        matches!(self.credential, Credential::Secret(_)) && status.code() == Code::Unauthenticated
    }

    /// Counts a statement as running there until the guard is dropped.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> Busy {
        self.running.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }

    /// Statements that run there, or are being read.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    /// The newest state that it is known to have read or written.
    #[must_use]
    pub fn lsn(&self) -> u64 {
        self.lsn.load(Ordering::Relaxed)
    }

    /// Notes a state that it read or wrote.
    pub fn saw(&self, lsn: u64) {
        self.lsn.fetch_max(lsn, Ordering::Relaxed);
        *self.down_until.lock() = None;
    }

    /// Notes that it could not be reached.
    pub fn is_down(&self) {
        *self.down_until.lock() = Some(Instant::now() + DOWN_FOR);
    }

    /// Whether it could be reached, as far as is known.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.down_until
            .lock()
            .is_none_or(|until| Instant::now() >= until)
    }
}

/// A statement that a worker has to do.
#[derive(Debug)]
pub struct Busy(Arc<Member>);

impl Busy {
    /// The worker.
    #[must_use]
    pub fn member(&self) -> &Arc<Member> {
        &self.0
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}
