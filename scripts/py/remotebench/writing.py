"""Writing: what uploads cost a writer that does not wait for them, and what waiting for them costs."""

import itertools
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

from fsbench.load import load
from fsbench.machine import settle
from fsbench.report import Row
from fsbench.rounds import alternate, ratio
from harness.duck import Duck
from harness.workplace import Workplace
from remotebench.bench import LOCAL, REMOTE, Bench, Store
from servers.processes import LOOPBACK, ServerFailed

THROUGHPUT_BAR = 0.9
REMOTE_COMMIT_BAR = 2.5
# Committers at once share uploads: fewer than one for two commits.
PUTS_PER_COMMIT_BAR = 0.5
COMMITTERS = 8
INSERT = "INSERT INTO t VALUES (?, 'a small note')"


def measure_throughput(bench: Bench) -> None:
    """The same work in a mount with uploads beside it, and in one of a home without a store."""
    settings = bench.settings
    bench.report.heading(f"--durability local, uploads running: load of {settings.load_rows:,} rows, commits")
    local, remote = bench.new_local_home(), bench.new_store().new_host().place
    numbers = itertools.count()

    def load_in(place: Workplace, flags: tuple[str, ...]) -> float:
        name = f"load{next(numbers)}"
        mount = place.mount(name, *flags)
        seconds = load(bench.duck(), mount.file, settings.load_rows)
        bench.umount("loading", place, mount)
        place.fs("remove", name)
        return seconds

    samples = alternate(
        {"none": partial(load_in, local, ()), "uploads": partial(load_in, remote, LOCAL)}, settings.rounds
    )
    bench.report.add(throughput("load, against no uploads", samples["uploads"], samples["none"]))
    mounts = {"none": local.mount("commits"), "uploads": remote.mount("commits", *LOCAL)}
    with bench.duck() as plain, bench.duck() as mounted:
        ducks = {"none": plain, "uploads": mounted}
        for name, duck in ducks.items():
            duck.open(mounts[name].file)
            duck.run("CREATE TABLE t (id BIGINT, note VARCHAR)", "CHECKPOINT")
        samples = alternate(
            {name: inserts(duck, settings.commits) for name, duck in ducks.items()}, settings.rounds * 2
        )
        for duck in ducks.values():
            duck.close()
    bench.umount("committing", local, mounts["none"])
    bench.umount("committing", remote, mounts["uploads"])
    bench.report.add(throughput("commits, against no uploads", samples["uploads"], samples["none"]))


def throughput(what: str, subject: list[float], baseline: list[float]) -> Row:
    """Work per second against the other's; both did the same work."""
    found = ratio(baseline, subject)
    note = f"{statistics.median(baseline):.3g} s without, {statistics.median(subject):.3g} s with"
    samples = {"without_s": baseline, "with_s": subject}
    return Row(what, found.middle, "x", found.least, found.most, THROUGHPUT_BAR, note, samples, is_floor=True)


def inserts(duck: Duck, commits: int) -> Callable[[], float]:
    def round_of_inserts() -> float:
        settle()
        return sum(duck.insert_each(INSERT, range(commits)))

    return round_of_inserts


def measure_remote_commits(bench: Bench) -> None:
    """One committer, then several at once, against the store's own PUT over the same line."""
    settings = bench.settings
    bench.report.heading(f"--durability remote, {settings.commit_round_trip_s * 1e3:.0f} ms to the store")
    store = bench.new_store()
    host = store.new_host()
    mount = host.place.mount("commits", *REMOTE)
    with bench.duck() as duck:
        duck.open(mount.file)
        duck.run("CREATE TABLE t (id BIGINT, note VARCHAR)", "CHECKPOINT")
        host.objects.shape(round_trip_s=settings.commit_round_trip_s)
        put = putter(store, host.objects.port)
        put()
        commits = max(20, settings.commits // 10)
        samples = alternate(
            {
                "put": lambda: statistics.median(put() for _ in range(20)),
                "commit": lambda: statistics.median(duck.insert_each(INSERT, range(commits))),
            },
            settings.rounds,
        )
        found = ratio(samples["commit"], samples["put"])
        note = f"PUT {statistics.median(samples['put']) * 1e3:.1f} ms, "
        note += f"commit {statistics.median(samples['commit']) * 1e3:.1f} ms"
        bench.report.add(
            Row(
                "single-row commit: p50 against a PUT",
                *(found.middle, "x", found.least, found.most, REMOTE_COMMIT_BAR, note, samples),
            )
        )
        duck.close()
    host.objects.reset_counts()
    each = sync_at_once(mount.directory, commits)
    puts = host.counts().methods.get("PUT", 0)
    host.objects.shape()
    bench.umount("committing remotely", host.place, mount)
    bench.report.add(
        Row(f"PUTs per commit, {COMMITTERS} committers", puts / len(each), "", bar=PUTS_PER_COMMIT_BAR),
        Row(f"a commit among {COMMITTERS} committers: p50", statistics.median(each) * 1e3, "ms"),
    )


def sync_at_once(directory: Path, times: int) -> list[float]:
    """Several threads, each of which writes to a file of its own in the mount and syncs it, again and again;
    the seconds of each sync. Not several connections of one DuckDB: it syncs one commit after the other."""

    def write_and_sync(number: int) -> list[float]:
        seconds = []
        with (directory / f"committer-{number}").open("wb", buffering=0) as file:
            for _ in range(times):
                file.write(bytes(100))
                started = time.perf_counter()
                os.fdatasync(file)
                seconds.append(time.perf_counter() - started)
        return seconds

    with ThreadPoolExecutor(COMMITTERS) as pool:
        return [seconds for each in pool.map(write_and_sync, range(COMMITTERS)) for seconds in each]


def putter(store: Store, port: int) -> Callable[[], float]:
    """Puts 4 KiB over a line, by a plain request on a connection that stays; the seconds it took.

    Not by boto3, which asks first whether it may send the body: a round trip more than a PUT needs."""
    url = urlsplit(store.bucket.upload_url("probe"))
    connection = HTTPConnection(LOOPBACK, port)

    def put() -> float:
        started = time.perf_counter()
        # Signed for the server's own address, whichever way it is reached.
        connection.request("PUT", f"{url.path}?{url.query}", bytes(4096), {"Host": url.netloc})
        answer = connection.getresponse()
        said = answer.read()
        if answer.status != 200:
            raise ServerFailed(f"the store refused a PUT: {answer.status} {said!r}")
        return time.perf_counter() - started

    return put
