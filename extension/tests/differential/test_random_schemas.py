"""Random schemas and rows, to the server and back by the ways that rows have: as a query's result, by the
appender, one by one with parameters, and with filters on the way back."""

from __future__ import annotations

import random

import pytest

from client import Client
from conftest import Clients

SEEDS = (15, 1000)
ROWS_MAX = 200

# A type, and an expression that makes a value of it from the integer column `n`.
SCALARS = {
    "BOOLEAN": "n % 2 = 0",
    "TINYINT": "(n % 100)::TINYINT",
    "BIGINT": "(hash(n) % 1000000)::BIGINT",
    "UHUGEINT": "hash(n)::UHUGEINT * hash(n + 1)",
    "HUGEINT": "-(hash(n)::HUGEINT) * 3",
    "DOUBLE": "n / 7",
    "DECIMAL(12, 3)": "(n * 1.001)::DECIMAL(12, 3)",
    "VARCHAR": "'text ' || n || repeat('ü', (n % 20)::INT)",
    "BLOB": "encode('blob ' || n)",
    "DATE": "DATE '2000-01-01' + n::INT",
    "TIMESTAMP": "TIMESTAMP '2000-01-01 01:02:03.456789' + to_seconds(n)",
    "TIMESTAMPTZ": "to_timestamp(n * 1000)",
    "TIMESTAMP_NS": "make_timestamp_ns(n * 1000000001)",
    "TIME": "TIME '01:02:03' + to_seconds(n % 1000)",
    "INTERVAL": "to_months((n % 13)::INT) + to_days((n % 7)::INT)",
    "UUID": "md5(n::VARCHAR)::UUID",
    "BIT": "(n % 1000)::INT::BIT",
    "ENUM('a', 'b', 'c')": "(['a', 'b', 'c'][(n % 3 + 1)::INT])::ENUM('a', 'b', 'c')",
}


class Column:
    """A random type, nested to some depth, and how a value of it is made."""

    def __init__(self, chance: random.Random, depth: int, without: tuple[str, ...] = ()) -> None:
        self.type: str
        kind = chance.random() if depth > 0 else 1.0
        if kind < 0.15:
            inner = Column(chance, depth - 1)
            self.type = f"{inner.type}[]"
            self._value = (
                f"CASE n % 4 WHEN 0 THEN [] WHEN 1 THEN [NULL] ELSE [{inner.value}, {inner.value}] END"
            )
        elif kind < 0.3:
            fields = [Column(chance, depth - 1) for _ in range(chance.randint(1, 3))]
            named = [(f"f{number}", field) for number, field in enumerate(fields)]
            self.type = f"STRUCT({', '.join(f'{name} {field.type}' for name, field in named)})"
            self._value = f"{{{', '.join(f'{name!r}: {field.value}' for name, field in named)}}}"
        elif kind < 0.4:
            inner = Column(chance, depth - 1)
            self.type = f"MAP(INTEGER, {inner.type})"
            self._value = f"MAP {{n::INTEGER: {inner.value}, -1: NULL}}"
        elif kind < 0.5:
            inner = Column(chance, depth - 1)
            self.type = f"{inner.type}[2]"
            self._value = f"[{inner.value}, NULL]"
        else:
            self.type = chance.choice(sorted(set(SCALARS) - set(without)))
            self._value = SCALARS[self.type]
        self._nulls = chance.choice((2, 5, 1000))

    @property
    def value(self) -> str:
        return f"CASE WHEN hash(n, {self._nulls}) % {self._nulls} > 0 THEN ({self._value})::{self.type} END"


@pytest.fixture
def client(clients: Clients) -> Client:
    return clients.get("schemas")


def test_random_rows_go_up_and_come_back(client: Client, seed: int) -> None:
    chance = random.Random(seed)
    columns = [Column(chance, 2) for _ in range(chance.randint(1, 8))]
    rows = chance.choice((0, 1, 7, ROWS_MAX))
    values = ", ".join(f"{column.value} AS c{number}" for number, column in enumerate(columns))
    types = ", ".join(f"c{number} {column.type}" for number, column in enumerate(columns))
    client.run(f"CREATE OR REPLACE TABLE memory.mine AS SELECT n AS i, {values} FROM range({rows}) AS r(n)")
    client.run(f"CREATE OR REPLACE TABLE cloud.theirs (i BIGINT, {types})")
    if chance.random() < 0.5:
        client.run("INSERT INTO cloud.theirs FROM memory.mine")
    else:
        names = ", ".join(f"c{number}" for number in range(len(columns)))
        client.run(
            f"INSERT INTO cloud.theirs (i, {names}) SELECT i, {names} FROM memory.mine WHERE i % 2 = 0"
        )
        client.run("INSERT INTO cloud.theirs FROM memory.mine WHERE i % 2 = 1")
    assert client.rows("DESCRIBE cloud.theirs") == client.rows("DESCRIBE memory.mine")
    compare = " OR ".join(f"m.c{number} IS DISTINCT FROM t.c{number}" for number in range(len(columns)))
    client.run("CREATE OR REPLACE TABLE memory.back AS FROM cloud.theirs")
    different = f"FROM memory.mine AS m FULL JOIN memory.back AS t USING (i) WHERE {compare}"
    assert client.rows(different) == [], types
    assert client.rows("SELECT count(*) FROM memory.back") == [(rows,)]
    # A row found by a condition is the whole row.
    low = chance.randint(0, ROWS_MAX)
    some = f"SELECT r::VARCHAR FROM (SELECT * FROM {{}} WHERE i >= {low} ORDER BY i LIMIT 3) AS r"
    assert client.rows(some.format("cloud.theirs")) == client.rows(some.format("memory.mine"))


def test_a_row_goes_up_by_parameters(client: Client, seed: int) -> None:
    chance = random.Random(seed)
    # To Python it comes with a library for time zones only.
    columns = [Column(chance, 0, without=("TIMESTAMPTZ",)) for _ in range(chance.randint(1, 5))]
    types = ", ".join(f"c{number} {column.type}" for number, column in enumerate(columns))
    client.run(f"CREATE OR REPLACE TABLE memory.one ({types})")
    client.run(f"CREATE OR REPLACE TABLE cloud.one ({types})")
    for number in range(5):
        values = ", ".join(column.value for column in columns)
        [row] = client.rows(f"SELECT {values} FROM (SELECT {number}::BIGINT AS n)")
        marks = ", ".join("?" for _ in columns)
        for catalog in ("memory", "cloud"):
            client.run(f"INSERT INTO {catalog}.one VALUES ({marks})", list(row))
    assert client.rows("FROM cloud.one") == client.rows("FROM memory.one"), types
