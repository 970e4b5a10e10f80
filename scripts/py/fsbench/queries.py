"""Reading: full scans and TPC-H's 22 queries, from a plain file and from mounts of its bytes.

*Cold*: the kernel's caches were emptied, and the process is new. *Warm*: the process is new, the
page cache is not. *Hot*: the same process once more. A process's first pass includes opening the
database.

The data is written through the mount by DuckDB and then copied out, so that the plain file has
the same bytes. It is also imported, which makes it one image layer.
"""

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from fsbench.bench import Bench
from fsbench.machine import can_drop_caches, drop_caches, settle
from fsbench.report import against_plain
from fsbench.rounds import Samples, alternate
from fsbench.tpch import Tpch
from harness.duck import Duck

BARS = {"cold": 1.10, "warm": 1.05, "hot": 1.03}
# Hot passes differ the least and have the tightest bar: more rounds.
HOT_TURNS = 2


def measure(bench: Bench) -> None:
    """Every subject, every temperature, both kinds of reading."""
    data = Tpch(bench.settings.scale_factor)
    bench.report.heading(f"scans and TPC-H, SF{bench.settings.scale_factor:g}")
    data.prepare(bench.place)
    place, plain = bench.place, bench.plain("tpch.duckdb")
    live = place.mount("tpch")
    with bench.duck() as duck:
        duck.open(live.file)
        duck.run(f"ATTACH '{data.path}' AS source (READ_ONLY)")
        duck.run("COPY FROM DATABASE source TO tpch", "CHECKPOINT")
        duck.close()
    shutil.copyfile(live.file, plain)
    place.fs("snapshot", "tpch", "loaded")
    place.fs("import", str(plain), "image")
    mounts = {
        "live mount": live,
        "snapshot mount": place.mount("tpch@loaded"),
        "image snapshot": place.mount("image@latest"),
    }
    files = {"plain": plain, **{name: mount.file for name, mount in mounts.items()}}
    for kind, statements in (("scan", data.scans()), ("TPC-H", data.queries())):
        samples = read_all(bench, files, statements)
        for temperature, found in samples.items():
            for name in mounts:
                what, bar = f"{kind} {temperature}, {name}", BARS[temperature]
                bench.report.add(against_plain(what, found[name], found["plain"], bar))
    for mount in mounts.values():
        place.umount(mount)


def read_all(bench: Bench, files: dict[str, Path], statements: list[str]) -> dict[str, Samples]:
    """The samples of each temperature."""
    found: dict[str, Samples] = {}
    if can_drop_caches():
        found["cold"] = alternate(new_processes(bench, files, statements, drop_caches), bench.settings.rounds)
    else:
        bench.report.heading("cold: skipped, emptying the kernel's caches takes root")
    warm = new_processes(bench, files, statements, settle)
    # Once unmeasured, so that the page cache holds all of them.
    alternate(warm, 1)
    found["warm"] = alternate(warm, bench.settings.rounds)
    found["hot"] = read_hot(bench, files, statements)
    return found


def new_processes(
    bench: Bench, files: dict[str, Path], statements: list[str], prepare: Callable[[], None]
) -> dict[str, Callable[[], float]]:
    """For each file, a pass by a process that has not seen it yet."""

    def run(path: Path) -> float:
        with bench.duck() as duck:
            prepare()
            return duck.open(path, read_only=True) + one_pass(duck, statements)

    return {name: partial(run, path) for name, path in files.items()}


def read_hot(bench: Bench, files: dict[str, Path], statements: list[str]) -> Samples:
    """Further passes by processes that stay; they take turns."""
    with ExitStack() as stack:
        subjects = {}
        for name, path in files.items():
            duck = stack.enter_context(bench.duck())
            duck.open(path, read_only=True)
            duck.run(*statements)
            subjects[name] = partial(one_pass, duck, statements)
        return alternate(subjects, bench.settings.rounds * HOT_TURNS)


def one_pass(duck: Duck, statements: list[str]) -> float:
    return sum(duck.run(*statements))
