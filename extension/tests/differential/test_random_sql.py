"""Random queries over tables that are here and there: the answers are those of DuckDB alone.

Queries are made of a grammar (`grammar.py`) whose results depend on nothing but the data: no limit without a
total order, no floating-point sums.
"""

from __future__ import annotations

import pytest

from client import Client
from compare import assert_same
from conftest import Clients
from grammar import TABLES, Grammar
from tables import fill, named, outcome, places

SEEDS = (100, 3000)


@pytest.fixture(scope="module")
def schema() -> str:
    return "random_sql"


@pytest.fixture(scope="module")
def filled(clients: Clients, alone: Client, schema: str) -> None:
    fill(alone, "memory", schema)
    fill(clients.get("random loader"), "cloud", schema)


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
