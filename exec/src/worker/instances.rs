//! DuckDB instances: the live database, and one instance for each snapshot that is read.
//!
//! A snapshot never changes, so each is the main database of an instance of its own, opened at
//! `.snapshots/<ref>/`. A reader moves to a newer one by opening it beside the old; who reads the old
//! one keeps it, and it closes after its last statement. Memory and threads are divided among the
//! instances that live.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use engine::{Access, Connection, Instance, InstanceConfig};
use parking_lot::Mutex;
use proto::v1::Reason;
use tonic::Status;

use super::config::{Config, Role};
use super::lsn::Head;
use super::mount::Mount;
use crate::wire::status::refused;

/// The least memory that an instance gets, however many there are.
const INSTANCE_BYTES_MIN: u64 = 64 << 20;

/// How often a reader asks whether the LSN that is waited for has come.
const LSN_POLL: Duration = Duration::from_millis(5);

/// How often it is looked, that far apart, whether all are closed: for 30 s.
const CLOSE_POLLS: u32 = 6_000;

/// All instances of a worker.
#[derive(Debug)]
pub struct Instances {
    config: Arc<Config>,
    mount: Arc<Mount>,
    head: Arc<Head>,
    live: Mutex<Option<Arc<Held>>>,
    living: Arc<Living>,
    /// The newest state that a reader has open.
    newest: tokio::sync::Mutex<Option<Newest>>,
    /// One opens at a time, so that nobody opens a snapshot twice.
    opening: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Newest {
    held: Arc<Held>,
    /// When it was the newest for sure.
    seen: Instant,
}

/// An open instance, for as long as somebody holds it.
#[derive(Debug)]
pub struct Held {
    instance: Option<Instance>,
    /// The state that it shows; `None`: the live database.
    lsn: Option<u64>,
    number: u64,
    living: Arc<Living>,
    /// The catalog's version when it was looked at last, and the number of its schema.
    schema: Mutex<Option<(u64, u64)>>,
}

/// The instances that live, and what they share.
#[derive(Debug)]
struct Living {
    memory_bytes: u64,
    threads: usize,
    instances: Mutex<HashMap<u64, Entry>>,
    /// Held while instances are given their parts: who closes one meanwhile waits, so that it is closed
    /// when it is not listed any more.
    sharing: Mutex<()>,
}

#[derive(Debug)]
struct Entry {
    /// `None` while it is closed.
    instance: Option<Instance>,
    reference: String,
    held: Weak<Held>,
}

/// What a statement wants to read.
#[derive(Clone, Debug)]
pub enum Want {
    /// The newest state, or one that was the newest at most `staleness` ago, and has `min_lsn`.
    Newest {
        /// 0: no demand.
        min_lsn: u64,
        /// Of no matter to a writer.
        staleness: Duration,
    },
    /// One state, by a reference's text.
    Snapshot(String),
}

impl Held {
    /// The instance.
    pub fn instance(&self) -> Option<&Instance> {
        self.instance.as_ref()
    }

    /// The state that it shows; `None`: the live database.
    pub fn lsn(&self) -> Option<u64> {
        self.lsn
    }

    /// The number of the schema that a connection of this instance sees; 0 where DuckDB does not tell.
    pub fn schema_version(&self, connection: &Connection) -> u64 {
        let Ok(version) = connection.catalog_version() else {
            return 0;
        };
        let known = *self.schema.lock();
        if let Some((_, number)) = known.filter(|(known, _)| *known == version) {
            return number;
        }
        // Others may ask meanwhile, and find out the same.
        let number = connection.schema_hash().map_or(0, |hash| hash.max(1));
        *self.schema.lock() = Some((version, number));
        number
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mine = self.instance.take();
        let (living, number) = (Arc::clone(&self.living), self.number);
        let close = move || {
            // Closing may write a checkpoint, or wait for threads.
            let entry = living.closing(number);
            drop((entry, mine));
            living.instances.lock().remove(&number);
            living.share_out(0);
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(close)),
            Err(_) => close(),
        }
    }
}

impl Living {
    /// Takes an instance out that nobody holds any more.
    fn closing(&self, number: u64) -> Option<Instance> {
        let _sharing = self.sharing.lock();
        self.instances.lock().get_mut(&number)?.instance.take()
    }

    /// Gives each instance its part, `coming` more of them expected. Returns the part.
    fn share_out(&self, coming: usize) -> (u64, usize) {
        let _sharing = self.sharing.lock();
        let instances: Vec<Instance> = {
            let instances = self.instances.lock();
            instances
                .values()
                .filter_map(|entry| entry.instance.clone())
                .collect()
        };
        let count = (instances.len() + coming).max(1);
        let memory = (self.memory_bytes / count as u64).max(INSTANCE_BYTES_MIN);
        let threads = (self.threads / count).max(1);
        for instance in instances {
            let shared = instance.set_memory(memory);
            let shared = shared.and_then(|()| instance.set_threads(threads));
            if let Err(error) = shared {
                // It is in use; the next change tries again.
                tracing::debug!("an instance keeps its part: {error}");
            }
        }
        (memory, threads)
    }
}

impl Instances {
    /// Opens the live database, or the newest snapshot. Blocks.
    ///
    /// # Errors
    ///
    /// DuckDB's, or the mount's.
    pub fn open(config: Arc<Config>, mount: Arc<Mount>) -> anyhow::Result<Instances> {
        let head = Head::new(Arc::clone(&mount))?;
        let living = Arc::new(Living {
            memory_bytes: config.limits.memory_bytes,
            threads: config.limits.threads,
            instances: Mutex::default(),
            sharing: Mutex::default(),
        });
        let instances = Instances {
            mount,
            head,
            live: Mutex::default(),
            living,
            newest: tokio::sync::Mutex::default(),
            opening: tokio::sync::Mutex::default(),
            config,
        };
        if instances.config.role == Role::Writer {
            *instances.live.lock() = Some(instances.open_instance("", None)?);
            // Opening may have recovered, which commits.
            instances.head.ask()?;
        }
        Ok(instances)
    }

    /// The LSN of the live database.
    pub fn head(&self) -> &Arc<Head> {
        &self.head
    }

    /// The live database; `None` on a reader, and when the worker ends.
    pub fn live(&self) -> Option<Arc<Held>> {
        self.live.lock().clone()
    }

    /// Lets go of what is open for nobody in particular, and waits until all is closed, for a while.
    pub async fn close(&self) {
        let live = self.live.lock().take();
        let newest = self.newest.lock().await.take();
        drop((live, newest));
        for _ in 0..CLOSE_POLLS {
            if self.count() == 0 {
                return;
            }
            tokio::time::sleep(LSN_POLL).await;
        }
        tracing::warn!("{} instances are still open", self.count());
    }

    /// Opens a state, or with an empty reference the live database. Blocks.
    fn open_instance(
        &self,
        reference: &str,
        lsn: Option<u64>,
    ) -> Result<Arc<Held>, engine::EngineError> {
        let is_live = reference.is_empty();
        let path = match is_live {
            true => self.mount.live_file(),
            false => self.mount.snapshot_file(reference),
        };
        let (memory_bytes, threads) = self.living.share_out(1);
        let number = next_number();
        let instance = Instance::open(&InstanceConfig {
            path: Some(path),
            access: if is_live {
                Access::ReadWrite
            } else {
                Access::ReadOnly
            },
            memory_bytes,
            threads,
            temp_directory: self.config.scratch.join(format!("spill-{number}")),
            temp_bytes_max: self.config.limits.spill_bytes,
            storage_version: self.config.storage_version.clone().filter(|_| is_live),
            allowed_directories: self.config.allowed_directories.clone(),
            locked_down: true,
        })
        .inspect_err(|_| {
            self.living.share_out(0);
        })?;
        let held = Arc::new(Held {
            instance: Some(instance.clone()),
            lsn,
            number,
            living: Arc::clone(&self.living),
            schema: Mutex::default(),
        });
        let entry = Entry {
            instance: Some(instance),
            reference: reference.to_owned(),
            held: Arc::downgrade(&held),
        };
        self.living.instances.lock().insert(number, entry);
        Ok(held)
    }

    /// The instance that a statement shall run on.
    ///
    /// # Errors
    ///
    /// No such state, or none as new as it must be; what opening it says.
    pub async fn find(self: &Arc<Self>, want: &Want) -> Result<Arc<Held>, Status> {
        match want {
            Want::Snapshot(reference) => self.snapshot(reference).await,
            Want::Newest { min_lsn, staleness } => match self.live() {
                Some(live) => {
                    if *min_lsn > self.head.known() {
                        self.wait_for(*min_lsn).await?;
                    }
                    Ok(live)
                }
                None if self.config.role == Role::Writer => {
                    Err(refused(Reason::Unavailable, "the worker is ending"))
                }
                None => self.newest(*min_lsn, *staleness).await,
            },
        }
    }

    /// Checks that a session's instance is as new as a statement wants it.
    ///
    /// # Errors
    ///
    /// It is not, and never will be: its session reads one state.
    pub async fn check_fresh(self: &Arc<Self>, held: &Held, want: &Want) -> Result<(), Status> {
        let Want::Newest { min_lsn, .. } = want else {
            return Ok(());
        };
        match held.lsn {
            None if *min_lsn > self.head.known() => self.wait_for(*min_lsn).await.map(drop),
            Some(lsn) if *min_lsn > lsn => Err(refused(
                Reason::NeedsWriter,
                format!("this session reads LSN {lsn}, and LSN {min_lsn} was asked for"),
            )),
            _ => Ok(()),
        }
    }

    async fn ask_head(self: &Arc<Self>) -> Result<u64, Status> {
        let head = Arc::clone(&self.head);
        let asked = tokio::task::spawn_blocking(move || head.ask()).await;
        match asked {
            Ok(Ok(lsn)) => Ok(lsn),
            Ok(Err(error)) => {
                tracing::error!("asking the mount for its newest commit: {error}");
                Err(refused(
                    Reason::Unavailable,
                    "the database's storage does not answer; try again",
                ))
            }
            Err(_) => Err(refused(Reason::Unavailable, "the worker is ending")),
        }
    }

    /// Waits until the newest commit is at least `min_lsn`, as long as the limit says.
    async fn wait_for(self: &Arc<Self>, min_lsn: u64) -> Result<u64, Status> {
        let deadline = Instant::now() + self.config.limits.lsn_wait;
        loop {
            let head = self.ask_head().await?;
            if head >= min_lsn {
                return Ok(head);
            }
            if Instant::now() >= deadline {
                let message = format!(
                    "LSN {min_lsn} was asked for, and the newest that is known here is {head}"
                );
                return Err(match self.config.role {
                    Role::Writer => Status::out_of_range(message),
                    Role::Reader => refused(Reason::NeedsWriter, message),
                });
            }
            tokio::time::sleep(LSN_POLL).await;
        }
    }

    async fn newest(
        self: &Arc<Self>,
        min_lsn: u64,
        staleness: Duration,
    ) -> Result<Arc<Held>, Status> {
        let mut newest = self.newest.lock().await;
        if let Some(newest) = newest.as_ref()
            && newest.held.lsn >= Some(min_lsn)
            && newest.seen.elapsed() < staleness
        {
            return Ok(Arc::clone(&newest.held));
        }
        let seen = Instant::now();
        let head = self.wait_for(min_lsn).await?;
        if let Some(newest) = newest.as_mut()
            && newest.held.lsn >= Some(head)
        {
            newest.seen = seen;
            return Ok(Arc::clone(&newest.held));
        }
        let held = self.snapshot_at(format!("lsn:{head}"), Some(head)).await?;
        *newest = Some(Newest {
            held: Arc::clone(&held),
            seen,
        });
        Ok(held)
    }

    async fn snapshot(self: &Arc<Self>, reference: &str) -> Result<Arc<Held>, Status> {
        let none = || Status::not_found(format!("no state {reference:?} of this database is kept"));
        // It becomes one component of a path, and nothing else.
        let is_name = !reference.contains(['/', '\0']) && !reference.starts_with('.');
        // `latest` is a path that moves; this protocol has other words for that.
        if self.mount.is_plain() || !is_name || reference == "latest" {
            return Err(none());
        }
        let (mount, text) = (Arc::clone(&self.mount), reference.to_owned());
        let found = tokio::task::spawn_blocking(move || {
            let lsn = mount.lsn_of(&text)?;
            Ok::<_, super::mount::MountError>(lsn.filter(|_| mount.snapshot_file(&text).exists()))
        });
        let found = match found.await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                tracing::error!("looking for {reference:?}: {error}");
                return Err(Status::internal("the database's storage does not answer"));
            }
            Err(_) => return Err(refused(Reason::Unavailable, "the worker is ending")),
        };
        let lsn = found.ok_or_else(none)?;
        self.snapshot_at(reference.to_owned(), Some(lsn)).await
    }

    async fn snapshot_at(
        self: &Arc<Self>,
        reference: String,
        lsn: Option<u64>,
    ) -> Result<Arc<Held>, Status> {
        let _opening = self.opening.lock().await;
        let open = {
            let instances = self.living.instances.lock();
            let mut held = instances.values().filter_map(|entry| {
                let held = entry.held.upgrade()?;
                (held.lsn == lsn && !entry.reference.is_empty()).then_some(held)
            });
            held.next()
        };
        if let Some(open) = open {
            return Ok(open);
        }
        let this = Arc::clone(self);
        let opened = tokio::task::spawn_blocking(move || this.open_instance(&reference, lsn)).await;
        match opened {
            Ok(Ok(held)) => Ok(held),
            Ok(Err(error)) => {
                tracing::error!("opening a snapshot: {error}");
                Err(Status::internal(
                    "the state of the database that this reads can't be opened; the server's log says why",
                ))
            }
            Err(_) => Err(refused(Reason::Unavailable, "the worker is ending")),
        }
    }

    /// How many instances are open.
    pub fn count(&self) -> usize {
        self.living.instances.lock().len()
    }

    /// The directories that no message may show.
    pub fn hidden(&self) -> Vec<String> {
        let root = self.mount.root_path();
        [self.mount.directory(), &self.config.scratch]
            .into_iter()
            .chain(root.as_deref())
            .map(|path| path.to_string_lossy().into_owned())
            .collect()
    }
}

fn next_number() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}
