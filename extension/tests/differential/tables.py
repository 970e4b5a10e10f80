"""The grammar's tables, here and there."""

from __future__ import annotations

import random

from client import Client, Refused, Result
from grammar import TABLES, contents


def places(seed: int) -> dict[str, str]:
    """Each table's catalog, by the seed; at least one is remote."""
    chance = random.Random(f"place {seed}")
    remote = set(chance.sample(sorted(TABLES), chance.randint(1, len(TABLES))))
    return {table: "cloud" if table in remote else "memory" for table in TABLES}


def fill(client: Client, catalog: str, schema: str) -> None:
    client.run(f"CREATE OR REPLACE SCHEMA {catalog}.{schema}")
    for table in TABLES:
        client.run(f"CREATE TABLE {catalog}.{schema}.{table} AS {contents(table)}")


def outcome(client: Client, sql: str) -> Result | str:
    """A result, or the kind of failure."""
    try:
        return client.run(sql)
    except Refused as refused:
        return refused.kind


def named(template: str, where: dict[str, str], schema: str) -> str:
    """The statement with its tables' full names; they stand in it as {table}."""
    return template.format(**{table: f"{catalog}.{schema}.{table}" for table, catalog in where.items()})
