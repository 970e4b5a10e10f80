"""Operations as SQL, the commands over them, and what is there to watch."""

from __future__ import annotations

import csv
import io
import json

from client import Client
from conftest import Served


def test_snapshots_clones_and_going_back(client: Client) -> None:
    client.query("CREATE OR REPLACE TABLE t AS SELECT 1 AS i")
    client.query("CALL openduck_snapshot('mydb', 'before')")
    client.query("UPDATE t SET i = 2")
    assert client.query("SELECT i FROM t", snapshot="before").value() == 1
    assert client.query("SELECT i FROM t", options={"max_staleness_ms": 0}).value() == 2
    names = client.query("SELECT name FROM openduck_snapshots('mydb')").table.column(0).to_pylist()
    assert "before" in names
    client.query("CALL openduck_clone('mydb', 'copy')")
    assert client.query("SELECT i FROM t", database="copy").value() == 2
    client.query("CALL openduck_restore('mydb', 'before')")
    assert client.query("SELECT i FROM t", options={"max_staleness_ms": 0}).value() == 1
    client.query("INSERT INTO t VALUES (3)")
    assert client.query("SELECT count(*) FROM t", options={"max_staleness_ms": 0}).value() == 2


def test_what_there_is(client: Client) -> None:
    assert "mydb" in str(client.query("FROM openduck_databases()").rows())
    assert client.query("SELECT count(*) FROM openduck_workers()").value() >= 1
    running = client.query("SELECT sql FROM openduck_queries()").table.column(0).to_pylist()
    assert any("openduck_queries" in sql for sql in running)


def test_the_query_command_writes_what_it_is_asked_for(served: Served) -> None:
    sql = "SELECT i, 'a' || i AS s FROM range(3) r(i)"
    table = served.command("query", sql, "-d", "mydb")
    assert "a2" in table
    rows = list(csv.reader(io.StringIO(served.command("query", sql, "-d", "mydb", "--format", "csv"))))
    assert rows == [["i", "s"], ["0", "a0"], ["1", "a1"], ["2", "a2"]]
    lines = served.command("query", sql, "-d", "mydb", "--format", "json")
    assert [json.loads(line) for line in lines.splitlines()][1] == {"i": 1, "s": "a1"}
    assert "42" in served.command("query", "-d", "mydb", "--format", "csv", stdin="SELECT 42")


def test_status_shows_what_runs(served: Served) -> None:
    status = json.loads(served.command("status", "--json"))
    assert any(database["name"] == "mydb" for database in status["databases"])
    assert status["workers"]


def test_health_and_metrics_are_on_the_same_port(served: Served, client: Client) -> None:
    client.query("SELECT 1")
    assert served.get("/health")
    assert served.get("/ready")
    metrics = served.get("/metrics")
    assert "openduck_" in metrics and "# TYPE" in metrics
    assert served.token not in metrics


def test_finished_queries_are_kept(client: Client, served: Served) -> None:
    client.query("SELECT 'marker-4711' AS m")
    found = client.query("SELECT count(*) FROM openduck_log() WHERE sql LIKE '%marker-4711%'")
    assert found.value() >= 1
