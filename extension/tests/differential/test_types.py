"""Every type there is, to the server and back: the same type, the same values.

Each direction is judged by somebody else: what went up is compared at the server with what the server made
of the same text, by a client that knows nothing of the extension; what came down is compared with what
DuckDB alone makes of it.
"""

from __future__ import annotations

import csv
import io

import duckdb
import pytest

from client import Client
from conftest import Clients
from servers.served import Served


def columns_of_all_types() -> list[str]:
    with duckdb.connect() as connection:
        return [row[0] for row in connection.execute("DESCRIBE FROM test_all_types()").fetchall()]


# What test_all_types() lacks: rows of one column, each a VALUES list.
MORE = {
    "enum_in_list": "(['a', 'b']::ENUM('a', 'b')[]), ([]), (NULL), ([NULL])",
    "enum_in_struct": "({'e': 'a'::ENUM('a', 'b'), 'i': 1}), (NULL), ({'e': NULL, 'i': NULL})",
    "enum_in_map": "(MAP {'a'::ENUM('a', 'b'): 'b'::ENUM('b', 'c')}), (MAP {}), (NULL)",
    "tuple_in_list": "([(1, 'a'), (2, NULL)]), ([]), (NULL)",
    "tuple_in_struct": "({'t': (1, ('x', 2.5))}), (NULL)",
    "variant": (
        "(42::VARIANT), ('text'::VARIANT), ([1, NULL]::VARIANT), ({'a': DATE '2020-01-01'}::VARIANT), (NULL)"
    ),
    "json": """('{"a": [1, 2, null]}'::JSON), ('"x"'::JSON), ('null'::JSON), (NULL)""",
    "union_of_nested": (
        "(union_value(l := [1, 2])::UNION(l INT[], s STRUCT(a INT))),"
        " (union_value(s := {'a': NULL})::UNION(l INT[], s STRUCT(a INT))), (NULL)"
    ),
    "map_of_lists": "(MAP {'k': [1, NULL], '': []}), (MAP {}), (NULL)",
    "array_of_structs": "([{'a': 1}, NULL]::STRUCT(a INT)[2]), (NULL)",
    "bit_lengths": "('1'::BIT), ('0000000'::BIT), ('10101010101'::BIT), (NULL)",
    "decimals": "(1e-38::DECIMAL(38, 38)), (-0.5::DECIMAL(38, 38)), (NULL)",
    "hugeints": "((-170141183460469231731687303715884105728)::HUGEINT), (1::HUGEINT), (NULL)",
    "intervals": "(INTERVAL '1 year 2 months 3 days 4.000005 seconds'), (INTERVAL '-3 days'), (NULL)",
    "floats": "('nan'::DOUBLE), ('-inf'::DOUBLE), (-0.0::DOUBLE), (5e-324::DOUBLE), (NULL)",
    "infinite_dates": "('infinity'::DATE), ('-infinity'::DATE), ('5877642-06-25 (BC)'::DATE), (NULL)",
    "infinite_times": "('infinity'::TIMESTAMPTZ), ('-infinity'::TIMESTAMPTZ), (NULL)",
    "time_zones": "('00:00:00+15:59:59'::TIMETZ), ('24:00:00-15:59:59'::TIMETZ), (NULL)",
    "texts": "(''), ('\U0001f986 ü \u0301'), (repeat('long ', 100000)), (chr(1)), (NULL)",
    "blobs": r"('\x00\xFF'::BLOB), (''::BLOB), (repeat('x', 3000000)::BLOB), (NULL)",
    "geometries": "('POINT (1 2)'::GEOMETRY), ('POLYGON ((0 0, 1 0, 1 1, 0 0))'::GEOMETRY), (NULL)",
    "nothing_but_null": "(NULL::INTEGER), (NULL)",
    "deep": "([[[{'a': MAP {1: [{'b': NULL}, {'b': [1]}]}}]]]), ([]), (NULL)",
    "quoted_names": """({'a "b" c': 1, 'select': 2}), (NULL)""",
}

SOURCES = {name: f'SELECT "{name}" AS c FROM test_all_types()' for name in columns_of_all_types()}
SOURCES |= {name: f"SELECT c FROM (VALUES {values}) AS v(c)" for name, values in MORE.items()}
NUMBERED = "SELECT row_number() OVER () AS i, c FROM ({})"


@pytest.fixture(scope="module")
def made(served: Served) -> None:
    """A table of each type, made by the server."""
    for name, source in SOURCES.items():
        ask(served, f'CREATE TABLE "made_{name}" AS {NUMBERED.format(source)}')


@pytest.fixture(scope="module")
def client(clients: Clients, made: None) -> Client:
    """With the same tables of its own."""
    client = clients.get("types")
    for name, source in SOURCES.items():
        client.run(f'CREATE TABLE memory."{name}" AS {NUMBERED.format(source)}')
    return client


@pytest.mark.parametrize("name", SOURCES)
def test_a_type_goes_up_unchanged(client: Client, served: Served, name: str) -> None:
    client.run(f'CREATE OR REPLACE TABLE cloud."up_{name}" AS FROM memory."{name}"')
    [[types, rows, different]] = ask(
        served,
        "SELECT string_agg(DISTINCT typeof(m.c) || ' ' || typeof(u.c)), count(*), "
        "count(*) FILTER (u.c IS DISTINCT FROM m.c) "
        f'FROM "made_{name}" AS m FULL JOIN "up_{name}" AS u USING (i)',
    )
    [[type_, count]] = client.rows(f'SELECT any_value(typeof(c)), count(*) FROM memory."{name}"')
    assert (types, rows, different) == (f"{type_} {type_}", str(count), "0")


@pytest.mark.parametrize("name", SOURCES)
def test_a_type_comes_down_unchanged(client: Client, name: str) -> None:
    client.run(f'CREATE OR REPLACE TABLE memory."down_{name}" AS FROM cloud."made_{name}"')
    wanted = client.rows(f'DESCRIBE memory."{name}"')
    assert client.rows(f'DESCRIBE memory."down_{name}"') == wanted
    assert client.rows(f'DESCRIBE cloud."made_{name}"') == wanted
    [row] = client.rows(
        "SELECT count(*), count(*) FILTER (d.c IS DISTINCT FROM m.c), "
        "count(*) FILTER (d.c::VARCHAR IS DISTINCT FROM m.c::VARCHAR) "
        f'FROM memory."{name}" AS m FULL JOIN memory."down_{name}" AS d USING (i)'
    )
    [[count]] = client.rows(f'SELECT count(*) FROM memory."{name}"')
    assert row == (count, 0, 0)


@pytest.mark.parametrize("name", SOURCES)
def test_a_type_is_found_by_its_value(client: Client, name: str) -> None:
    """A condition with a value of the type, whoever evaluates it, finds the same rows."""
    for (number,) in client.rows(f'SELECT i FROM memory."{name}"'):
        one = f'(SELECT c FROM memory."{name}" WHERE i = {number})'
        condition = f"c IS NOT DISTINCT FROM {one} ORDER BY i"
        found = client.rows(f'SELECT i FROM cloud."made_{name}" WHERE {condition}')
        assert found == client.rows(f'SELECT i FROM memory."{name}" WHERE {condition}')


def ask(served: Served, sql: str) -> list[list[str]]:
    """Asks the server by its own command; rows as text."""
    text = served.command("query", sql, "-d", "mydb", "--format", "csv")
    return list(csv.reader(io.StringIO(text)))[1:]
