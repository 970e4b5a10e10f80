"""Size does not matter to what is metadata: mounting, snapshots and clones, at a few megabytes and at many
extents.

The long version makes 400,000 extents, the image of a 100 GB database; the short one a twentieth of it,
which already shows whether times grow with size.
"""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.openduck import Home, Mount
from harness.posix import opened

BLOCK = 262_144
PAGE = 4096


def scatter(mount: Mount, extents: int, choose: random.Random) -> None:
    """Writes one page into each of so many blocks, in random order, with a sync now and then."""
    order = list(range(extents))
    choose.shuffle(order)
    page = bytearray(os.urandom(PAGE))
    with opened(mount.file, os.O_RDWR | os.O_CREAT) as fd:
        os.ftruncate(fd, extents * BLOCK)
        for number, block in enumerate(order):
            page[:8] = block.to_bytes(8, "little")
            os.pwrite(fd, page, block * BLOCK)
            if number % 20_000 == 19_999:
                os.fsync(fd)
        os.fsync(fd)


def check(path: Path, extents: int, choose: random.Random) -> None:
    with opened(path, os.O_RDONLY) as fd:
        for _ in range(200):
            block = choose.randrange(extents)
            assert os.pread(fd, 8, block * BLOCK) == block.to_bytes(8, "little")


def resident_mib(pid: int) -> float:
    """The largest resident size that a process has had."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"process {pid} has no VmHWM")


def scale_of_mounting(home: Home, extents: int, choose: random.Random) -> tuple[float, float]:
    """Median seconds to mount an image of so many extents, and MiB resident in the process that serves it."""
    mount = home.mount("mydb")
    scatter(mount, extents, choose)
    mount.umount()
    seconds, sizes = [], []
    for _ in range(5):
        begin = time.monotonic()
        mount = home.mount("mydb")
        seconds.append(time.monotonic() - begin)
        check(mount.file, extents, choose)
        sizes.append(resident_mib(mount.pid))
        mount.umount()
    return statistics.median(seconds), max(sizes)


def test_mounting_many_extents(
    home: Home, choose: random.Random, record_property: Callable[[str, object], None]
) -> None:
    """20,000 extents mount fast and in little memory."""
    seconds, mib = scale_of_mounting(home, 20_000, choose)
    record_property("mount", f"{seconds * 1000:.0f} ms, {mib:.0f} MiB")
    assert seconds < 2, f"mounting 20,000 extents took {seconds:.2f} s"
    assert mib < 96, f"{mib:.0f} MiB resident for 20,000 extents"


@pytest.mark.long
@pytest.mark.limit(900)
def test_mounting_the_image_of_a_100_gb_database(
    home: Home, choose: random.Random, record_property: Callable[[str, object], None]
) -> None:
    """400,000 extents: at most 500 ms, at most 128 MiB resident (with a release build)."""
    seconds, mib = scale_of_mounting(home, 400_000, choose)
    record_property("mount", f"{seconds * 1000:.0f} ms, {mib:.0f} MiB")
    assert seconds < 0.5
    assert mib < 128


def scale_of_metadata(home: Home, name: str) -> dict[str, float]:
    """Median seconds of `snapshot` and `clone` on a database."""
    times: dict[str, list[float]] = {"snapshot": [], "clone": []}
    for number in range(9):
        times["snapshot"].append(home.run("snapshot", name).seconds)
        times["clone"].append(home.run("clone", name, f"{name}-clone-{number}").seconds)
    return {command: statistics.median(seconds) for command, seconds in times.items()}


def compare_small_and_large(home: Home, extents: int, choose: random.Random) -> None:
    small, large = home.mount("small"), home.mount("large")
    scatter(small, 40, choose)
    scatter(large, extents, choose)
    home.run("snapshot", "small")
    at_small, at_large = scale_of_metadata(home, "small"), scale_of_metadata(home, "large")
    for command, seconds in at_large.items():
        assert seconds < at_small[command] * 1.5 + 0.015, (
            f"{command}: {at_small[command] * 1000:.1f} ms on the small database, "
            f"{seconds * 1000:.1f} ms on the large one"
        )


def test_snapshot_and_clone_take_the_same_at_any_size(home: Home, choose: random.Random) -> None:
    """On mounted databases of 40 and of 20,000 extents."""
    compare_small_and_large(home, 20_000, choose)


@pytest.mark.long
@pytest.mark.limit(900)
def test_snapshot_and_clone_of_a_100_gb_database(home: Home, choose: random.Random) -> None:
    """On mounted databases of 40 and of 400,000 extents."""
    compare_small_and_large(home, 400_000, choose)


def test_many_small_commits_mount_fast(home: Home) -> None:
    """A history of 3,000 commits is no burden to the next mount, nor after a kill."""
    mount = home.mount("mydb")
    with opened(mount.file, os.O_RDWR | os.O_CREAT) as fd:
        for number in range(3000):
            os.pwrite(fd, number.to_bytes(8, "little"), number % 50 * PAGE)
            os.fdatasync(fd)
    assert mount.head_lsn >= 3000
    mount.kill()
    begin = time.monotonic()
    mount = home.mount("mydb", directory=mount.dir)
    assert time.monotonic() - begin < 5
    with opened(mount.file, os.O_RDONLY) as fd:
        for number in range(2950, 3000):
            assert os.pread(fd, 8, number % 50 * PAGE) == number.to_bytes(8, "little")
    mount.umount()
    begin = time.monotonic()
    home.mount("mydb")
    assert time.monotonic() - begin < 5
