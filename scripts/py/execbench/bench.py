"""What every measurement gets: a served database, the measuring client, the settings, the report."""

import contextlib
import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsbench.report import Report
from fsbench.tpch import Tpch
from harness.workplace import Workplace
from servers.processes import LOOPBACK, children_of, end, free_port, start_server, wait_for_server


@dataclass(frozen=True)
class Settings:
    """How much of everything."""

    rounds: int
    scale_factor: float
    small: int
    seconds: float
    large_gb: float


class Backend:
    """A running gateway or worker."""

    def __init__(self, bench: "Bench", name: str, arguments: list[str]) -> None:
        self.port = free_port()
        self.token = bench.token
        log = bench.place.directory / f"{name}-{self.port}.log"
        argv = [os.environ["OPENDUCK"], "--home", str(bench.place.home), *arguments]
        environment = {**os.environ, "OPENDUCK_TOKEN": bench.token}
        self.process = start_server([*argv, "--listen", self.address], log, env=environment)
        wait_for_server(name, self.process, log, self.is_ready, timeout_s=60)

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    def is_ready(self) -> bool:
        with contextlib.suppress(OSError):
            return urllib.request.urlopen(f"http://{self.address}/ready", timeout=2).status == 200
        return False

    def stop(self) -> None:
        end(self.process, 15, timeout_s=30)


class Bench:
    """See the module's text."""

    def __init__(self, place: Workplace, settings: Settings, report: Report) -> None:
        self.place = place
        self.settings = settings
        self.report = report
        self.token = ""
        self.tpch = Tpch(settings.scale_factor)
        self.database = "bench"

    def prepare(self) -> None:
        """TPC-H in the store, and beside it as a plain file."""
        self.tpch.prepare(self.place)
        self.place.fs("import", str(self.tpch.path), self.database)
        # A token of the catalog: gateway and worker both take it.
        command = [os.environ["OPENDUCK"], "--home", str(self.place.home), "token", "create"]
        created = subprocess.run(
            [*command, "--database", self.database, "--json"], capture_output=True, text=True, check=True
        )
        self.token = json.loads(created.stdout)["token"]

    @contextlib.contextmanager
    def serve(self) -> Iterator[Backend]:
        """`openduck serve`: gateway and worker, as a laptop has them."""
        backend = Backend(self, "serve", ["serve", "-d", self.database])
        try:
            yield backend
        finally:
            backend.stop()

    @contextlib.contextmanager
    def worker(self) -> Iterator[Backend]:
        """A worker alone, which clients may ask without a gateway."""
        backend = Backend(self, "worker", ["worker", "-d", self.database])
        try:
            yield backend
        finally:
            backend.stop()

    def client(self, backend: Backend, *arguments: str, timeout_s: float = 600) -> dict[str, Any]:
        """Runs the measuring client; what it saw."""
        command = [os.environ["OPENDUCK_CLIENT"], "--endpoint", f"http://{backend.address}"]
        command += ["--database", self.database, *arguments]
        environment = {**os.environ, "OPENDUCK_TOKEN": self.token}
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=timeout_s, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(arguments)}: {done.stderr.strip()}")
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def plain(self, name: str) -> Path:
        """Where a plain file lies."""
        return self.place.directory / name


def peak_memory(pid: int) -> int:
    """The most memory that a process ever had, in bytes, with that of its children now running."""
    total = 0
    for each in [pid, *descendants(pid)]:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{each}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    total += int(line.split()[1]) * 1024
    return total


def descendants(pid: int) -> list[int]:
    """All processes below one."""
    return [each for child in children_of(pid) for each in (child, *descendants(child))]
