"""Single-row commits: each INSERT its own transaction."""

import statistics
from collections.abc import Callable

from fsbench.bench import Bench
from fsbench.machine import settle
from fsbench.report import Row, against_plain
from fsbench.rounds import alternate
from harness.duck import Duck

BAR = 1.15
# Many short rounds instead of a few long ones, so that what else the disk does meets both alike.
TURNS = 4


def measure(bench: Bench) -> None:
    """Two processes with their databases open, taking turns."""
    commits = bench.settings.commits
    bench.report.heading(f"single-row commits: {commits:,} a round")
    mount = bench.place.mount("commits")
    each: dict[str, list[float]] = {"plain": [], "mounted": []}
    with bench.duck() as plain, bench.duck() as mounted:
        plain.open(bench.plain("commits.duckdb"))
        mounted.open(mount.file)
        for duck in (plain, mounted):
            duck.run("CREATE TABLE t (id BIGINT, note VARCHAR)", "CHECKPOINT")
        subjects = {
            "plain": inserts(plain, commits, each["plain"]),
            "mounted": inserts(mounted, commits, each["mounted"]),
        }
        samples = alternate(subjects, bench.settings.rounds * TURNS)
        plain.close()
        mounted.close()
    bench.place.umount(mount)
    bench.plain("commits.duckdb").unlink()
    bench.report.add(against_plain("single-row commits", samples["mounted"], samples["plain"], BAR))
    for name, seconds in each.items():
        rate = f"{len(seconds) / sum(seconds):,.0f} commits/s"
        bench.report.add(
            Row(f"one commit, {name}: median", statistics.median(seconds) * 1e3, "ms", note=rate)
        )


def inserts(duck: Duck, commits: int, each: list[float]) -> Callable[[], float]:
    """One round: as many commits, and the seconds of all of them."""

    def round_of_inserts() -> float:
        settle()
        seconds = duck.insert_each("INSERT INTO t VALUES (?, 'a small note')", range(commits))
        each.extend(seconds)
        return sum(seconds)

    return round_of_inserts
