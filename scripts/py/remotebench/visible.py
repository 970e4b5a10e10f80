"""From a commit on one host to the first reader on another that sees it."""

import random

from fsbench.report import Row, in_milliseconds
from fsbench.rounds import percentile
from fsbench.visible import delays
from remotebench.bench import LAG_S, LOCAL, Bench

BAR_S = LAG_S + 1.0
TIMEOUT_S = 300.0


def measure(bench: Bench) -> None:
    """One writer, one follower elsewhere, commits at random times."""
    commits = bench.settings.visible_commits
    bench.report.heading(f"commit to visible on another host: {commits:,} commits, lag {LAG_S:g} s")
    store = bench.new_store()
    alpha, beta = store.new_host(), store.new_host()
    mount = alpha.place.mount("visible", *LOCAL)
    with bench.duck() as writer, bench.duck() as reader:
        writer.open(mount.file)
        writer.run("CREATE TABLE t (id BIGINT)", "CHECKPOINT")
        alpha.place.fs("snapshot", "visible", "begun")
        follow = beta.place.mount("visible", "--follow")
        chance = random.Random(1)
        pauses = [chance.uniform(0.02, 0.3) for _ in range(commits)]
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
    bench.umount("following", beta.place, follow)
    bench.umount("committing", alpha.place, mount)
    began, _ = delays(acknowledged, seen)
    bench.report.add(
        in_milliseconds("next open elsewhere sees it: p50", began, None),
        Row("next open elsewhere sees it: p99", percentile(began, 99) * 1e3, "ms", bar=BAR_S * 1e3),
    )
