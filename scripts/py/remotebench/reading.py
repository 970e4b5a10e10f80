"""Reading from afar: the first query on a cold host, a cold scan at the line's speed, and the second scan.

The database has a table of twenty columns of noise, so that a column is a twentieth of the bytes
and nothing is made smaller on its way. A host is cold when it never saw the store.
"""

import shutil
import statistics
import time
from pathlib import Path

from fsbench.machine import can_drop_caches, drop_caches, settle
from fsbench.report import Row, against_plain
from fsbench.rounds import alternate
from harness.workplace import Mount
from remotebench.bench import Bench, Host, Store

COLUMNS = 20
FETCHED_BAR = 1.3
ROUND_TRIPS_BAR = 5.0
LINK_BAR = 0.7
SECOND_SCAN_BAR = 1.15
# Long, so that what is not waiting for the store does not count.
LONG_ROUND_TRIP_S = 0.2
ONE_COLUMN = "SELECT sum(c7) FROM wide"
FIRST_ROW = "SELECT c7 FROM wide LIMIT 1"
SCAN = f"SELECT {', '.join(f'sum(c{number})' for number in range(COLUMNS))} FROM wide"


def measure(bench: Bench) -> None:
    """All of it, over one database."""
    settings = bench.settings
    bench.report.heading(f"reading {settings.wide_gb:g} GB of {COLUMNS} columns from afar")
    store = bench.new_store()
    plain = bench.place.directory / "wide.duckdb"
    make_wide(bench, plain, round(settings.wide_gb * 1e9 / COLUMNS / 8))
    writer = store.new_host().place
    writer.fs("import", str(plain), "wide", timeout_s=1800)
    one_column(bench, store, plain)
    first_row(bench, store)
    scans(bench, store, plain)
    plain.unlink()


def make_wide(bench: Bench, path: Path, rows: int) -> None:
    columns = ", ".join(f"random() AS c{number}" for number in range(COLUMNS))
    with bench.duck() as duck:
        duck.open(path)
        duck.run(f"CREATE TABLE wide AS SELECT {columns} FROM range({rows})", "CHECKPOINT")
        duck.close()


def one_column(bench: Bench, store: Store, plain: Path) -> None:
    """What a cold host fetches for one column, against what DuckDB reads for it."""
    _, needed = run_query(bench, plain, ONE_COLUMN)
    shares = []
    for _ in range(bench.settings.rounds):
        host, mount = cold_mount(bench, store)
        host.objects.reset_counts()
        _, read = run_query(bench, mount.file, ONE_COLUMN)
        shares.append(host.counts().bytes_down / needed)
        bench.umount("reading cold", host.place, mount)
        forget(host)
    note = f"DuckDB reads {needed / 1e6:.1f} MB of a plain file, {read / 1e6:.1f} MB of the mount"
    middle, most = statistics.median(shares), max(shares)
    bench.report.add(
        Row("one column, cold: fetched of what it reads", middle, "x", min(shares), most, FETCHED_BAR, note)
    )


def first_row(bench: Bench, store: Store) -> None:
    """How many times the line's length the first row of a cold mount takes."""
    trips = []
    for _ in range(bench.settings.rounds):
        host, mount = cold_mount(bench, store)
        with bench.duck() as duck:
            # Once on nothing, so that only the store is waited for.
            duck.open(Path(":memory:"))
            duck.close()
            host.objects.shape(round_trip_s=LONG_ROUND_TRIP_S)
            host.objects.reset_counts()
            started = time.perf_counter()
            duck.open(mount.file, read_only=True)
            duck.run(FIRST_ROW)
            trips.append((time.perf_counter() - started) / LONG_ROUND_TRIP_S)
            note = f"the proxy counts {host.counts().round_trips} one behind the other"
        host.objects.shape()
        bench.umount("reading cold", host.place, mount)
        forget(host)
    bench.report.add(
        Row(
            "first row, cold: round trips",
            *(statistics.median(trips), "", min(trips), max(trips), ROUND_TRIPS_BAR, note),
        )
    )


def scans(bench: Bench, store: Store, plain: Path) -> None:
    """The first scan against the line, the second one against a home without a store."""
    settings = bench.settings
    shares = []
    for number in range(settings.rounds):
        host, mount = cold_mount(bench, store)
        host.objects.shape(round_trip_s=settings.scan_round_trip_s, bytes_per_s=settings.bytes_per_s)
        host.objects.reset_counts()
        seconds, _ = run_query(bench, mount.file, SCAN)
        shares.append(host.counts().bytes_down / seconds / settings.bytes_per_s)
        host.objects.shape()
        if number + 1 < settings.rounds:
            bench.umount("scanning cold", host.place, mount)
            forget(host)
    note = f"{settings.scan_round_trip_s * 1e3:.0f} ms, {settings.bytes_per_s / 125e6:g} Gbit/s"
    bench.report.add(
        Row(
            "full scan, cold: share of the line",
            *(statistics.median(shares), "x", min(shares), max(shares), LINK_BAR, note),
            is_floor=True,
        )
    )
    local = bench.new_local_home()
    local.fs("import", str(plain), "wide", timeout_s=1800)
    beside = local.mount("wide@latest")
    prepare = drop_caches if can_drop_caches() else settle

    def scan(file: Path) -> float:
        prepare()
        return run_query(bench, file, SCAN)[0]

    host.objects.reset_counts()
    subjects = {"local": lambda: scan(beside.file), "cached": lambda: scan(mount.file)}
    samples = alternate(subjects, settings.rounds)
    bench.report.add(
        against_plain("second scan, against local", samples["cached"], samples["local"], SECOND_SCAN_BAR),
        Row("fetched again by second scans", host.objects.counts().bytes_down / 1e6, "MB"),
    )
    bench.umount("scanning local", local, beside)
    bench.umount("scanning cold", host.place, mount)


def cold_mount(bench: Bench, store: Store) -> tuple[Host, Mount]:
    host = store.new_host()
    return host, host.place.mount("wide@latest")


def forget(host: Host) -> None:
    """A machine that is not needed any more gives its disk back."""
    shutil.rmtree(host.place.home, ignore_errors=True)


def run_query(bench: Bench, file: Path, query: str) -> tuple[float, int]:
    """Opens and asks in a new process: the seconds, and the bytes that DuckDB read."""
    with bench.duck() as duck:
        before: int = duck.ask("bytes_read")
        started = time.perf_counter()
        duck.open(file, read_only=True)
        duck.run(query)
        seconds = time.perf_counter() - started
        after: int = duck.ask("bytes_read")
    return seconds, after - before
