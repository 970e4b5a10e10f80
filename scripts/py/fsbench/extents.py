"""Mounting an image of many extents: how long until it is there, and how much memory it holds.

The image is a sparse file with a page written in every DuckDB block, front to back with gaps in
between, so that no two extents can be joined: what 256 KiB blocks of a large database come to
when they were written at random.
"""

import os
import random
import re
from pathlib import Path

from fsbench.bench import Bench
from fsbench.machine import settle
from fsbench.report import MIB, Row, in_milliseconds
from harness.workplace import stopwatch

BLOCK_BYTES = 256 << 10
TIME_BAR_S = 0.5
RESIDENT_BAR_MIB = 128
REPEATS = 5


def measure(bench: Bench) -> None:
    """Writes the image, then mounts it some times."""
    extents = bench.settings.extents
    bench.report.heading(f"mounting an image of {extents:,} extents ({extents * BLOCK_BYTES / 1e9:.0f} GB)")
    write_image(bench, extents)
    live = [mount_once(bench, "extents") for _ in range(REPEATS)]
    frozen = [mount_once(bench, "extents@latest") for _ in range(REPEATS)]
    for kind, found in (("live", live), ("snapshot", frozen)):
        seconds = [second for second, _ in found]
        resident = [mebibytes for _, mebibytes in found]
        bench.report.add(
            in_milliseconds(f"{kind} mount: whole command", seconds, TIME_BAR_S),
            Row(
                f"{kind} mount: resident",
                max(resident),
                "MiB",
                min(resident),
                max(resident),
                RESIDENT_BAR_MIB,
            ),
        )
    bench.place.fs("remove", "extents")


def write_image(bench: Bench, extents: int) -> None:
    mount = bench.place.mount("extents")
    blocks = list(range(extents))
    random.Random(1).shuffle(blocks)
    page = os.urandom(4096)
    descriptor = os.open(mount.file, os.O_RDWR | os.O_CREAT)
    for block in blocks:
        os.pwrite(descriptor, page, block * BLOCK_BYTES)
    os.fsync(descriptor)
    os.close(descriptor)
    bench.place.umount(mount)


def mount_once(bench: Bench, database: str) -> tuple[float, float]:
    """Seconds of the whole command, and MiB resident once the file's far end was looked at."""
    settle()
    with stopwatch() as seconds:
        mount = bench.place.mount(database)
    with mount.file.open("rb") as file:
        file.seek(-4096, os.SEEK_END)
        file.read()
    status = Path(f"/proc/{mount.pid}/status").read_text()
    [kibibytes] = re.findall(r"VmRSS:\s+(\d+) kB", status)
    bench.place.umount(mount)
    return seconds[0], int(kibibytes) * 1024 / MIB
