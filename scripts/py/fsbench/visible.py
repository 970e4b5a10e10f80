"""From a commit to the first reader that sees it, through a follow mount of the same host.

A reader process opens the database over and over. A commit's time is from its acknowledgement to
the beginning of the first opening that saw it: nothing if an opening had begun before, and up to
one opening's length even where commits are visible at once.
"""

import random
import statistics

from fsbench.bench import Bench
from fsbench.report import Row, in_milliseconds
from fsbench.rounds import percentile

MEDIAN_BAR_S = 0.020
P99_BAR_S = 0.100
TIMEOUT_S = 300.0


def measure(bench: Bench) -> None:
    """One writer, one reader, commits at random times."""
    commits = bench.settings.visible_commits
    bench.report.heading(f"commit to visible on a follow mount: {commits:,} commits")
    mount = bench.place.mount("visible")
    with bench.duck() as writer, bench.duck() as reader:
        writer.open(mount.file)
        writer.run("CREATE TABLE t (id BIGINT)", "CHECKPOINT")
        follow = bench.place.mount("visible", "--follow")
        chance = random.Random(1)
        pauses = [chance.uniform(0.02, 0.06) for _ in range(commits)]
        reader.send(
            "watch",
            path=str(follow.file),
            statement="SELECT coalesce(max(id), 0) FROM t",
            until=commits,
            timeout_s=TIMEOUT_S,
        )
        acknowledged = writer.ask("insert_paced", statement="INSERT INTO t VALUES (?)", pauses=pauses)
        seen = reader.receive()
        writer.close()
    bench.place.umount(follow)
    bench.place.umount(mount)
    began, answered = delays(acknowledged, seen)
    opening = statistics.median(done - start for _, start, done in seen)
    bench.report.add(
        in_milliseconds(
            "next open sees it: p50", began, MEDIAN_BAR_S, f"an opening takes {opening * 1e3:.1f} ms"
        ),
        Row("next open sees it: p99", percentile(began, 99) * 1e3, "ms", bar=P99_BAR_S * 1e3),
        Row("and has its answer: p50", statistics.median(answered) * 1e3, "ms"),
    )


def delays(acknowledged: list[float], seen: list[list[float]]) -> tuple[list[float], list[float]]:
    """For each commit: until the first opening that saw it began, and until it had its answer."""
    began, answered = [], []
    openings = iter(seen)
    number, start, done = next(openings)
    for commit, at in enumerate(acknowledged, start=1):
        while number < commit:
            number, start, done = next(openings)
        began.append(max(0.0, start - at))
        answered.append(max(0.0, done - at))
    return began, answered
