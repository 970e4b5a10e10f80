"""What the disk itself can do: the floor under every commit."""

import os
import statistics
import time

from fsbench.bench import Bench
from fsbench.report import in_milliseconds

SYNCS = 500


def measure(bench: Bench) -> None:
    """4 KiB and an fdatasync, appended to a file and within a file."""
    bench.report.heading("the disk (for context)")
    path = bench.plain("syncs")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    appended = sync_each(descriptor)
    within = sync_each(descriptor)
    os.close(descriptor)
    path.unlink()
    for what, seconds in (("fdatasync, 4 KiB appended", appended), ("fdatasync, 4 KiB overwritten", within)):
        bench.report.add(
            in_milliseconds(what, seconds, None, f"mean {statistics.mean(seconds) * 1e3:.2f} ms")
        )


def sync_each(descriptor: int) -> list[float]:
    block = os.urandom(4096)
    seconds = []
    for number in range(SYNCS):
        os.pwrite(descriptor, block, number * len(block))
        started = time.perf_counter()
        os.fdatasync(descriptor)
        seconds.append(time.perf_counter() - started)
    return seconds
