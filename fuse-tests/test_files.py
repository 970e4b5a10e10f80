"""Everything that DuckDB does to files works on a mount as it does in a plain local directory.

Each story runs twice, in a plain directory and in a live mount, and must go the same; then the mount is
taken away and made again, and everything must still be there.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.openduck import Home, Mount
from harness.posix import (
    FALLOC_KEEP_SIZE,
    FALLOC_PUNCH_HOLE,
    FALLOC_ZERO_RANGE,
    PAGE,
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    Story,
    aligned_buffer,
    fallocate,
    opened,
    pattern,
    rename2,
    tree,
)
from harness.processes import read_line

RW = os.O_RDWR | os.O_CREAT
GIB = 1 << 30


def create_and_write(s: Story) -> None:
    """Creating, exclusive creating, truncating opens, writes in the middle and beyond the end."""
    s.tell("open what is not there", lambda: os.open(s.path("a.duckdb"), os.O_RDWR))
    with opened(s.path("a.duckdb"), RW) as fd:
        s.tell("write 3 pages", lambda: os.pwrite(fd, pattern(1, 3 * PAGE), 0))
        s.tell("write over a page boundary", lambda: os.pwrite(fd, pattern(2, 5000), 3000))
        s.tell("write one byte", lambda: os.pwrite(fd, b"x", 8191))
        s.tell("write beyond the end", lambda: os.pwrite(fd, b"far", 1_000_003))
        s.tell("sync", lambda: os.fsync(fd))
        s.tell("read at the end", lambda: os.pread(fd, 100, 1_000_000))
        s.tell("read behind the end", lambda: os.pread(fd, 100, 2_000_000))
        s.tell("nothing", lambda: os.pwrite(fd, b"", 5_000_000))
    s.size("a.duckdb")
    s.content("a.duckdb")
    s.tell("create what is there", lambda: os.open(s.path("a.duckdb"), RW | os.O_EXCL))
    with opened(s.path("b.duckdb"), os.O_WRONLY | os.O_CREAT | os.O_EXCL) as fd:
        s.tell("big write", lambda: os.write(fd, pattern(3, 3_333_333)))
        s.tell("fdatasync", lambda: os.fdatasync(fd))
        s.tell("read through a write-only file", lambda: os.pread(fd, 1, 0))
    with opened(s.path("b.duckdb"), os.O_RDONLY) as fd:
        s.tell("write through a read-only file", lambda: os.pwrite(fd, b"x", 0))
    s.content("b.duckdb")
    with opened(s.path("b.duckdb"), os.O_RDWR | os.O_TRUNC) as fd:
        s.tell("after O_TRUNC", lambda: os.fstat(fd).st_size)
        os.pwrite(fd, b"new", 0)
    s.content("b.duckdb")
    s.tell("mode", lambda: oct(os.stat(s.path("b.duckdb")).st_mode))
    s.tell("links", lambda: os.stat(s.path("b.duckdb")).st_nlink)
    s.names()


def append(s: Story) -> None:
    """A WAL: O_APPEND by two handles, and through a handle that was opened before the file grew."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    with opened(s.path("x.wal"), flags) as one, opened(s.path("x.wal"), flags) as two:
        for number in range(200):
            fd = one if number % 3 else two
            os.write(fd, pattern(number, 1 + number * 37 % 3000))
            if number % 20 == 0:
                os.fsync(fd)
        s.tell("size", lambda: os.fstat(one).st_size)
        s.tell("cut", lambda: os.ftruncate(one, 1000))
        s.tell("append after the cut", lambda: os.write(two, b"tail"))
    s.content("x.wal")


def rename(s: Story) -> None:
    """Renames: to a new name, over a file, over an open file, with flags, of directories, and those that
    can't be."""
    for name in "abcd":
        s.path(name).write_bytes(pattern(ord(name), 10_000))
    s.tell("to a new name", lambda: os.rename(s.path("a"), s.path("a2")))
    with opened(s.path("b"), os.O_RDWR) as fd:
        s.tell("over an open file", lambda: os.rename(s.path("c"), s.path("b")))
        s.tell("the open file lives on", lambda: os.pread(fd, 20_000, 0))
        s.tell("and takes writes", lambda: os.pwrite(fd, b"still here", 0))
        s.tell("and syncs", lambda: os.fsync(fd))
        s.tell("it has no name any more", lambda: os.fstat(fd).st_nlink)
    s.content("b")
    with opened(s.path("d"), os.O_RDWR) as fd:
        s.tell("an open file", lambda: os.rename(s.path("d"), s.path("d2")))
        os.pwrite(fd, b"written after the rename", 100)
    s.content("d2")
    s.tell("onto itself", lambda: os.rename(s.path("b"), s.path("b")))
    s.tell("what is not there", lambda: os.rename(s.path("nothing"), s.path("b")))
    s.tell("no replace, taken", lambda: rename2(s.path("a2"), s.path("b"), RENAME_NOREPLACE))
    s.tell("no replace, free", lambda: rename2(s.path("a2"), s.path("a3"), RENAME_NOREPLACE))
    s.tell("exchange", lambda: rename2(s.path("a3"), s.path("b"), RENAME_EXCHANGE))
    s.content("a3")
    s.content("b")
    os.mkdir(s.path("dir"))
    os.mkdir(s.path("full"))
    s.path("full/x").write_bytes(b"x")
    s.tell("file over directory", lambda: os.rename(s.path("b"), s.path("dir")))
    s.tell("directory over file", lambda: os.rename(s.path("dir"), s.path("b")))
    s.tell("directory over a full one", lambda: os.rename(s.path("dir"), s.path("full")))
    s.tell("directory below itself", lambda: os.rename(s.path("full"), s.path("full/sub")))
    s.tell("directory over an empty one", lambda: os.rename(s.path("full"), s.path("dir")))
    s.tell("into a directory", lambda: os.rename(s.path("b"), s.path("dir/b")))
    s.names()
    s.names("dir")


def unlink(s: Story) -> None:
    """An unlinked file lives until its last close; the name is free at once."""
    s.path("x.wal").write_bytes(pattern(1, 50_000))
    with opened(s.path("x.wal"), os.O_RDWR) as fd:
        s.tell("unlink", lambda: os.unlink(s.path("x.wal")))
        s.tell("again", lambda: os.unlink(s.path("x.wal")))
        s.names()
        s.tell("read what has no name", lambda: os.pread(fd, 60_000, 0))
        s.tell("write it", lambda: os.pwrite(fd, pattern(2, 9000), 45_000))
        s.tell("sync it", lambda: os.fsync(fd))
        s.path("x.wal").write_bytes(b"a new file of that name")
        s.tell("the old one is its own", lambda: os.pread(fd, 60_000, 0))
        s.tell("cut it", lambda: os.ftruncate(fd, 10))
        s.tell("its size", lambda: os.fstat(fd).st_size)
    s.content("x.wal")
    s.tell("unlink a directory", lambda: (os.mkdir(s.path("d")), os.unlink(s.path("d"))))


def truncate(s: Story) -> None:
    """ftruncate down, up, within a page, to nothing; what comes back after growing is zeros."""
    with opened(s.path("f"), RW) as fd:
        os.pwrite(fd, pattern(1, 100_000), 0)
        for size in (70_001, 90_000, 4096, 4095, 12_288, 0, 5, 100_000):
            s.tell(f"truncate to {size}", lambda size=size: os.ftruncate(fd, size))
            s.tell("size", lambda: os.fstat(fd).st_size)
            s.tell("content", lambda: os.pread(fd, 200_000, 0))
        s.tell("negative", lambda: os.ftruncate(fd, -1))
        os.fsync(fd)
    s.tell("by name", lambda: os.truncate(s.path("f"), 77))
    s.content("f")
    s.tell("of a directory", lambda: (os.mkdir(s.path("d")), os.truncate(s.path("d"), 0)))


def preallocate(s: Story) -> None:
    """fallocate: allocate, keep size, punch holes, aligned and not."""
    with opened(s.path("f"), RW) as fd:
        s.tell("allocate", lambda: fallocate(fd, 0, 0, 300_000))
        s.tell("size", lambda: os.fstat(fd).st_size)
        s.tell("zeros", lambda: os.pread(fd, 400_000, 0))
        os.pwrite(fd, pattern(1, 300_000), 0)
        s.tell("allocate what is there", lambda: fallocate(fd, 0, 100, 100_000))
        s.tell("keeps content", lambda: os.pread(fd, 400_000, 0))
        s.tell("keep size", lambda: fallocate(fd, FALLOC_KEEP_SIZE, 0, 900_000))
        s.tell("size", lambda: os.fstat(fd).st_size)
        hole = FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE
        for offset, length in ((4096, 8192), (50_001, 33_333), (299_000, 50_000), (600_000, 10), (0, 1)):
            s.tell(f"punch {offset} {length}", lambda a=offset, b=length: fallocate(fd, hole, a, b))
        s.tell("size", lambda: os.fstat(fd).st_size)
        s.tell("holes are zeros", lambda: os.pread(fd, 400_000, 0))
        os.pwrite(fd, b"in a hole", 5000)
        os.fsync(fd)
        s.tell("posix_fallocate", lambda: os.posix_fallocate(fd, 400_000, 1000))
        s.tell("no length", lambda: fallocate(fd, 0, 0, 0))
        s.tell("punch without keep size", lambda: fallocate(fd, FALLOC_PUNCH_HOLE, 0, 10))
    s.content("f")


def sparse(s: Story) -> None:
    """Sparse files: writes far apart, sizes of terabytes, SEEK_DATA and SEEK_HOLE that find the data."""
    with opened(s.path("f"), RW) as fd:
        s.tell("1 TiB", lambda: os.ftruncate(fd, 1 << 40))
        for offset in (3, GIB + 5, 700 * GIB, (1 << 40) - 2):
            os.pwrite(fd, b"ab", offset)
        os.fsync(fd)
        s.tell("size", lambda: os.fstat(fd).st_size)
        s.tell("takes little", lambda: os.fstat(fd).st_blocks < 2048)
        s.tell("zeros", lambda: os.pread(fd, 100_000, 123 * GIB))
        s.tell("around data", lambda: os.pread(fd, 10, 700 * GIB - 4))
        found = []
        at = 0
        while True:
            try:
                at = os.lseek(fd, at, os.SEEK_DATA)
            except OSError as error:
                assert error.errno == errno.ENXIO
                break
            found.append(at // (1 << 20))
            at = os.lseek(fd, at, os.SEEK_HOLE)
        s.tell("data at MiB", lambda: found)
        s.tell("data behind the end", lambda: os.lseek(fd, 1 << 41, os.SEEK_DATA))
        s.tell("the end is a hole", lambda: os.lseek(fd, (1 << 40) - 1, os.SEEK_HOLE))
        s.tell("cut", lambda: os.ftruncate(fd, GIB))
        s.tell("size", lambda: os.fstat(fd).st_size)


def direct(s: Story) -> None:
    """O_DIRECT reads and writes, seen by buffered handles and the other way round."""
    with opened(s.path("f"), RW | os.O_DIRECT) as fd, opened(s.path("f"), os.O_RDWR) as plain:
        s.tell("write", lambda: os.pwritev(fd, [aligned_buffer(pattern(1, 16 * PAGE))], 0))
        s.tell("buffered read", lambda: os.pread(plain, 20 * PAGE, 0))
        os.pwrite(plain, pattern(2, 5000), 6000)
        os.fsync(plain)
        buffer = aligned_buffer(bytes(32 * PAGE))
        s.tell("direct read", lambda: os.preadv(fd, [buffer], 0))
        s.tell("what came", lambda: bytes(buffer))
        s.tell("write behind", lambda: os.pwritev(fd, [aligned_buffer(pattern(3, PAGE))], 100 * PAGE))
        s.tell("buffered read of it", lambda: os.pread(plain, PAGE, 100 * PAGE))
        s.tell("sync", lambda: os.fsync(fd))
    s.content("f")


def shared_mapping(s: Story) -> None:
    """Shared writable mappings: msync and close both keep the bytes, and other handles see them."""
    with opened(s.path("f"), RW) as fd:
        os.ftruncate(fd, 1 << 20)
        with mmap.mmap(fd, 1 << 20) as view:
            view[0:5000] = pattern(1, 5000)
            view[700_000:700_010] = b"0123456789"
            s.tell("seen through the file", lambda: os.pread(fd, 6000, 0))
            view.flush()
            os.pwrite(fd, b"by write", 300_000)
            s.tell("seen in the mapping", lambda: bytes(view[300_000:300_008]))
            view[900_000:900_003] = b"end"
        os.fsync(fd)
    s.content("f")
    with opened(s.path("f"), os.O_RDONLY) as fd, mmap.mmap(fd, 0, prot=mmap.PROT_READ) as view:
        s.tell("read-only mapping", lambda: bytes(view))


def huge_mapping(s: Story) -> None:
    """What DuckDB 2.0 does for `IO_MODE MMAP`: 256 GiB by ftruncate, all of it mapped, a little of it
    written."""
    with opened(s.path("f"), RW) as fd:
        s.tell("256 GiB", lambda: os.ftruncate(fd, 256 * GIB))
        with mmap.mmap(fd, 256 * GIB) as view:
            for offset in (0, 12_288, 5 * GIB + 1, 256 * GIB - 8):
                view[offset : offset + 8] = b"written!"
            s.tell("sync all", lambda: view.flush())
            s.tell("read back", lambda: bytes(view[5 * GIB : 5 * GIB + 10]))
        s.tell("sync the file", lambda: os.fsync(fd))
        s.tell("takes little", lambda: os.fstat(fd).st_blocks < 2048)
        s.tell("the last bytes", lambda: os.pread(fd, 20, 256 * GIB - 8))


def directories(s: Story) -> None:
    """Subdirectories: made, filled, listed, refused to be removed while full."""
    s.tell("mkdir", lambda: os.mkdir(s.path("d")))
    s.tell("again", lambda: os.mkdir(s.path("d")))
    s.tell("deep", lambda: os.makedirs(s.path("d/e/f")))
    for number in range(300):
        s.path(f"d/e/file-{number:03}").write_bytes(str(number).encode())
    s.names("d/e")
    s.tell("rmdir a full one", lambda: os.rmdir(s.path("d")))
    s.tell("rmdir", lambda: os.rmdir(s.path("d/e/f")))
    s.tell("rmdir what is gone", lambda: os.rmdir(s.path("d/e/f")))
    s.tell("rmdir a file", lambda: os.rmdir(s.path("d/e/file-000")))
    s.tell("below a file", lambda: os.mkdir(s.path("d/e/file-000/x")))
    s.tell("open a directory for writing", lambda: os.open(s.path("d"), os.O_RDWR))
    for number in range(0, 300, 2):
        os.unlink(s.path(f"d/e/file-{number:03}"))
    s.names("d/e")
    with opened(s.path("d/e"), os.O_RDONLY) as fd:
        s.tell("sync of a directory", lambda: os.fsync(fd))
    long_name = "n" * 255
    s.tell("255 bytes", lambda: s.path(long_name).write_bytes(b"long"))
    s.tell("256 bytes", lambda: s.path(long_name + "n").write_bytes(b"longer"))
    s.tell("odd bytes", lambda: s.path("ä b\u20ac").write_bytes(b"odd"))
    s.names()
    s.tell("a directory's kind", lambda: os.path.isdir(s.path("d/e")))


def attributes(s: Story) -> None:
    """chmod, chown and times stay; a change of content changes mtime."""
    s.path("f").write_bytes(b"x")
    s.tell("chmod", lambda: os.chmod(s.path("f"), 0o640))
    s.tell("mode", lambda: oct(os.stat(s.path("f")).st_mode))
    if os.geteuid() == 0:
        s.tell("chown", lambda: os.chown(s.path("f"), 12, 34))
        s.tell("owner", lambda: (os.stat(s.path("f")).st_uid, os.stat(s.path("f")).st_gid))
    s.tell("utime", lambda: os.utime(s.path("f"), ns=(10**18 + 5, 10**18 + 7)))
    s.tell("mtime", lambda: os.stat(s.path("f")).st_mtime_ns // 1000)
    with opened(s.path("f"), os.O_RDWR) as fd:
        os.pwrite(fd, b"y", 0)
        os.fsync(fd)
    s.tell("later", lambda: os.stat(s.path("f")).st_mtime_ns > 10**18 + 7)
    s.tell("access", lambda: os.access(s.path("f"), os.R_OK))


STORIES = [
    create_and_write,
    append,
    rename,
    unlink,
    truncate,
    preallocate,
    sparse,
    direct,
    shared_mapping,
    huge_mapping,
    directories,
    attributes,
]


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_the_same_story_as_in_a_plain_directory(
    home: Home, work: Path, story: Callable[[Story], None]
) -> None:
    """The operations give the same on the mount as locally, and what they leave survives umount and mount."""
    local = Story(work / "local")
    local.root.mkdir()
    story(local)
    mount = home.mount("mydb")
    ours = Story(mount.dir)
    story(ours)
    assert ours.lines == local.lines
    before = tree(mount.dir)
    assert before == tree(local.root)
    mount.umount()
    mount = home.mount("mydb")
    assert tree(mount.dir) == before
    mount.umount()
    home.verify("--deep")


def test_all_stories_in_one_mount_survive_a_kill(home: Home, work: Path) -> None:
    """What was synced before a SIGKILL of the mounting process is there after the next mount: names, sizes,
    holes, content, and nothing of the unlinked files."""
    local = work / "local"
    mount = home.mount("mydb")
    for root in (local, mount.dir):
        for story in STORIES:
            (root / story.__name__).mkdir(parents=True)
            story(Story(root / story.__name__))
        with opened(root / "last", RW) as fd:
            os.fsync(fd)
    mount.kill()
    again = home.mount("mydb", directory=mount.dir)
    assert tree(again.dir) == tree(local)
    again.umount()
    home.verify("--deep")


def test_unsynced_writes_are_seen_at_once_and_kept_by_umount(home: Home) -> None:
    """Nobody has to sync to be read, and umount is a sync."""
    mount = home.mount("mydb")
    fd = os.open(mount.dir / "f", RW)
    os.pwrite(fd, pattern(1, 100_000), 0)
    assert (mount.dir / "f").read_bytes() == pattern(1, 100_000)
    os.close(fd)
    mount.umount()
    mount = home.mount("mydb")
    assert (mount.dir / "f").read_bytes() == pattern(1, 100_000)


def test_an_fsync_with_nothing_new_makes_no_commit(home: Home) -> None:
    """LSNs count commits, not syncs."""
    mount = home.mount("mydb")
    with opened(mount.dir / "f", RW) as fd:
        os.pwrite(fd, b"x", 0)
        os.fsync(fd)
        lsn = mount.head_lsn
        for _ in range(5):
            os.fsync(fd)
            os.fdatasync(fd)
        assert mount.head_lsn == lsn
        os.pwrite(fd, b"y", 0)
        os.fdatasync(fd)
        assert mount.head_lsn == lsn + 1


LOCKER = """
import fcntl, os, struct, sys
fd = os.open(sys.argv[1], os.O_RDWR)
how = fcntl.LOCK_EX if sys.argv[3] == "write" else fcntl.LOCK_SH
lock = fcntl.lockf if sys.argv[2] == "fcntl" else fcntl.flock
try:
    lock(fd, how | fcntl.LOCK_NB)
except OSError:
    print("refused", flush=True)
    sys.exit()
print("locked", flush=True)
sys.stdin.read()
"""


def start_locker(path: Path, kind: str, mode: str) -> tuple[subprocess.Popen[str], str]:
    """Another process that locks a file, and whether it got the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", LOCKER, str(path), kind, mode],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    return process, read_line(process, f"a {kind} {mode} lock, or its refusal")


def end_locker(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate(timeout=10)


@pytest.mark.parametrize("kind", ["fcntl", "flock"])
def test_locks_hold_between_processes_and_end_with_them(home: Home, kind: str) -> None:
    """A write lock excludes others, read locks share, and a killed holder's lock is free at once."""
    mount = home.mount("mydb")
    path = mount.dir / "f"
    path.write_bytes(b"x")
    lockers = []
    try:
        for mode, expected in (("write", "locked"), ("write", "refused"), ("read", "refused")):
            process, said = start_locker(path, kind, mode)
            lockers.append(process)
            assert said == expected, f"{kind} {mode} lock"
        end_locker(lockers[0])
        for expected in ("locked", "locked"):
            process, said = start_locker(path, kind, "read")
            lockers.append(process)
            assert said == expected, f"{kind} read lock"
        process, said = start_locker(path, kind, "write")
        lockers.append(process)
        assert said == "refused"
    finally:
        for process in lockers:
            end_locker(process)
    with opened(path, os.O_RDWR) as fd:
        (fcntl.lockf if kind == "fcntl" else fcntl.flock)(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_statfs_tells_the_room_of_the_disk_below(home: Home) -> None:
    """df on a mount shows what the home's disk has, so DuckDB's limits for spilling make sense."""
    mount = home.mount("mydb")
    ours, below = os.statvfs(mount.dir), os.statvfs(home.path)
    assert ours.f_bsize > 0
    assert ours.f_blocks * ours.f_frsize == pytest.approx(below.f_blocks * below.f_frsize, rel=0.01)
    assert ours.f_bavail * ours.f_frsize == pytest.approx(below.f_bavail * below.f_frsize, rel=0.1)
    assert ours.f_namemax == 255


def test_the_root_is_a_directory_with_its_own_names(home: Home) -> None:
    """readdir shows the image; `.snapshots` and `.openduck` are there and can't be taken away or written
    over."""
    mount = home.mount("mydb")
    (mount.dir / "mydb.duckdb").write_bytes(b"x")
    assert "mydb.duckdb" in os.listdir(mount.dir)
    assert os.path.isdir(mount.dir / ".snapshots")
    assert sorted(os.listdir(mount.dir / ".openduck")) == ["snapshot", "status"]
    for name in (".snapshots", ".openduck"):
        with pytest.raises(OSError):
            os.rmdir(mount.dir / name)
        with pytest.raises(OSError):
            os.rename(mount.dir / name, mount.dir / "elsewhere")
        with pytest.raises(OSError):
            os.rename(mount.dir / "mydb.duckdb", mount.dir / name)
    with pytest.raises(OSError):
        (mount.dir / ".openduck" / "status").write_bytes(b"x")


def test_zero_range_zeroes_or_is_refused(home: Home) -> None:
    """FALLOC_FL_ZERO_RANGE does what it says, growing the file where asked to, or answers EOPNOTSUPP."""
    mount = home.mount("mydb")
    data = bytearray(pattern(1, 300_000))
    with opened(mount.dir / "f", RW) as fd:
        os.pwrite(fd, data, 0)
        for mode, offset, length in (
            (0, 120_000, 7000),
            (FALLOC_KEEP_SIZE, 299_000, 9000),
            (0, 290_000, 50_000),
        ):
            try:
                fallocate(fd, FALLOC_ZERO_RANGE | mode, offset, length)
            except OSError as error:
                assert error.errno == errno.EOPNOTSUPP
                continue
            end = offset + length if mode == 0 else min(offset + length, len(data))
            data[offset:end] = bytes(end - offset)
    assert (mount.dir / "f").read_bytes() == data


def test_holes_give_their_room_back(home: Home) -> None:
    """A punched range is not counted as allocated any more."""
    mount = home.mount("mydb")
    with opened(mount.dir / "f", RW) as fd:
        os.pwrite(fd, pattern(1, 1 << 20), 0)
        os.fsync(fd)
        before = os.fstat(fd).st_blocks * 512
        fallocate(fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, 0, 1 << 19)
        os.fsync(fd)
        after = os.fstat(fd).st_blocks * 512
    assert before >= 1 << 20
    assert after <= before - (1 << 19)


def read_only_faces(mount: Mount, frozen: Mount, follow: Mount) -> list[Path]:
    return [mount.dir / ".snapshots" / "latest", mount.dir / ".snapshots" / "one", frozen.dir, follow.dir]


def test_read_only_faces_take_no_write(home: Home) -> None:
    """Snapshots, frozen mounts and follow mounts refuse every change with EROFS, and show the same bytes."""
    mount = home.mount("mydb")
    with opened(mount.file, RW) as fd:
        os.pwrite(fd, pattern(1, 50_000), 0)
        os.fsync(fd)
    home.run("snapshot", "mydb", "one")
    frozen = home.mount("mydb@one")
    follow = home.mount("mydb", "--follow")
    assert (frozen.document["mode"], follow.document["mode"], mount.document["mode"]) == ("ro", "ro", "rw")
    for face in read_only_faces(mount, frozen, follow):
        path = face / "mydb.duckdb"
        assert path.read_bytes() == pattern(1, 50_000), face
        for attempt in (
            lambda path=path: os.open(path, os.O_RDWR),
            lambda path=path: os.truncate(path, 0),
            lambda path=path: os.unlink(path),
            lambda path=path: os.rename(path, path.with_name("other")),
            lambda face=face: os.open(face / "new", RW),
            lambda face=face: os.mkdir(face / "new"),
            lambda path=path: os.chmod(path, 0o600),
        ):
            with pytest.raises(OSError) as caught:
                attempt()
            assert caught.value.errno in (errno.EROFS, errno.EACCES, errno.EPERM), face
