"""Many rows, down and up, and few rows out of many."""

import statistics
from typing import Any

from attachbench import clients
from attachbench.relay import Relay
from execbench.baselines import flight, quack
from execbench.bench import Bench
from fsbench.report import MIB, Row
from fsbench.rounds import alternate, ratio

KEYS = 100


def measure_down(bench: Bench) -> None:
    """A remote table becomes a local one."""
    bench.report.heading("CREATE TEMP TABLE x AS FROM cloud.lineitem")
    orders = {"run": "CREATE OR REPLACE TEMP TABLE x AS FROM cloud.lineitem", "count": 1}
    by_flight = {"run": "CREATE OR REPLACE TEMP TABLE x AS FROM {flight}", "count": 1}
    with bench.serve() as served, quack(bench) as other, flight(bench) as flying:
        samples = alternate(
            {
                "openduck": lambda: clients.openduck(bench, served, **orders)["seconds"][0],
                "quack": lambda: clients.quack(bench, other, **orders)["seconds"][0],
                "flight": lambda: clients.flight(flying, **by_flight)["seconds"][0],
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
    orders = {"prepare": prepare, "run": "CREATE OR REPLACE TABLE cloud.copy AS FROM mine.lineitem"}
    own = "CREATE OR REPLACE TABLE copy AS FROM lineitem"
    with bench.serve() as served:
        samples = alternate(
            {
                "openduck": lambda: clients.openduck(bench, served, **orders, count=1)["seconds"][0],
                "server": lambda: bench.client(served, "small", own, "--count", "1")["seconds"][-1],
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
    # Keys from all over the table; each order has some four lines.
    keys = f"SELECT DISTINCT l_orderkey AS k FROM {{}} WHERE hash(l_orderkey) % 1000 = 1 LIMIT {KEYS}"
    source = f"(SELECT unnest(range({KEYS})) * 59999 // {KEYS} * 32 + 1 AS k)"
    del keys
    prepare = [
        f"ATTACH '{bench.tpch.path}' AS mine (READ_ONLY)",
        f"CREATE TABLE memory.keys AS SELECT DISTINCT l_orderkey AS k FROM mine.lineitem SEMI JOIN {source} "
        f"AS s ON l_orderkey = s.k",
    ]
    del source
    raise NotImplementedError(prepare, Relay, MIB, Any)
