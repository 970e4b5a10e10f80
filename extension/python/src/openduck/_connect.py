"""`connect`: a DuckDB connection with a remote database attached and in use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb

from openduck._extension import check, extension_path

_PREFIX = "openduck:"
_PREFIXES = (_PREFIX, "od:")


def connect(
    database: str,
    *,
    endpoint: str | None = None,
    token: str | None = None,
    snapshot: str | None = None,
    read_only: bool = False,
    local: str | Path = ":memory:",
    config: Mapping[str, Any] | None = None,
) -> duckdb.DuckDBPyConnection:
    """Connects to a remote database, and returns a plain DuckDB connection.

    >>> connection = openduck.connect("mydb")
    >>> connection.sql("SELECT count(*) FROM trips")            # runs at the server
    >>> connection.sql("FROM trips JOIN 'local.parquet' USING (id)")

    The remote database is attached as `cloud` and in use, so its tables need no qualifier; local ones are in
    `memory`.

    Args:
        database: its name: `"mydb"`, `"openduck:mydb"` or `"od:mydb"`, which all mean the same.
        endpoint: the server's address. Default: the variable `OPENDUCK_ENDPOINT`, or
            `http://localhost:7878`.
        token: what the server wants to see. Default: the variable `OPENDUCK_TOKEN`.
        snapshot: a snapshot's name or id, `lsn:7`, or a time: the database as it was then, read-only.
        read_only: refuse to write.
        local: the local database, which may be a file; the name of its catalog is then the file's.
        config: DuckDB's own settings, as for `duckdb.connect`. `allow_unsigned_extensions` is set, since
            the package's extension is not signed with DuckDB's keys.

    Raises:
        DuckDBDoesNotFit: this Python's DuckDB is not the one that the extension was built for.
        duckdb.Error: what DuckDB or the server says; never with the token in it.
    """
    check()
    path = _path(database)
    options: dict[str, str | bool] = {}
    for name, value in (("endpoint", endpoint), ("token", token), ("snapshot", snapshot)):
        if value is not None:
            options[name] = value
    if read_only:
        options["read_only"] = True
    settings = {**(config or {}), "allow_unsigned_extensions": "true"}
    connection = duckdb.connect(local, config=settings)
    try:
        connection.load_extension(str(extension_path()))
        _attach(connection, path, options)
        connection.execute("USE cloud")
    except BaseException:
        connection.close()
        raise
    return connection


def _path(database: str) -> str:
    """The name with the prefix by which DuckDB knows whose it is."""
    if database.startswith(_PREFIXES):
        database = database.split(":", 1)[1]
    if not database:
        raise ValueError("the database has no name: connect('mydb')")
    return _PREFIX + database


def _attach(connection: duckdb.DuckDBPyConnection, path: str, options: Mapping[str, str | bool]) -> None:
    # Values travel as parameters, so that nothing in them is SQL and none of them is in a statement's text.
    wanted = ", ".join(f"{name} ${name}" for name in options)
    clause = f" ({wanted})" if wanted else ""
    connection.execute(f"ATTACH $path AS cloud{clause}", {"path": path, **options})
