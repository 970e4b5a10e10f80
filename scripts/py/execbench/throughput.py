"""Draining a large result: against Flight, and with and without the gateway."""

import statistics

from execbench.baselines import flight
from execbench.bench import Bench, peak_memory
from fsbench.report import MIB, Row
from fsbench.rounds import alternate, ratio

SQL = "SELECT * FROM lineitem"
# A worker's bytes in flight, its share of DuckDB's memory for a scan, and the process itself.
MEMORY_BAR_MIB = 2048.0


def measure(bench: Bench) -> None:
    bench.report.heading(f"draining {SQL!r}, SF{bench.settings.scale_factor:g}")
    with bench.serve() as served, flight(bench) as baseline:
        rows = bench.client(served, "drain", SQL)["rows"]
        samples = alternate(
            {
                "flight": lambda: baseline.ask("drain", SQL)["seconds"],
                "openduck": lambda: bench.client(served, "drain", SQL)["seconds"],
            },
            bench.settings.rounds,
        )
    found = ratio(samples["flight"], samples["openduck"])
    rate = rows / statistics.median(samples["openduck"]) / 1e6
    other = rows / statistics.median(samples["flight"]) / 1e6
    note = f"{rate:.2f} M rows/s; Flight {other:.2f}"
    bench.report.add(
        Row("throughput over Flight's", found.middle, "x", found.least, found.most, 1.5, note, samples, True)
    )
    hop(bench)


def hop(bench: Bench) -> None:
    """The same client with the gateway between, and straight to the worker."""
    with bench.worker() as worker:
        straight = [bench.client(worker, "drain", SQL)["seconds"] for _ in range(bench.settings.rounds + 1)][
            1:
        ]
        quick = bench.client(worker, "small", "SELECT 42", "--count", str(bench.settings.small))["seconds"]
    with bench.serve() as served:
        through = [bench.client(served, "drain", SQL)["seconds"] for _ in range(bench.settings.rounds + 1)][
            1:
        ]
        slower = bench.client(served, "small", "SELECT 42", "--count", str(bench.settings.small))["seconds"]
    found = ratio(through, straight)
    bench.report.add(
        Row(
            "the gateway's hop, throughput",
            found.middle,
            "x",
            found.least,
            found.most,
            1.10,
            "time with it / without",
        )
    )
    more = (statistics.median(slower) - statistics.median(quick)) * 1e3
    bench.report.add(Row("the gateway's hop, small query", more, "ms", bar=0.2, note="p50 with it - without"))


def measure_slow_reader(bench: Bench) -> None:
    """A result far larger than memory's share, read slowly."""
    size = bench.settings.large_gb
    rows = int(size * 1e9 / 108)
    bench.report.heading(f"a slow reader of {size:g} GB")
    with bench.serve() as served:
        sql = f"SELECT i, repeat('x', 100) AS s FROM range({rows}) r(i)"
        bench.client(served, "drain", sql, "--bytes-per-s", str(int(size * 1e9 / 20)), "--streams", "1")
        most = peak_memory(served.process.pid) / MIB
    bench.report.add(
        Row("server memory", most, "MiB", bar=MEMORY_BAR_MIB, note="gateway, worker and mount together")
    )
