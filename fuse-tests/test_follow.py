"""Follow mounts and `.snapshots/latest`: whoever opens gets the newest commit, whole, and keeps it.

The writer commits and checkpoints without pause, so that file and WAL change under every open. What readers
saw is judged against what the writer had acknowledged: whole commits only, never back, never far behind.
"""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.duck import CLIENTS, Client, Clients, Duck, Version
from harness.follow import describe_opens, judge_freshness, judge_reader, judge_writer
from harness.openduck import Home, lazy_unmount
from harness.pages import PageWriter
from harness.posix import opened, pattern
from harness.processes import read_line, wait_until

Rounds = Callable[[int], int]


def start_writer(clients: Clients, version: Version, path: Path, seed: int, every: int = 3) -> Client:
    """A writer without pause, whose file all versions can read."""
    storage = ("--storage-version", "v1.0.0") if version.key >= (1, 2) else ()
    writer = clients.start(
        version, "follow_writer.py", path, "--seed", seed, "--checkpoint-every", every, *storage
    )
    for _ in range(3):
        writer.next_line("the first commits of the writer")
    return writer


@pytest.mark.limit(240)
def test_readers_of_all_versions_under_a_writer_without_pause(
    home: Home,
    clients: Clients,
    version: Version,
    versions: list[Version],
    choose: random.Random,
    rounds: Rounds,
    record_property: Callable[[str, object], None],
) -> None:
    """Readers of every version open a follow mount and `.snapshots/latest` as fast as they can: every open
    is one commit, no lock error, counts never fall, and the newest commit is seen soon after it was
    acknowledged."""
    mount = home.mount("mydb")
    follow = home.mount("mydb", "--follow")
    writer = start_writer(clients, version, mount.file, choose.randrange(1 << 30), choose.choice((1, 2, 4)))
    seconds = rounds(6)
    readers = [
        clients.start(reader_version, "follow_reader.py", path, "--seconds", seconds)
        for reader_version in versions
        for path in (follow.file, mount.snapshot_file("latest"))
    ]
    # One that stays open across many commits: what it has opened must not move.
    readers.append(
        clients.start(versions[0], "follow_reader.py", follow.file, "--seconds", seconds, "--pause-ms", 300)
    )
    opens = [(reader.name, judge_reader(reader)) for reader in readers]
    writer.finish()
    commits = judge_writer(writer)
    assert len(commits) > 20, "the writer hardly wrote"
    lags: list[float] = []
    for name, seen in opens:
        assert seen, f"{name} opened nothing"
        lags += judge_freshness(name, seen, commits)
    record_property("opens", describe_opens(lags, commits))
    assert sum(len(seen) for _, seen in opens) > 20 * seconds, "too few opens to prove anything"


@pytest.mark.limit(180)
def test_three_opens_and_the_wal_are_one_commit(
    home: Home,
    clients: Clients,
    newest: Version,
    choose: random.Random,
    rounds: Rounds,
    record_property: Callable[[str, object], None],
) -> None:
    """Raw opens as DuckDB 2.0 makes them, with commits at random instants between them: never bytes of two
    commits, on a follow mount and on `.snapshots/latest`, by several processes at once."""
    mount = home.mount("mydb")
    follow = home.mount("mydb", "--follow")
    pages = PageWriter(mount.file)
    pages.commit()
    seconds = rounds(8)
    readers = [
        clients.start(
            newest,
            "page_reader.py",
            path,
            "--seconds",
            seconds,
            "--seed",
            choose.randrange(1 << 30),
            "--gap-ms",
            gap,
        )
        for path in (follow.file, mount.snapshot_file("latest"))
        for gap in (0, 30, 300)
    ]
    commits: list[tuple[float, int]] = []
    lags: list[float] = []
    while any(reader.process.poll() is None for reader in readers):
        commit = pages.commit()
        commits.append((time.monotonic(), commit))
        time.sleep(choose.choice((0, 0, 0.002, 0.02)))
    pages.close()
    for reader in readers:
        lines = reader.wait()
        mixed = [line for line in lines if line.startswith(("mix", "error"))]
        assert not mixed, f"{reader.name}: {len(mixed)} of {len(lines)}, the first: {mixed[0]}"
        seen = [(float(line.split()[0]), int(line.split()[1])) for line in lines if line != "stale"]
        assert len(seen) >= max(3, len(lines) // 2), (
            f"{reader.name}: {len(lines) - len(seen)} of {len(lines)} stale"
        )
        lags += judge_freshness(reader.name, seen, commits)
    record_property("sessions", describe_opens(lags, commits))


STEPPER = """
import errno, os, sys
sys.path.insert(0, sys.argv[1])
fds = {}
print("ready", flush=True)
for line in sys.stdin:
    what, *rest = line.split()
    try:
        if what == "open":
            fds[rest[0]] = os.open(rest[1], os.O_RDONLY); said = "ok"
        elif what == "read":
            data = os.pread(fds[rest[0]], int(rest[2]), int(rest[1]))
            said = str(data[0]) if data else "empty"
        elif what == "size":
            said = str(os.fstat(fds[rest[0]]).st_size)
        elif what == "close":
            os.close(fds.pop(rest[0])); said = "ok"
        elif what == "stat":
            said = str(os.stat(rest[0]).st_size)
    except OSError as error:
        said = errno.errorcode[error.errno]
    print(said, flush=True)
"""


class Stepper:
    """A process of its own that opens, reads and closes as it is told, one step at a time."""

    def __init__(self, closers: list[Callable[[], None]]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", STEPPER, str(CLIENTS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        closers.append(self.end)
        assert read_line(self.process, "the stepping process to start") == "ready"

    def __call__(self, *words: object) -> str:
        assert self.process.stdin is not None
        step = " ".join(str(word) for word in words)
        self.process.stdin.write(step + "\n")
        return read_line(self.process, f"the answer to {step!r}")

    def look(self, path: Path, length: int) -> str:
        """Opens, reads the first bytes, closes: the probing that comes before a real open."""
        opened_as = self("open", "probe", path)
        if opened_as != "ok":
            return opened_as
        value = self("read", "probe", 0, length)
        self("close", "probe")
        return value

    def end(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=10)


def write_commit(directory: Path, number: int, checkpoint: bool = False) -> None:
    """Commit `number`: file and WAL full of that byte; a checkpoint replaces the WAL by a new file."""
    page = bytes([number]) * 65_536
    wal = directory / "mydb.duckdb.wal"
    if checkpoint:
        wal.unlink(missing_ok=True)
    wal.write_bytes(page)
    with opened(directory / "mydb.duckdb", os.O_RDWR | os.O_CREAT) as fd:
        os.pwrite(fd, page, 0)
        os.fsync(fd)


@pytest.mark.parametrize("face", ["follow", "latest"])
def test_two_checkpoints_between_the_second_and_the_third_open(
    home: Home, closers: list[Callable[[], None]], face: str
) -> None:
    """The worst case for DuckDB 2.0: probe 16 bytes, probe 12,288 bytes, then two checkpoints, then the
    real open and the WAL. All of it is one commit, or the open answers ESTALE; and so it stays while the
    handle is open."""
    mount = home.mount("mydb")
    path = home.mount("mydb", "--follow").file if face == "follow" else mount.snapshot_file("latest")
    write_commit(mount.dir, 1)
    reader = Stepper(closers)
    assert reader.look(path, 16) == "1"
    write_commit(mount.dir, 2)
    second = reader.look(path, 12_288)
    assert second in ("1", "ESTALE")
    write_commit(mount.dir, 3, checkpoint=True)
    write_commit(mount.dir, 4, checkpoint=True)
    third = reader("open", "real", path)
    assert third in ("ok", "ESTALE")
    if third == "ok":
        assert reader("read", "real", 0, 12_288) == "1"
        assert reader("read", "real", 40_000, 10) == "1"
        write_commit(mount.dir, 5, checkpoint=True)
        assert reader("open", "wal", f"{path}.wal") == "ok"
        assert reader("read", "wal", 0, 10) == "1"
        # A real session lasts as long as a handle is open, however long that is.
        time.sleep(1.5)
        assert reader("open", "later", path) == "ok"
        assert reader("read", "later", 50_000, 10) == "1"
        for name in ("later", "wal", "real"):
            reader("close", name)
    # The session is over with its last handle: the next open is the newest.
    wait_until("a new session to see the newest commit", lambda: reader.look(path, 16) == "5", 3)


@pytest.mark.parametrize("face", ["follow", "latest"])
def test_sessions_belong_to_processes(home: Home, closers: list[Callable[[], None]], face: str) -> None:
    """Two processes at two commits at once, each with its own; a probing session ends a second after its last
    close, a real one, whose process has looked for its WAL, with its last handle."""
    mount = home.mount("mydb")
    path = home.mount("mydb", "--follow").file if face == "follow" else mount.snapshot_file("latest")
    write_commit(mount.dir, 1)
    first, second = Stepper(closers), Stepper(closers)
    assert first("open", "a", path) == "ok"
    assert first("stat", f"{path}.wal") == "65536"
    assert first("read", "a", 40_000, 10) == "1"
    write_commit(mount.dir, 2)
    assert second("open", "a", path) == "ok"
    assert second("read", "a", 40_000, 10) == "2"
    write_commit(mount.dir, 3)
    assert first("open", "b", path) == "ok"
    assert (first("read", "b", 0, 10), second("read", "a", 50_000, 10)) == ("1", "2")
    for name in ("a", "b"):
        first("close", name)
    wait_until("a closed session to be over", lambda: first.look(path, 16) == "3", 3)
    # A probe keeps its commit for the next second, and no longer.
    write_commit(mount.dir, 4)
    assert first.look(path, 16) == "3"
    time.sleep(1.6)
    assert first.look(path, 16) == "4"


def test_the_wal_that_a_commit_does_not_have_is_not_there(
    home: Home, closers: list[Callable[[], None]]
) -> None:
    """A session of a commit without a WAL finds none, though the writer has one by now; and the other way
    round."""
    mount = home.mount("mydb")
    path = home.mount("mydb", "--follow").file
    with opened(mount.file, os.O_RDWR | os.O_CREAT) as fd:
        os.pwrite(fd, bytes([1]) * 65_536, 0)
        os.fsync(fd)
    without, fresh = Stepper(closers), Stepper(closers)
    assert without("open", "a", path) == "ok"
    assert without("read", "a", 40_000, 1) == "1"
    write_commit(mount.dir, 2)
    assert without("open", "wal", f"{path}.wal") == "ENOENT"
    assert fresh("open", "a", path) == "ok"
    assert fresh("read", "a", 40_000, 1) == "2"
    mount.wal.unlink()
    with opened(mount.file, os.O_RDWR) as fd:
        os.pwrite(fd, bytes([3]) * 65_536, 0)
        os.fsync(fd)
    assert fresh("open", "wal", f"{path}.wal") == "ok"
    assert fresh("read", "wal", 0, 1) == "2"


def test_readers_that_hold_old_commits_never_see_them_change(
    home: Home, closers: list[Callable[[], None]]
) -> None:
    """Fifteen processes each hold another commit, under compaction, collection and new commits."""
    mount = home.mount("mydb")
    path = home.mount("mydb", "--follow").file
    holders = []
    for number in range(1, 16):
        write_commit(mount.dir, number, checkpoint=number % 3 == 0)
        holder = Stepper(closers)
        assert holder("open", "a", path) == "ok"
        assert holder("read", "a", 20_000, 1) == str(number)
        holders.append(holder)
    home.run("retention", "mydb", "0")
    home.run("compact", "mydb")
    home.run("gc", "--grace", "0s")
    write_commit(mount.dir, 99)
    for number, holder in enumerate(holders, start=1):
        assert holder("read", "a", 60_000, 1) == str(number)
        assert holder("open", "wal", f"{path}.wal") == "ok"
        assert holder("read", "wal", 60_000, 1) == str(number)


def test_follow_goes_on_over_remounts_and_kills_of_the_writer(
    home: Home, clients: Clients, oldest: Version
) -> None:
    """A follow mount needs no remount when the writer's mount ends, is killed, or moves: it shows the
    newest."""
    follow = None
    expected = 0
    for end in ("umount", "kill", "umount", "kill"):
        mount = home.mount("mydb")
        follow = follow or home.mount("mydb", "--follow")
        duck = clients.duck(oldest).open(mount.file)
        duck.sql("CREATE TABLE IF NOT EXISTS t(i BIGINT)")
        duck.sql("INSERT INTO t SELECT range FROM range(1000)")
        expected += 1000
        if end == "umount":
            duck.quit()
            mount.umount()
        else:
            mount.kill()
            duck.kill()
        reader = clients.duck(oldest)
        path = follow.file
        wait_until(
            f"{expected} rows on the follow mount after {end}",
            lambda reader=reader, path=path, rows=expected: count_rows(reader, path) == rows,
            5,
        )
        reader.quit()


def count_rows(reader: Duck, path: Path) -> int:
    reader.open(path, read_only=True)
    rows = reader.one("SELECT count(*) FROM t")
    reader.close()
    return int(rows)


@pytest.mark.limit(180)
def test_several_readers_spill_at_once_and_leave_nothing(
    home: Home, clients: Clients, versions: list[Version]
) -> None:
    """Readers with little memory sort much, on follow, frozen and `.snapshots` paths, several at once on
    each: each has a spill directory of its own, which nobody else sees and which is gone with it."""
    mount = home.mount("mydb")
    duck = clients.duck(versions[-1]).open(mount.file)
    duck.sql("CREATE TABLE t AS SELECT 1 AS i")
    duck.quit()
    home.run("snapshot", "mydb", "one")
    paths = [
        home.mount("mydb", "--follow").file,
        home.mount("mydb@one").file,
        mount.snapshot_file("latest"),
        mount.snapshot_file("one"),
    ]
    before = home.allocated_bytes()
    jobs = [(version, path) for version in versions for path in paths]
    while jobs:
        batch, jobs = jobs[:4], jobs[4:]
        readers = [clients.start(version, "spill_reader.py", path) for version, path in batch]
        for reader in readers:
            reader.next_line("the reader to start")
        while any(reader.process.poll() is None for reader in readers):
            for path in paths:
                spilled = Path(f"{path}.tmp")
                assert not spilled.exists() or os.listdir(spilled) == [], (
                    "another process's spill files are visible"
                )
            time.sleep(0.02)
        for reader in readers:
            words = reader.wait().pop().split()
            assert words[0] == "spilled"
            assert int(words[1]) > 0, f"{reader.name} did not spill"
    wait_until(
        "the spill files' room to come back",
        lambda: home.allocated_bytes() < before + (4 << 20),
        10,
    )


def test_spill_directory_is_private_scratch(home: Home, closers: list[Callable[[], None]]) -> None:
    """Plain files in the spill directory: written and read by their process, not seen by another, not part
    of any commit, not there after a remount; on the live mount too."""
    mount = home.mount("mydb")
    write_commit(mount.dir, 1)
    home.run("snapshot", "mydb", "one")
    frozen = home.mount("mydb@one")
    stepper = Stepper(closers)
    lsn = mount.head_lsn
    for path in (mount.file, frozen.file, mount.snapshot_file("one"), mount.snapshot_file("latest")):
        spill = Path(f"{path}.tmp")
        spill.mkdir(exist_ok=True)
        file = spill / "duckdb_temp_storage_DEFAULT-0.tmp"
        with opened(file, os.O_RDWR | os.O_CREAT) as fd:
            os.pwrite(fd, pattern(1, 300_000), 5_000_000)
            assert os.pread(fd, 300_000, 5_000_000) == pattern(1, 300_000)
            os.ftruncate(fd, 100)
            os.fsync(fd)
        assert os.listdir(spill) == [file.name]
        assert stepper("open", "x", file) == "ENOENT", "another process opened it"
        file.unlink()
        assert os.listdir(spill) == []
        file.write_bytes(b"left behind")
    assert mount.head_lsn == lsn, "spilling made a commit"
    mount.umount()
    mount = home.mount("mydb")
    spill = Path(f"{mount.file}.tmp")
    assert not spill.exists() or os.listdir(spill) == []


def test_readers_in_other_namespaces_are_told(home: Home, closers: list[Callable[[], None]]) -> None:
    """A process in a foreign pid namespace has no process id here, so it can't be pinned: EACCES, not a
    mix."""
    if os.geteuid() != 0:
        pytest.skip("needs root to make a pid namespace")
    mount = home.mount("mydb")
    write_commit(mount.dir, 1)
    # The mounting process lives in a namespace of its own, so that this one's processes are foreign to it.
    inside = home.new_mount_dir("inside")
    process = subprocess.Popen(
        [
            "unshare",
            "--pid",
            "--fork",
            "--kill-child",
            *home.argv("mount", "mydb", inside, "--follow", "--foreground"),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def end() -> None:
        lazy_unmount(inside)
        process.kill()
        process.wait(20)

    closers.append(end)
    path = inside / "mydb.duckdb"
    wait_until("the mount from another namespace", lambda: os.path.ismount(inside))
    with pytest.raises(OSError) as caught:
        os.open(path, os.O_RDONLY)
    assert caught.value.errno == errno.EACCES
    fixed = home.mount(f"mydb@lsn:{mount.head_lsn}")
    assert fixed.file.read_bytes()[:1] == b"\x01"
