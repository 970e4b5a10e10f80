"""A served database, and clients that have the extension.

OPENDUCK, OPENDUCK_FS and OPENDUCK_EXTENSION_DIR say where the binaries and the extension's files are,
OPENDUCK_TPCH_PYTHON which Python makes TPC's data. OPENDUCK_SEEDS names the seeds of random tests, as `7`
or `0-99`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from client import Client
from harness.workplace import Workplace
from servers.served import Served

NEEDED = ("OPENDUCK", "OPENDUCK_FS", "OPENDUCK_EXTENSION_DIR", "OPENDUCK_TPCH_PYTHON")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="many more placements, statements and schemas")


def pytest_configure(config: pytest.Config) -> None:
    missing = [name for name in NEEDED if not os.environ.get(name)]
    if missing:
        raise pytest.UsageError(f"set {', '.join(missing)}, or let scripts/test do it")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with a `seed` runs once per seed: the module's SEEDS are the short and the long number."""
    if "seed" not in metafunc.fixturenames:
        return
    short, long = metafunc.module.SEEDS
    given = os.environ.get("OPENDUCK_SEEDS")
    if given:
        first, _, last = given.partition("-")
        seeds = range(int(first), int(last or first) + 1)
    else:
        seeds = range(long if metafunc.config.getoption("long") else short)
    metafunc.parametrize("seed", seeds, scope="module")


@pytest.fixture(scope="session")
def place() -> Iterator[Workplace]:
    with Workplace("differential") as place:
        yield place


@pytest.fixture(scope="session")
def served(place: Workplace) -> Iterator[Served]:
    served = Served(place, "mydb")
    served.start()
    yield served
    served.stop()


class Clients:
    """Attached clients by name, each made when it is first asked for, and again when it broke."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._clients: dict[str, Client] = {}

    def get(self, name: str, prepare: Callable[[Client], None] = lambda _: None) -> Client:
        client = self._clients.get(name)
        if client is None or not client.is_alive():
            client = self._clients[name] = attached(self._served)
            prepare(client)
        return client

    def close(self) -> None:
        for client in self._clients.values():
            client.close()


def attached(served: Served) -> Client:
    """A new client with the database attached as `cloud`."""
    client = Client(str(Path(os.environ["OPENDUCK_EXTENSION_DIR"]) / "openduck.duckdb_extension"))
    client.run(
        "ATTACH 'openduck:mydb' AS cloud (ENDPOINT $endpoint, TOKEN $token)",
        {"endpoint": served.endpoint, "token": served.token},
    )
    return client


@pytest.fixture(scope="session")
def clients(served: Served) -> Iterator[Clients]:
    clients = Clients(served)
    yield clients
    clients.close()


@pytest.fixture(scope="session")
def alone() -> Iterator[Client]:
    """DuckDB without the extension, to compare with."""
    client = Client()
    yield client
    client.close()
