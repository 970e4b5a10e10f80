"""What a process goes through: faults of the server, interrupts, forks, threads, its own end."""

import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import duckdb
import pytest
from conftest import TOKEN, Server, connection


@pytest.fixture(autouse=True)
def rows(server: Server) -> None:
    """A table that takes a while."""
    con = server.connect()
    con.execute(
        "CREATE TABLE IF NOT EXISTS cloud.big AS SELECT i, 'text ' || i AS s FROM range(1000000) r(i)"
    )
    con.execute("CREATE TABLE IF NOT EXISTS cloud.small AS SELECT 1 AS i")
    con.close()


ENDLESS = "SELECT count(*) FROM cloud.big a, cloud.big b WHERE a.i + b.i = 7 AND a.s || b.s <> 'x'"
SCAN = "SELECT sum(length(s)) FROM cloud.big, (SELECT 1 FROM range(50)) WHERE s || i <> 'x'"


def count(con: duckdb.DuckDBPyConnection, table: str) -> int:
    """How many rows a table has."""
    return con.execute(f"SELECT count(*) FROM cloud.{table}").fetchone()[0]


def test_an_interrupt_ends_a_pushed_statement(server: Server) -> None:
    con = server.connect()
    threading.Timer(0.5, con.interrupt).start()
    began = time.monotonic()
    with pytest.raises(duckdb.InterruptException):
        con.execute(ENDLESS).fetchall()
    assert time.monotonic() - began < 5
    assert count(con, "small") == 1
    # It does not go on at the server either.
    deadline = time.monotonic() + 10
    running = "SELECT count(*) FROM openduck_queries(via := 'cloud') WHERE sql LIKE '%a.s || b.s%'"
    while con.execute(running).fetchone()[0] > 1 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert con.execute(running).fetchone()[0] <= 1


def test_a_result_that_is_not_read_is_no_burden(server: Server) -> None:
    con = server.connect()
    for _ in range(20):
        con.execute("SELECT * FROM cloud.big").fetchone()
    assert count(con, "small") == 1


def test_threads_share_an_attached_database(server: Server) -> None:
    con = server.connect()
    con.execute("CREATE TABLE keys AS SELECT range * 1000 AS i FROM range(100)")
    failures = []

    def work() -> None:
        try:
            own = con.cursor()
            for _ in range(10):
                assert count(own, "small") == 1
                assert own.execute("SELECT count(*) FROM cloud.big JOIN keys USING (i)").fetchone()[0] == 100
        except Exception as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert failures == []


def test_a_fork_makes_its_own_connection(server: Server) -> None:
    con = server.connect()
    assert count(con, "small") == 1
    con.execute("BEGIN")
    con.execute("INSERT INTO cloud.small VALUES (2)")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            try:
                count(con, "small")
            except duckdb.TransactionException as error:
                assert "forked" in str(error)
                con.execute("ROLLBACK")
                code = 0 if count(con, "small") == 1 else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert count(con, "small") == 2
    con.execute("ROLLBACK")
    assert count(con, "small") == 1


def test_the_interpreter_ends_while_a_query_runs(server: Server) -> None:
    script = f"""
        import threading, time
        from conftest import connection
        con = connection()
        con.execute("ATTACH 'openduck:mydb' AS cloud (ENDPOINT '{server.endpoint}', TOKEN '{TOKEN}')")
        def work():
            try:
                con.cursor().execute({ENDLESS!r}).fetchall()
            except BaseException:
                pass
        threading.Thread(target=work, daemon=True).start()
        con.execute("SELECT * FROM cloud.big").fetchone()
        time.sleep(0.5)
        print("done", flush=True)
    """
    done = subprocess.run(
        [sys.executable, "-B", "-c", textwrap.dedent(script)],
        cwd=Path(__file__).parent,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "done\n"
    assert done.returncode == 0, done.stderr


def test_a_killed_server_is_an_error_and_works_again_when_it_is_back(tmp_path: Path) -> None:
    server = Server(tmp_path / "home")
    try:
        con = server.connect()
        con.execute("CREATE TABLE cloud.big AS SELECT i, 'text ' || i AS s FROM range(3000000) r(i)")
        con.execute("CREATE TABLE cloud.small AS SELECT 1 AS i")
        con.execute("CREATE TABLE here AS FROM range(10)")
        for statement in (ENDLESS, SCAN, "CREATE TABLE copy AS FROM cloud.big"):
            failed = []

            def work(statement: str = statement, failed: list = failed) -> None:
                try:
                    con.cursor().execute(statement).fetchall()
                    failed.append(None)
                except duckdb.Error as error:
                    failed.append(error)

            thread = threading.Thread(target=work)
            thread.start()
            time.sleep(0.3)
            server.kill()
            thread.join(60)
            assert not thread.is_alive(), statement
            if failed[0] is not None:
                assert isinstance(failed[0], duckdb.IOException | duckdb.InterruptException), failed[0]
            with pytest.raises(duckdb.IOException, match="openduck serve"):
                con.execute("SELECT count(*) FROM cloud.small, here").fetchall()
            server.start()
            assert count(con, "small") == 1
            con.execute("DROP TABLE IF EXISTS copy")
        # A transaction is gone with its server, and says so.
        con.execute("BEGIN")
        con.execute("INSERT INTO cloud.small VALUES (2)")
        server.kill()
        server.start()
        with pytest.raises(duckdb.Error):
            con.execute("INSERT INTO cloud.small VALUES (3)")
        con.execute("ROLLBACK")
        assert count(con, "small") == 1
    finally:
        server.stop()


def test_duckdb_connect_finds_the_installed_extension(server: Server, tmp_path: Path) -> None:
    con = duckdb.connect()
    place = tmp_path / con.execute("PRAGMA version").fetchone()[0]
    place = place / con.execute("PRAGMA platform").fetchone()[0]
    place.mkdir(parents=True)
    for name in ("openduck", "od"):
        source = Path(os.environ["OPENDUCK_EXTENSION_DIR"]) / f"{name}.duckdb_extension"
        (place / source.name).symlink_to(source)
    config = {"allow_unsigned_extensions": "true", "extension_directory": str(tmp_path)}
    for prefix in ("openduck", "od"):
        con = duckdb.connect(f"{prefix}:mydb?endpoint={server.endpoint}&token={TOKEN}", config=config)
        assert con.execute("SELECT current_database(), count(*) FROM small").fetchone() == ("mydb", 1)
        con.close()


def test_a_thousand_tables_are_no_burden_to_attach(server: Server) -> None:
    con = server.connect()
    con.execute("CREATE SCHEMA cloud.many")
    con.execute("BEGIN")
    for number in range(1000):
        con.execute(f"CREATE TABLE cloud.many.t{number}(i INTEGER, s VARCHAR)")
    con.execute("COMMIT")
    fresh = connection()
    taken = []
    for number in range(5):
        began = time.monotonic()
        fresh.execute(f"ATTACH 'openduck:mydb' AS c{number} (ENDPOINT '{server.endpoint}', TOKEN '{TOKEN}')")
        taken.append(time.monotonic() - began)
    assert min(taken) < 0.05
    assert (
        fresh.execute("SELECT count(*) FROM duckdb_tables() WHERE schema_name = 'many'").fetchone()[0] == 5000
    )
    con.execute("DROP SCHEMA cloud.many CASCADE")
