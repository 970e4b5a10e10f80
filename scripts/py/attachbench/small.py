"""Small statements, aggregates that run at the server, and attaching."""

import statistics

from attachbench import clients
from execbench.baselines import quack
from execbench.bench import Bench
from fsbench.report import Row, in_milliseconds
from fsbench.rounds import alternate, percentile, ratio

SMALL = "SELECT n_name FROM cloud.nation WHERE n_nationkey = 7"
AGGREGATE = """
SELECT l_returnflag, l_linestatus, sum(l_quantity), sum(l_extendedprice * (1 - l_discount)), count(*)
FROM {}.lineitem WHERE l_shipdate <= DATE '1998-09-02' GROUP BY ALL ORDER BY ALL
"""
TABLES = 1000


def measure_small(bench: Bench) -> None:
    bench.report.heading("a small query, a warm connection")
    orders = {"run": SMALL, "count": bench.settings.small, "warm": 20}
    with bench.serve() as served, quack(bench) as other:
        ours = clients.openduck(bench, served, orders)["seconds"]
        theirs = clients.quack(bench, other, orders)["seconds"]
    mine, quacks = statistics.median(ours) * 1e3, statistics.median(theirs) * 1e3
    note = f"{mine:.2f} ms, p99 {percentile(ours, 99) * 1e3:.2f}; Quack {quacks:.2f} ms"
    bench.report.add(Row("p50 over Quack's", mine / quacks, "x", bar=1.0, note=note))


def measure_inserts(bench: Bench) -> None:
    bench.report.heading("single-row INSERT transactions")
    orders = {
        "prepare": ["CREATE OR REPLACE TABLE cloud.single (i BIGINT)"],
        "run": "INSERT INTO cloud.single VALUES (1)",
        "seconds": bench.settings.seconds,
        "warm": 20,
    }
    with bench.serve() as served, quack(bench) as other:
        theirs = 1 / statistics.mean(clients.quack(bench, other, orders)["seconds"])
        ours = 1 / statistics.mean(clients.openduck(bench, served, orders)["seconds"])
    note = f"{ours:,.0f} a second; Quack {theirs:,.0f}"
    bench.report.add(Row("rate over Quack's", ours / theirs, "x", bar=1.0, note=note, is_floor=True))


def measure_aggregate(bench: Bench) -> None:
    """Against the same statement in a DuckDB of its own over the plain file, both warm."""
    bench.report.heading("an aggregate over remote lineitem")
    remote = {"run": AGGREGATE.format("cloud"), "count": 5, "warm": 1}
    prepare = [f"ATTACH '{bench.tpch.path}' AS mine (READ_ONLY)"]
    local = {**remote, "prepare": prepare, "run": AGGREGATE.format("mine")}
    with bench.serve() as served:
        samples = alternate(
            {
                "openduck": lambda: statistics.median(clients.openduck(bench, served, remote)["seconds"]),
                "local": lambda: statistics.median(clients.plain(local)["seconds"]),
            },
            bench.settings.rounds,
        )
    found = ratio(samples["openduck"], samples["local"])
    note = f"{statistics.median(samples['openduck']) * 1e3:.0f} ms; "
    note += f"in process {statistics.median(samples['local']) * 1e3:.0f} ms"
    bench.report.add(
        Row("time over DuckDB's own", found.middle, "x", found.least, found.most, 1.1, note, samples)
    )


def measure_attach(bench: Bench) -> None:
    bench.report.heading(f"ATTACH of a database with {TABLES:,} tables")
    with bench.serve() as served:
        prepare = [f"CREATE TABLE cloud.many_{number} (i BIGINT, s VARCHAR)" for number in range(TABLES)]
        clients.openduck(
            bench, served, {"prepare": ["BEGIN", *prepare, "COMMIT"], "run": "SELECT 1", "count": 1}
        )
        orders = {"run": "ATTACH", "count": 1}
        seconds = [
            clients.openduck(bench, served, orders, "attach")["seconds"][0]
            for _ in range(3 * bench.settings.rounds)
        ]
    bench.report.add(in_milliseconds("ATTACH, a new process each", seconds, 50e-3))
