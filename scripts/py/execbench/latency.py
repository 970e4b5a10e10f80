"""Small statements: against DuckDB in process, and Quack; many clients; freshness."""

import statistics

from execbench.baselines import quack
from execbench.bench import Bench
from fsbench.report import Row
from fsbench.rounds import percentile

SQL = "SELECT 42"
LARGE = "SELECT l_orderkey, l_comment FROM lineitem"
IN_PROCESS = """
import json, sys, time, duckdb
connection = duckdb.connect(sys.argv[1], read_only=True)
seconds = []
for _ in range(int(sys.argv[2])):
    begin = time.perf_counter()
    connection.execute(sys.argv[3]).fetchall()
    seconds.append(time.perf_counter() - begin)
print(json.dumps(seconds))
"""


def measure_small(bench: Bench) -> None:
    import json
    import subprocess
    import sys

    bench.report.heading(f"{SQL!r}, a warm session")
    count = str(bench.settings.small)
    done = subprocess.run(
        [sys.executable, "-c", IN_PROCESS, str(bench.tpch.path), count, SQL],
        capture_output=True,
        text=True,
        check=True,
    )
    inside = statistics.median(json.loads(done.stdout)) * 1e3
    with bench.serve() as served, quack(bench) as other:
        ours = [bench.client(served, "small", SQL, "--count", count)["seconds"] for _ in range(3)]
        theirs = other.ask("small", count, SQL)["seconds"]
    mine = statistics.median([second for each in ours for second in each]) * 1e3
    bench.report.add(
        Row(
            "p50 above DuckDB in process",
            mine - inside,
            "ms",
            bar=0.5,
            note=f"{mine:.3f} ms; in process {inside:.3f}",
        )
    )
    quacks = statistics.median(theirs) * 1e3
    bench.report.add(Row("p50 over Quack's", mine / quacks, "x", bar=1.0, note=f"Quack {quacks:.3f} ms"))


def measure_mixed(bench: Bench) -> None:
    bench.report.heading("64 clients, one in eight with large results")
    with bench.serve() as served:
        found = bench.client(
            served, "mixed", "SELECT count(*) FROM nation", LARGE, "--seconds", str(bench.settings.seconds)
        )
    small = found["small_s"]
    p50, p99 = percentile(small, 50) * 1e3, percentile(small, 99) * 1e3
    note = f"p50 {p50:.1f} ms, p99 {p99:.1f} ms of {len(small)}; {len(found['large_s'])} large ones"
    bench.report.add(Row("small queries' p99 over their p50", p99 / p50, "x", bar=10.0, note=note))


def measure_inserts(bench: Bench) -> None:
    bench.report.heading("single-row INSERT transactions")
    seconds = str(bench.settings.seconds)
    make, insert = "CREATE OR REPLACE TABLE single (i BIGINT)", "INSERT INTO single VALUES (1)"
    with bench.serve() as served, quack(bench, make) as other:
        bench.client(served, "small", make, "--count", "1")
        for clients in ("1", "8"):
            theirs = other.ask("repeat", clients, seconds, insert)["per_s"]
            ours = bench.client(served, "repeat", insert, "--clients", clients, "--seconds", seconds)["per_s"]
            note = f"{ours:,.0f} a second; Quack {theirs:,.0f}"
            bench.report.add(
                Row(
                    f"{clients} client(s), over Quack's",
                    ours / theirs,
                    "x",
                    bar=1.0,
                    note=note,
                    is_floor=True,
                )
            )


def measure_fresh(bench: Bench) -> None:
    bench.report.heading("a read after a write")
    with bench.serve() as served:
        bench.client(served, "small", "CREATE OR REPLACE TABLE fresh (i BIGINT)", "--count", "1")
        found = bench.client(
            served, "fresh", "INSERT INTO fresh VALUES (1)", "SELECT count(*) FROM fresh", "--count", "200"
        )
    for what, key in (("in the session", "inside_s"), ("elsewhere, by its LSN", "outside_s")):
        p99 = percentile(found[key], 99) * 1e3
        bench.report.add(Row(f"seen {what}, p99", p99, "ms", bar=50.0))
