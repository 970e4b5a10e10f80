"""A served database for the tests, and a client for it.

OPENDUCK and OPENDUCK_FS are the paths of the two binaries. Whatever happens, no process,
mount or file is left.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from client import Client, generate_stubs
from harness.workplace import Workplace
from servers.processes import free_port, last_lines, start_server, wait_for_server


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also run the tests that take minutes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.option.long:
        return
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.skip(reason="takes minutes: --long runs it"))


@pytest.fixture(scope="session", autouse=True)
def stubs(tmp_path_factory: pytest.TempPathFactory) -> None:
    if not os.environ.get("OPENDUCK") or not os.environ.get("OPENDUCK_FS"):
        raise pytest.UsageError("set OPENDUCK and OPENDUCK_FS to the binaries, or let scripts/test do it")
    generate_stubs(tmp_path_factory.mktemp("stubs"))


@pytest.fixture(scope="module")
def place() -> Iterator[Workplace]:
    """A home of its own."""
    with Workplace("exec") as place:
        yield place


class Served:
    """`openduck serve`, with a token."""

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

    def start(self) -> None:
        argv = [os.environ["OPENDUCK"], "--home", str(self.place.home), "serve", "-d", self.database]
        argv += ["-t", self.token, "--listen", self.address, *self.flags]
        environment = {**os.environ, "OPENDUCK_FS": os.environ["OPENDUCK_FS"]}
        self.process = start_server(argv, self.log, env=environment)
        wait_for_server("openduck serve", self.process, self.log, self.is_ready, timeout_s=60)

    def is_ready(self) -> bool:
        with contextlib.suppress(OSError):
            return urllib.request.urlopen(f"http://{self.address}/ready", timeout=2).status == 200
        return False

    def get(self, path: str) -> str:
        return urllib.request.urlopen(f"http://{self.address}{path}", timeout=5).read().decode()

    def client(self, database: str | None = None, token: str | None = None) -> Client:
        return Client(self.address, token or self.token, database or self.database)

    def command(self, *arguments: str, stdin: str | None = None, timeout_s: float = 60) -> str:
        """Runs an `openduck` command against it; returns what it printed."""
        environment = {
            **os.environ,
            "OPENDUCK_ENDPOINT": f"http://{self.address}",
            "OPENDUCK_TOKEN": self.token,
        }
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


@pytest.fixture(scope="module")
def serve(place: Workplace) -> Iterator[Callable[..., Served]]:
    """Starts `openduck serve` for a database, with more flags; ends them with the module."""
    with contextlib.ExitStack() as stack:

        def start(database: str, *flags: str) -> Served:
            served = Served(place, database, *flags)
            stack.callback(served.stop)
            served.start()
            return served

        yield start


@pytest.fixture(scope="module")
def served(serve: Callable[..., Served]) -> Served:
    return serve("mydb")


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    client = served.client()
    yield client
    client.close()


@pytest.fixture
def local(tmp_path: Path) -> Iterator[object]:
    """DuckDB in this process, to compare with."""
    import duckdb

    with duckdb.connect(str(tmp_path / "local.duckdb")) as connection:
        yield connection
