"""TPC-H and TPC-DS: data and queries, by PyPI's extensions, and tables placed here or there.

The extensions exist for the DuckDB of OPENDUCK_TPCH_PYTHON, which writes Parquet; everything else reads
that.
"""

from __future__ import annotations

import functools
import json
import os
import random
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

MAKE = """
import importlib, json, sys
from pathlib import Path
import duckdb
directory, scale = Path(sys.argv[1]), sys.argv[2]
for suite, generate in (("tpch", "dbgen"), ("tpcds", "dsdgen")):
    package = importlib.import_module(f"duckdb_extension_{suite}")
    [extension] = Path(package.__file__).parent.glob(f"extensions/*/{suite}.duckdb_extension")
    with duckdb.connect() as connection:
        connection.load_extension(str(extension))
        connection.execute(f"CALL {generate}(sf = {scale})")
        connection.execute(f"EXPORT DATABASE '{directory / suite}' (FORMAT parquet)")
        queries = connection.execute(f"SELECT query_nr, query FROM {suite}_queries() ORDER BY 1").fetchall()
        (directory / f"{suite}.json").write_text(json.dumps(dict(queries)))
"""

QUERIES = {"tpch": range(1, 23), "tpcds": range(1, 100)}


@dataclass(frozen=True)
class Suite:
    """One of the two: its tables, each a Parquet file, and its queries by number."""

    name: str
    tables: dict[str, Path]
    queries: dict[int, str]


def make(directory: Path, scale_factor: float) -> dict[str, Suite]:
    """Makes both."""
    python = os.environ["OPENDUCK_TPCH_PYTHON"]
    subprocess.run([python, "-c", MAKE, str(directory), f"{scale_factor:g}"], check=True)
    suites = {}
    for name in QUERIES:
        tables = {file.stem: file for file in sorted((directory / name).glob("*.parquet"))}
        queries = json.loads((directory / f"{name}.json").read_text())
        suites[name] = Suite(name, tables, {int(number): sql for number, sql in queries.items()})
    return suites


@dataclass(frozen=True)
class Placement:
    """Which tables are remote; the others are local."""

    remote: frozenset[str]

    @staticmethod
    def random(tables: list[str], seed: int) -> Placement:
        """Half of the tables, a few or most of them, as the seed has it."""
        chance = random.Random(seed)
        share = chance.choice((0.2, 0.5, 0.5, 0.8))
        return Placement(frozenset(table for table in sorted(tables) if chance.random() < share))

    def qualified(self, suite: Suite, sql: str) -> str:
        """The statement with each table's place before its name."""
        places = []
        for table, offset in set(_references(sql)):
            if table in suite.tables:
                catalog = "cloud" if table in self.remote else "memory"
                places.append((offset, f"{catalog}.{suite.name}."))
        for offset, prefix in sorted(places, reverse=True):
            sql = sql[:offset] + prefix + sql[offset:]
        return sql


@functools.cache
def _references(sql: str) -> list[tuple[str, int]]:
    """The tables that a statement names, and where in its text."""
    row = duckdb.execute("SELECT json_serialize_sql($1)", [sql]).fetchone()
    assert row is not None
    document = json.loads(row[0])
    assert not document["error"], document

    def walk(node: Any) -> list[tuple[str, int]]:
        if isinstance(node, dict):
            found = [(node["table_name"], node["query_location"])] if node.get("type") == "BASE_TABLE" else []
            return found + [one for value in node.values() for one in walk(value)]
        return [one for value in node for one in walk(value)] if isinstance(node, list) else []

    return walk(document)


def without_limit(sql: str) -> str:
    """The statement without its last LIMIT: of rows that are equal in order, any may be among the first."""
    return re.sub(r"\bLIMIT\s+\d+\s*;?\s*$", "", sql, flags=re.IGNORECASE)
