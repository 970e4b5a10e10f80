"""`.openduck/snapshot`: a snapshot by writing a name into a file, from SQL or a shell.

The snapshot is taken within the call that completes the name, and what is wrong with the name is that
call's error.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.duck import Clients, DuckError, Version
from harness.openduck import Home, Mount
from harness.posix import opened
from harness.processes import run

BAD_NAMES = ["a/b", "..", ".", "latest", "-x", "a b", "x" * 300, "snap-1", "2026-01-01", "lsn:4", "a\tb", "ä"]


def names(home: Home) -> list[str]:
    return [snapshot["name"] for snapshot in home.snapshots("mydb") if snapshot["name"]]


def commit(mount: Mount) -> None:
    with opened(mount.file, os.O_RDWR | os.O_CREAT) as fd:
        os.pwrite(fd, b"x" * 5000, 0)
        os.fsync(fd)


def control(mount: Mount) -> Path:
    return mount.dir / ".openduck" / "snapshot"


def copy_sql(mount: Mount, name: str) -> str:
    quoted = name.replace("'", "''")
    return f"COPY (SELECT '{quoted}') TO '{control(mount)}' (FORMAT csv, HEADER false)"


def test_copy_from_a_plain_duckdb_makes_the_snapshot(home: Home, clients: Clients, version: Version) -> None:
    """The writer itself names a state by COPY: what it had committed is in the snapshot, what comes later
    is not."""
    mount = home.mount("mydb")
    duck = clients.duck(version).open(mount.file)
    duck.sql("CREATE TABLE t AS SELECT range AS i FROM range(10)")
    for number in range(3):
        duck.sql(copy_sql(mount, f"nightly-{number}"))
        assert names(home)[-1] == f"nightly-{number}"
        duck.sql("INSERT INTO t SELECT range FROM range(10)")
    for number in range(3):
        reader = clients.duck(version).open(mount.snapshot_file(f"nightly-{number}"), read_only=True)
        assert reader.one("SELECT count(*) FROM t") == 10 * (number + 1)
        reader.quit()
    assert duck.one("SELECT count(*) FROM t") == 40
    duck.quit()


def test_copy_with_a_bad_or_taken_name_is_duckdbs_error(
    home: Home, clients: Clients, version: Version
) -> None:
    """COPY raises, nothing is made, and the next COPY with a good name works."""
    mount = home.mount("mydb")
    duck = clients.duck(version).open(mount.file)
    duck.sql("CREATE TABLE t AS SELECT 1 AS i")
    duck.sql(copy_sql(mount, "taken"))
    for name in ("taken", *BAD_NAMES):
        with pytest.raises(DuckError):
            duck.sql(copy_sql(mount, name))
        assert names(home) == ["taken"]
    duck.sql(copy_sql(mount, "good"))
    assert names(home) == ["taken", "good"]
    assert duck.one("SELECT i FROM t") == 1
    assert sorted(os.listdir(mount.dir / ".openduck")) == ["snapshot", "status"]
    duck.quit()


def test_echo_makes_the_snapshot(home: Home) -> None:
    """`echo name > .openduck/snapshot`, again and again, also with >>."""
    mount = home.mount("mydb")
    commit(mount)
    for arrow in (">", ">>"):
        name = "first" if arrow == ">" else "second"
        outcome = run(["sh", "-c", f"echo {name} {arrow} '{control(mount)}'"])
        assert outcome.status == 0, str(outcome)
        assert names(home)[-1] == name
    assert names(home) == ["first", "second"]
    assert {snapshot["lsn"] for snapshot in home.snapshots("mydb")} == {mount.head_lsn}


def test_echo_with_a_bad_or_taken_name_is_an_error_of_that_write(home: Home) -> None:
    """The shell's echo fails, and nothing is made."""
    mount = home.mount("mydb")
    commit(mount)
    run(["sh", "-c", f"echo taken > '{control(mount)}'"])
    for name in ("taken", *BAD_NAMES, ""):
        outcome = run(["sh", "-c", 'printf "%s\\n" "$1" > "$2"', "sh", name, str(control(mount))])
        assert outcome.status != 0, f"{name!r} was taken:\n{outcome}"
        assert names(home) == ["taken"]


def test_the_name_counts_when_its_line_is_complete(home: Home) -> None:
    """A name may arrive in pieces; the write that brings the newline takes the snapshot, or fails."""
    mount = home.mount("mydb")
    commit(mount)
    with open(control(mount), "wb", buffering=0) as file:
        file.write(b"in-")
        assert names(home) == []
        file.write(b"pieces\n")
        assert names(home) == ["in-pieces"]
    with open(control(mount), "wb", buffering=0) as file, pytest.raises(OSError):
        file.write(b"in-pieces\n")


def test_read_only_mounts_have_no_such_file(home: Home) -> None:
    """A snapshot of a snapshot makes no sense: frozen and follow mounts refuse."""
    mount = home.mount("mydb")
    commit(mount)
    home.run("snapshot", "mydb", "one")
    for other in (home.mount("mydb@one"), home.mount("mydb", "--follow")):
        assert "status" in os.listdir(other.dir / ".openduck")
        with pytest.raises(OSError):
            control(other).write_text("two\n")
    assert names(home) == ["one"]


def test_without_any_commit_there_is_nothing_to_name(home: Home) -> None:
    """A new database that nothing was written to: an error, not an empty snapshot."""
    mount = home.mount("mydb")
    with pytest.raises(OSError):
        control(mount).write_text("too-early\n")
    assert names(home) == []
