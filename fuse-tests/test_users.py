"""An ordinary user mounts through fusermount3, with no right that root has."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.duck import Clients, DuckError, Version
from harness.openduck import Home, assert_refusal, mounted_types
from harness.processes import run, wait_until
from harness.streams import Stream

NOBODY = 65534

# They change the mode of /dev/fuse, and must not do so at once.
pytestmark = pytest.mark.xdist_group("users")


@pytest.fixture
def user_home(new_home: Callable[..., Home], work: Path, closers: list[Callable[[], None]]) -> Home:
    """A home of an ordinary user, whose commands run as that user: `nobody`, if the tests run as root."""
    if shutil.which("fusermount3") is None:
        pytest.skip("fusermount3 is not installed (Debian package fuse3)")
    if os.geteuid() != 0:
        return new_home()
    # As udev makes it on every ordinary machine; containers and small images often leave it to root.
    mode = os.stat("/dev/fuse").st_mode & 0o777
    if mode != 0o666:
        os.chmod("/dev/fuse", 0o666)
        closers.append(lambda: os.chmod("/dev/fuse", mode))
    # The user must be able to read the program, wherever it was built.
    binary = work / "bin" / "openduck-fs"
    binary.parent.mkdir(mode=0o755)
    shutil.copy(os.environ["OPENDUCK_FS"], binary)
    binary.chmod(0o755)
    yard = work / "user"
    (yard / "mnt").mkdir(parents=True)
    for path in (yard, yard / "mnt"):
        os.chown(path, NOBODY, NOBODY)
    prefix = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--")
    home = new_home(yard / "home", binary=binary, prefix=prefix, env={"HOME": str(yard)})
    home.mount_root = yard / "mnt"
    return home


def as_user(home: Home, script: str, *args: str | Path) -> str:
    """Runs a shell script as the user; it must succeed."""
    outcome = run([*home.prefix, "sh", "-ec", script, "sh", *args])
    assert outcome.status == 0, str(outcome)
    return outcome.stdout


def user_mount_dir(home: Home, name: str) -> Path:
    directory = home.mount_root / name
    directory.mkdir()
    if os.geteuid() == 0:
        os.chown(directory, NOBODY, NOBODY)
    home.mount_dirs.add(directory)
    return directory


def test_an_ordinary_user_mounts_and_unmounts(user_home: Home) -> None:
    """Live, frozen and follow mounts by fusermount3; the process that serves them is the user's."""
    directory = user_mount_dir(user_home, "live")
    mount = user_home.mount("mydb", directory=directory)
    if os.geteuid() == 0:
        assert os.stat(f"/proc/{mount.pid}").st_uid == NOBODY
    as_user(user_home, 'printf content > "$1"; sync "$1"; cat "$1"', mount.file)
    user_home.run("snapshot", "mydb", "one")
    for number, target in enumerate((("mydb@one",), ("mydb", "--follow"))):
        other = user_home.mount(*target, directory=user_mount_dir(user_home, f"ro-{number}"))
        assert as_user(user_home, 'cat "$1"', other.file) == "content"
        user_home.run("umount", other.dir)
        other.forget()
    snapshot = mount.dir / ".snapshots" / "one" / "mydb.duckdb"
    assert as_user(user_home, 'cat "$1"', snapshot) == "content"
    user_home.run("umount", mount.dir)
    mount.forget()
    assert not mounted_types(directory)


def test_duckdb_as_an_ordinary_user(user_home: Home, clients: Clients, version: Version) -> None:
    """DuckDB of every version writes, checkpoints, spills and reads on a user's mount."""
    uid = NOBODY if os.geteuid() == 0 else None
    mount = user_home.mount("mydb", directory=user_mount_dir(user_home, "live"))
    duck = clients.duck(version, uid=uid).open(mount.file)
    duck.sql("CREATE TABLE t AS SELECT range AS i, sha256(range::VARCHAR) AS h FROM range(100000)")
    duck.sql("CHECKPOINT")
    duck.sql("INSERT INTO t SELECT range, '' FROM range(100)")
    reader = clients.duck(version, uid=uid)
    reader.open(mount.snapshot_file("latest"), read_only=True, config={"memory_limit": "40MB", "threads": 2})
    assert reader.one("SELECT count(*) FROM (SELECT * FROM t, range(8) ORDER BY h, i)") == 800_800
    reader.quit()
    assert duck.one("SELECT count(*) FROM t") == 100_100
    duck.quit()


def test_a_users_mount_survives_a_kill(user_home: Home) -> None:
    """The dead mount of a user is cleared by the next mount, without root."""
    directory = user_mount_dir(user_home, "live")
    mount = user_home.mount("mydb", directory=directory)
    as_user(user_home, 'printf kept > "$1"; sync "$1"', mount.file)
    mount.kill()
    mount = user_home.mount("mydb", directory=directory)
    assert as_user(user_home, 'cat "$1"', mount.file) == "kept"
    assert len(mounted_types(directory)) == 1


@pytest.mark.root
def test_others_stay_outside(user_home: Home, clients: Clients, newest: Version) -> None:
    """Nobody else reads a user's mount, unmounts it, or changes what is in the home."""
    mount = user_home.mount("mydb", directory=user_mount_dir(user_home, "live"))
    as_user(user_home, 'printf secret > "$1"', mount.file)
    stranger = ("setpriv", "--reuid=65533", "--regid=65533", "--clear-groups", "--")
    assert run([*stranger, "cat", mount.file]).status != 0
    other = clients.duck(newest, uid=65533)
    with pytest.raises(DuckError):
        other.open(mount.file, read_only=True)
    for command in (("umount", mount.dir), ("snapshot", "mydb"), ("remove", "mydb")):
        outcome = run([*stranger, user_home.binary, "--home", user_home.path, *command])
        assert_refusal(outcome)
    assert mounted_types(mount.dir)


@pytest.mark.root
def test_root_serves_other_users_where_files_allow(
    home: Home, clients: Clients, newest: Version, work: Path
) -> None:
    """A stream that root writes goes on while the test looks at modes: new files carry their creator and
    umask."""
    mount = home.mount("mydb")
    stream = Stream(clients, newest, mount.file)
    stream.wait_for_commits(3)
    stream.finish()
    info = mount.file.stat()
    assert (info.st_uid, info.st_gid, info.st_mode & 0o777) == (0, 0, 0o644)
    wait_until("the mount to answer", lambda: mount.status()["mode"] == "rw")
