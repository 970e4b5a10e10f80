"""Rows that travel up."""

from __future__ import annotations

import grpc
import pyarrow as pa
import pytest

from client import Client, ipc_batches


def batch(begin: int, count: int) -> pa.RecordBatch:
    numbers = list(range(begin, begin + count))
    return pa.RecordBatch.from_pydict(
        {"i": pa.array(numbers, pa.int64()), "s": [f"row {n}" for n in numbers]}
    )


def one(client: Client, name: str, rows: pa.RecordBatch, **fields: object) -> object:
    return client.pb.Input(
        name=name, schema=rows.schema.serialize().to_pybytes(), batch=ipc_batches([rows]), last=True, **fields
    )


def test_one_call_is_enough(client: Client) -> None:
    result = client.query("SELECT sum(i)::BIGINT, max(s) FROM up", inputs=[one(client, "up", batch(0, 10))])
    assert result.rows() == [(45, "row 9")]


def test_an_input_joins_with_tables_and_with_itself(client: Client) -> None:
    client.query("CREATE OR REPLACE TABLE known AS SELECT i FROM range(5) r(i)")
    rows = [one(client, "up", batch(0, 10))]
    assert client.query("SELECT count(*) FROM up JOIN known USING (i)", inputs=rows).value() == 5
    twice = client.query("SELECT count(*) FROM up a JOIN up b ON a.i + b.i = 9", inputs=rows)
    assert twice.value() == 10


def test_many_chunks_become_a_table(client: Client) -> None:
    client.query("CREATE OR REPLACE TABLE sent (i BIGINT, s VARCHAR)")
    chunks = [batch(number * 50_000, 50_000) for number in range(20)]
    result = client.upload("INSERT INTO sent FROM up", "up", chunks)
    assert result.value() == 1_000_000
    assert client.query("SELECT count(DISTINCT i), sum(i)::BIGINT FROM sent").rows() == [
        (1_000_000, 499999500000)
    ]


def test_a_repeated_chunk_does_nothing_and_a_gap_is_refused(client: Client) -> None:
    client.query("CREATE OR REPLACE TABLE sent2 (i BIGINT, s VARCHAR)")
    first = client.pb.Input(
        name="up", schema=batch(0, 1).schema.serialize().to_pybytes(), batch=ipc_batches([batch(0, 10)])
    )
    query_id = client.execute("INSERT INTO sent2 FROM up", inputs=[first]).query_id
    second = client.pb.Input(name="up", chunk_seq=1, batch=ipc_batches([batch(10, 10)]))
    for _ in range(3):
        client.execute(query_id=query_id, inputs=[second])
    with pytest.raises(grpc.RpcError) as gap:
        client.execute(query_id=query_id, inputs=[client.pb.Input(name="up", chunk_seq=3)])
    assert gap.value.code() == grpc.StatusCode.OUT_OF_RANGE
    done = client.execute(query_id=query_id, inputs=[client.pb.Input(name="up", chunk_seq=2, last=True)])
    assert client.read(done).value() == 20


def test_a_failing_statement_fails_the_append_with_its_error(client: Client) -> None:
    client.query("CREATE OR REPLACE TABLE keyed (i BIGINT PRIMARY KEY, s VARCHAR)")
    with pytest.raises(grpc.RpcError) as failed:
        client.upload("INSERT INTO keyed FROM up", "up", [batch(0, 5), batch(0, 5), batch(5, 5)])
    assert failed.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert "duplicate key" in failed.value.details().lower()
    assert client.query("SELECT count(*) FROM keyed").value() == 0


def test_a_statement_that_needs_no_more_still_answers(client: Client) -> None:
    result = client.upload("SELECT i FROM up LIMIT 3", "up", [batch(n * 10_000, 10_000) for n in range(30)])
    assert result.table.num_rows == 3


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-5],
        lambda data: data[: len(data) // 2],
        lambda data: b"\xff" * len(data),
        lambda data: data[:40] + bytes(byte ^ 0x5A for byte in data[40:80]) + data[80:],
    ],
)
def test_damaged_batches_are_refused(client: Client, damage: object) -> None:
    rows = batch(0, 100)
    broken = client.pb.Input(
        name="up", schema=rows.schema.serialize().to_pybytes(), batch=damage(ipc_batches([rows])), last=True
    )
    with pytest.raises(grpc.RpcError) as refused:
        client.query("SELECT sum(length(s)) FROM up", inputs=[broken])
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.details()
    assert client.query("SELECT 1").value() == 1
