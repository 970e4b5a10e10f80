"""DuckDB processes of several versions, as seen from the program that drives them.

Each `Duck` is one process of one version's Python environment, which runs `duck_child.py`. A
request is one line of JSON, and so is its answer.
"""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.workplace import Workplace, end_process

CHILD = Path(__file__).with_name("duck_child.py")


class DuckFailed(Exception):
    """DuckDB answered with an error, or its process is gone."""


def pythons() -> dict[str, str]:
    """The Python of each DuckDB version, newest version first."""
    pairs = os.environ["OPENDUCK_PYTHONS"].split(",")
    return dict(pair.split("=", 1) for pair in pairs)


class Duck:
    """One DuckDB process. Use it in a `with` statement."""

    def __init__(self, place: Workplace, version: str) -> None:
        self._process = place.start(
            [pythons()[version], str(CHILD)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __enter__(self) -> "Duck":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Lets the process go, as the end of its input does."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            end_process(self._process)
        self._process.stdout.close()

    def send(self, request: str, **arguments: Any) -> None:
        """Sends a request whose answer is taken later."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"request": request, **arguments}) + "\n")
        self._process.stdin.flush()

    def receive(self) -> Any:
        """The answer to the oldest request that has none yet."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise DuckFailed(f"the DuckDB process ended with status {self._process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise DuckFailed(answer["error"])
        return answer["answer"]

    def ask(self, request: str, **arguments: Any) -> Any:
        """Sends a request and waits for its answer."""
        self.send(request, **arguments)
        return self.receive()

    def open(self, path: Path, *, read_only: bool = False) -> float:
        """Opens a database; returns the seconds it took."""
        seconds: float = self.ask("open", path=str(path), read_only=read_only)
        return seconds

    def close(self) -> None:
        """Closes the database; the process stays."""
        self.ask("close")

    def run(self, *statements: str) -> list[float]:
        """Runs statements, fetching what they return; the seconds of each."""
        seconds: list[float] = self.ask("run", statements=statements)
        return seconds

    def rows(self, statement: str) -> list[list[Any]]:
        """Runs one statement; returns its rows."""
        rows: list[list[Any]] = self.ask("rows", statement=statement)
        return rows

    def row(self, statement: str) -> list[Any]:
        """The only row of a statement."""
        [row] = self.rows(statement)
        return row

    def insert_each(self, statement: str, keys: Sequence[int]) -> list[float]:
        """Runs a prepared statement with one parameter, a transaction for each key; the seconds
        of each."""
        seconds: list[float] = self.ask("insert_each", statement=statement, keys=list(keys))
        return seconds
