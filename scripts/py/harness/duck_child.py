"""One DuckDB process under orders: reads a request per line, answers with a line.

Runs in the Python environment of one DuckDB version and ends with its input, so it can't outlive
the program that started it.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import duckdb


class Child:
    """The requests, by name."""

    def __init__(self) -> None:
        self.connection: duckdb.DuckDBPyConnection | None = None

    def _db(self) -> duckdb.DuckDBPyConnection:
        assert self.connection is not None, "no database is open"
        return self.connection

    def open(self, path: str, read_only: bool) -> float:
        started = time.perf_counter()
        config = {"allow_unsigned_extensions": "true"}
        self.connection = duckdb.connect(path, read_only=read_only, config=config)
        return time.perf_counter() - started

    def close(self) -> None:
        self._db().close()
        self.connection = None

    def run(self, statements: list[str]) -> list[float]:
        return [self._timed(statement) for statement in statements]

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = self._db().execute(statement).fetchall()
        return rows

    def insert_each(self, statement: str, keys: list[int]) -> list[float]:
        return [self._timed(statement, [key]) for key in keys]

    def bytes_read(self) -> int:
        """What this process has read so far, from files of any kind."""
        lines = Path("/proc/self/io").read_text().splitlines()
        return int(dict(line.split(": ") for line in lines)["rchar"])

    def insert_paced(self, statement: str, pauses: list[float]) -> list[float]:
        """Inserts 1, 2, 3 … with a pause before each; answers when each was acknowledged, on the
        clock that all processes share."""
        acknowledged = []
        for key, pause in enumerate(pauses, start=1):
            time.sleep(pause)
            self._db().execute(statement, [key])
            acknowledged.append(time.monotonic())
        return acknowledged

    def watch(self, path: str, statement: str, until: int, timeout_s: float) -> list[list[float]]:
        """Opens a database again and again, and reads one number, until it is `until`. Answers,
        for each number seen, when the first opening that saw it began and when it had its
        answer."""
        seen: list[list[float]] = []
        deadline = time.monotonic() + timeout_s
        number = -1
        while number < until and time.monotonic() < deadline:
            began = time.monotonic()
            with duckdb.connect(path, read_only=True) as connection:
                [row] = connection.execute(statement).fetchall()
            if row[0] != number:
                number = row[0]
                seen.append([number, began, time.monotonic()])
        return seen

    def _timed(self, statement: str, parameters: list[Any] | None = None) -> float:
        started = time.perf_counter()
        self._db().execute(statement, parameters).fetchall()
        return time.perf_counter() - started


def main() -> None:
    child = Child()
    for line in sys.stdin:
        order = json.loads(line)
        request = order.pop("request")
        try:
            answer = {"answer": getattr(child, request)(**order)}
        except duckdb.Error as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer, default=str), flush=True)


if __name__ == "__main__":
    main()
