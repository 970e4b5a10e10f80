"""Loading: a table of some million rows made from nothing, and a checkpoint."""

import itertools
from pathlib import Path

from fsbench.bench import Bench
from fsbench.machine import settle
from fsbench.report import against_plain
from fsbench.rounds import alternate
from harness.duck import Duck

BAR = 1.10


def measure(bench: Bench) -> None:
    """A fresh database each time, in a fresh mount."""
    bench.report.heading(f"load: CREATE TABLE AS of {bench.settings.load_rows:,} rows, CHECKPOINT")
    numbers = itertools.count()

    def plain() -> float:
        path = bench.plain("load.duckdb")
        seconds = load(bench.duck(), path, bench.settings.load_rows)
        path.unlink()
        return seconds

    def mounted() -> float:
        name = f"load{next(numbers)}"
        mount = bench.place.mount(name)
        seconds = load(bench.duck(), mount.file, bench.settings.load_rows)
        bench.place.umount(mount)
        bench.place.fs("remove", name)
        return seconds

    samples = alternate({"plain": plain, "mounted": mounted}, bench.settings.rounds)
    bench.report.add(against_plain("load", samples["mounted"], samples["plain"], BAR))


def load(duck: Duck, path: Path, rows: int) -> float:
    """Fills a new database by a new process, which then ends; the seconds it took."""
    settle()
    with duck:
        duck.open(path)
        seconds = duck.run(
            f"""CREATE TABLE t AS
                SELECT i AS id, hash(i) AS noise, i % 1000 AS small, 'customer-' || (i % 100000) AS name,
                       DATE '2020-01-01' + CAST(i % 2000 AS INTEGER) AS day, i * 0.25 AS amount
                FROM range({rows}) AS r(i)""",
            "CHECKPOINT",
        )
        duck.close()
    return sum(seconds)
