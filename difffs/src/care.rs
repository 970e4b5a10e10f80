//! Care: what has to be done now and then while a mount is served, and once when it is new.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use fuser::INodeNo;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::mountpoint;
use crate::node::SNAPSHOTS;
use crate::server::Mounted;
use crate::state::{Main, State};

/// Short enough that a writer that asked for the lease is not kept waiting.
const ROUND_TIME: Duration = Duration::from_millis(250);

/// The largest request is 1 MiB; the kernel reads ahead only 128 KiB unless it is told to.
const READAHEAD_KIB: u32 = 1024;

/// Starts the caretaker; it ends with the mount.
pub(crate) fn start(mounted: &Arc<Mounted>) -> io::Result<()> {
    let mounted = Arc::downgrade(mounted);
    thread::Builder::new()
        .name("caretaker".into())
        .spawn(move || take_care(&mounted))?;
    Ok(())
}

fn take_care(mounted: &Weak<Mounted>) {
    let table = File::open(mountpoint::TABLE).ok();
    loop {
        wait(table.as_ref());
        let Some(mounted) = mounted.upgrade() else {
            return;
        };
        let state = mounted.state();
        if !mounted.is_attached() {
            // After a lazy unmount files may stay open for ever: that must not go on.
            mounted.end();
        }
        if let Main::Live(live) = &state.main
            && live.writer().should_end()
        {
            // The lease is wanted by another writer, or lost to one.
            mounted.end();
        }
        if let Some(follow) = state.latest() {
            follow.expire();
        }
        free_scratch(state);
        forget_snapshots(state);
    }
}

/// Waits for the next round, or for a change of the mount table.
fn wait(table: Option<&File>) {
    let Some(table) = table else {
        return thread::sleep(ROUND_TIME);
    };
    let mut fds = [PollFd::new(table, PollFlags::PRI)];
    let time = Timespec {
        tv_sec: 0,
        tv_nsec: i64::from(ROUND_TIME.subsec_nanos()),
    };
    let _ = poll(&mut fds, Some(&time));
}

/// Frees the spill space of processes that have ended.
fn free_scratch(state: &State) {
    for parent in state.scratch.reap() {
        invalidate(state, parent, &state.spill_name());
    }
}

/// Makes the kernel forget snapshots that were not used for long, so that their readers end.
fn forget_snapshots(state: &State) {
    for dir in state.snapshots.surplus(state.nodes.snapshots()) {
        invalidate(state, SNAPSHOTS, &dir.name);
    }
}

fn invalidate(state: &State, parent: u64, name: &str) {
    if let Some(notifier) = state.notifier.get()
        && let Err(error) = notifier.inval_entry(INodeNo(parent), OsStr::new(name))
    {
        tracing::debug!("the kernel keeps {name}: {error}");
    }
}

/// Lets the kernel read ahead as far as one request reaches. Only root may; without it, cold scans
/// take more requests.
pub(crate) fn widen_readahead((major, minor): (u32, u32)) {
    let path = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
    if let Err(error) = fs::write(&path, READAHEAD_KIB.to_string()) {
        tracing::debug!("{path}: {error}");
    }
}
