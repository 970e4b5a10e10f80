"""File operations as a script that gives the same story on every good filesystem.

A `Story` performs operations below one directory and writes down what each gave: a value, or the name of
the errno. The same operations on a plain local directory and on a mount must give the same story.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import mmap
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PAGE = 4096
FALLOC_KEEP_SIZE = 1
FALLOC_PUNCH_HOLE = 2
FALLOC_ZERO_RANGE = 16
RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2

# What a mount has besides the image: not part of any comparison.
OWN_NAMES = {".snapshots", ".openduck"}

_libc = ctypes.CDLL(None, use_errno=True)


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2), which Python only has without modes."""
    if _libc.fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def rename2(old: str | Path, new: str | Path, flags: int) -> None:
    """renameat2(2) with flags."""
    if _libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def pattern(seed: int, length: int) -> bytes:
    """Bytes that are known from a seed and look like nothing else."""
    return hashlib.shake_128(seed.to_bytes(8, "little")).digest(length)


def aligned_buffer(data: bytes) -> mmap.mmap:
    """A page-aligned copy, as O_DIRECT wants it."""
    buffer = mmap.mmap(-1, len(data))
    buffer.write(data)
    return buffer


@contextlib.contextmanager
def opened(path: str | Path, flags: int, mode: int = 0o644) -> Iterator[int]:
    fd = os.open(path, flags, mode)
    try:
        yield fd
    finally:
        os.close(fd)


def digest(data: bytes) -> str:
    return f"{len(data)}:{hashlib.sha256(data).hexdigest()[:16]}"


class Story:
    """Operations below `root`, and what they gave."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lines: list[str] = []

    def path(self, name: str) -> Path:
        return self.root / name

    def tell(self, what: str, action: Callable[[], Any]) -> Any:
        """Does one thing and writes down what it gave; a system error is a result like any other."""
        try:
            value = action()
        except OSError as error:
            self.lines.append(f"{what}: {errno.errorcode.get(error.errno or 0, error.errno)}")
            return None
        shown = digest(value) if isinstance(value, bytes) and len(value) > 40 else value
        self.lines.append(f"{what}: {'ok' if shown is None else shown}")
        return value

    def content(self, name: str) -> bytes | None:
        return self.tell(f"content of {name}", lambda: self.path(name).read_bytes())

    def size(self, name: str) -> None:
        self.tell(f"size of {name}", lambda: self.path(name).stat().st_size)

    def names(self, name: str = ".") -> None:
        self.tell(f"names in {name}", lambda: sorted(set(os.listdir(self.path(name))) - OWN_NAMES))


def tree(root: Path) -> dict[str, str]:
    """Everything below a directory: kind, mode, owner and content of each name."""
    found = {}
    for directory, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in OWN_NAMES and not name.endswith(".duckdb.tmp")]
        for name in folders + files:
            path = Path(directory) / name
            info = path.lstat()
            line = f"{stat.filemode(info.st_mode)} {info.st_uid}:{info.st_gid}"
            if stat.S_ISREG(info.st_mode):
                line += f" {content_digest(path, info.st_size)}"
            found[str(path.relative_to(root))] = line
    return found


def content_digest(path: Path, size: int) -> str:
    """The digest of a file; of a huge sparse one, of the data that it holds."""
    if size <= 64 << 20:
        return digest(path.read_bytes())
    hasher = hashlib.sha256()
    with opened(path, os.O_RDONLY) as fd:
        at = 0
        while True:
            try:
                data = os.lseek(fd, at, os.SEEK_DATA)
            except OSError:
                return f"{size}:{hasher.hexdigest()[:16]}"
            # Filesystems differ in how exactly they tell data from holes, so whole pages are looked at.
            begin = data - data % PAGE
            at = min(size, -(-os.lseek(fd, data, os.SEEK_HOLE) // PAGE) * PAGE)
            for offset in range(begin, at, PAGE):
                page = os.pread(fd, min(PAGE, at - offset), offset)
                if page.strip(b"\0"):
                    hasher.update(offset.to_bytes(8, "little") + page)
