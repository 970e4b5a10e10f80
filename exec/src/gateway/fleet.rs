//! The workers that there are: those that the operator named, those that announced themselves in the
//! catalog, and those that this gateway started.
//!
//! The catalog is read every second, and at once for a handle that names a worker which is not known:
//! another replica may have started it. A worker that is not announced any more is forgotten; one of this
//! gateway's own comes and goes with its process.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use layerd::catalog::CatalogError;
use layerd::catalog::service::{KnownWorker, WorkerKind};
use layerd::id::{DatabaseName, WorkerId};
use layerd::store::Store;
use parking_lot::{Mutex, RwLock};
use proto::v1::Reason;
use tokio::sync::watch;
use tonic::Status;

use super::local::Local;
use super::member::{Credential, Member, NewMember, Origin};
use crate::access::peer::Secret;
use crate::wire::status::refused;

/// A worker that was not announced for this long is gone: three announcements were missed.
const ANNOUNCED_TTL: Duration = Duration::from_secs(10);
/// How often the catalog is read.
const READ_EVERY: Duration = Duration::from_secs(1);
/// How soon it is read again for a worker that is not known.
const READ_AGAIN: Duration = Duration::from_millis(100);
/// How long a statement waits for a worker that is starting.
const START_PATIENCE: Duration = Duration::from_secs(45);

/// The workers.
pub struct Fleet {
    store: Arc<Store>,
    local: Option<Arc<Local>>,
    /// Whom to trust where a worker's address is `https`, in PEM.
    authority: Option<String>,
    members: RwLock<HashMap<WorkerId, Arc<Member>>>,
    changes: watch::Sender<u64>,
    read: Mutex<Option<Instant>>,
    reading: tokio::sync::Mutex<()>,
}

impl Fleet {
    /// The workers that the operator named; more come by themselves.
    #[must_use]
    pub fn new(
        store: Arc<Store>,
        local: Option<Arc<Local>>,
        named: Vec<Arc<Member>>,
        authority: Option<String>,
    ) -> Arc<Fleet> {
        let members = named
            .into_iter()
            .map(|member| (member.id, member))
            .collect();
        Arc::new(Fleet {
            store,
            local,
            authority,
            members: RwLock::new(members),
            changes: watch::Sender::new(0),
            read: Mutex::default(),
            reading: tokio::sync::Mutex::new(()),
        })
    }

    /// Goes on reading the catalog.
    pub async fn follow_catalog(self: Arc<Self>) {
        loop {
            self.read_catalog(READ_EVERY / 2).await;
            tokio::time::sleep(READ_EVERY).await;
        }
    }

    /// Workers that this gateway starts, if it does.
    #[must_use]
    pub fn local(&self) -> Option<&Arc<Local>> {
        self.local.as_ref()
    }

    /// A worker came.
    pub fn add(&self, member: &Arc<Member>) {
        self.members.write().insert(member.id, Arc::clone(member));
        self.changes.send_modify(|count| *count += 1);
    }

    /// A worker went.
    pub fn remove(&self, id: WorkerId) {
        self.members.write().remove(&id);
        self.changes.send_modify(|count| *count += 1);
    }

    /// All of them, in no order.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Member>> {
        self.members.read().values().cloned().collect()
    }

    /// The worker of that name.
    pub async fn find(&self, id: WorkerId) -> Option<Arc<Member>> {
        if let Some(member) = self.members.read().get(&id) {
            return Some(Arc::clone(member));
        }
        self.read_catalog(READ_AGAIN).await;
        self.members.read().get(&id).cloned()
    }

    /// A reader of the database that has at least this state (0: any), the one with the least to do.
    #[must_use]
    pub fn reader(&self, database: &str, min_lsn: u64) -> Option<Arc<Member>> {
        let members = self.members.read();
        let fits = |member: &&Arc<Member>| {
            member.kind == WorkerKind::Reader
                && member.serves(database)
                && member.is_up()
                && (min_lsn == 0 || member.lsn() >= min_lsn)
        };
        members
            .values()
            .filter(fits)
            .min_by_key(|member| member.running())
            .cloned()
    }

    /// The database's writer, once it is there.
    ///
    /// # Errors
    /// `UNAVAILABLE` where it does not come.
    pub async fn writer(self: &Arc<Self>, database: &str) -> Result<Arc<Member>, Status> {
        let deadline = Instant::now() + START_PATIENCE;
        let mut changes = self.changes.subscribe();
        loop {
            changes.borrow_and_update();
            if let Some(member) = self.writer_now(database) {
                if let Some(local) = &self.local {
                    local.touch(database);
                }
                return Ok(member);
            }
            self.check_exists(database).await?;
            if let Some(local) = &self.local {
                local.want(self, database);
                if let Some(why) = local.failure(database) {
                    let why = format!("the worker of {database} does not start: {why}");
                    return Err(refused(Reason::Unavailable, why));
                }
            }
            if Instant::now() >= deadline {
                let why = format!("there is no worker for {database}; start one, or try again");
                return Err(refused(Reason::Unavailable, why));
            }
            // Either way it looks again.
            let _changed = tokio::time::timeout(READ_EVERY / 4, changes.changed()).await;
            self.read_catalog(READ_EVERY / 4).await;
        }
    }

    /// A worker would make a database that is not there; here only `openduck_create` does.
    async fn check_exists(&self, database: &str) -> Result<(), Status> {
        let Ok(name) = database.parse::<DatabaseName>() else {
            return Err(no_database(database));
        };
        let store = Arc::clone(&self.store);
        let found = tokio::task::spawn_blocking(move || store.catalog().database(&name)).await;
        match found {
            Ok(Err(CatalogError::NoSuchDatabase(_))) => Err(no_database(database)),
            // A catalog that is away is no reason to stop whoever can go on.
            _ => Ok(()),
        }
    }

    fn writer_now(&self, database: &str) -> Option<Arc<Member>> {
        let members = self.members.read();
        let fits = |member: &&Arc<Member>| {
            member.kind == WorkerKind::Writer && member.serves(database) && member.is_up()
        };
        // One of the database's own before one that serves any, and this gateway's own before others.
        members
            .values()
            .filter(fits)
            .max_by_key(|member| {
                (
                    member.database.is_some(),
                    member.origin == Origin::Local,
                    member.id,
                )
            })
            .cloned()
    }

    /// Reads the catalog, unless it was read within `age_max`.
    async fn read_catalog(&self, age_max: Duration) {
        let is_young = || {
            self.read
                .lock()
                .is_some_and(|read| read.elapsed() < age_max)
        };
        if is_young() {
            return;
        }
        let _one = self.reading.lock().await;
        if is_young() {
            return;
        }
        *self.read.lock() = Some(Instant::now());
        let store = Arc::clone(&self.store);
        let read = tokio::task::spawn_blocking(move || store.catalog().workers(ANNOUNCED_TTL));
        match read.await {
            Ok(Ok(announced)) => self.take(&announced),
            Ok(Err(error)) => tracing::warn!(%error, "announced workers can't be read"),
            Err(error) => tracing::error!(%error, "announced workers can't be read"),
        }
    }

    fn take(&self, announced: &[KnownWorker]) {
        let mut members = self.members.write();
        let before = members.len();
        members.retain(|id, member| {
            member.origin != Origin::Announced
                || announced.iter().any(|known| known.worker.id == *id)
        });
        let mut is_changed = members.len() != before;
        for KnownWorker { worker, .. } in announced {
            if members.contains_key(&worker.id) {
                continue;
            }
            match self.announced(worker) {
                Ok(member) => {
                    tracing::debug!(
                        worker = member.name(),
                        address = member.address,
                        "a worker was announced"
                    );
                    members.insert(worker.id, member);
                    is_changed = true;
                }
                Err(error) => tracing::warn!(
                    error,
                    address = worker.address,
                    "an announced worker can't be used"
                ),
            }
        }
        drop(members);
        if is_changed {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    fn announced(&self, worker: &layerd::catalog::service::Worker) -> Result<Arc<Member>, String> {
        let secret: String = worker
            .secret
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let new = NewMember {
            id: worker.id,
            kind: worker.kind,
            database: Some(worker.database.to_string()),
            address: worker.address.clone(),
            origin: Origin::Announced,
            credential: Credential::Secret(
                Secret::new(&secret).map_err(|error| error.to_string())?,
            ),
            socket: None,
        };
        Member::new(new, self.authority.as_deref()).map_err(|error| error.to_string())
    }
}

fn no_database(name: &str) -> Status {
    Status::not_found(format!(
        "there is no database {name:?}; FROM openduck_databases() lists them, CALL openduck_create makes one"
    ))
}
