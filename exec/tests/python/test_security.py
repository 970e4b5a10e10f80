"""SQL from clients can't reach the host, nor the files that databases lie in."""

from __future__ import annotations

import json
from pathlib import Path

import grpc
import pytest

from client import Client
from conftest import Served

HOST = [
    "SELECT * FROM read_csv('/etc/passwd', header = false)",
    "SELECT * FROM '/etc/passwd'",
    "FROM '/tmp/x.parquet'",
    "SELECT content FROM read_text('/etc/passwd')",
    "SELECT * FROM read_blob('/etc/*')",
    "SELECT * FROM glob('/*')",
    "SELECT * FROM sniff_csv('/etc/passwd')",
    "SELECT * FROM parquet_metadata('/tmp/x.parquet')",
    "SELECT * FROM read_json('/etc/passwd')",
    "SELECT (SELECT count(*) FROM read_text('/etc/passwd'))",
    "WITH x AS (FROM read_text('/etc/passwd')) SELECT 1 UNION ALL SELECT count(*) FROM x",
    "CREATE VIEW sneaky AS FROM read_text('/etc/passwd')",
    "CREATE MACRO sneaky() AS TABLE FROM read_text('/etc/passwd')",
    "CREATE TABLE sneaky AS FROM read_text('/etc/passwd')",
    "INSERT INTO kept SELECT length(content) FROM read_text('/etc/passwd')",
    "SELECT * FROM query('FROM read_text(''/etc/passwd'')')",
    "SELECT * FROM query_table('/etc/passwd')",
    "COPY kept TO '/tmp/out.csv'",
    "COPY (SELECT 1) TO '/tmp/out.parquet' (FORMAT parquet)",
    "COPY kept FROM '/etc/passwd'",
    "EXPORT DATABASE '/tmp/out'",
    "IMPORT DATABASE '/tmp/out'",
    "ATTACH '/tmp/other.duckdb' AS other",
    "ATTACH ':memory:' AS other",
    "DETACH mydb",
    "INSTALL httpfs",
    "LOAD tpch",
    "FORCE INSTALL tpch FROM '/tmp'",
    "CREATE SECRET s (TYPE s3, KEY_ID 'a', SECRET 'b')",
    "FROM duckdb_secrets()",
    "SET GLOBAL memory_limit = '1TB'",
    "SET memory_limit = '1TB'",
    "SET temp_directory = '/tmp'",
    "SET enable_external_access = true",
    "SET allowed_directories = ['/']",
    "SET lock_configuration = false",
    "SET extension_directory = '/tmp'",
    "SET home_directory = '/tmp'",
    "SET log_query_path = '/tmp/x'",
    "PRAGMA enable_profiling",
    "SET profiling_output = '/tmp/x'",
    "RESET memory_limit",
    "RESET GLOBAL threads",
    "CHECKPOINT",
    "FORCE CHECKPOINT",
    "PRAGMA force_checkpoint",
    "USE memory",
    "CALL pragma_database_list()",
]


@pytest.fixture(autouse=True)
def kept(client: Client) -> None:
    client.query("CREATE TABLE IF NOT EXISTS kept (i BIGINT)")


@pytest.mark.parametrize("sql", HOST)
def test_the_host_is_out_of_reach(client: Client, sql: str) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        client.query(sql)
    assert refused.value.code() in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT)
    assert "root:x" not in refused.value.details()
    assert client.query("SELECT 42").value() == 42


def test_the_databases_own_files_are_out_of_reach(client: Client, served: Served) -> None:
    mounts = [
        Path(line.split()[4])
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if str(served.place.home) in line or "openduck" in line.split(" - ")[-1]
    ]
    files = [file for mount in mounts for file in mount.glob("*.duckdb*") if file.is_file()]
    assert files, "the worker's mount is where the test looks"
    for file in files:
        for sql in (
            f"SELECT * FROM read_blob('{file}')",
            f"COPY (SELECT 1) TO '{file}'",
            f"ATTACH '{file}' AS again",
            f"COPY kept TO '{file}.wal'",
        ):
            with pytest.raises(grpc.RpcError) as refused:
                client.query(sql)
            assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED
    assert client.query("SELECT count(*) >= 0 FROM kept").value() is True


@pytest.mark.parametrize(
    "sql",
    [
        "FROM duckdb_databases()",
        "SELECT * FROM duckdb_settings()",
        "SHOW DATABASES",
        "SELECT * FROM pragma_database_size()",
        "PRAGMA database_list",
        "SELECT * FROM duckdb_temporary_files()",
        "FROM duckdb_logs()",
        "SELECT current_setting('temp_directory')",
        "SELECT current_setting('extension_directory')",
        "SHOW ALL TABLES",
        "FROM duckdb_extensions()",
        "EXPLAIN ANALYZE SELECT * FROM kept",
        "SELECT * FROM duckdb_views()",
        "SELECT * FROM no_such_table_at_all",
    ],
)
def test_no_path_is_ever_shown(client: Client, served: Served, sql: str) -> None:
    try:
        text = str(client.query(sql).table.to_pylist())
    except grpc.RpcError as refused:
        text = str(refused.details())
    for part in (
        str(served.place.home),
        str(served.place.directory),
        "/mnt",
        "mydb.duckdb",
        ".snapshots",
        "/root",
        "/tmp",
    ):
        assert part not in text, text[:500]


def test_a_read_only_token_only_reads(client: Client, served: Served) -> None:
    created = json.loads(served.command("token", "create", "--database", "mydb", "--read-only", "--json"))
    reader = served.client(token=created["token"])
    assert reader.query("SELECT 1 + 1").value() == 2
    for sql in (
        "INSERT INTO kept VALUES (1)",
        "DROP TABLE kept",
        "CREATE TABLE mine (i INTEGER)",
        "DELETE FROM kept",
    ):
        with pytest.raises(grpc.RpcError) as refused:
            reader.query(sql)
        assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED
    reader.close()


def test_other_databases_need_a_right_to_them(served: Served) -> None:
    served.place.fs("create", "otherdb")
    created = json.loads(served.command("token", "create", "--database", "mydb", "--json"))
    client = served.client(token=created["token"])
    listed = client.query("SELECT * FROM openduck_databases()")
    assert "otherdb" not in str(listed.rows())
    with pytest.raises(grpc.RpcError) as refused:
        client.query("SELECT 1", database="otherdb")
    with pytest.raises(grpc.RpcError) as absent:
        client.query("SELECT 1", database="nodb")
    assert refused.value.code() == absent.value.code()
    assert refused.value.details().replace("otherdb", "X") == absent.value.details().replace("nodb", "X")
    client.close()


def test_revoked_and_expired_tokens_end(served: Served) -> None:
    import time

    created = json.loads(served.command("token", "create", "--database", "mydb", "--json"))
    client = served.client(token=created["token"])
    assert client.query("SELECT 1").value() == 1
    served.command("token", "revoke", created["id"])
    deadline = time.monotonic() + 15
    while True:
        try:
            client.query("SELECT 1")
        except grpc.RpcError as refused:
            assert refused.code() == grpc.StatusCode.UNAUTHENTICATED
            break
        assert time.monotonic() < deadline, "a revoked token works on"
        time.sleep(0.2)
    client.close()
    assert created["token"] not in served.log.read_text()
    assert served.token not in served.log.read_text()


def test_garbage_is_refused_without_harm(client: Client) -> None:
    import random

    from client import ipc_row

    chance = random.Random(7)
    request = client.request("SELECT $1 + i FROM up", parameters=ipc_row({"1": 1}))
    request.inputs.add(name="up", schema=b"\x00" * 40, batch=b"x" * 100, last=True)
    whole = request.SerializeToString()
    call = client.channel.unary_unary("/openduck.v1.ExecutionService/ExecuteQuery")
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(chance.randrange(1, 8)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        with pytest.raises(grpc.RpcError) as refused:
            call(bytes(data[: chance.randrange(1, len(data) + 1)]), metadata=client.metadata, timeout=20)
        assert refused.value.code() not in (grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE)
    assert client.query("SELECT 42").value() == 42


def test_limits_are_named(client: Client) -> None:
    with pytest.raises(grpc.RpcError) as long:
        client.query("SELECT '" + "x" * (17 << 20) + "'")
    assert long.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    deep = "SELECT " + "(" * 5000 + "1" + ")" * 5000
    with pytest.raises(grpc.RpcError):
        client.query(deep)
    assert client.query("SELECT 42").value() == 42
