"""Starting the baselines, and asking them."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from execbench.bench import Bench
from servers.processes import accepts, end, free_port, start_server, wait_for_server

HERE = Path(__file__).parent


class Baseline:
    """A server of somebody else's."""

    def __init__(self, python: str, script: str, environment: dict[str, str], port: int) -> None:
        self._python = python
        self._script = str(HERE / script)
        self._environment = environment
        self.port = port

    def ask(self, what: str, *arguments: str) -> dict[str, Any]:
        command = [self._python, "-B", self._script, what, str(self.port), *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, env=self._environment, timeout=600, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"{self._script} {what}: {done.stderr.strip()}")
        found: dict[str, Any] = json.loads(done.stdout)
        return found


@contextlib.contextmanager
def started(bench: Bench, python: str, script: str, file: Path) -> Iterator[Baseline]:
    port = free_port()
    environment = {**os.environ, "QUACK_TOKEN": bench.token}
    log = bench.place.directory / f"{script}.log"
    process = start_server([python, "-B", str(HERE / script), "serve", file, str(port)], log, env=environment)
    try:
        wait_for_server(script, process, log, lambda: accepts(port))
        yield Baseline(python, script, environment, port)
    finally:
        end(process, 15, timeout_s=10)


@contextlib.contextmanager
def flight(bench: Bench) -> Iterator[Baseline]:
    """pyarrow's Flight server over the same data."""
    with started(bench, sys.executable, "flight.py", bench.tpch.path) as baseline:
        yield baseline


@contextlib.contextmanager
def quack(bench: Bench, sql: str | None = None) -> Iterator[Baseline]:
    """Quack over a copy of the data: it is written to."""
    file = bench.plain("quack.duckdb")
    shutil.copyfile(bench.tpch.path, file)
    python = os.environ["OPENDUCK_TPCH_PYTHON"]
    with started(bench, python, "quack.py", file) as baseline:
        if sql:
            baseline.ask("repeat", "1", "0.01", sql)
        yield baseline
    file.unlink()
