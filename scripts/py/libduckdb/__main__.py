"""python3 -m libduckdb DIRECTORY SOURCE_ID: exits with 0 if DIRECTORY/lib/libduckdb.so is DuckDB of
that source, and has linked in what the worker's SQL uses."""

import ctypes
import pathlib
import sys
from collections.abc import Iterator

LINKED_IN = {"core_functions", "icu", "json", "parquet"}


class Result(ctypes.Structure):
    """duckdb_result: never looked into here."""

    _fields_ = [("room", ctypes.c_uint64 * 16)]


class Library:
    """An in-memory database of one libduckdb.so, by its C interface."""

    def __init__(self, path: pathlib.Path) -> None:
        self.api = ctypes.CDLL(str(path))
        self.api.duckdb_value_varchar.restype = ctypes.c_void_p
        self.api.duckdb_value_varchar.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64]
        database = ctypes.c_void_p()
        self.connection = ctypes.c_void_p()
        if self.api.duckdb_open(None, ctypes.byref(database)):
            raise OSError("it opens no database")
        if self.api.duckdb_connect(database, ctypes.byref(self.connection)):
            raise OSError("it makes no connection")

    def value(self, sql: str) -> str:
        """The first value that a query gives, as text."""
        result = Result()
        if self.api.duckdb_query(self.connection, sql.encode(), ctypes.byref(result)):
            raise OSError(f"it does not run {sql}")
        return ctypes.string_at(self.api.duckdb_value_varchar(ctypes.byref(result), 0, 0)).decode()


def what_lacks(directory: str, source_id: str) -> Iterator[str]:
    """Yields a sentence for each thing that is not as it must be."""
    lib = pathlib.Path(directory) / "lib"
    for part in (lib / "libduckdb_static.a", pathlib.Path(directory) / "include" / "duckdb.hpp"):
        if not part.exists():
            yield f"there is no {part}"
    try:
        library = Library(lib / "libduckdb.so")
        if (found := library.value("SELECT source_id FROM pragma_version()")) != source_id:
            yield f"its source is {found}, not {source_id}"
        loaded = library.value("SELECT string_agg(extension_name, ' ') FROM duckdb_extensions() WHERE loaded")
        for extension in sorted(LINKED_IN - set(loaded.split())):
            yield f"{extension} is not linked in"
        library.value("SELECT current_date + INTERVAL 1 DAY || (now() + INTERVAL 1 MONTH)::VARCHAR")
    except OSError as error:
        yield str(error)


def main() -> None:
    """Prints what lacks."""
    problems = list(what_lacks(*sys.argv[1:3]))
    for problem in problems:
        print(f"   {problem}", file=sys.stderr)
    sys.exit(bool(problems))


main()
