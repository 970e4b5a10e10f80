"""Sessions: transactions, temporary tables, settings, and open results."""

from __future__ import annotations

import itertools
import threading
import time
from typing import Any

import grpc
import pyarrow as pa
import pytest

from client import END_OF_STREAM, Client, Parts
from conftest import Served


def test_transactions_belong_to_a_session(client: Client, served: Served) -> None:
    client.query("CREATE OR REPLACE TABLE t (i INTEGER)")
    session = client.session()
    begun = client.query("BEGIN", session_id=session)
    assert begun.answer.in_transaction
    client.query("INSERT INTO t VALUES (1)", session_id=session)
    assert client.query("SELECT count(*) FROM t", session_id=session).value() == 1
    assert client.query("SELECT count(*) FROM t", options={"max_staleness_ms": 0}).value() == 0
    client.query("ROLLBACK", session_id=session)
    assert client.query("SELECT count(*) FROM t", session_id=session).value() == 0


def test_a_write_is_seen_by_whoever_asks_for_its_lsn(client: Client) -> None:
    client.query("CREATE OR REPLACE TABLE seen (i INTEGER)")
    for round_ in range(20):
        written = client.query(f"INSERT INTO seen VALUES ({round_})")
        found = client.query("SELECT count(*) FROM seen", min_lsn=written.answer.lsn)
        assert found.value() == round_ + 1
        assert found.answer.lsn >= written.answer.lsn


def test_conflicts_are_aborted(client: Client) -> None:
    client.query("CREATE OR REPLACE TABLE c AS SELECT 1 AS i")
    one, two = client.session(), client.session()
    for session in (one, two):
        client.query("BEGIN", session_id=session)
    client.query("UPDATE c SET i = 2", session_id=one)
    with pytest.raises(grpc.RpcError) as conflict:
        client.query("UPDATE c SET i = 3", session_id=two)
    assert conflict.value.code() == grpc.StatusCode.ABORTED
    client.query("COMMIT", session_id=one)
    assert client.query("SELECT i FROM c", session_id=one).value() == 2


def test_temporary_tables_and_settings_stay_in_their_session(client: Client) -> None:
    session = client.session()
    client.query("CREATE TEMP TABLE mine AS SELECT 7 AS x", session_id=session)
    assert client.query("SELECT x FROM mine", session_id=session).value() == 7
    with pytest.raises(grpc.RpcError) as unknown:
        client.query("SELECT x FROM mine")
    assert unknown.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    client.query("SET TimeZone = 'Asia/Tokyo'", session_id=session)
    noon = "SELECT (TIMESTAMPTZ '2026-01-01 12:00:00+00')::VARCHAR"
    assert client.query(noon, session_id=session).value() == "2026-01-01 21:00:00+09"
    assert client.query(noon).value() != "2026-01-01 21:00:00+09"


def test_two_open_results_inside_a_transaction_do_not_wait_for_each_other(client: Client) -> None:
    rows = 2_000_000
    client.query(f"CREATE OR REPLACE TABLE big AS SELECT i, i % 7 AS m FROM range({rows}) r(i)")
    session = client.session()
    client.query("BEGIN", session_id=session)
    client.query("INSERT INTO big VALUES (-1, -1)", session_id=session)
    one = client.execute("SELECT i, m FROM big", session_id=session)
    # Nothing of the first was read yet: the second must run all the same.
    two = client.execute("SELECT i, m FROM big WHERE m >= 0", session_id=session)
    second = client.read(two)
    first = client.read(one)
    assert first.table.num_rows == rows + 1
    assert second.table.num_rows == rows
    client.query("ROLLBACK", session_id=session)


def test_two_large_scans_are_joined_inside_a_transaction(client: Client, local: Any) -> None:
    """What the extension does for a join that it runs here: both sides come over one session, behind an
    INSERT, and neither waits for the other."""
    rows = 10_000_000
    for table, factor in (("l", 3), ("r", 7)):
        columns = f"(i * {factor}) % {rows} AS k, i AS v"
        client.query(f"CREATE OR REPLACE TABLE {table} AS SELECT {columns} FROM range({rows}) r(i)")
    session = client.session()
    client.query("BEGIN", session_id=session)
    client.query(f"INSERT INTO l VALUES ({rows}, -1)", session_id=session)
    client.query(f"INSERT INTO r VALUES ({rows}, -1)", session_id=session)
    answers = {side: client.execute(f"FROM {side}", session_id=session, timeout=120) for side in ("l", "r")}
    for side, answer in answers.items():
        # Decoded batch by batch, as DuckDB asks for them.
        responses = (r for r in client.stream(answer, timeout=120) if r.WhichOneof("content") == "batch")
        parts = itertools.chain([answer.schema], (r.batch for r in responses), [END_OF_STREAM])
        reader = pa.ipc.open_stream(Parts(parts))
        local.register("arriving", reader)
        local.execute(f"CREATE TABLE {side} AS FROM arriving")
        local.unregister("arriving")
    sums = ", ".join(f"sum({column})::VARCHAR" for column in ("l.v", "r.v", "l.v * r.v"))
    joined = f"SELECT count(*), {sums} FROM l JOIN r USING (k)"
    here = local.execute(joined).fetchone()
    assert here == client.query(joined, session_id=session, timeout=120).rows()[0]
    assert here[0] == rows + 1
    client.query("ROLLBACK", session_id=session)
    client.query("DROP TABLE l")
    client.query("DROP TABLE r")


def test_calls_of_one_session_are_ordered(client: Client) -> None:
    session = client.session()
    client.query("CREATE OR REPLACE TABLE ordered (i INTEGER)")
    order: list[str] = []

    def slow() -> None:
        client.query(
            "INSERT INTO ordered SELECT count(*) FROM range(3000000) a WHERE hash(range) % 3 = 0",
            session_id=session,
        )
        order.append("slow")

    worker = threading.Thread(target=slow)
    worker.start()
    time.sleep(0.05)
    client.query("SELECT count(*) FROM ordered", session_id=session)
    worker.join()
    assert client.query("SELECT count(*) FROM ordered", session_id=session).value() == 1


def test_another_tokens_session_is_not_there(client: Client, served: Served) -> None:
    created = served.command("token", "create", "--database", served.database, "--json")
    import json

    other = served.client(token=json.loads(created)["token"])
    session = client.session()
    client.query("CREATE TEMP TABLE secret AS SELECT 1 AS x", session_id=session)
    with pytest.raises(grpc.RpcError) as refused:
        other.query("SELECT x FROM secret", session_id=session)
    assert refused.value.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT)
    other.close()


def test_the_schemas_number_changes_with_the_schema_and_with_nothing_else(client: Client) -> None:
    session = client.session()

    def number(sql: str, **fields: Any) -> int:
        found = client.query(sql, **fields).answer.schema_version
        assert found > 0
        return int(found)

    begin = number("CREATE TABLE versioned (i INTEGER)")
    assert number("SELECT 1") == begin
    assert number("INSERT INTO versioned VALUES (1)") == begin
    assert number("SELECT * FROM versioned", snapshot=f"lsn:{client.execute('SELECT 1').lsn}") == begin
    seen = {begin}
    for change in (
        "ALTER TABLE versioned ADD COLUMN j VARCHAR DEFAULT 'x'",
        "COMMENT ON COLUMN versioned.j IS 'a remark'",
        "CREATE VIEW watched AS SELECT i FROM versioned",
        "CREATE TYPE mood AS ENUM ('well', 'ill')",
        "CREATE MACRO twice(x) AS x * 2",
        "CREATE SEQUENCE numbers",
        "CREATE INDEX by_i ON versioned (i)",
        "CREATE SCHEMA elsewhere",
    ):
        assert (changed := number(change)) not in seen, change
        seen.add(changed)
    assert number("SELECT nextval('numbers')") == changed
    # Inside a transaction it is the transaction's own; and what is rolled back has never been.
    client.query("BEGIN", session_id=session)
    inside = number("CREATE TABLE short_lived (i INTEGER)", session_id=session)
    assert number("SELECT 1", session_id=session) == inside
    assert number("SELECT 1") == changed != inside
    client.query("ROLLBACK", session_id=session)
    assert number("SELECT 1", session_id=session) == changed
    for drop in (
        "VIEW watched",
        "TABLE versioned",
        "TYPE mood",
        "MACRO twice",
        "SEQUENCE numbers",
        "SCHEMA elsewhere",
    ):
        client.query(f"DROP {drop}")
