"""Damage to a home's files, done and undone: flipped bits, cut files, things that do not belong there.

Layer files are looked at from outside only: each regular file below the store's directories counts,
whatever is in it, since every byte of it must be covered by some checksum.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator
from pathlib import Path

from harness.openduck import Home


def layer_files(home: Home) -> list[Path]:
    """Every file of the sealed and the active layers."""
    found = []
    for below in ("objects", "active"):
        found += [path for path in (home.path / below).rglob("*") if path.is_file() and not path.is_symlink()]
    assert found, "the home has no layer files"
    return sorted(found)


@contextlib.contextmanager
def flipped(path: Path, offset: int, bit: int) -> Iterator[None]:
    """One bit of a file is another, for a while."""
    flip(path, offset, bit)
    try:
        yield
    finally:
        flip(path, offset, bit)


def flip(path: Path, offset: int, bit: int) -> None:
    fd = os.open(path, os.O_RDWR)
    try:
        (old,) = os.pread(fd, 1, offset)
        os.pwrite(fd, bytes([old ^ 1 << bit]), offset)
    finally:
        os.close(fd)


@contextlib.contextmanager
def cut(path: Path, length: int) -> Iterator[None]:
    """A file ends early, for a while."""
    data = path.read_bytes()
    os.truncate(path, length)
    try:
        yield
    finally:
        path.write_bytes(data)


@contextlib.contextmanager
def missing(path: Path) -> Iterator[None]:
    """A file is gone, for a while."""
    aside = path.with_name(".aside")
    path.rename(aside)
    try:
        yield
    finally:
        aside.rename(path)


def places(path: Path, choose: random.Random, count: int) -> list[int]:
    """Offsets to damage: the first and last bytes, page edges, and random ones."""
    size = path.stat().st_size
    if size == 0:
        return []
    fixed = {0, size - 1, min(4095, size - 1), min(4096, size - 1), max(0, size - 4096), size // 2}
    return sorted(fixed | {choose.randrange(size) for _ in range(count)})
