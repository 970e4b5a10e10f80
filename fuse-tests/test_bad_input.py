"""Hostile and mistaken input: each is refused with one clear line that names the thing, and changes
nothing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from harness.openduck import Home, Mount, assert_refusal, mounted_types
from harness.posix import opened

BAD_DATABASE_NAMES = [
    "a/b",
    "..",
    ".",
    "../../etc",
    "/etc/passwd",
    "",
    "x" * 300,
    "a\nb",
    "a\x1b[31mred",
    "a\x7fb",
    "a b",
    "a.b",
    "ä",
    "\u202egnp",
    "_a",
    "a;drop",
    "a'b",
    "*",
    "%s%n",
]
BAD_REFS = [
    "nowhere",
    "lsn:",
    "lsn:-1",
    "lsn:0x10",
    "lsn:1.5",
    "lsn:99999999999999999999999999",
    "lsn:4000000000",
    "snap-0000000000000000",
    "snap-zz",
    "2026-13-01",
    "2026-02-30 10:00",
    "2026-01-01 25:00",
    "1999-12-31T23:59:59Z",
    "../x",
    "a/b",
    "a@b",
    "",
    "x" * 300,
    "a\nb",
    "\x1b[2J",
]


@pytest.fixture
def mounted(home: Home) -> Mount:
    """A database with one commit, mounted."""
    mount = home.mount("mydb")
    with opened(mount.file, os.O_RDWR | os.O_CREAT) as fd:
        os.pwrite(fd, b"x" * 10_000, 0)
        os.fsync(fd)
    return mount


def assert_printable(text: str) -> None:
    """No control character of the input reaches the terminal."""
    assert all(character.isprintable() or character == "\n" for character in text), repr(text)


def files_below(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


@pytest.mark.parametrize("name", BAD_DATABASE_NAMES, ids=lambda name: repr(name[:20]))
def test_bad_database_names(mounted: Mount, name: str) -> None:
    """No command takes a name that could be a path, a terminal sequence or a surprise."""
    home = mounted.home
    directory = home.new_mount_dir("unused")
    commands = [
        ("create", name),
        ("mount", name, directory),
        ("clone", "mydb", name),
        ("import", mounted.file, name),
        ("snapshot", name),
        ("remove", name),
        ("undrop", name),
        ("restore", f"{name}@latest"),
    ]
    before = files_below(home.path.parent)
    for command in commands:
        if name.startswith("-"):
            command = (*command[:1], "--", *command[1:])
        outcome = home.try_run(*command)
        assert_refusal(outcome)
        assert_printable(outcome.stderr)
        assert len(outcome.stderr) < 1000
    # Only logs may have appeared.
    assert {path for path in files_below(home.path.parent) - before if "log" not in path} == set()
    assert [row["name"] for row in home.json("list")["databases"]] == ["mydb"]
    assert not mounted_types(directory)


def test_a_name_with_nul_cannot_even_be_said(mounted: Mount) -> None:
    """NUL ends an argument, so it can only arrive through the files of a mount."""
    with pytest.raises(ValueError, match="null"):
        mounted.home.try_run("create", "a\0b")
    with pytest.raises(OSError):
        (mounted.dir / ".openduck" / "snapshot").write_bytes(b"a\0b\n")
    assert mounted.home.snapshots("mydb") == []


@pytest.mark.parametrize("ref", BAD_REFS, ids=lambda ref: repr(ref[:20]))
def test_bad_refs(mounted: Mount, ref: str) -> None:
    """References that mean nothing here: refused by every command that takes one, and not found below
    `.snapshots`."""
    home = mounted.home
    directory = home.new_mount_dir("unused")
    for command in (
        ("mount", f"mydb@{ref}", directory),
        ("clone", f"mydb@{ref}", "new"),
        ("restore", f"mydb@{ref}"),
        ("show", f"mydb@{ref}"),
        ("export", f"mydb@{ref}", home.path.parent / "out.duckdb"),
        ("diff", f"mydb@{ref}", "mydb@latest"),
    ):
        outcome = home.try_run(*command)
        assert_refusal(outcome)
        assert_printable(outcome.stderr)
        assert len(outcome.stderr) < 1500
    assert not (home.path.parent / "out.duckdb").exists()
    if ref and "/" not in ref and len(ref) < 256:
        assert not os.path.exists(mounted.dir / ".snapshots" / ref)
    assert not mounted_types(directory)
    assert [row["name"] for row in home.json("list")["databases"]] == ["mydb"]


@pytest.mark.parametrize(
    "name", ["a/b", "..", "latest", "", "x" * 300, "a\nb", "2026-01-01", "snap-1", "a b"]
)
def test_bad_snapshot_names(mounted: Mount, name: str) -> None:
    """Names that a ref could not mean, or that mean something else."""
    outcome = mounted.home.try_run("snapshot", "mydb", name)
    assert_refusal(outcome)
    assert_printable(outcome.stderr)
    assert mounted.home.snapshots("mydb") == []


def test_what_is_not_there_is_named(mounted: Mount) -> None:
    """Unknown databases, snapshots and commands."""
    home = mounted.home
    for command in (
        ("snapshot", "nodb"),
        ("log", "nodb"),
        ("show", "nodb"),
        ("remove", "nodb"),
        ("compact", "nodb"),
    ):
        home.fail(*command, names="nodb")
    home.fail("clone", "nodb", "new", names="nodb")
    home.fail("mount", "nodb@latest", home.new_mount_dir(), names="nodb")
    home.fail("mount", "nodb", "--follow", home.new_mount_dir(), names="nodb")
    home.fail("unsnapshot", "mydb", "nosnap", names="nosnap")
    home.fail("verify", "nodb", names="nodb")
    home.fail("retention", "nodb", "1d", names="nodb")
    home.fail("frobnicate", names="frobnicate")
    home.fail("list", "--frobnicate", names="frobnicate")
    home.fail()
    assert [row["name"] for row in home.json("list")["databases"]] == ["mydb"]


def test_what_is_taken_is_named(mounted: Mount) -> None:
    """Existing databases and snapshots are not made again."""
    home = mounted.home
    home.fail("create", "mydb", names="mydb")
    home.fail("clone", "mydb", "mydb", names="mydb")
    home.run("snapshot", "mydb", "one")
    home.fail("snapshot", "mydb", "one", names="one")
    assert len(home.snapshots("mydb")) == 1


@pytest.mark.parametrize("text", ["", "-1", "forever", "1x", "99999999999999999999d", "1d 2"])
def test_bad_durations(mounted: Mount, text: str) -> None:
    """Durations that are none."""
    assert_refusal(mounted.home.try_run("retention", "mydb", "--", text))
    assert_refusal(mounted.home.try_run("gc", f"--grace={text}"))


def test_bad_mount_points(mounted: Mount, work: Path) -> None:
    """A file, a full directory, a missing one, one that is mounted already, one below a mount: each named."""
    home = mounted.home
    file = work / "a-file"
    file.write_bytes(b"x")
    home.fail("mount", "other", file, names=str(file))
    full = work / "full"
    full.mkdir()
    (full / "x").write_bytes(b"x")
    home.fail("mount", "other", full, names=str(full))
    home.fail("mount", "other", work / "missing", names=str(work / "missing"))
    home.fail("mount", "other", mounted.dir, names=str(mounted.dir))
    home.fail("mount", "mydb@latest", mounted.dir, names=str(mounted.dir))
    home.fail("mount", "mydb", "/proc", names="/proc")
    link = work / "link"
    link.symlink_to(work / "nowhere")
    assert_refusal(home.try_run("mount", "other", link))
    assert mounted.file.read_bytes() == b"x" * 10_000
    assert (full / "x").read_bytes() == b"x"


def test_a_second_writer_is_told_who_holds_it(mounted: Mount) -> None:
    """The same database is mounted for writing once; the refusal names the holder's process and host."""
    outcome = mounted.home.fail("mount", "mydb", mounted.home.new_mount_dir(), names="mydb")
    assert str(mounted.pid) in outcome.stderr
    assert os.uname().nodename in outcome.stderr
    with opened(mounted.file, os.O_RDWR) as fd:
        os.pwrite(fd, b"goes on", 0)
        os.fsync(fd)


def test_steal_moves_the_writer(mounted: Mount) -> None:
    """`--steal` asks the living holder to hand over: it unmounts in order, and nothing is lost."""
    with opened(mounted.file, os.O_RDWR) as fd:
        os.pwrite(fd, b"before the move", 0)
        os.fsync(fd)
    lsn = mounted.head_lsn
    thief = mounted.home.mount("mydb", "--steal")
    assert thief.file.read_bytes()[:15] == b"before the move"
    assert thief.head_lsn >= lsn
    assert thief.status()["epoch"] > 0
    assert mounted_types(mounted.dir) == []
    mounted.forget()


def test_bad_umounts(mounted: Mount, work: Path) -> None:
    """A directory where nothing is mounted, one that is missing, and a busy mount: named, and the mount
    stays."""
    home = mounted.home
    empty = work / "empty"
    empty.mkdir()
    home.fail("umount", empty, names=str(empty))
    home.fail("umount", work / "missing", names=str(work / "missing"))
    assert_refusal(home.try_run("umount", "/proc"))
    with opened(mounted.file, os.O_RDWR) as fd:
        home.fail("umount", mounted.dir, names=str(mounted.dir))
        os.pwrite(fd, b"still here", 0)
        os.fsync(fd)
    mounted.umount()


def test_contradictions(mounted: Mount) -> None:
    """Flags that do not go together."""
    home = mounted.home
    home.run("snapshot", "mydb", "one")
    directory = home.new_mount_dir("unused")
    assert_refusal(home.try_run("mount", "mydb@one", directory, "--follow"))
    assert_refusal(home.try_run("mount", "mydb@one", directory, "--steal"))
    assert not mounted_types(directory)


def test_a_home_that_cannot_be(home: Home, work: Path) -> None:
    """A home that is a file, below a file, or not to be made."""
    blocker = work / "blocker"
    blocker.write_bytes(b"x")
    for path in (blocker, blocker / "home", Path("/proc/home")):
        other = Home(home.binary, path, home.mount_root)
        outcome = other.try_run("list")
        assert_refusal(outcome)
        assert str(path) in outcome.stderr or str(blocker) in outcome.stderr
    for flag, value in (
        ("--meta", "mysql://x"),
        ("--objects", "ftp://x"),
        ("--objects", "file:"),
    ):
        outcome = home.try_run(flag, value, "list")
        assert_refusal(outcome)
    assert blocker.read_bytes() == b"x"


def test_a_bad_configuration_file_is_named(home: Home) -> None:
    """`openduck.toml` with nonsense in it: the message names the file."""
    home.run("create", "mydb")
    file = home.path / "openduck.toml"
    for text in ("no = toml = at all", "unknown_key = 1", "objects = 5"):
        file.write_text(text)
        home.fail("list", names="openduck.toml")
    file.unlink()
    home.run("list")


def test_flags_beat_environment_beats_file(home: Home, work: Path) -> None:
    """Where the home and the store are: flags first, then OPENDUCK_*, then openduck.toml in the home."""
    homes = {name: work / f"home-{name}" for name in ("flag", "environment")}
    for name, path in homes.items():
        Home(home.binary, path, home.mount_root).run("create", f"in-{name}")
    plain = Home(home.binary, homes["flag"], home.mount_root)
    outcome = plain.try_run("list", json_document=True, env={"OPENDUCK_HOME": str(homes["environment"])})
    assert "in-flag" in outcome.stdout
    assert "in-environment" not in outcome.stdout
    for objects in ("by-file", "by-environment"):
        (work / objects).mkdir()
    file = homes["flag"] / "openduck.toml"
    file.write_text(f'objects = "file:{work}/by-file"\n')
    mount = plain.mount("in-flag")
    mount.file.write_bytes(b"x" * 100_000)
    mount.umount()
    assert any(path.is_file() for path in (work / "by-file").rglob("*"))
    shutil.rmtree(homes["environment"])
