"""A served database that also serves the extension, and clients that have nothing but DuckDB.

OPENDUCK, OPENDUCK_FS and OPENDUCK_EXTENSION_DIR say where the binaries and the extension's files are.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.workplace import Workplace
from servers.served import Served

NEEDED = ("OPENDUCK", "OPENDUCK_FS", "OPENDUCK_EXTENSION_DIR")

# A client: runs what it is told, one statement after the other, and prints the last one's rows, or the
# first failure.
CLIENT = """
import json, sys
import duckdb
statements = json.load(sys.stdin)
connection = duckdb.connect()
# It would be on stdout.
connection.execute("SET enable_progress_bar = false")
rows = []
try:
    for statement in statements:
        rows = connection.execute(statement).fetchall()
    print(json.dumps({"rows": rows}, default=str))
except duckdb.Error as error:
    print(json.dumps({"kind": type(error).__name__, "failure": str(error), "statement": statement}))
"""


class Refused(Exception):
    """DuckDB refused a statement."""


class Plain:
    """DuckDB from PyPI in processes of their own, with an empty home and no settings."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def run(self, *statements: str, **environment: str) -> list[Any]:
        """Runs statements in a new process; the last one's rows."""
        done = subprocess.run(
            [sys.executable, "-c", CLIENT],
            input=json.dumps(statements),
            capture_output=True,
            text=True,
            env={"PATH": os.environ["PATH"], "HOME": str(self.home), **environment},
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"the client ended with {done.returncode}: {done.stderr}"
        answer = json.loads(done.stdout)
        if "failure" in answer:
            raise Refused(f"{answer['statement']}: {answer['kind']}: {answer['failure']}")
        rows: list[Any] = answer["rows"]
        return rows


@pytest.fixture(scope="session", autouse=True)
def needed() -> None:
    missing = [name for name in NEEDED if not os.environ.get(name)]
    if missing:
        raise pytest.UsageError(f"set {', '.join(missing)}, or let scripts/test do it")


@pytest.fixture(scope="session")
def files() -> list[Path]:
    """The extension's files, as they were built."""
    directory = Path(os.environ["OPENDUCK_EXTENSION_DIR"])
    return [directory / f"{name}.duckdb_extension" for name in ("openduck", "od")]


@pytest.fixture
def plain(tmp_path: Path) -> Plain:
    return Plain(tmp_path)


@pytest.fixture(scope="module")
def place() -> Iterator[Workplace]:
    with Workplace("extension") as place:
        yield place


@pytest.fixture(scope="module")
def served(place: Workplace) -> Iterator[Served]:
    served = Served(place, "mydb")
    served.start()
    yield served
    served.stop()
