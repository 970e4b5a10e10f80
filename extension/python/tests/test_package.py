"""What `import openduck` promises."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest
from conftest import Failed, User

from servers.served import Served


@pytest.mark.parametrize("name", ["mydb", "openduck:mydb", "od:mydb"])
def test_a_name_is_enough(user: User, name: str) -> None:
    found = user.run(f"""
import duckdb, openduck
connection = openduck.connect({name!r})
assert type(connection) is duckdb.DuckDBPyConnection
print(json.dumps([
    connection.execute("SELECT current_database()").fetchone(),
    connection.execute("SELECT count(*), max(id) FROM ducks").fetchone(),
    connection.execute("SELECT count(*) FROM cloud.ducks").fetchone(),
]))""")
    assert found == [["cloud"], [100, 99], [100]]


def test_remote_and_local_tables_meet(user: User) -> None:
    found = user.run("""
import openduck
connection = openduck.connect("mydb")
connection.execute(
    "CREATE TABLE memory.weights AS SELECT i AS id, i * 10 AS weight FROM range(0, 200, 50) r(i)"
)
joined = "SELECT name, weight FROM ducks JOIN memory.weights USING (id) ORDER BY id"
rows = connection.execute(joined).fetchall()
connection.execute("CREATE TABLE heavy AS FROM memory.weights WHERE weight > 500")
print(json.dumps([rows, connection.execute("FROM cloud.heavy ORDER BY id").fetchall()]))""")
    assert found == [[["duck 0", 0], ["duck 50", 500]], [[100, 1000], [150, 1500]]]


def test_where_and_as_whom_can_be_told(stranger: User, served: Served) -> None:
    found = stranger.run(f"""
import openduck
connection = openduck.connect("mydb", endpoint={served.endpoint!r}, token={served.token!r})
print(json.dumps(connection.execute("SELECT count(*) FROM ducks").fetchone()))""")
    assert found == [100]


def test_a_snapshot_is_as_it_was(user: User, served: Served) -> None:
    served.command("query", "CREATE TABLE changing AS SELECT 1 AS i", "-d", "mydb")
    served.command("query", "CALL openduck_snapshot('mydb', 'before')", "-d", "mydb")
    served.command("query", "INSERT INTO changing VALUES (2)", "-d", "mydb")
    found = user.run("""
import duckdb, openduck
then, now = openduck.connect("mydb", snapshot="before"), openduck.connect("mydb")
try:
    then.execute("INSERT INTO changing VALUES (3)")
    failure = None
except duckdb.Error as error:
    failure = str(error)
counts = [connection.execute("SELECT count(*) FROM changing").fetchone()[0] for connection in (then, now)]
print(json.dumps([counts, failure]))""")
    counts, failure = found
    assert counts == [1, 2]
    assert "read-only" in failure


def test_settings_are_duckdbs(user: User) -> None:
    found = user.run("""
import openduck
connection = openduck.connect("mydb", config={"threads": "3"})
print(json.dumps(connection.execute("SELECT current_setting('threads')").fetchone()))""")
    assert found == [3]


def test_a_read_only_connection_only_reads(user: User) -> None:
    with pytest.raises(Failed, match="read-only"):
        user.run("""
import openduck
openduck.connect("mydb", read_only=True).execute("CREATE TABLE t (i INT)")""")


def test_a_local_file_can_be_the_local_side(user: User, tmp_path: Path) -> None:
    found = user.run(f"""
import openduck
connection = openduck.connect("mydb", local={str(tmp_path / "mine.duckdb")!r})
connection.execute("CREATE TABLE mine.kept AS FROM ducks LIMIT 3")
print(json.dumps(connection.execute("SELECT count(*) FROM mine.kept").fetchone()))""")
    assert found == [3]


def test_plain_duckdb_finds_what_was_installed(user: User, tmp_path: Path) -> None:
    installed = user.run("import openduck\nprint(json.dumps(list(map(str, openduck.install()))))")
    assert [Path(file).name for file in installed] == ["od.duckdb_extension", "openduck.duckdb_extension"]
    assert all(Path(file).is_relative_to(tmp_path) for file in installed)
    for name in ("openduck:mydb", "od:mydb"):
        found = user.run(f"""
import duckdb
connection = duckdb.connect({name!r}, config={{"allow_unsigned_extensions": "true"}})
print(json.dumps(connection.execute("SELECT count(*) FROM ducks").fetchone()))""")
        assert found == [100]
    again = user.run("import openduck\nprint(json.dumps(list(map(str, openduck.install()))))")
    assert again == installed


def test_it_installs_where_it_is_told(user: User, tmp_path: Path) -> None:
    found = user.run(f"""
import openduck
print(json.dumps(list(map(str, openduck.install(extension_directory={str(tmp_path / "here")!r})))))""")
    assert len(found) == 2
    assert all(Path(file).is_relative_to(tmp_path / "here") for file in found)


def test_the_files_are_in_the_package(user: User) -> None:
    found = user.run("""
import openduck
print(json.dumps([str(openduck.extension_path()), str(openduck.extension_path("od"))]))""")
    for path, name in zip(found, ("openduck", "od"), strict=True):
        built = Path(os.environ["OPENDUCK_EXTENSION_DIR"]) / f"{name}.duckdb_extension"
        assert Path(path).read_bytes() == built.read_bytes()


def test_another_duckdb_is_told_apart_in_plain_words(wheel: Path, tmp_path: Path) -> None:
    pythons = dict(entry.split("=", 1) for entry in os.environ["OPENDUCK_PYTHONS"].split(","))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "unpacked")
    old = User(Path(pythons["1.5.5"]), tmp_path, PYTHONPATH=str(tmp_path / "unpacked"))
    for call in ("connect('mydb')", "install()"):
        with pytest.raises(
            Failed, match=r"DuckDB 2\.0\.0, and this is DuckDB 1\.5\.5: pip install duckdb==2\.0\.0"
        ):
            old.run(f"import openduck\nopenduck.{call}")


def test_the_wheel_is_for_this_platform_and_any_python(wheel: Path) -> None:
    assert wheel.name.startswith("openduck-")
    assert "-py3-none-linux_" in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "openduck/py.typed" in names
    assert not [name for name in names if "test" in name]


@pytest.mark.parametrize(
    ("name", "token"),
    [
        ("mydb", "wr'ong-secret-token"),
        ("no'such; --", "secret-token"),
        ("mydb'; DROP TABLE ducks; --", "secret-token"),
        ("my\ndb", "secret-token"),
        ("ü" * 300, "secret-token"),
    ],
)
def test_what_is_wrong_is_refused_without_the_token(
    stranger: User, served: Served, name: str, token: str
) -> None:
    program = f"import openduck\nopenduck.connect({name!r}, endpoint={served.endpoint!r}, token={token!r})"
    with pytest.raises(Failed) as failed:
        stranger.run(program)
    said = str(failed.value).replace(program, "")
    assert "duckdb" in said
    assert "secret-token" not in said.split("Error:", 1)[-1]


def test_a_database_without_a_name_is_refused(stranger: User) -> None:
    for name in ("", "od:", "openduck:"):
        with pytest.raises(Failed, match="no name"):
            stranger.run(f"import openduck\nopenduck.connect({name!r})")


def test_a_server_that_is_away_is_named(stranger: User) -> None:
    with pytest.raises(Failed, match="127.0.0.1:9"):
        stranger.run("import openduck\nopenduck.connect('mydb', endpoint='http://127.0.0.1:9')")
