"""Disks that are full, read-only or rotten: DuckDB gets an error or the right bytes, never wrong ones.

Damage is done to the files of the home from outside. `verify --deep` must name every single damaged byte,
wherever it lies; reading must give the bytes that were written, or fail.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.damage import cut, flipped, layer_files, missing, places
from harness.disks import Disk, LoopDisk, must
from harness.duck import Clients, DuckError, Version
from harness.openduck import CommandFailed, Home, Mount, assert_refusal, lazy_unmount
from harness.posix import opened, pattern
from harness.streams import Stream, assert_nothing_lost

Rounds = Callable[[int], int]
MIB = 1 << 20


# ---- disks ----


def fill(disk: Disk, leave_bytes: int) -> Path:
    """Leaves only so much room on a disk; with 0, really none."""
    filler = disk.path / "filler"
    with opened(filler, os.O_RDWR | os.O_CREAT) as fd:
        chunk = MIB
        while chunk >= 4096:
            try:
                if disk.free_bytes() - leave_bytes < chunk:
                    raise OSError(errno.ENOSPC, "as much as was wanted")
                os.posix_fallocate(fd, os.fstat(fd).st_size, chunk)
            except OSError:
                chunk //= 2
    assert filler.stat().st_size > 0, "the disk is fuller than the test wants it"
    return filler


@pytest.mark.root
@pytest.mark.parametrize("kind", ["ext4", "tmpfs"])
def test_a_full_disk_is_duckdbs_error_and_loses_nothing(
    new_home: Callable[..., Home],
    new_disk: Callable[[str, int], Disk],
    clients: Clients,
    version: Version,
    kind: str,
) -> None:
    """When the home's disk is full, DuckDB's commit fails; the mount stays readable; with room again,
    everything acknowledged is there and writing goes on."""
    disk = new_disk(kind, 320)
    home = new_home(disk.path / "home")
    mount = home.mount("mydb")
    duck = clients.duck(version).open(mount.file)
    duck.sql("CREATE TABLE t AS SELECT range AS i FROM range(1000)")
    duck.sql("CREATE TABLE filling(block BIGINT, noise VARCHAR)")
    filler = fill(disk, 8 * MIB)
    acked = 0
    with pytest.raises(DuckError) as caught:
        for block in range(400):
            # Hashes don't compress, so each commit needs about a MiB.
            duck.sql("INSERT INTO filling SELECT ?, sha256(i::VARCHAR) FROM range(15000) r(i)", block)
            acked += 1
    assert any(word in str(caught.value) for word in ("No space left", "Input/output", "invalidated")), (
        caught.value
    )
    duck.kill()
    # The mount goes on reading: the newest commit holds what was acknowledged.
    reader = clients.duck(version).open(mount.snapshot_file("latest"), read_only=True)
    assert reader.one("SELECT count(*) FROM t") == 1000
    blocks = reader.one("SELECT count(DISTINCT block) FROM filling")
    assert acked <= blocks <= acked + 1
    reader.quit()
    filler.unlink()
    mount.home.try_run("umount", mount.dir)
    lazy_unmount(mount.dir)
    home.kill_servers()
    mount.forget()
    mount = home.mount("mydb")
    duck = clients.duck(version).open(mount.file)
    assert duck.one("SELECT count(*) FROM t") == 1000
    assert acked <= duck.one("SELECT count(DISTINCT block) FROM filling") <= acked + 1
    assert duck.one("SELECT count(*) FROM filling") % 15000 == 0
    duck.sql("INSERT INTO t SELECT range FROM range(500)")
    duck.sql("CHECKPOINT")
    assert duck.one("SELECT count(*) FROM t") == 1500
    duck.quit()
    mount.umount()
    home.verify("--deep")


@pytest.mark.root
def test_a_full_disk_refuses_commands_clearly(
    new_home: Callable[..., Home], new_disk: Callable[[str, int], Disk]
) -> None:
    """On a disk without any room, commands fail with one line, and nothing is broken afterwards."""
    disk = new_disk("ext4", 200)
    home = new_home(disk.path / "home")
    mount = home.mount("mydb")
    mount.file.write_bytes(pattern(1, 100_000))
    mount.umount()
    filler = fill(disk, 0)
    for command in (("create", "other"), ("snapshot", "mydb", "s"), ("mount", "mydb", home.new_mount_dir())):
        outcome = home.try_run(*command)
        if outcome.status != 0:
            assert_refusal(outcome)
        elif command[0] == "mount":
            home.run("umount", command[2])
    filler.unlink()
    home.verify("--deep")
    mount = home.mount("mydb")
    assert mount.file.read_bytes() == pattern(1, 100_000)


@pytest.mark.root
def test_a_disk_that_turns_read_only(
    new_home: Callable[..., Home], new_disk: Callable[[str, int], Disk], clients: Clients, newest: Version
) -> None:
    """The disk below becomes read-only in mid-work, as ext4 does after an error: commits fail, reads go on,
    and after a repair everything acknowledged is there."""
    disk = new_disk("ext4", 300)
    assert isinstance(disk, LoopDisk)
    home = new_home(disk.path / "home")
    mount = home.mount("mydb")
    duck = clients.duck(newest).open(mount.file)
    duck.sql("CREATE TABLE t AS SELECT range AS i FROM range(1000)")
    acked = 1000
    disk.become_read_only()
    with pytest.raises(DuckError):
        for _ in range(50):
            duck.sql("INSERT INTO t SELECT range FROM range(10)")
            acked += 10
    assert acked < 1500
    duck.kill()
    assert mount.file.read_bytes()[8:12] == b"DUCK"
    reader = clients.duck(newest).open(mount.snapshot_file("latest"), read_only=True)
    assert acked <= reader.one("SELECT count(*) FROM t") <= acked + 10
    reader.quit()
    with pytest.raises(OSError) as caught, opened(mount.dir / "new", os.O_RDWR | os.O_CREAT) as fd:
        os.pwrite(fd, b"x" * 100_000, 0)
        os.fsync(fd)
    assert caught.value.errno in (errno.EROFS, errno.EIO, errno.ENOSPC)
    mount.kill()
    lazy_unmount(mount.dir)
    disk.detach()
    disk.attach()
    mount = home.mount("mydb")
    duck = clients.duck(newest).open(mount.file)
    assert acked <= duck.one("SELECT count(*) FROM t") <= acked + 10
    duck.quit()
    mount.umount()
    home.verify("--deep")


@pytest.mark.root
def test_a_read_only_home_is_told_clearly(
    new_home: Callable[..., Home], new_disk: Callable[[str, int], Disk]
) -> None:
    """Commands that must write say that the disk is read-only, in one line; nothing panics or hangs."""
    disk = new_disk("ext4", 200)
    home = new_home(disk.path / "home")
    mount = home.mount("mydb")
    mount.file.write_bytes(pattern(1, 100_000))
    mount.umount()
    home.run("snapshot", "mydb", "s")
    must(["mount", "-o", "remount,ro", disk.path])
    for command in (("create", "other"), ("snapshot", "mydb"), ("clone", "mydb", "c"), ("remove", "mydb")):
        home.fail(*command)
    outcome = home.try_run("mount", "mydb", home.new_mount_dir())
    assert_refusal(outcome)
    for command in (
        ("list",),
        ("log", "mydb"),
        ("verify", "--deep"),
        ("export", "mydb", disk.path.parent / "out"),
    ):
        outcome = home.try_run(*command)
        if outcome.status != 0:
            assert_refusal(outcome)
    must(["mount", "-o", "remount,rw", disk.path])
    mount = home.mount("mydb")
    assert mount.file.read_bytes() == pattern(1, 100_000)


# ---- rot ----


def prepare(home: Home, clients: Clients, version: Version) -> dict[str, object]:
    """A small database with a history: several layers, a snapshot, a hole, a clone; all sealed. Returns
    what each state gives to a query."""
    mount = home.mount("mydb")
    duck = clients.duck(version).open(mount.file)
    duck.sql("CREATE TABLE t AS SELECT range AS i, sha256(range::VARCHAR) AS h FROM range(3000)")
    duck.sql("CHECKPOINT")
    duck.quit()
    home.run("snapshot", "mydb", "first")
    mount.umount()
    mount = home.mount("mydb")
    duck = clients.duck(version).open(mount.file)
    duck.sql("UPDATE t SET h = 'changed' WHERE i % 3 = 0")
    duck.sql("CHECKPOINT")
    duck.sql("INSERT INTO t SELECT range, 'in the WAL' FROM range(100)")
    duck.kill()
    mount.umount()
    return {ref: answer(home, clients, version, ref) for ref in ("first", "latest")}


FINGERPRINT = "SELECT count(*), sum(i)::BIGINT, bit_xor(hash(h))::VARCHAR FROM t"


def answer(home: Home, clients: Clients, version: Version, ref: str) -> object:
    """What DuckDB says of a state; raises where it or the mount gives an error."""
    mount = home.mount(f"mydb@{ref}")
    duck = clients.duck(version)
    try:
        duck.open(mount.file, read_only=True)
        return duck.sql(FINGERPRINT)
    finally:
        duck.kill()
        mount.umount()


def bytes_at(home: Home, ref: str) -> bytes | None:
    """The database's file and WAL at a ref; None where an error came."""
    try:
        mount = home.mount(f"mydb@{ref}")
    except CommandFailed as failure:
        assert "panicked" not in str(failure)
        return None
    try:
        wal = mount.wal.read_bytes() if mount.wal.name in os.listdir(mount.dir) else b""
        return mount.file.read_bytes() + b"|" + wal
    except OSError as error:
        assert error.errno in (errno.EIO, errno.ENOENT), error
        return None
    finally:
        mount.umount()


def assert_found(home: Home, path: Path, what: str) -> None:
    """`verify --deep` ends with 1 and names the file."""
    document = home.json("verify", "--deep", status=1)
    assert document["ok"] is False
    named = {problem["layer"] for problem in document["problems"]}
    stem = path.name.partition(".")[0]
    assert any(stem in name for name in named), f"{what} in {path.name}: verify names only {named}"
    for problem in document["problems"]:
        assert isinstance(problem["offset"], int)
        assert problem["what"]


@pytest.mark.limit(300)
def test_every_flipped_bit_is_found_and_none_is_served(
    home: Home, clients: Clients, oldest: Version, choose: random.Random, rounds: Rounds
) -> None:
    """One bit is flipped at a time, at random places and at the edges of every layer file: verify names the
    layer, and both states read as they were written or fail; never anything else."""
    expected = prepare(home, clients, oldest)
    good = {ref: bytes_at(home, ref) for ref in ("first", "latest")}
    assert None not in good.values()
    home.verify("--deep")
    served = 0
    for path in layer_files(home):
        for offset in places(path, choose, rounds(12)):
            bit = choose.randrange(8)
            what = f"bit {bit} of byte {offset} of {path.stat().st_size}"
            with flipped(path, offset, bit):
                assert_found(home, path, what)
                if choose.random() < 0.4:
                    for ref, data in good.items():
                        found = bytes_at(home, ref)
                        assert found in (None, data), f"{what} in {path.name}: wrong bytes at {ref}"
                        served += found is None
    assert served, "no damage ever met a reader, so nothing was tried"
    home.verify("--deep")
    assert {ref: answer(home, clients, oldest, ref) for ref in expected} == expected


def test_duckdb_never_gets_rotten_bytes(
    home: Home, clients: Clients, version: Version, choose: random.Random, rounds: Rounds
) -> None:
    """DuckDB on a rotten layer: an error, or the right answer."""
    expected = prepare(home, clients, version)
    files = layer_files(home)
    for _ in range(rounds(8)):
        path = choose.choice(files)
        with flipped(path, choose.randrange(path.stat().st_size), choose.randrange(8)):
            for ref, right in expected.items():
                with contextlib.suppress(DuckError, CommandFailed):
                    assert answer(home, clients, version, ref) == right
    home.verify("--deep")
    assert {ref: answer(home, clients, version, ref) for ref in expected} == expected


def test_rot_under_a_live_mount(home: Home, clients: Clients, oldest: Version) -> None:
    """A layer rots while it is mounted: reads that leave the page cache give EIO, the log names the layer,
    and the rest stays readable."""
    mount = home.mount("mydb")
    mount.file.write_bytes(pattern(1, MIB))
    other = mount.dir / "other.bin"
    other.write_bytes(pattern(2, MIB))
    mount.umount()
    frozen = home.mount("mydb@latest")
    needle = pattern(1, MIB)[500_000:500_064]
    for path in layer_files(home):
        at = path.read_bytes().find(needle)
        if at >= 0:
            break
    else:
        pytest.skip("the layers do not hold the bytes as they are")
    with flipped(path, at, 3):
        if os.geteuid() == 0:
            Path("/proc/sys/vm/drop_caches").write_text("1")
        with pytest.raises(OSError) as caught:
            frozen.file.read_bytes()
        assert caught.value.errno == errno.EIO
        assert (frozen.dir / "other.bin").read_bytes() == pattern(2, MIB)
        assert path.name.partition(".")[0] in home.logs(1000, 100), "the log should name the damaged layer"
        assert_found(home, path, "a flipped bit")


def test_rot_in_an_image_layer(
    home: Home, clients: Clients, version: Version, work: Path, choose: random.Random, rounds: Rounds
) -> None:
    """An imported file is one whole layer, which the kernel may serve without asking once its hash was
    found right. Rot from before that is never served; rot from after it is left to DuckDB's block
    checksums, and verify sees both."""
    source = work / "plain.duckdb"
    duck = clients.duck(version).open(source)
    duck.sql("CREATE TABLE t AS SELECT range AS i, sha256(range::VARCHAR) AS h FROM range(30000)")
    duck.sql("CHECKPOINT")
    right = duck.sql(FINGERPRINT)
    duck.quit()
    home.run("import", source, "mydb")
    image = max(layer_files(home), key=lambda path: path.stat().st_size)
    size = image.stat().st_size
    for _ in range(rounds(3)):
        # Nobody has looked at the layer since it was imported or repaired, as far as the store can know.
        with flipped(image, choose.randrange(size), choose.randrange(8)):
            assert_found(home, image, "a flipped bit")
            found = bytes_at(home, "latest")
            assert found in (None, source.read_bytes() + b"|"), "rotten bytes were served"
    assert answer(home, clients, version, "latest") == right
    for _ in range(rounds(4)):
        with flipped(image, choose.randrange(12_288, size), choose.randrange(8)):
            with contextlib.suppress(DuckError, CommandFailed):
                assert answer(home, clients, version, "latest") == right
            assert_found(home, image, "a flipped bit")
    assert answer(home, clients, version, "latest") == right


def test_rot_in_an_active_layer_after_a_kill(
    home: Home, clients: Clients, oldest: Version, choose: random.Random, rounds: Rounds
) -> None:
    """A bit flips in the middle of the active layer while nobody serves it. That is no torn tail: nothing
    acknowledged is cut away silently. Mounting fails, or reading does, or the damage did not matter."""
    for number in range(rounds(5)):
        name = f"db{number}"
        mount = home.mount(name)
        stream = Stream(clients, oldest, mount.file, "--checkpoint-every", 10)
        stream.wait_for_commits(25)
        mount.kill()
        stream.kill()
        lazy_unmount(mount.dir)
        path = max(layer_files(home), key=lambda path: path.stat().st_mtime_ns)
        used = next(
            size for size in range(path.stat().st_size, 0, -4096) if page_of(path, size - 4096).strip(b"\0")
        )
        offset = choose.randrange(4096, used * 2 // 3)
        with flipped(path, offset, choose.randrange(8)):
            document = json.loads(home.try_run("verify", "--deep", json_document=True).stdout)
            outcome = home.try_run("mount", name, mount.dir, json_document=True)
            if outcome.status != 0:
                assert_refusal(outcome)
                assert not document["ok"], "verify saw nothing, but the mount was refused"
                continue
            again = Mount(home, name, mount.dir, json.loads(outcome.stdout))
            home.servers.add(again.pid)
            home.mounts.append(again)
            duck = clients.duck(oldest)
            try:
                duck.open(again.file)
                assert_nothing_lost(duck, stream)
            except DuckError:
                assert not document["ok"], "reading failed, but verify saw nothing"
            duck.kill()
            again.kill()
            lazy_unmount(again.dir)


def page_of(path: Path, offset: int) -> bytes:
    with opened(path, os.O_RDONLY) as fd:
        return os.pread(fd, 4096, max(0, offset))


def test_cut_files_are_found(home: Home, clients: Clients, oldest: Version, choose: random.Random) -> None:
    """A layer that ends early, at a random place, by one byte, or to nothing."""
    prepare(home, clients, oldest)
    good = {ref: bytes_at(home, ref) for ref in ("first", "latest")}
    for path in layer_files(home):
        size = path.stat().st_size
        for length in sorted({0, size - 1, size // 2, choose.randrange(size)}):
            with cut(path, length):
                assert_found(home, path, f"cut from {size} to {length} bytes")
                for ref, data in good.items():
                    assert bytes_at(home, ref) in (None, data)
    home.verify("--deep")


def test_a_longer_file_is_found(home: Home, clients: Clients, oldest: Version) -> None:
    """Bytes behind a layer's end are damage too."""
    prepare(home, clients, oldest)
    for path in layer_files(home):
        data = path.read_bytes()
        path.write_bytes(data + b"\0" * 100)
        assert_found(home, path, "100 zero bytes behind the end")
        path.write_bytes(data)
    home.verify("--deep")


def test_a_missing_layer_is_named(home: Home, clients: Clients, oldest: Version) -> None:
    """A layer file that is gone: verify and the mount name it; states that do not need it still open."""
    prepare(home, clients, oldest)
    good = {ref: bytes_at(home, ref) for ref in ("first", "latest")}
    for path in layer_files(home):
        with missing(path):
            assert_found(home, path, "a missing file")
            for ref, data in good.items():
                assert bytes_at(home, ref) in (None, data)
    home.verify("--deep")


def test_an_unreadable_layer_is_named(
    new_home: Callable[..., Home], work: Path, clients: Clients, oldest: Version
) -> None:
    """A layer whose file may not be opened: a clear error, and verify names it."""
    home = new_home()
    prepare(home, clients, oldest)
    if os.geteuid() == 0:
        # Root may open everything, except what is no file.
        for path in layer_files(home):
            with missing(path):
                path.mkdir()
                assert_found(home, path, "a directory instead of a file")
                path.rmdir()
    else:
        for path in layer_files(home):
            mode = path.stat().st_mode
            path.chmod(0)
            assert_found(home, path, "a file without permissions")
            path.chmod(mode)
    home.verify("--deep")


def test_foreign_files_are_named_and_harm_nothing(home: Home, clients: Clients, oldest: Version) -> None:
    """Files that no layer is, and copies of layers under other names, among the layers: verify lists them,
    states read as before, and collection does not choke on them."""
    expected = prepare(home, clients, oldest)
    some = layer_files(home)[0]
    foreign = {
        some.with_name("README.txt"): b"not a layer",
        some.with_name("x" * 200): b"",
        some.with_name(f"00000063-{'ab' * 8}{''.join(some.suffixes)}"): some.read_bytes(),
    }
    for path, data in foreign.items():
        path.write_bytes(data)
        assert_found(home, path, "a foreign file")
        assert {ref: answer(home, clients, oldest, ref) for ref in expected} == expected
        home.run("gc", "--grace", "0s")
        path.unlink(missing_ok=True)
    home.verify("--deep")
    assert {ref: answer(home, clients, oldest, ref) for ref in expected} == expected


def test_swapped_layers_are_found(home: Home, clients: Clients, oldest: Version) -> None:
    """Two layers that have changed names are each whole by themselves, and still damage."""
    prepare(home, clients, oldest)
    good = {ref: bytes_at(home, ref) for ref in ("first", "latest")}
    by_kind: dict[str, list[Path]] = {}
    for path in layer_files(home):
        by_kind.setdefault("".join(path.suffixes), []).append(path)
    pairs = [(paths[0], paths[1]) for paths in by_kind.values() if len(paths) > 1]
    assert pairs, "no two layers of one kind"
    for one, other in pairs:
        first, second = one.read_bytes(), other.read_bytes()
        if first == second:
            continue
        one.write_bytes(second)
        other.write_bytes(first)
        assert_found(home, one, "another layer's content")
        assert_found(home, other, "another layer's content")
        for ref, data in good.items():
            assert bytes_at(home, ref) in (None, data)
        one.write_bytes(first)
        other.write_bytes(second)
    home.verify("--deep")


def test_a_rotten_catalog_is_an_error(home: Home, clients: Clients, oldest: Version) -> None:
    """The catalog's file is overwritten with garbage: a clear error that names it, from every command."""
    prepare(home, clients, oldest)
    catalog = next(
        path for path in home.path.iterdir() if path.name.startswith("catalog") and path.suffix == ".db"
    )
    aside = catalog.with_name("aside")
    shutil.copy(catalog, aside)
    size = catalog.stat().st_size
    catalog.write_bytes(os.urandom(size))
    for leftover in home.path.glob("catalog.db-*"):
        leftover.unlink()
    for command in (("list",), ("mount", "mydb", home.new_mount_dir()), ("verify",), ("gc",)):
        home.fail(*command, names=catalog.name)
    shutil.copy(aside, catalog)
    aside.unlink()
    home.verify("--deep")
