"""Quack, DuckDB's own protocol, by the extension on PyPI: its server and its client, each a process.

`python quack.py serve FILE PORT`, `python quack.py small PORT COUNT SQL`,
`python quack.py repeat PORT CLIENTS SECONDS SQL`.
The environment variable QUACK_TOKEN holds the token.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path

import duckdb


def connect(file: str = ":memory:") -> duckdb.DuckDBPyConnection:
    import duckdb_extension_httpfs
    import duckdb_extension_quack

    connection = duckdb.connect(file, config={"allow_unsigned_extensions": "true"})
    # Quack's client speaks HTTP by httpfs.
    for package in (duckdb_extension_httpfs, duckdb_extension_quack):
        [extension] = Path(package.__file__).parent.glob("extensions/*/*.duckdb_extension")
        connection.execute(f"LOAD '{extension}'")
    return connection


def attached(port: str) -> duckdb.DuckDBPyConnection:
    connection = connect()
    connection.execute(f"CREATE SECRET (TYPE quack, TOKEN '{os.environ['QUACK_TOKEN']}')")
    connection.execute(f"ATTACH 'quack:localhost:{port}' AS remote")
    return connection


def ask(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    connection.execute("FROM quack_query_by_name('remote', ?)", [sql]).fetchall()


def small(port: str, count: int, sql: str) -> dict[str, list[float]]:
    connection = attached(port)
    seconds = []
    for number in range(count + 20):
        begin = time.perf_counter()
        ask(connection, sql)
        if number >= 20:
            seconds.append(time.perf_counter() - begin)
    return {"seconds": seconds}


def repeat(port: str, clients: int, seconds: float, sql: str) -> dict[str, float]:
    """Each client is a thread with a connection of its own; DuckDB lets go of Python's lock meanwhile."""
    connections = [attached(port) for _ in range(clients)]
    counts = [0] * clients
    end = time.perf_counter() + seconds

    def run(number: int) -> None:
        while time.perf_counter() < end:
            ask(connections[number], sql)
            counts[number] += 1

    threads = [threading.Thread(target=run, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"per_s": sum(counts) / seconds}


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    if what == "serve":
        server = connect(rest[0])
        server.execute(
            f"CALL quack_serve('quack:localhost:{rest[1]}', token = '{os.environ['QUACK_TOKEN']}')"
        )
        print("ready", flush=True)
        threading.Event().wait()
    elif what == "small":
        print(json.dumps(small(rest[0], int(rest[1]), rest[2])))
    else:
        print(json.dumps(repeat(rest[0], int(rest[1]), float(rest[2]), rest[3])))
