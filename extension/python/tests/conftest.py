"""The package as its users have it: a wheel, in a fresh environment, with a served database.

OPENDUCK, OPENDUCK_FS and OPENDUCK_EXTENSION_DIR say where the binaries and the extension's files are,
OPENDUCK_PYTHONS which Python has which DuckDB.
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

PACKAGE = Path(__file__).parent.parent
NEEDED = ("OPENDUCK", "OPENDUCK_FS", "OPENDUCK_EXTENSION_DIR", "OPENDUCK_PYTHONS")


class Failed(Exception):
    """A program failed; the text is what it said."""


class User:
    """Somebody with an environment of his own and an empty home."""

    def __init__(self, python: Path, home: Path, **environment: str) -> None:
        self._python = python
        self._environment = {"PATH": os.environ["PATH"], "HOME": str(home), **environment}

    def run(self, program: str, **environment: str) -> Any:
        """Runs a program in a process of its own; what it printed as JSON."""
        done = subprocess.run(
            [self._python, "-B", "-c", f"import json\n{program}"],
            capture_output=True,
            text=True,
            env={**self._environment, **environment},
            timeout=120,
            check=False,
        )
        if done.returncode != 0:
            raise Failed(f"ended with {done.returncode}: {done.stderr}")
        # Before it there may be a progress bar.
        return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="session", autouse=True)
def needed() -> None:
    missing = [name for name in NEEDED if not os.environ.get(name)]
    if missing:
        raise pytest.UsageError(f"set {', '.join(missing)}, or let scripts/test do it")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    pip(sys.executable, "wheel", "--no-deps", "--wheel-dir", directory, PACKAGE)
    [wheel] = directory.glob("*.whl")
    return wheel


@pytest.fixture(scope="session")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel, and what it asks for, in it."""
    directory = tmp_path_factory.mktemp("fresh")
    subprocess.run([sys.executable, "-m", "venv", directory], check=True)
    python = directory / "bin" / "python"
    pip(python, "install", wheel)
    return python


def pip(python: Path | str, *arguments: str | Path) -> None:
    command = [python, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def served() -> Iterator[Served]:
    with Workplace("python") as place:
        served = Served(place, "mydb")
        served.start()
        served.command(
            "query",
            "CREATE TABLE ducks AS SELECT range AS id, 'duck ' || range AS name FROM range(100)",
            "-d",
            "mydb",
        )
        yield served
        served.stop()


@pytest.fixture
def user(python: Path, served: Served, tmp_path: Path) -> User:
    """Who knows where the server is, and his token."""
    return User(python, tmp_path, OPENDUCK_ENDPOINT=served.endpoint, OPENDUCK_TOKEN=served.token)


@pytest.fixture
def stranger(python: Path, tmp_path: Path) -> User:
    """Who knows neither."""
    return User(python, tmp_path)
