"""Queries and their results: streams, order, inline rows, DDL, and every type."""

from __future__ import annotations

import datetime
import decimal
from typing import Any

import pyarrow as pa
import pytest

from client import END_OF_STREAM, Client, messages


def test_rows_come_back(client: Client) -> None:
    result = client.query("SELECT i, i * 2 AS twice FROM range(5) r(i)")
    assert result.rows() == [(i, i * 2) for i in range(5)]
    assert [(c.name, c.type) for c in result.answer.columns] == [("i", "BIGINT"), ("twice", "BIGINT")]
    assert result.answer.kind == client.pb.STATEMENT_KIND_ROWS


def test_an_order_is_that_of_the_batch_indexes(client: Client) -> None:
    sql = "SELECT i FROM range(1000000) r(i) ORDER BY hash(i), i"
    several = client.query(sql, options={"max_streams": 4}).table.column("i")
    one = client.query(sql, options={"max_streams": 1}).table.column("i")
    assert len(several) == 1_000_000
    assert several.combine_chunks().equals(one.combine_chunks())


def test_a_plain_scan_keeps_the_order_of_insertion(client: Client) -> None:
    result = client.query("SELECT i FROM range(3000000) r(i)")
    values = result.table.column("i").combine_chunks()
    assert values.equals(pa.array(range(3_000_000), pa.int64()))


def test_statements_without_rows_have_a_stream_with_a_summary(client: Client) -> None:
    made = client.query("CREATE OR REPLACE TABLE made (i INTEGER)")
    assert made.answer.streams >= 1
    assert made.answer.kind == client.pb.STATEMENT_KIND_NOTHING
    changed = client.query("INSERT INTO made FROM range(10)")
    assert changed.answer.kind == client.pb.STATEMENT_KIND_CHANGED_ROWS
    assert changed.value() == 10
    assert changed.answer.lsn > made.answer.lsn
    returned = client.query("INSERT INTO made VALUES (11) RETURNING i + 1 AS j")
    assert returned.rows() == [(12,)]
    assert returned.summary.lsn > changed.answer.lsn


@pytest.mark.parametrize("sql", ["SELECT 1 WHERE false", "SELECT * FROM (VALUES (1, 'a')) t(x, y) LIMIT 0"])
def test_empty_results_have_their_schema(client: Client, sql: str) -> None:
    result = client.query(sql)
    assert result.table.num_rows == 0
    assert len(result.table.schema) == len(result.answer.columns) > 0


def test_small_results_come_inside_the_answer_when_asked_for(client: Client) -> None:
    answer = client.execute("SELECT 42 AS x", options={"inline_bytes": 65536})
    assert answer.inline[-1].WhichOneof("content") == "summary"
    assert client.read(answer).rows() == [(42,)]
    # Not asked for, not given.
    assert not client.execute("SELECT 42 AS x").inline


def test_inline_rows_are_not_repeated(client: Client) -> None:
    answer = client.execute("SELECT i FROM range(2000000) r(i)", options={"inline_bytes": 3_000_000})
    assert answer.inline
    assert sum(len(r.batch) for r in answer.inline) <= 3_000_000
    assert client.read(answer).table.num_rows == 2_000_000


def test_streams_may_be_read_one_after_the_other_backwards(client: Client) -> None:
    answer = client.execute("SELECT i, repeat('x', 100) FROM range(400000) r(i)", options={"max_streams": 4})
    streams: list[list[Any]] = [[] for _ in range(answer.streams)]
    for number in reversed(range(answer.streams)):
        streams[number] = list(client.stream(answer, number))
    assert client.check(answer, streams).table.num_rows == 400_000


def test_every_type_equals_what_a_local_duckdb_gives(client: Client, local: Any) -> None:
    local.execute("SET arrow_lossless_conversion = true")
    names = [row[0] for row in local.execute("DESCRIBE FROM test_all_types()").fetchall()]
    sql = "FROM test_all_types()"
    try:
        result = client.query(sql)
        types = {column.name: column.type for column in result.answer.columns}
        assert types == {row[0]: row[1] for row in local.execute(f"DESCRIBE {sql}").fetchall()}
    except Exception as error:  # noqa: BLE001 - which column it was is what one wants to know
        failed = []
        for name in names:
            try:
                client.query(f'SELECT "{name}" FROM test_all_types()')
            except Exception as each:  # noqa: BLE001
                failed.append((name, str(each)[:200]))
        raise AssertionError(f"{error}; by column: {failed}") from None
    for name in names:
        expected = local.execute(f'SELECT "{name}" FROM test_all_types()').to_arrow_table().column(0)
        found = result.table.column(name)
        if name in ("float", "double", "float_array", "double_array"):  # NaN is not equal to itself
            assert str(found.to_pylist()) == str(expected.to_pylist()), name
        elif pa.types.is_dictionary(found.type):
            assert found.cast(pa.string()).to_pylist() == expected.cast(pa.string()).to_pylist(), name
        else:
            assert found.type == expected.type, name
            assert found.combine_chunks().equals(expected.combine_chunks()), name


def test_enums_send_their_dictionary_first_in_each_stream(client: Client) -> None:
    client.query("CREATE OR REPLACE TABLE moods (m ENUM('sad', 'ok', 'happy'))")
    client.query("INSERT INTO moods SELECT (['sad', 'ok', 'happy'])[1 + i % 3] FROM range(500000) r(i)")
    result = client.query("SELECT m FROM moods", options={"max_streams": 3})
    for responses in result.streams:
        assert responses[0].sequence == 0
        assert all(r.sequence > 0 for r in responses[1:])
    assert result.table.column("m").cast(pa.string()).to_pylist()[:4] == ["sad", "ok", "happy", "sad"]
    assert result.answer.columns[0].type == "ENUM('sad', 'ok', 'happy')"


def test_long_strings_and_wide_rows(client: Client) -> None:
    long = client.query("SELECT repeat('ä', 3000000) AS s", options={"max_message_bytes": 16 << 20})
    assert len(long.value()) == 3_000_000
    columns = ", ".join(f"{i} AS c{i}" for i in range(2000))
    assert client.query(f"SELECT {columns}").table.num_columns == 2000


def test_too_many_columns_are_refused_clearly(client: Client) -> None:
    import grpc

    columns = ", ".join(f"{i} AS c{i}" for i in range(100_000))
    with pytest.raises(grpc.RpcError) as refused:
        client.query(f"SELECT {columns}")
    assert refused.value.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INVALID_ARGUMENT)
    assert "column" in refused.value.details()
    assert client.query("SELECT 1").value() == 1


def test_parameters_travel_as_values(client: Client) -> None:
    from client import ipc_row

    when = datetime.datetime(2026, 1, 2, 3, 4, 5)
    row = ipc_row({"1": 41, "2": "it's", "3": decimal.Decimal("1.50"), "4": when})
    result = client.query("SELECT $1 + 1, $2, $3, $4", parameters=row)
    assert result.rows() == [(42, "it's", decimal.Decimal("1.50"), when)]
    assert client.query("SELECT ? || ?", parameters=ipc_row({"1": "a", "2": "b"})).value() == "ab"
    named = client.query("SELECT $a - $b", parameters=ipc_row({"b": 1, "a": 3}))
    assert named.value() == 2


def test_the_schema_and_the_end_alone_are_a_stream(client: Client) -> None:
    answer = client.execute("SELECT 1 AS a, 'x' AS b")
    assert pa.ipc.open_stream(answer.schema + END_OF_STREAM).read_all().num_rows == 0
    assert pa.ipc.open_stream(messages(answer.schema, list(client.stream(answer)))).read_all().num_rows == 1


def test_dates_and_zones_work_on_the_worker(client: Client) -> None:
    assert client.query("SELECT current_date IS NOT NULL AND now() + INTERVAL 1 DAY > now()").value() is True
    zoned = "SELECT (TIMESTAMPTZ '2026-07-01 12:00:00+00')::VARCHAR"
    assert (
        client.query(zoned, options={"settings": {"TimeZone": "Europe/Berlin"}}).value()
        == "2026-07-01 14:00:00+02"
    )
