"""TPC-H's data and queries, made once by PyPI's `duckdb-extension-tpch` and kept in the cache."""

import json
import os
import subprocess
from pathlib import Path

from harness.workplace import Workplace

MAKE = """
import json, sys
from pathlib import Path
import duckdb, duckdb_extension_tpch
database, queries, scale = sys.argv[1:]
[extension] = Path(duckdb_extension_tpch.__file__).parent.glob("extensions/*/tpch.duckdb_extension")
connection = duckdb.connect(database)
connection.execute(f"LOAD '{extension}'")
connection.execute("SET enable_progress_bar = false")
connection.execute(f"CALL dbgen(sf = {scale})")
found = connection.execute("SELECT query FROM tpch_queries()").fetchall()
Path(queries).write_text(json.dumps([query for query, in found]))
connection.close()
"""

# The largest first; nation and region are a page each.
TABLES = ("lineitem", "orders", "partsupp", "part", "customer", "supplier")


class Tpch:
    """The data of one scale factor."""

    def __init__(self, scale_factor: float) -> None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "openduck/tpch"
        cache.mkdir(parents=True, exist_ok=True)
        self._scale_factor = scale_factor
        self.path = cache / f"sf{scale_factor:g}.duckdb"
        self._queries = cache / f"sf{scale_factor:g}.json"

    def prepare(self, place: Workplace) -> None:
        """Makes the data if it is not in the cache."""
        if self.path.exists():
            return
        making = place.directory / "making.duckdb"
        command = [os.environ["OPENDUCK_TPCH_PYTHON"], "-c", MAKE]
        subprocess.run([*command, str(making), str(self._queries), f"{self._scale_factor:g}"], check=True)
        making.rename(self.path)

    def queries(self) -> list[str]:
        """The 22 queries, in order."""
        queries: list[str] = json.loads(self._queries.read_text())
        return queries

    def scans(self) -> list[str]:
        """A statement per table that looks at each value of each column: a hash, because no
        statistics can answer that."""
        return [f"SELECT bit_xor(hash(t)) FROM {table} AS t" for table in TABLES]
