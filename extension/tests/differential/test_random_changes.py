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
    check(clients.get("changes"), alone, seed, places(seed), in_transaction=False)


def test_a_transaction_sees_its_own_changes(clients: Clients, alone: Client, seed: int) -> None:
    """DuckDB writes to one database in a transaction, so all that is changed is remote."""
    check(clients.get("changes"), alone, seed, dict.fromkeys(TABLES, "cloud"), in_transaction=True)


def check(mixed: Client, alone: Client, seed: int, where: dict[str, str], *, in_transaction: bool) -> None:
    schema = f"changes_{seed}_{in_transaction}".lower()
    fill(alone, "memory", schema)
    fill(mixed, "memory", schema)
    fill(mixed, "cloud", schema)
    grammar = Grammar(seed)
    said = ["BEGIN" if in_transaction else "SELECT 1"]
    for client in (alone, mixed):
        client.run(said[0])
    for _ in range(CHANGES):
        template = grammar.change()
        wanted = outcome(alone, named(template, dict.fromkeys(TABLES, "memory"), schema))
        said.append(named(template, where, schema))
        assert outcome(mixed, said[-1]) == wanted, said
    same_contents(mixed, alone, schema, where, said)
    if in_transaction:
        said.append("ROLLBACK" if seed % 2 else "COMMIT")
        for client in (alone, mixed):
            client.run(said[-1])
        same_contents(mixed, alone, schema, where, said)
    for client, catalog in ((alone, "memory"), (mixed, "memory"), (mixed, "cloud")):
        client.run(f"DROP SCHEMA {catalog}.{schema} CASCADE")


def same_contents(mixed: Client, alone: Client, schema: str, where: dict[str, str], said: list[str]) -> None:
    for table in TABLES:
        wanted = alone.run(f"FROM memory.{schema}.{table}")
        found = mixed.run(f"FROM {where[table]}.{schema}.{table}")
        assert_same(found, wanted, f"{table} after {said}")
