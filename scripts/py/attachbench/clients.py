"""Starting the clients that are measured."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from execbench.baselines import Baseline
from execbench.bench import Backend, Bench

TIMED = Path(__file__).with_name("timed.py")
TIMEOUT_S = 1800
# What timed.py is told.
Orders = dict[str, Any]


def openduck(
    bench: Bench, served: Backend, orders: Orders, kind: str = "openduck", port: int | None = None
) -> dict[str, Any]:
    """DuckDB with the extension, attached to `served`, or to what stands before it at `port`."""
    return timed(
        sys.executable,
        kind,
        orders,
        BENCH_ENDPOINT=f"http://127.0.0.1:{port or served.port}",
        BENCH_TOKEN=bench.token,
        BENCH_DATABASE=bench.database,
    )


def command(bench: Bench, served: Backend, sql: str) -> float:
    """`openduck query`, for statements that take seconds; how many it took."""
    begin = time.perf_counter()
    done = subprocess.run(
        [os.environ["OPENDUCK"], "query", sql, "-d", bench.database],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "OPENDUCK_ENDPOINT": f"http://{served.address}",
            "OPENDUCK_TOKEN": bench.token,
        },
        timeout=TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{sql}: {done.stderr.strip()}")
    return time.perf_counter() - begin


def quack(bench: Bench, baseline: Baseline, orders: Orders) -> dict[str, Any]:
    """DuckDB with Quack, attached."""
    python = os.environ["OPENDUCK_TPCH_PYTHON"]
    return timed(python, "quack", orders, BENCH_PORT=str(baseline.port), QUACK_TOKEN=bench.token)


def flight(baseline: Baseline, orders: Orders) -> dict[str, Any]:
    """DuckDB that reads from a Flight client."""
    return timed(sys.executable, "flight", orders, BENCH_PORT=str(baseline.port))


def plain(orders: Orders) -> dict[str, Any]:
    """DuckDB alone."""
    return timed(sys.executable, "plain", orders)


def arrow(orders: Orders) -> dict[str, Any]:
    """DuckDB alone; its rows are one number: the bytes of the result as Arrow."""
    return timed(sys.executable, "arrow", orders)


def timed(python: str, kind: str, orders: Orders, **environment: str) -> dict[str, Any]:
    done = subprocess.run(
        [python, "-B", TIMED, kind],
        input=json.dumps(orders),
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{kind}: {orders['run']}: {done.stderr.strip()}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found
