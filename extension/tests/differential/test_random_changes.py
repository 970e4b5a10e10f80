"""Random changes of tables that are here and there: each changes as many rows as DuckDB alone, and in the end
the tables hold the same.

A change that reads the other side (`UPDATE cloud.t … WHERE pond IN (SELECT … FROM memory.u)`) is among them.
"""

from __future__ import annotations

from client import Client
from compare import assert_same
from conftest import Clients
from grammar import TABLES, Grammar
from tables import fill, named, outcome, places

SEEDS = (6, 300)
CHANGES = 12


def test_changes_leave_what_they_leave_locally(clients: Clients, alone: Client, seed: int) -> None:
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
        assert found == wanted, said
    for table in TABLES:
        wanted = alone.run(f"FROM memory.{schema}.{table}")
        found = mixed.run(f"FROM {where[table]}.{schema}.{table}")
        assert_same(found, wanted, f"{table} after {said}")
    for client, catalog in ((alone, "memory"), (mixed, "memory"), (mixed, "cloud")):
        client.run(f"DROP SCHEMA {catalog}.{schema} CASCADE")
