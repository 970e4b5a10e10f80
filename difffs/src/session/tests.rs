use super::*;

const READER: Process = Process(100);
const OTHER: Process = Process(200);

/// One process's view, with a clock that only moves when told to.
struct Scene {
    sessions: Sessions<u64>,
    now: Instant,
    newest: u64,
}

impl Scene {
    fn new() -> Scene {
        Scene {
            sessions: Sessions::default(),
            now: Instant::now(),
            newest: 1,
        }
    }

    fn wait(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
    }

    fn lookup(&self, process: Process) -> u64 {
        self.sessions.pin(process, self.now).unwrap_or(self.newest)
    }

    fn open_inode(&mut self, process: Process, commit: u64) -> Result<HandleId, OtherCommit> {
        self.sessions
            .open(process, Lsn(commit), commit, Lsn(self.newest), self.now)
    }

    /// Lookup and open, as `open(2)` does.
    fn open(&mut self, process: Process) -> (u64, HandleId) {
        let commit = self.lookup(process);
        (
            commit,
            self.open_inode(process, commit)
                .expect("the inode is of the commit just looked up"),
        )
    }

    fn close(&mut self, handle: HandleId) {
        self.sessions.flushed(handle);
        self.sessions.released(handle, self.now);
    }
}

#[test]
fn the_opens_of_one_start_see_one_commit() {
    let mut scene = Scene::new();
    for _ in 0..2 {
        let (commit, probe) = scene.open(READER);
        assert_eq!(commit, 1);
        scene.close(probe);
        scene.newest += 2;
        scene.wait(900);
    }
    let (commit, _file) = scene.open(READER);
    assert_eq!(commit, 1);
    scene.sessions.wal_looked_up(READER);
    assert_eq!(scene.lookup(READER), 1);
}

#[test]
fn a_real_session_ends_with_its_last_handle() {
    let mut scene = Scene::new();
    let (_, first) = scene.open(READER);
    let (_, second) = scene.open(READER);
    scene.sessions.wal_looked_up(READER);
    scene.newest = 5;
    scene.close(first);
    assert_eq!(scene.lookup(READER), 1);
    scene.close(second);
    assert_eq!(scene.lookup(READER), 5);
}

#[test]
fn a_probing_session_ends_a_second_after_its_last_close() {
    let mut scene = Scene::new();
    let (_, probe) = scene.open(READER);
    scene.newest = 2;
    scene.wait(5_000);
    assert_eq!(scene.lookup(READER), 1, "an open handle keeps it");
    scene.close(probe);
    scene.wait(999);
    assert_eq!(scene.lookup(READER), 1);
    scene.wait(1);
    assert_eq!(scene.lookup(READER), 2);
    assert_eq!(scene.sessions.expire(scene.now), [1]);
    assert!(scene.sessions.expire(scene.now).is_empty());
}

#[test]
fn a_reopen_within_the_second_starts_it_anew() {
    let mut scene = Scene::new();
    for _ in 0..10 {
        let (commit, probe) = scene.open(READER);
        assert_eq!(commit, 1);
        scene.close(probe);
        scene.wait(900);
        scene.newest += 1;
    }
}

#[test]
fn a_deep_read_makes_a_session_real() {
    let mut scene = Scene::new();
    let (_, handle) = scene.open(READER);
    scene.sessions.deep_read(handle);
    scene.newest = 2;
    scene.close(handle);
    assert_eq!(scene.lookup(READER), 2);
}

#[test]
fn a_wal_looked_up_without_an_open_file_makes_nothing_real() {
    let mut scene = Scene::new();
    let (_, probe) = scene.open(READER);
    scene.close(probe);
    scene.sessions.wal_looked_up(READER);
    scene.newest = 2;
    assert_eq!(scene.lookup(READER), 1);
}

#[test]
fn an_inode_of_another_commit_is_refused() {
    let mut scene = Scene::new();
    let (_, _file) = scene.open(READER);
    scene.newest = 2;
    assert_eq!(scene.open_inode(READER, 2), Err(OtherCommit));
    assert!(scene.open_inode(READER, 1).is_ok());
}

#[test]
fn processes_do_not_share_a_pin() {
    let mut scene = Scene::new();
    let (_, _file) = scene.open(READER);
    scene.newest = 2;
    assert_eq!(scene.open(OTHER).0, 2);
    assert_eq!(scene.lookup(READER), 1);
}

#[test]
fn an_inode_looked_up_in_a_session_that_ended_is_refused_once_there_is_a_newer_commit() {
    let mut scene = Scene::new();
    let (_, file) = scene.open(READER);
    scene.sessions.wal_looked_up(READER);
    let commit = scene.lookup(READER);
    scene.close(file);
    scene.newest = 2;
    assert_eq!(scene.open_inode(READER, commit), Err(OtherCommit));
    assert_eq!(scene.open(READER).0, 2);
}

#[test]
fn an_inode_looked_up_in_a_session_that_lingered_away_is_refused_too() {
    let mut scene = Scene::new();
    let (_, probe) = scene.open(READER);
    scene.close(probe);
    let commit = scene.lookup(READER);
    scene.newest = 2;
    scene.wait(1_000);
    assert_eq!(scene.open_inode(READER, commit), Err(OtherCommit));
}

#[test]
fn without_a_newer_commit_the_same_one_is_opened_again() {
    let mut scene = Scene::new();
    let (_, file) = scene.open(READER);
    scene.sessions.wal_looked_up(READER);
    scene.close(file);
    assert_eq!(scene.open(READER).0, 1);
}

#[test]
fn a_flushed_real_session_settles_until_its_release() {
    let mut scene = Scene::new();
    let (_, file) = scene.open(READER);
    scene.sessions.wal_looked_up(READER);
    assert!(!scene.sessions.is_settling(READER));
    scene.sessions.flushed(file);
    assert!(scene.sessions.is_settling(READER));
    scene.sessions.released(file, scene.now);
    assert!(!scene.sessions.is_settling(READER));
}

#[test]
fn a_handle_that_outlives_its_flush_is_waited_for_only_once() {
    let mut scene = Scene::new();
    let (_, file) = scene.open(READER);
    scene.sessions.wal_looked_up(READER);
    scene.sessions.flushed(file);
    scene.sessions.settled(READER);
    scene.sessions.flushed(file);
    assert!(!scene.sessions.is_settling(READER));
    scene.newest = 2;
    assert_eq!(scene.lookup(READER), 1, "the session goes on");
}

#[test]
fn an_open_handle_keeps_a_session_from_settling() {
    let mut scene = Scene::new();
    let (_, first) = scene.open(READER);
    let (_, _second) = scene.open(READER);
    scene.sessions.wal_looked_up(READER);
    scene.sessions.flushed(first);
    assert!(!scene.sessions.is_settling(READER));
}

#[test]
fn unknown_handles_are_ignored() {
    let mut scene = Scene::new();
    scene.sessions.flushed(HandleId(77));
    scene.sessions.deep_read(HandleId(77));
    assert_eq!(scene.sessions.released(HandleId(77), scene.now), None);
}

#[test]
fn ends_are_forgotten() {
    let mut scene = Scene::new();
    let (_, file) = scene.open(READER);
    scene.sessions.wal_looked_up(READER);
    scene.close(file);
    scene.wait(5_000);
    assert!(scene.sessions.expire(scene.now).is_empty());
    assert!(scene.sessions.ended.is_empty() && scene.sessions.owners.is_empty());
}
