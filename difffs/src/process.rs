//! Processes: who asks.
//!
//! FUSE names the *thread* that made a request; what a process may see (its spill directory, its
//! commit on a follow path) belongs to all of its threads. The translation reads `/proc` each time:
//! thread ids are reused, so nothing about them may be remembered.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// A process (thread group) that uses the mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Process(pub(crate) u32);

impl Process {
    /// The process of thread `tid`, as FUSE reports it; `None` for 0: a process in a PID namespace
    /// that we can't see into.
    pub(crate) fn of_thread(tid: u32) -> Option<Process> {
        if tid == 0 {
            return None;
        }
        // A thread that ended while its request was under way was most likely the only one.
        Some(Process(thread_group(tid).unwrap_or(tid)))
    }
}

/// The line is the fourth; what stands before it is short, so one read reaches it.
fn thread_group(tid: u32) -> Option<u32> {
    let mut status = [0; 256];
    let length = File::open(format!("/proc/{tid}/status"))
        .ok()?
        .read(&mut status)
        .ok()?;
    let line = status[..length]
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(b"Tgid:"))?;
    std::str::from_utf8(line).ok()?.trim().parse().ok()
}

/// Notices a process's end, even if its id is given to another one at once.
#[derive(Debug)]
pub(crate) struct Lifeline {
    process: Process,
    /// `None` where the kernel refuses: then the id is all there is.
    pidfd: Option<OwnedFd>,
}

impl Lifeline {
    pub(crate) fn to(process: Process) -> Lifeline {
        let pid = i32::try_from(process.0).ok().and_then(Pid::from_raw);
        let pidfd = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        Lifeline { process, pidfd }
    }

    /// Whether the process has ended.
    pub(crate) fn is_cut(&self) -> bool {
        match &self.pidfd {
            Some(pidfd) => {
                let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
                let now = Timespec {
                    tv_sec: 0,
                    tv_nsec: 0,
                };
                matches!(poll(&mut fds, Some(&now)), Ok(ready) if ready > 0)
            }
            None => !fs::exists(format!("/proc/{}", self.process.0)).unwrap_or(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The thread that asks, as `<process>/task/<thread>`.
    fn current_thread() -> u32 {
        let link = fs::read_link("/proc/thread-self").unwrap();
        link.file_name().unwrap().to_str().unwrap().parse().unwrap()
    }

    #[test]
    fn a_thread_belongs_to_its_process() {
        let me = Process(std::process::id());
        let (tid, seen) = std::thread::spawn(|| {
            let tid = current_thread();
            (tid, Process::of_thread(tid))
        })
        .join()
        .unwrap();
        assert_ne!(tid, me.0);
        assert_eq!(seen, Some(me));
    }

    #[test]
    fn a_foreign_namespace_has_no_process() {
        assert_eq!(Process::of_thread(0), None);
    }

    #[test]
    fn the_end_of_a_process_is_noticed_before_it_is_reaped() {
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        let lifeline = Lifeline::to(Process(child.id()));
        assert!(!lifeline.is_cut());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(lifeline.is_cut());
    }
}
