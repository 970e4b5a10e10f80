"""Random queries over tables that are here and there: the answers are those of DuckDB alone.

Each query goes one of several ways (`WAYS`): alone, in another one, by a view, into a table here or there.
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

SEEDS = (120, 3000)
# What is run before, with the query as `{sql}`, and what then has its rows.
WAYS = {
    "alone": (None, "{sql}"),
    "inside": (None, "SELECT * FROM ({sql}) AS inside WHERE true"),
    "with": (None, "WITH w AS MATERIALIZED ({sql}) FROM w"),
    "view": ("CREATE OR REPLACE VIEW memory.main.made AS {sql}", "FROM memory.main.made"),
    "table here": ("CREATE OR REPLACE TABLE memory.main.taken AS {sql}", "FROM memory.main.taken"),
    "table there": ("CREATE OR REPLACE TABLE cloud.main.sent AS {sql}", "FROM cloud.main.sent"),
    "prepared": ("PREPARE prepared AS {sql}", "EXECUTE prepared"),
}


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
    way = sorted(WAYS)[seed % len(WAYS)]
    before, after = WAYS[way]
    if before is not None and not isinstance(wanted, str):
        mixed.run(before.format(sql=sql))
    found = outcome(mixed, after.format(sql=sql))
    sql = f"{way}: {sql}"
    if isinstance(wanted, str) or isinstance(found, str):
        assert found == wanted, sql
    else:
        assert_same(found, wanted, sql)
