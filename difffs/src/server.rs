//! The server: from mounting to the last byte flushed.
//!
//! Order of events: the mount point is checked, the image opened (which takes the lease), the
//! filesystem mounted, its threads started; then the file can be opened.
//!
//! It ends when the kernel lets go of the mount: then the image is closed (everything committed,
//! sealed and published, the lease released). Or it ends because [`Mounted::end`] was called. If
//! nobody has a file open, that is an unmount like any other. Otherwise the image is closed *first*,
//! while the mount is still at its place, and every change fails from then on; a mount that was
//! taken away under a working DuckDB would take half of its changes, and the directory beneath, by
//! path, the other half. Who has not closed his files two seconds later finds the mount dead, and
//! the next `mount` or `umount` clears it away.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use fuser::{Config, Session, SessionACL};
use layerd::id::{DatabaseName, FileId, Timestamp};
use layerd::reference::Ref;
use layerd::store::{Store, StoreError};
use layerd::writer::{Writer, WriterOptions};
use parking_lot::{Condvar, Mutex};

use crate::attr::Owner;
use crate::background::Background;
use crate::care;
pub use crate::error::MountError;
use crate::follow::{Follow, Source};
use crate::fs::Filesystem;
use crate::handles::Handles;
use crate::image::Image;
use crate::live::Live;
use crate::mount;
use crate::mountpoint::{self, MountRow};
use crate::node::Nodes;
use crate::passthrough::Passthrough;
use crate::scratch::Scratch;
use crate::snapshot_file::Drafts;
use crate::snapshots::Snapshots;
use crate::state::{Main, State};
pub use crate::status::{CacheStatus, Status};

/// One waits for a disk, one for a slow read, and two are left for what is quick.
const THREAD_COUNT: usize = 4;

/// Where reads may have to wait for a store: as many as DuckDB has threads on a large machine.
const THREAD_COUNT_AFAR: usize = 16;

/// How long files may stay open after the mount was told to end.
const GRACE: Duration = Duration::from_secs(2);

/// How often it is tried to unmount meanwhile.
const RETRY_TIME: Duration = Duration::from_millis(50);

/// What to mount, and where.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// The database.
    pub database: DatabaseName,
    /// The state, frozen; `None` for the live database (or, with `follow`, the newest commit).
    pub reference: Option<Ref>,
    /// Read-only, at each open the newest commit.
    pub follow: bool,
    /// The mount point: an empty directory.
    pub dir: PathBuf,
    /// How the live database is opened.
    pub writer: WriterOptions,
}

/// A mount that is being served.
pub struct Mounted {
    state: Arc<State>,
    row: Option<MountRow>,
    progress: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Default)]
struct Progress {
    /// [`Mounted::end`] was called.
    end_asked: bool,
    /// How the session ended.
    session_end: Option<io::Result<()>>,
}

impl Mounted {
    /// What the mount says of itself. Asks the catalog.
    #[must_use]
    pub fn status(&self) -> Status {
        Status::of(&self.state)
    }

    /// Ends the mount, whoever uses it. Returns at once; [`serve`] returns when all is done.
    pub fn end(&self) {
        let was_asked = std::mem::replace(&mut self.progress.lock().end_asked, true);
        if !was_asked {
            tracing::info!("ending the mount");
            self.changed.notify_all();
        }
    }

    /// The file to open.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.state.file()
    }

    /// `rw` or `ro`.
    #[must_use]
    pub fn mode(&self) -> &'static str {
        self.state.mode()
    }

    /// The home.
    #[must_use]
    pub fn store(&self) -> Arc<Store> {
        Arc::clone(&self.state.store)
    }

    /// The live database's writer.
    #[must_use]
    pub fn writer(&self) -> Option<Arc<Writer>> {
        match &self.state.main {
            Main::Live(live) => Some(Arc::clone(live.writer())),
            Main::Frozen(_) | Main::Follow(_) => None,
        }
    }

    /// Whether the mount is still somewhere to be seen.
    pub(crate) fn is_attached(&self) -> bool {
        self.row
            .as_ref()
            .is_none_or(|row| mountpoint::is_mounted(row.device))
    }

    /// For the caretaker.
    pub(crate) fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// Takes the mount away if nobody has a file open, and if it is still ours at that place.
    fn detach(&self) -> bool {
        let is_ours = |row: MountRow| self.row.as_ref().is_none_or(|ours| ours.id == row.id);
        let dir = &self.state.dir;
        mountpoint::topmost(dir).is_ok_and(|row| row.is_some_and(is_ours))
            && mount::detach(dir).is_ok()
    }

    /// Waits until the session has ended; `None` if its end was asked for instead.
    fn wait(&self) -> Option<io::Result<()>> {
        let mut progress = self.progress.lock();
        while progress.session_end.is_none() && !progress.end_asked {
            self.changed.wait(&mut progress);
        }
        progress.session_end.take()
    }

    /// Waits until the session has ended, but not long.
    fn wait_for(&self, time: Duration) -> Option<io::Result<()>> {
        let deadline = Instant::now() + time;
        let mut progress = self.progress.lock();
        while progress.session_end.is_none() {
            if self.changed.wait_until(&mut progress, deadline).timed_out() {
                break;
            }
        }
        progress.session_end.take()
    }

    /// Ends the mount as was asked for.
    fn leave(&self) -> io::Result<Result<(), StoreError>> {
        if self.detach()
            && let Some(end) = self.wait_for(GRACE)
        {
            return end.map(Ok);
        }
        // In use; or unmounted lazily by somebody else, which is no better, and urgent.
        let closed = self.state.close();
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline {
            self.detach();
            if let Some(end) = self.wait_for(RETRY_TIME) {
                return end.map(|()| closed);
            }
        }
        tracing::warn!(
            "files are still open in {}: leaving a dead mount to them",
            self.state.dir.display()
        );
        Ok(closed)
    }
}

/// Serves the mount until it is unmounted, by whatever means, then flushes, seals, publishes and
/// releases. `on_ready` is called once, when the file can be opened.
///
/// # Errors
/// Any [`MountError`]; whichever it is, what was acknowledged is kept.
pub fn serve(
    store: Arc<Store>,
    options: MountOptions,
    on_ready: impl FnOnce(Arc<Mounted>),
) -> Result<(), MountError> {
    if options.follow
        && options
            .reference
            .as_ref()
            .is_some_and(|reference| *reference != Ref::Latest)
    {
        return Err(MountError::FollowsNothing(
            options.reference.unwrap_or(Ref::Latest),
        ));
    }
    let dir = mountpoint::prepare(&options.dir)?;
    let state = open(store, options, &dir)?;
    let served = run(&state, &dir, on_ready);
    let closed = state.close();
    state.store.end_readers();
    let closed = match served {
        Ok(before) => before.and(closed),
        Err(error) => {
            // The first failure is the one to tell.
            if let Err(second) = closed {
                tracing::error!("{second}");
            }
            return Err(error);
        }
    };
    closed.map_err(|error| MountError::Close {
        database: state.database.clone(),
        error,
    })
}

/// Opens what is to be mounted.
fn open(store: Arc<Store>, options: MountOptions, dir: &Path) -> Result<Arc<State>, MountError> {
    let MountOptions {
        database,
        reference,
        follow,
        writer,
        ..
    } = options;
    let id = store.database(&database)?.id;
    let broken = |error| MountError::Broken {
        dir: dir.to_owned(),
        error,
    };
    let background = Background::start().map_err(broken)?;
    let reference = if follow { Some(Ref::Latest) } else { reference };
    let mut owner = Owner::ourselves();
    let main = match &reference {
        Some(_) if follow => {
            let follower = Arc::new(store.open_follower(&database)?);
            Main::Follow(Arc::new(Follow::new(Source::Follower(follower))))
        }
        Some(reference) => Main::Frozen(Image::of_reader(store.open_reader(&database, reference)?)),
        None => {
            let writer = store.open_writer(&database, writer)?;
            // Who owns the database may take snapshots of it.
            if let Ok(root) = writer.attr(FileId::ROOT) {
                owner = Owner {
                    uid: root.uid,
                    gid: root.gid,
                };
            }
            Main::Live(Live::new(Arc::new(writer)))
        }
    };
    Ok(Arc::new(State {
        snapshots: Snapshots::new(Arc::clone(&store), database.clone(), id),
        scratch: Scratch::new(store.home().join("scratch")),
        store,
        database,
        reference,
        dir: dir.to_owned(),
        main,
        nodes: Nodes::default(),
        handles: Handles::default(),
        drafts: Drafts::default(),
        passthrough: Passthrough::default(),
        background,
        owner,
        made: Timestamp::now(),
        notifier: std::sync::OnceLock::new(),
        latest: Mutex::default(),
    }))
}

/// Mounts, serves, and returns when the mount is gone; what closing the image brought, if that had
/// to be done before.
fn run(
    state: &Arc<State>,
    dir: &Path,
    on_ready: impl FnOnce(Arc<Mounted>),
) -> Result<Result<(), StoreError>, MountError> {
    let broken = |error| MountError::Broken {
        dir: dir.to_owned(),
        error,
    };
    let connection = mount::attach(dir, &format!("openduck:{}", state.database))?;
    let row = mountpoint::topmost(dir)?;
    let mounted = Arc::new(Mounted {
        state: Arc::clone(state),
        row,
        progress: Mutex::default(),
        changed: Condvar::new(),
    });
    let acl = if connection.is_shared {
        SessionACL::All
    } else {
        SessionACL::Owner
    };
    let mut config = Config::default();
    config.acl = acl;
    config.n_threads = Some(if state.store.is_remote() {
        THREAD_COUNT_AFAR
    } else {
        THREAD_COUNT
    });
    // So that no two threads wait for one lock in the kernel.
    config.clone_fd = true;
    let started = Session::from_fd(
        Filesystem::new(Arc::clone(state)),
        connection.device,
        acl,
        config,
    )
    .and_then(|session| {
        let _ = state.notifier.set(session.notifier());
        let waiting = Arc::clone(&mounted);
        thread::Builder::new()
            .name("session".into())
            .spawn(move || {
                let end = session.run();
                waiting.progress.lock().session_end = Some(end);
                waiting.changed.notify_all();
            })
    });
    if let Err(error) = started {
        mounted.detach();
        return Err(broken(error));
    }
    if let Some(row) = &mounted.row {
        care::widen_readahead(row.device);
    }
    if let Err(error) = care::start(&mounted) {
        mounted.detach();
        return Err(broken(error));
    }
    on_ready(Arc::clone(&mounted));
    let left = match mounted.wait() {
        Some(end) => end.map(Ok),
        None => mounted.leave(),
    };
    left.map_err(broken)
}
