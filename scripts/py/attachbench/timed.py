"""Clients that are measured, each a process: DuckDB with something attached as `cloud`, or nothing.

`python timed.py KIND`, where KIND is openduck, attach, quack, flight, plain or arrow; the environment says
where the server is and as whom, and stdin what to do, as JSON:

{"prepare": [SQL, …], "run": SQL, "count": N, "seconds": S, "warm": N, "cleanup": SQL}

It runs SQL `warm` times unmeasured, then N times, or for S seconds, and prints the seconds of each, and the
rows of the last. `cleanup` follows each run, unmeasured. For `attach` the measured thing is the ATTACH.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb

Row = tuple[Any, ...]


def openduck() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(config={"allow_unsigned_extensions": "true"})
    directory = Path(os.environ["OPENDUCK_EXTENSION_DIR"])
    connection.load_extension(str(directory / "openduck.duckdb_extension"))
    return connection


def attach(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute(
        "ATTACH $path AS cloud (ENDPOINT $endpoint, TOKEN $token)",
        {
            "path": f"openduck:{os.environ['BENCH_DATABASE']}",
            "endpoint": os.environ["BENCH_ENDPOINT"],
            "token": os.environ["BENCH_TOKEN"],
        },
    )


def openduck_attached() -> duckdb.DuckDBPyConnection:
    connection = openduck()
    attach(connection)
    return connection


def quack() -> duckdb.DuckDBPyConnection:
    from execbench.quack import connect

    connection = connect()
    connection.execute(f"CREATE SECRET (TYPE quack, TOKEN '{os.environ['QUACK_TOKEN']}')")
    connection.execute(f"ATTACH 'quack:localhost:{os.environ['BENCH_PORT']}' AS cloud")
    return connection


def timed_sql(connection: duckdb.DuckDBPyConnection) -> Callable[[str], list[Row]]:
    connection.execute("SET enable_progress_bar = false")

    def run(sql: str) -> list[Row]:
        connection.execute(sql)
        return connection.fetchall() if connection.description else []

    return run


def timed_flight() -> Callable[[str], list[Row]]:
    """The statement has `{flight}` where the rows of `FROM lineitem` belong."""
    import pyarrow.flight

    connection = duckdb.connect()
    connection.execute("SET enable_progress_bar = false")
    client = pyarrow.flight.connect(f"grpc://127.0.0.1:{os.environ['BENCH_PORT']}")

    def run(sql: str) -> list[Row]:
        rows = client.do_get(pyarrow.flight.Ticket(b"FROM lineitem")).to_reader()
        connection.register("rows", rows)
        connection.execute(sql.format(flight="rows"))
        connection.unregister("rows")
        return []

    return run


def timed_arrow() -> Callable[[str], list[Row]]:
    connection = duckdb.connect()

    def run(sql: str) -> list[Row]:
        table: Any = connection.sql(sql).to_arrow_table()
        return [(table.nbytes,)]

    return run


def timed_attach() -> Callable[[str], list[Row]]:
    connection = openduck()

    def run(_: str) -> list[Row]:
        attach(connection)
        return []

    return run


def main() -> None:
    kind, orders = sys.argv[1], json.load(sys.stdin)
    makers: dict[str, Callable[[], Callable[[str], list[Row]]]] = {
        "openduck": lambda: timed_sql(openduck_attached()),
        "quack": lambda: timed_sql(quack()),
        "plain": lambda: timed_sql(duckdb.connect()),
        "flight": timed_flight,
        "arrow": timed_arrow,
        "attach": timed_attach,
    }
    run = makers[kind]()
    for sql in orders.get("prepare", []):
        run(sql)
    seconds: list[float] = []
    rows: list[Row] = []
    warm = orders.get("warm", 0)
    end = time.perf_counter() + orders.get("seconds", 0.0)
    while len(seconds) < orders.get("count", 0) + warm or time.perf_counter() < end:
        begin = time.perf_counter()
        rows = run(orders["run"])
        seconds.append(time.perf_counter() - begin)
        if "cleanup" in orders:
            run(orders["cleanup"])
    print(json.dumps({"seconds": seconds[warm:], "rows": rows}, default=str))


if __name__ == "__main__":
    main()
