"""Every query of TPC-H and TPC-DS, with each table here or there: the answers are those of DuckDB alone."""

from __future__ import annotations

import functools

import pytest

from client import Client, Result
from compare import assert_contains, assert_same
from conftest import Clients
from tpc import QUERIES, Placement, Suite, make, without_limit

SCALE_FACTOR = 0.01
# Placements: in the short set, in the long one.
SEEDS = (1, 24)


@pytest.fixture(scope="session")
def suites(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Suite]:
    return make(tmp_path_factory.mktemp("tpc"), SCALE_FACTOR)


def load(client: Client, suites: dict[str, Suite], catalog: str) -> None:
    for suite in suites.values():
        client.run(f"CREATE SCHEMA {catalog}.{suite.name}")
        for table, file in suite.tables.items():
            client.run(f"CREATE TABLE {catalog}.{suite.name}.{table} AS FROM '{file}'")


@pytest.fixture(scope="session")
def all_local(alone: Client, suites: dict[str, Suite]) -> Client:
    load(alone, suites, "memory")
    return alone


@pytest.fixture(scope="session")
def all_remote(clients: Clients, suites: dict[str, Suite]) -> None:
    """Every table at the server too."""
    load(clients.get("loader"), suites, "cloud")


@functools.cache
def answer(client: Client, sql: str) -> Result:
    return client.run(sql)


EVERY = [(suite, number) for suite, numbers in QUERIES.items() for number in numbers]


def check(mixed: Client, local: Client, suite: Suite, sql: str, placement: Placement) -> None:
    complete = without_limit(sql)
    wanted = answer(local, Placement(frozenset()).qualified(suite, complete))
    found = mixed.run(placement.qualified(suite, complete))
    told = f"remote are {sorted(placement.remote)}"
    assert_same(found, wanted, told)
    if complete != sql:
        limited = answer(local, Placement(frozenset()).qualified(suite, sql))
        found = mixed.run(placement.qualified(suite, sql))
        assert len(found.rows) == len(limited.rows), told
        assert_contains(found, wanted, told)


@pytest.mark.parametrize(("name", "number"), EVERY)
def test_a_query_over_mixed_tables_answers_as_if_all_were_local(
    clients: Clients,
    all_local: Client,
    all_remote: None,
    suites: dict[str, Suite],
    name: str,
    number: int,
    seed: int,
) -> None:
    suite = suites[name]
    mixed = clients.get("mixed", lambda client: load(client, suites, "memory"))
    # Each query has placements of its own.
    placement = Placement.random(list(suite.tables), seed * 1000 + number)
    check(mixed, all_local, suite, suite.queries[number], placement)


@pytest.mark.parametrize(("name", "number"), EVERY)
def test_a_query_over_remote_tables_answers_as_if_all_were_local(
    clients: Clients, all_local: Client, all_remote: None, suites: dict[str, Suite], name: str, number: int
) -> None:
    suite = suites[name]
    mixed = clients.get("mixed", lambda client: load(client, suites, "memory"))
    placement = Placement(frozenset(suite.tables))
    check(mixed, all_local, suite, suite.queries[number], placement)
