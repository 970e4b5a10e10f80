"""Random statements over tables that are here and there: the answers, and what tables hold afterwards, are
those of DuckDB alone.

Statements are made of a grammar (`grammar.py`) whose results depend on nothing but the data: no limit
without a total order, no floating-point sums.
"""

from __future__ import annotations

import random

import pytest

from client import Client, Refused, Result
from compare import assert_same
from conftest import Clients
from grammar import TABLES, Grammar, contents

SEEDS = (60, 3000)
CHANGES = 12


def places(seed: int) -> dict[str, str]:
    """Each table's catalog, by the seed; at least one is remote."""
    chance = random.Random(f"place {seed}")
    remote = set(chance.sample(sorted(TABLES), chance.randint(1, len(TABLES))))
    return {table: "cloud" if table in remote else "memory" for table in TABLES}


@pytest.fixture(scope="module")
def schema() -> str:
    return "random_sql"


def fill(client: Client, catalog: str, schema: str) -> None:
    client.run(f"CREATE OR REPLACE SCHEMA {catalog}.{schema}")
    for table in TABLES:
        client.run(f"CREATE TABLE {catalog}.{schema}.{table} AS {contents(table)}")


@pytest.fixture(scope="module")
def filled(clients: Clients, alone: Client, schema: str) -> None:
    fill(alone, "memory", schema)
    fill(clients.get("random loader"), "cloud", schema)


def outcome(client: Client, sql: str) -> Result | str:
    """A result, or the kind of failure."""
    try:
        return client.run(sql)
    except Refused as refused:
        return refused.kind


def test_a_random_query_answers_as_if_all_were_local(
    clients: Clients, alone: Client, filled: None, schema: str, seed: int
) -> None:
    mixed = clients.get("random", lambda client: fill(client, "memory", schema))
    where = places(seed)
    grammar = Grammar(seed)
    template = grammar.query()
    wanted = outcome(alone, named(template, dict.fromkeys(TABLES, "memory"), schema))
    sql = named(template, where, schema)
    found = outcome(mixed, sql)
    if isinstance(wanted, str) or isinstance(found, str):
        assert found == wanted, sql
    else:
        assert_same(found, wanted, sql)


def test_random_changes_leave_what_they_leave_locally(clients: Clients, alone: Client, seed: int) -> None:
    if seed % 10:
        return  # A sequence of changes takes as long as ten queries.
    mixed, schema = clients.get("changes"), f"changes_{seed}"
    fill(alone, "memory", schema)
    fill(mixed, "memory", schema)
    fill(mixed, "cloud", schema)
    where, grammar = places(seed), Grammar(seed)
    said = []
    for _ in range(CHANGES):
        template = grammar.change()
        wanted = outcome(alone, named(template, dict.fromkeys(TABLES, "memory"), schema))
        sql = named(template, where, schema)
        said.append(sql)
        found = outcome(mixed, sql)
        assert isinstance(found, str) == isinstance(wanted, str), f"{found}, not {wanted}: {said}"
    for table in TABLES:
        wanted = alone.run(f"FROM memory.{schema}.{table}")
        found = mixed.run(f"FROM {where[table]}.{schema}.{table}")
        assert_same(found, wanted, f"{table} after {said}")
    for client, catalog in ((alone, "memory"), (mixed, "memory"), (mixed, "cloud")):
        client.run(f"DROP SCHEMA {catalog}.{schema} CASCADE")


def named(template: str, where: dict[str, str], schema: str) -> str:
    """The statement with its tables' full names; they stand in it as {table}."""
    return template.format(**{table: f"{catalog}.{schema}.{table}" for table, catalog in where.items()})
