"""`openduck serve` as a process: a database, its gateway and its worker, for tests and benchmarks.

OPENDUCK and OPENDUCK_FS are the paths of the two binaries.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import urllib.request

from harness.workplace import Workplace
from servers.processes import free_port, last_lines, start_server, wait_for_server


class Served:
    """A served database, with a token of its own."""

    def __init__(self, place: Workplace, database: str, *flags: str) -> None:
        self.place = place
        self.database = database
        self.flags = flags
        self.token = secrets.token_hex(24)
        self.port = free_port()
        self.log = place.directory / f"serve-{self.port}.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def endpoint(self) -> str:
        return f"http://{self.address}"

    def start(self) -> None:
        argv = [os.environ["OPENDUCK"], "--home", str(self.place.home), "serve", "-d", self.database]
        argv += ["-t", self.token, "--listen", self.address, *self.flags]
        environment = {**os.environ, "OPENDUCK_FS": os.environ["OPENDUCK_FS"]}
        self.process = start_server(argv, self.log, env=environment)
        wait_for_server("openduck serve", self.process, self.log, self.is_ready, timeout_s=60)

    def is_ready(self) -> bool:
        with contextlib.suppress(OSError):
            status: int = urllib.request.urlopen(f"{self.endpoint}/ready", timeout=2).status
            return status == 200
        return False

    def get(self, path: str) -> str:
        page: bytes = urllib.request.urlopen(f"{self.endpoint}{path}", timeout=5).read()
        return page.decode()

    def command(self, *arguments: str, stdin: str | None = None, timeout_s: float = 60) -> str:
        """Runs an `openduck` command against it; returns what it printed."""
        environment = {**os.environ, "OPENDUCK_ENDPOINT": self.endpoint, "OPENDUCK_TOKEN": self.token}
        done = subprocess.run(
            [os.environ["OPENDUCK"], "--home", str(self.place.home), *arguments],
            input=stdin or "",
            capture_output=True,
            text=True,
            env=environment,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        return done.stdout

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
                raise AssertionError(f"serve did not end:\n{last_lines(self.log)}") from None

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)
