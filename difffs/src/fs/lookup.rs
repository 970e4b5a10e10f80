//! Looking names up.

use std::sync::Arc;
use std::time::Duration;

use fuser::{Errno, INodeNo, ReplyEntry, Request};
use layerd::FsError;
use layerd::frozen::FileKind;
use layerd::id::FileId;

use super::attributes::{draft_attr, fixed_attr, head_lsn_attr, snapshot_attr, status_attr};
use super::{
    CONTROL_NAME, Filesystem, Found, HEAD_LSN_NAME, LATEST_NAME, Missing, SNAPSHOT_NAME,
    SNAPSHOTS_NAME, STATUS_NAME, answer_found, guarded, is_root,
};
use crate::attr::{self, FOREVER, NOT_AT_ALL};
use crate::errno::errno;
use crate::follow::Follow;
use crate::image::{Image, ImageFile};
use crate::node::{CONTROL, Key, LATEST, Node, Place, ROOT, SNAPSHOT, SNAPSHOTS};
use crate::process::Process;
use crate::scratch::ScratchDir;
use crate::snapshots::SnapshotDir;
use crate::state::{Main, State};

/// How long a snapshot's name is believed: another process may give it to another commit.
const SNAPSHOT_TTL: Duration = Duration::from_secs(1);

impl Filesystem {
    pub(super) fn look_up(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &[u8],
        reply: ReplyEntry,
    ) {
        let state = &self.state;
        let place = match self.place(parent) {
            Ok(place) => place,
            Err(error) => return reply.error(error),
        };
        let tid = request.pid();
        match place {
            Place::Main(directory) if is_root(directory) && name == SNAPSHOTS_NAME => {
                Found::for_good(fixed_attr(state, SNAPSHOTS)).answer(reply);
            }
            Place::Main(directory) if is_root(directory) && name == CONTROL_NAME => {
                Found::for_good(fixed_attr(state, CONTROL)).answer(reply);
            }
            Place::Main(directory) if is_root(directory) && state.is_spill(name) => {
                answer_found(reply, find_spill(state, parent.0, tid));
            }
            Place::Main(directory) => match &state.main {
                Main::Live(live) => {
                    let found = guarded(|| live.lookup(directory, name));
                    let found = found
                        .map_err(Missing::Error)
                        .and_then(|found| found.ok_or(Missing::ForGood));
                    answer_found(reply, found.map(Found::for_good));
                }
                Main::Frozen(image) => {
                    answer_found(
                        reply,
                        guarded(|| find_in_image(state, image, directory, ROOT, name)),
                    );
                }
                Main::Follow(follow) => self.look_up_newest(follow, tid, name, reply),
            },
            Place::Latest if state.is_spill(name) => {
                answer_found(reply, find_spill(state, parent.0, tid))
            }
            Place::Latest => match state.latest() {
                Some(follow) => self.look_up_newest(&follow, tid, name, reply),
                None => {
                    let name = name.to_vec();
                    self.later(move |state| {
                        let found = state
                            .open_latest()
                            .and_then(|follow| find_newest(state, &follow, tid, &name));
                        answer_found(reply, found.map_err(Missing::Error));
                    });
                }
            },
            Place::Snapshots if name == LATEST_NAME => {
                Found::for_good(fixed_attr(state, LATEST)).answer(reply)
            }
            Place::Snapshots => {
                let name = name.to_vec();
                self.later(move |state| {
                    answer_found(reply, find_snapshot(state, &name).map_err(Missing::Error))
                });
            }
            Place::Node(Node::Snapshot(dir)) if state.is_spill(name) => {
                answer_found(reply, find_spill(state, dir.ino, tid));
            }
            Place::Node(Node::Snapshot(dir)) => match dir.opened() {
                Some(image) => {
                    answer_found(
                        reply,
                        guarded(|| find_in_image(state, &image, FileId::ROOT, dir.ino, name)),
                    );
                }
                None => {
                    let name = name.to_vec();
                    self.later(move |state| {
                        let image = state.snapshots.image(&dir).map_err(Missing::Error);
                        let found = image.and_then(|image| {
                            find_in_image(state, &image, FileId::ROOT, dir.ino, &name)
                        });
                        answer_found(reply, found);
                    });
                }
            },
            Place::Node(Node::ImageDir { image, file, top }) => {
                answer_found(
                    reply,
                    guarded(|| find_in_image(state, &image, file, top, name)),
                );
            }
            Place::Node(Node::ScratchDir(dir)) => {
                let found = dir.find(name).and_then(|file| {
                    state
                        .nodes
                        .tell_owned(file.ino, &Node::ScratchFile(Arc::clone(&file)));
                    Ok(Found {
                        attr: file.attr()?,
                        attr_ttl: NOT_AT_ALL,
                        name_ttl: FOREVER,
                    })
                });
                answer_found(reply, found.map_err(Missing::Error));
            }
            Place::Control if name == STATUS_NAME => {
                self.later(|state| Found::for_now(status_attr(state)).answer(reply));
            }
            Place::Control => {
                answer_found(reply, find_control(state, name).map_err(Missing::Error))
            }
            Place::Status
            | Place::Snapshot
            | Place::HeadLsn
            | Place::Node(
                Node::ImageFile(_) | Node::FollowedFile(_) | Node::ScratchFile(_) | Node::Draft(_),
            ) => {
                reply.error(Errno::ENOTDIR);
            }
        }
    }

    /// Looks a name up in the newest commit; first lets a session that is about to end do so.
    fn look_up_newest(&self, follow: &Arc<Follow>, tid: u32, name: &[u8], reply: ReplyEntry) {
        match Process::of_thread(tid) {
            Some(process) if follow.is_settling(process) => {
                let (follow, name) = (Arc::clone(follow), name.to_vec());
                self.later(move |state| {
                    follow.settle(process);
                    answer_found(
                        reply,
                        find_newest(state, &follow, tid, &name).map_err(Missing::Error),
                    );
                });
            }
            _ => {
                let found = guarded(|| find_newest(&self.state, follow, tid, name));
                answer_found(reply, found.map_err(Missing::Error));
            }
        }
    }
}

/// The caller's own spill directory.
fn find_spill(state: &State, parent: u64, tid: u32) -> Result<Found, Missing> {
    let process = Process::of_thread(tid).ok_or(Errno::ENOENT)?;
    let dir = state.scratch.find(parent, process).ok_or(Errno::ENOENT)?;
    Ok(found_spill(state, &dir))
}

pub(super) fn found_spill(state: &State, dir: &Arc<ScratchDir>) -> Found {
    state
        .nodes
        .tell_owned(dir.ino, &Node::ScratchDir(Arc::clone(dir)));
    Found {
        attr: dir.attr(),
        attr_ttl: FOREVER,
        name_ttl: NOT_AT_ALL,
    }
}

fn find_snapshot(state: &State, name: &[u8]) -> Result<Found, Errno> {
    let name = std::str::from_utf8(name).map_err(|_| Errno::ENOENT)?;
    let resolved = state.snapshots.resolve(name)?;
    let key = Key::Snapshot {
        name: name.to_owned(),
        commit: resolved.commit,
    };
    let make = |ino| Node::Snapshot(Arc::new(SnapshotDir::new(ino, name.to_owned(), resolved)));
    match state.nodes.tell(key, make) {
        (_, Node::Snapshot(dir)) => Ok(Found {
            attr: snapshot_attr(state, &dir),
            attr_ttl: FOREVER,
            name_ttl: SNAPSHOT_TTL,
        }),
        _ => Err(Errno::EIO),
    }
}

fn find_control(state: &State, name: &[u8]) -> Result<Found, Errno> {
    if name == SNAPSHOT_NAME && matches!(state.main, Main::Live(_)) {
        return Ok(Found::for_now(fixed_attr(state, SNAPSHOT)));
    }
    if name == HEAD_LSN_NAME && matches!(state.main, Main::Live(_)) {
        return Ok(Found {
            attr: head_lsn_attr(state),
            attr_ttl: FOREVER,
            name_ttl: FOREVER,
        });
    }
    let draft = state.drafts.find(name).ok_or(Errno::ENOENT)?;
    state
        .nodes
        .tell_owned(draft.ino, &Node::Draft(Arc::clone(&draft)));
    Ok(Found::for_now(draft_attr(&draft)))
}

fn find_in_image(
    state: &State,
    image: &Arc<Image>,
    directory: FileId,
    top: u64,
    name: &[u8],
) -> Result<Found, Missing> {
    let attr = match image.frozen()?.lookup(directory, name) {
        Err(FsError::NotFound) => return Err(Missing::ForGood),
        found => found.map_err(|error| errno(&error))?,
    };
    let (commit, file) = (image.commit(), attr.file);
    let (ino, _) = match attr.kind {
        FileKind::Directory => {
            state
                .nodes
                .tell(Key::Dir { commit, file, top }, |_| Node::ImageDir {
                    image: Arc::clone(image),
                    file,
                    top,
                })
        }
        FileKind::File => state.nodes.tell(
            Key::File {
                commit,
                file,
                is_followed: false,
            },
            |_| Node::ImageFile(Arc::new(ImageFile::new(Arc::clone(image), attr))),
        ),
    };
    Ok(Found::for_good(attr::of_image(ino, &attr)))
}

/// Looks a name up in what a process sees on a follow path.
fn find_newest(state: &State, follow: &Follow, tid: u32, name: &[u8]) -> Result<Found, Errno> {
    let process = Process::of_thread(tid);
    let image = follow.seen_by(process)?;
    if let Some(process) = process
        && state.is_wal(name)
    {
        follow.wal_looked_up(process);
    }
    let attr = image
        .frozen()?
        .lookup(FileId::ROOT, name)
        .map_err(|error| match error {
            FsError::NotFound => Errno::ENOENT,
            error => errno(&error),
        })?;
    let (commit, file) = (image.commit(), attr.file);
    let (ino, _) = match attr.kind {
        FileKind::Directory => state.nodes.tell(
            Key::Dir {
                commit,
                file,
                top: LATEST,
            },
            |_| Node::ImageDir {
                image: Arc::clone(&image),
                file,
                top: LATEST,
            },
        ),
        FileKind::File => state.nodes.tell(
            Key::File {
                commit,
                file,
                is_followed: true,
            },
            |_| Node::FollowedFile(Arc::new(ImageFile::new(Arc::clone(&image), attr))),
        ),
    };
    Ok(Found {
        attr: attr::of_image(ino, &attr),
        attr_ttl: FOREVER,
        name_ttl: NOT_AT_ALL,
    })
}
