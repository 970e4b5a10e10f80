"""A client with the extension, in a process of its own: what breaks there breaks one test.

It is asked over a pipe, one statement at a time. A process that died, or says nothing, is a failure that
names the statement.
"""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

STATEMENT_TIMEOUT_S = 120


class Refused(Exception):
    """DuckDB refused a statement; `kind` is its exception's name."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind


class Broke(AssertionError):
    """The process died, or did not answer in time."""


@dataclass(frozen=True)
class Result:
    """Column names, DuckDB's names of their types, and the rows."""

    names: list[str]
    types: list[str]
    rows: list[tuple[Any, ...]]


class Client:
    """See the module's text."""

    def __init__(self, extension: str | None = None) -> None:
        """`extension` is the file to load; without one it is DuckDB alone."""
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, extension), daemon=True)
        self._process.start()
        theirs.close()

    def run(self, sql: str, parameters: Any = None) -> Result:
        """Runs a statement."""
        try:
            self._pipe.send((sql, parameters))
            if not self._pipe.poll(STATEMENT_TIMEOUT_S):
                self.close()
                raise Broke(f"no answer within {STATEMENT_TIMEOUT_S} s: {sql}")
            answer = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(10)
            raise Broke(f"the process ended with {self._process.exitcode} at: {sql}") from None
        if isinstance(answer, Result):
            return answer
        raise Refused(*answer)

    def rows(self, sql: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        """The rows of a statement."""
        return self.run(sql, parameters).rows

    def is_alive(self) -> bool:
        return self._process.is_alive()

    def close(self) -> None:
        self._process.kill()
        self._process.join(10)
        self._pipe.close()


def _serve(pipe: Connection, extension: str | None) -> None:
    import faulthandler

    import duckdb

    faulthandler.enable()
    connection = duckdb.connect(config={"allow_unsigned_extensions": "true"})
    connection.execute("SET enable_progress_bar = false")
    if extension is not None:
        connection.load_extension(extension)
    while True:
        try:
            sql, parameters = pipe.recv()
        except EOFError:
            return
        try:
            connection.execute(sql, parameters)
            described = connection.description or []
            rows = connection.fetchall() if described else []
            names = [column[0] for column in described]
            types = [str(column[1]) for column in described]
            pipe.send(Result(names, types, rows))
        except duckdb.Error as error:
            pipe.send((type(error).__name__, str(error)))
