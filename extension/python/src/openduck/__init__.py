"""Remote DuckDB databases, attached as if they were local.

>>> import openduck
>>> connection = openduck.connect("mydb", endpoint="http://localhost:7878", token="…")
>>> connection.sql("FROM trips JOIN local_table USING (id)")

The connection is a plain `duckdb.DuckDBPyConnection`. Its own database is in memory and called `memory`;
the remote one is attached as `cloud`, and in use.
"""

from openduck._connect import connect
from openduck._extension import DuckDBDoesNotFit, extension_path, install

__all__ = ["DuckDBDoesNotFit", "connect", "extension_path", "install"]
__version__ = "0.1.0"
