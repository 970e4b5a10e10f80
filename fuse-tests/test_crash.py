"""SIGKILL at random instants, of the filesystem and of DuckDB, and power that fails: nothing acknowledged
is lost.

Each round kills somebody in the middle of a commit stream, mounts again at the same place, and asks: is
every acknowledged commit there, whole, and beyond it at most the one in flight? The database then takes the
next round.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable

import pytest

from harness.disks import Disk, LoopDisk
from harness.duck import Clients, DuckError, Version
from harness.openduck import Home, Mount, lazy_unmount, mounted_types
from harness.processes import is_alive, wait_until
from harness.streams import Stream, assert_nothing_lost, state

Rounds = Callable[[int], int]


def let_it_run(stream: Stream, choose: random.Random) -> None:
    """Until some commits are through, and then for a random instant more: half of the time a short one, so
    that kills fall between two neighbouring steps, half of the time long enough for checkpoints."""
    stream.wait_for_commits(choose.randrange(1, 12))
    time.sleep(choose.choice((0.02, 0.35)) * choose.random())


@pytest.mark.limit(240)
def test_killed_filesystem_loses_no_acknowledged_commit(
    home: Home, clients: Clients, version: Version, choose: random.Random, rounds: Rounds
) -> None:
    """kill -9 of the mounting process: DuckDB gets an error, the next mount has every acknowledged commit."""
    directory = home.new_mount_dir("mydb")
    streams = choose.choice((1, 3))
    found: dict[int, int] = {}
    for number in range(rounds(8)):
        mount = home.mount("mydb", directory=directory)
        assert mounted_types(directory) == mounted_types(directory)[:1], (
            "a stale mount lies below the new one"
        )
        arguments = ("--streams", streams, "--checkpoint-every", choose.choice((0, 3, 17)))
        stream = Stream(
            clients, version, mount.file, *arguments, "--wal-limit", choose.choice(("50KB", "1MB"))
        )
        let_it_run(stream, choose)
        mount.kill()
        wait_until(
            "the commit stream to end with an error",
            lambda stream=stream: stream.client.process.poll() is not None,
            30,
        )
        stream.kill()
        mount = home.mount("mydb", directory=directory)
        duck = clients.duck(version).open(mount.file)
        found = assert_nothing_lost(duck, stream, known=found)
        assert found, f"round {number}: nothing was committed, so nothing was tried"
        duck.kill() if number % 2 else duck.quit()
        mount.umount()
        assert not mounted_types(directory)
        if number % 4 == 0:
            home.verify("--deep")
    home.verify("--deep")


@pytest.mark.limit(240)
def test_killed_duckdb_loses_no_acknowledged_commit(
    home: Home, clients: Clients, version: Version, choose: random.Random, rounds: Rounds
) -> None:
    """kill -9 of DuckDB alone: the mount goes on, and the next DuckDB recovers."""
    mount = home.mount("mydb")
    found: dict[int, int] = {}
    for _ in range(rounds(10)):
        stream = Stream(
            clients, version, mount.file, "--streams", 2, "--checkpoint-every", choose.choice((0, 4))
        )
        let_it_run(stream, choose)
        stream.kill()
        # The newest commit is a whole database, to a reader that replays the WAL as well.
        reader = clients.duck(version).open(mount.snapshot_file("latest"), read_only=True)
        found = assert_nothing_lost(reader, stream, known=found)
        reader.quit()
        duck = clients.duck(version).open(mount.file)
        # The live file may also hold a commit whose sync the kill came before.
        found = assert_nothing_lost(duck, stream, known=found)
        duck.quit()
    mount.umount()
    home.verify("--deep")


@pytest.mark.limit(240)
def test_every_commit_point_opens(
    home: Home, clients: Clients, version: Version, choose: random.Random, rounds: Rounds
) -> None:
    """Any commit that the stream left behind is a database that DuckDB opens, and whole, also commits from
    before and after a kill, and counts rise with the LSN."""
    mount = home.mount("mydb")
    stream = Stream(clients, version, mount.file, "--checkpoint-every", 7, "--wal-limit", "200KB")
    stream.wait_for_commits(30)
    mount.kill()
    stream.kill()
    mount = home.mount("mydb", directory=mount.dir)
    stream = Stream(clients, version, mount.file, "--checkpoint-every", 7)
    stream.wait_for_commits(30)
    stream.finish()
    lsns = [commit["lsn"] for commit in home.json("log", "mydb", "--commits")["commits"]]
    assert lsns == sorted(set(lsns))
    chosen = sorted({*lsns[:3], *lsns[-3:], *choose.sample(lsns, min(len(lsns), rounds(25)))})
    newest = -1
    duck = clients.duck(version)
    for lsn in chosen:
        path = mount.snapshot_file(f"lsn:{lsn}")
        try:
            duck.open(path, read_only=True)
        except (DuckError, OSError) as error:
            # Before DuckDB's first checkpoint of a new file there is no database yet.
            assert newest == -1, f"lsn {lsn} does not open: {error}"
            continue
        there = state(duck).get(0, -1)
        duck.close()
        assert there >= newest, f"lsn {lsn} has commit {there}, an earlier one had {newest}"
        newest = there
    assert newest == stream.acked[0]


def test_kills_after_snapshots(
    home: Home, clients: Clients, oldest: Version, choose: random.Random, rounds: Rounds
) -> None:
    """A kill right after a snapshot: the snapshot is kept with its name, and what it held."""
    directory = home.new_mount_dir("mydb")
    found: dict[int, int] = {}
    for number in range(rounds(4)):
        mount = home.mount("mydb", directory=directory)
        stream = Stream(clients, oldest, mount.file, "--checkpoint-every", 5)
        stream.wait_for_commits(15)
        least = stream.acked[0]
        home.run("snapshot", "mydb", f"before-kill-{number}")
        time.sleep(choose.random() * 0.05)
        mount.kill()
        stream.kill()
        mount = home.mount("mydb", directory=directory)
        duck = clients.duck(oldest).open(mount.file)
        found = assert_nothing_lost(duck, stream, known=found)
        duck.close()
        duck.open(mount.snapshot_file(f"before-kill-{number}"), read_only=True)
        assert least <= state(duck)[0] <= found[0]
        duck.quit()
        mount.umount()
    assert [row["name"] for row in home.snapshots("mydb")] == [f"before-kill-{n}" for n in range(rounds(4))]
    home.verify("--deep")


def end_by_sigterm(home: Home, mount: Mount) -> None:
    mount.signal(signal.SIGTERM)


def end_by_steal(home: Home, mount: Mount) -> None:
    thief = home.mount("mydb", "--steal")
    thief.umount()


def end_by_sigterm_and_kill(home: Home, mount: Mount) -> None:
    mount.signal(signal.SIGTERM)
    time.sleep(0.02)
    if home.is_own_server(mount.pid):
        mount.signal(signal.SIGKILL)


@pytest.mark.parametrize("end", [end_by_sigterm, end_by_steal, end_by_sigterm_and_kill])
def test_a_mount_that_ends_under_a_working_duckdb(
    home: Home,
    clients: Clients,
    version: Version,
    choose: random.Random,
    rounds: Rounds,
    end: Callable[[Home, Mount], None],
) -> None:
    """The mount is asked to end, or its lease is taken over, while DuckDB commits. Then it gets errors:
    nothing is acknowledged that is not in the database, no file of it appears in the bare directory, and the
    database opens."""
    found: dict[int, int] = {}
    # A holder looks whether somebody wants its lease when it renews it, each 5 s.
    for _ in range(rounds(1 if end is end_by_steal else 3)):
        mount = home.mount("mydb")
        stream = Stream(clients, version, mount.file, "--checkpoint-every", choose.choice((2, 5)))
        let_it_run(stream, choose)
        end(home, mount)
        # As long as it would take DuckDB to make a new WAL by its path.
        time.sleep(0.5)
        stream.kill()
        wait_until("the asked mount to end with its last user", lambda m=mount: not is_alive(m.pid), 20)
        mount.forget()
        lazy_unmount(mount.dir)
        assert os.listdir(mount.dir) == [], "DuckDB wrote into the directory below the mount"
        mount = home.mount("mydb")
        duck = clients.duck(version).open(mount.file)
        found = assert_nothing_lost(duck, stream, known=found)
        duck.quit()
        mount.umount()
    home.verify("--deep")


def test_sigterm_is_an_orderly_umount(home: Home, clients: Clients, newest: Version) -> None:
    """SIGTERM flushes, seals, publishes and releases, and the mount is gone."""
    mount = home.mount("mydb")
    duck = clients.duck(newest).open(mount.file)
    duck.sql("CREATE TABLE t AS SELECT range AS i FROM range(1000)")
    duck.quit()
    lsn = mount.head_lsn
    mount.signal(signal.SIGTERM)
    wait_until("the mounting process to end after SIGTERM", lambda: not is_alive(mount.pid))
    mount.forget()
    assert not mounted_types(mount.dir)
    assert home.head_lsn("mydb") >= lsn
    again = home.mount("mydb", directory=mount.dir)
    duck = clients.duck(newest).open(again.file)
    assert duck.one("SELECT count(*) FROM t") == 1000
    duck.quit()


def test_takeover_after_a_kill_needs_no_waiting(home: Home) -> None:
    """A dead writer of the same home is known to be dead: the next mount does not wait for its lease to
    expire."""
    mount = home.mount("mydb")
    (mount.dir / "f").write_bytes(b"x")
    first_epoch = mount.status()["epoch"]
    mount.kill()
    begin = time.monotonic()
    again = home.mount("mydb", directory=mount.dir)
    assert time.monotonic() - begin < 5, "the lease lasts 15 s; a takeover must not wait for it"
    assert again.status()["epoch"] > first_epoch


def test_a_killed_mount_is_replaced_in_place(home: Home) -> None:
    """The directory of a killed mount is used again without any cleaning by hand, also by umount."""
    mount = home.mount("mydb")
    mount.kill()
    assert mounted_types(mount.dir), "the dead mount should still be in the kernel's table"
    again = home.mount("mydb", directory=mount.dir)
    assert len(mounted_types(mount.dir)) == 1
    again.kill()
    home.run("umount", mount.dir)
    assert not mounted_types(mount.dir)


@pytest.mark.root
@pytest.mark.limit(240)
def test_power_loss_loses_no_acknowledged_commit(
    new_home: Callable[..., Home],
    new_disk: Callable[[str, int], Disk],
    clients: Clients,
    versions: list[Version],
    choose: random.Random,
    rounds: Rounds,
) -> None:
    """The disk under the home stops in mid-write and forgets what was not synced; after mounting it anew
    every acknowledged commit is there, and verify finds a torn tail but no damage."""
    disk = new_disk("ext4", 600)
    assert isinstance(disk, LoopDisk)
    home = new_home(disk.path / "home")
    found: dict[int, int] = {}
    for number in range(rounds(6)):
        version = versions[-1 - number % len(versions)] if number else versions[-1]
        storage = ("--storage-version", "v1.0.0") if version is versions[0] else ()
        mount = home.mount("mydb")
        stream = Stream(clients, version, mount.file, "--checkpoint-every", choose.choice((0, 5)), *storage)
        let_it_run(stream, choose)
        moment = time.monotonic()
        disk.lose_power()
        wait_until(
            "the commit stream to get its error",
            lambda stream=stream: stream.client.process.poll() is not None,
            30,
        )
        stream.kill()
        assert is_alive(mount.pid), "the mounting process ended when its disk did"
        mount.kill()
        lazy_unmount(mount.dir)
        disk.detach()
        disk.attach()
        home.verify("--deep")
        mount = home.mount("mydb")
        duck = clients.duck(version).open(mount.file)
        found = assert_nothing_lost(duck, stream, known=found, due=stream.acked_by(moment))
        duck.quit()
        mount.umount()
    home.verify("--deep")


ABORT_POINTS = ["before_truncate", "before_header", "after_free_list_write", "before_wal_finish"]


@pytest.mark.parametrize("point", ABORT_POINTS)
def test_duckdbs_own_crash_points(home: Home, clients: Clients, version: Version, point: str) -> None:
    """DuckDB stops in the middle of a checkpoint; the file opens again, as a file of its own and as a
    snapshot, with everything that was committed, also when the filesystem is killed at the same moment."""
    mount = home.mount("mydb")
    probe = clients.duck(version).open(":memory:")
    try:
        probe.sql(f"PRAGMA debug_checkpoint_abort = '{point}'")
    except DuckError:
        pytest.skip(f"DuckDB {version} has no crash point {point}")
    finally:
        probe.kill()
    expected = 0
    for kill_filesystem in (False, True, False):
        duck = clients.duck(version).open(mount.file)
        duck.sql("CREATE TABLE IF NOT EXISTS t(i BIGINT)")
        duck.sql("INSERT INTO t SELECT range FROM range(60000)")
        expected += 60000
        if kill_filesystem:
            duck.sql("CHECKPOINT")
            duck.sql("DELETE FROM t WHERE i < 20000")
            expected = int(duck.one("SELECT count(*) FROM t"))
        duck.sql(f"PRAGMA debug_checkpoint_abort = '{point}'")
        with pytest.raises(DuckError):
            duck.sql("CHECKPOINT")
        if kill_filesystem:
            mount.kill()
            duck.kill()
            mount = home.mount("mydb", directory=mount.dir)
        else:
            duck.kill()
        reader = clients.duck(version).open(mount.snapshot_file("latest"), read_only=True)
        assert reader.one("SELECT count(*) FROM t") == expected
        reader.quit()
        duck = clients.duck(version).open(mount.file)
        assert duck.one("SELECT count(*) FROM t") == expected
        duck.sql("CHECKPOINT")
        assert duck.one("SELECT count(*) FROM t") == expected
        duck.quit()
    mount.umount()
    home.verify("--deep")
