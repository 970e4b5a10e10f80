"""A served database for the tests, and a client for it.

OPENDUCK and OPENDUCK_FS are the paths of the two binaries. Whatever happens, no process,
mount or file is left.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from client import Client, generate_stubs
from harness.workplace import Workplace
from servers.served import Served as Server


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


class Served(Server):
    """`openduck serve`, and clients for it."""

    def client(self, database: str | None = None, token: str | None = None) -> Client:
        return Client(self.address, token or self.token, database or self.database)


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
