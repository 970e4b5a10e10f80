"""Many rows, down and up, and few rows out of many."""

import statistics

from attachbench import clients
from attachbench.relay import Relay
from execbench.baselines import flight, quack
from execbench.bench import Bench
from fsbench.report import Row
from fsbench.rounds import alternate, ratio

KEYS = 100
AGAIN = 5


def measure_down(bench: Bench) -> None:
    """A remote table becomes a local one."""
    bench.report.heading("CREATE TEMP TABLE x AS FROM cloud.lineitem")
    orders = {"run": "CREATE OR REPLACE TEMP TABLE x AS FROM cloud.lineitem", "count": 1}
    by_flight = {"run": "CREATE OR REPLACE TEMP TABLE x AS FROM {flight}", "count": 1}
    with bench.serve() as served, quack(bench) as other, flight(bench) as flying:
        samples = alternate(
            {
                "openduck": lambda: clients.openduck(bench, served, orders)["seconds"][0],
                "quack": lambda: clients.quack(bench, other, orders)["seconds"][0],
                "flight": lambda: clients.flight(flying, by_flight)["seconds"][0],
            },
            bench.settings.rounds,
        )
    for name, bar in (("quack", 0.5), ("flight", 1.0)):
        found = ratio(samples["openduck"], samples[name])
        note = f"{statistics.median(samples['openduck']):.2f} s; {statistics.median(samples[name]):.2f} s"
        what = f"time over {name.capitalize()}'s"
        bench.report.add(Row(what, found.middle, "x", found.least, found.most, bar, note, samples))


def measure_up(bench: Bench) -> None:
    """A local table becomes a remote one; at the server, one of its own becomes another."""
    bench.report.heading("CREATE TABLE cloud.copy AS FROM a local lineitem")
    prepare = [f"ATTACH '{bench.tpch.path}' AS mine (READ_ONLY)"]
    run = "CREATE OR REPLACE TABLE cloud.copy AS FROM mine.lineitem"
    orders = {"prepare": prepare, "run": run, "count": 1}
    own = "CREATE OR REPLACE TABLE copy AS FROM lineitem"
    with bench.serve() as served:
        samples = alternate(
            {
                "openduck": lambda: clients.openduck(bench, served, orders)["seconds"][0],
                "server": lambda: clients.command(bench, served, own),
            },
            bench.settings.rounds,
        )
    found = ratio(samples["openduck"], samples["server"])
    note = f"{statistics.median(samples['openduck']):.2f} s; {statistics.median(samples['server']):.2f} s"
    bench.report.add(
        Row("time over the server's own", found.middle, "x", found.least, found.most, 1.5, note, samples)
    )


def measure_join(bench: Bench) -> None:
    """A few local keys find their rows in a large remote table."""
    bench.report.heading(f"a join of {KEYS} local keys with remote lineitem")
    prepare = [
        f"ATTACH '{bench.tpch.path}' AS mine (READ_ONLY)",
        "CREATE TABLE memory.keys AS SELECT l_orderkey AS k FROM mine.lineitem GROUP BY l_orderkey "
        f"ORDER BY hash(l_orderkey) LIMIT {KEYS}",
    ]
    join = "SELECT l.* FROM {}.lineitem AS l JOIN memory.keys ON l_orderkey = k"
    [[rows_bytes]] = clients.arrow({"prepare": prepare, "run": join.format("mine"), "count": 1})["rows"]
    with bench.serve() as served:

        def crossed(count: int) -> tuple[int, list[float]]:
            with Relay(served.port).running() as relay:
                orders = {"prepare": prepare, "run": join.format("cloud"), "count": count}
                seconds = clients.openduck(bench, served, orders, port=relay.port)["seconds"]
                return relay.up_bytes + relay.down_bytes, seconds

        # Connecting and the catalog are in both.
        once, _ = crossed(1)
        often, seconds = crossed(1 + AGAIN)
    moved = (often - once) / AGAIN
    note = f"{moved / 1024:,.0f} KiB; the rows as Arrow have {rows_bytes / 1024:,.0f}"
    note += f"; {statistics.median(seconds) * 1e3:.0f} ms"
    bench.report.add(Row("bytes moved over the matching rows'", moved / rows_bytes, "x", bar=2.0, note=note))
