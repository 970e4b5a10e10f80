"""The extension's files: where they are, whether they fit, and how plain DuckDB gets them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import duckdb

from openduck import _footer

ExtensionName = Literal["openduck", "od"]
"""`openduck:` and `od:` in a database's name each need a file of that name; both hold the same."""


class DuckDBDoesNotFit(ImportError):
    """This Python's DuckDB is not the one that the extension was built for."""


def extension_path(name: ExtensionName = "openduck") -> Path:
    """Where the extension's file is, for `LOAD` and for other clients of DuckDB.

    >>> connection = duckdb.connect(config={"allow_unsigned_extensions": "true"})
    >>> connection.load_extension(str(openduck.extension_path()))
    """
    if name not in ("openduck", "od"):
        raise ValueError(f"{name!r} is no extension of this package; it has 'openduck' and 'od'")
    return Path(__file__).with_name(f"{name}.duckdb_extension")


def check() -> None:
    """Raises `DuckDBDoesNotFit` where DuckDB would not load the extension."""
    wanted = _footer.read(extension_path())
    if duckdb.__version__ != wanted.duckdb:
        raise DuckDBDoesNotFit(
            f"openduck's extension is built for DuckDB {wanted.duckdb}, and this is DuckDB "
            f"{duckdb.__version__}: pip install duckdb=={wanted.duckdb}"
        )


def install(*, extension_directory: str | Path | None = None) -> list[Path]:
    """Puts the extension where plain DuckDB finds it, and returns the files.

    From then on, any process of this user may write

    >>> duckdb.connect("openduck:mydb", config={"allow_unsigned_extensions": "true"})

    and `ATTACH 'openduck:mydb' AS cloud` without a `LOAD`. The setting is needed because the file is not
    signed with DuckDB's own keys. What an earlier version left is replaced.

    `extension_directory` is DuckDB's setting of that name, by default `~/.duckdb/extensions`.

    Raises `DuckDBDoesNotFit` where this Python has another DuckDB.
    """
    check()
    config: dict[str, str | bool | int | float | list[str]] = {"allow_unsigned_extensions": "true"}
    if extension_directory is not None:
        config["extension_directory"] = str(extension_directory)
    names: tuple[ExtensionName, ...] = ("openduck", "od")
    with duckdb.connect(config=config) as connection:
        for name in names:
            connection.install_extension(str(extension_path(name)), force_install=True)
        rows = connection.execute(
            "SELECT install_path FROM duckdb_extensions() WHERE list_contains($names, extension_name)",
            {"names": list(names)},
        ).fetchall()
    return sorted(Path(row[0]) for row in rows)
