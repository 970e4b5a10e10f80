"""Sorts more than its memory holds, on a read-only database, and checks the result: `spilled <files seen>
<rows>`.

Prints `started <pid>` first. While the query runs, a thread looks at the spill directory beside the
database, which is private to this process.
"""

import argparse
import os
import threading
import time

import duckdb

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("path")
parser.add_argument("--rows", type=int, default=1_000_000)
parser.add_argument("--memory", default="50MB")
options = parser.parse_args()

seen = set()
done = threading.Event()


def watch():
    while not done.is_set():
        try:
            seen.update(os.listdir(options.path + ".tmp"))
        except OSError:
            pass
        time.sleep(0.005)


def main():
    connection = duckdb.connect(
        options.path, read_only=True, config={"memory_limit": options.memory, "threads": 2}
    )
    connection.execute("SET preserve_insertion_order = false")
    print(f"started {os.getpid()}", flush=True)
    threading.Thread(target=watch, daemon=True).start()
    # The key is a permutation of the row numbers, so the sorted column is known: row k holds k.
    (wrong, rows) = connection.execute(
        "SELECT count(*) FILTER (WHERE k <> position), count(*) FROM ("
        "  SELECT k, row_number() OVER (ORDER BY k, pad) - 1 AS position FROM ("
        "    SELECT (i * 7919) % $n AS k, repeat('p', 40) || i AS pad FROM range($n) r(i)))",
        {"n": options.rows},
    ).fetchone()
    done.set()
    tables = connection.execute("SELECT count(*) FROM duckdb_tables()").fetchone()[0]
    connection.close()
    if wrong or rows != options.rows:
        raise SystemExit(f"the sort gave {wrong} wrong rows of {rows}")
    print(f"spilled {len(seen)} {rows} {tables}", flush=True)


if __name__ == "__main__":
    main()
