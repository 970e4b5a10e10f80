"""Commits and checkpoints without pause, for readers to follow: prints `<seconds of CLOCK_MONOTONIC> <seq>`
after each acknowledged commit, until stdin is closed.

Each transaction adds events, drops old ones now and then, rewrites a part of a base table, and moves a row
of counters and sums with them. A reader that sees a data file of one commit and a WAL of another finds
counters that do not fit, or less than was there before.
"""

import argparse
import os
import random
import sys
import threading
import time

import duckdb

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("path")
parser.add_argument("--storage-version")
parser.add_argument("--checkpoint-every", type=int, default=3, help="commits between checkpoints, on average")
parser.add_argument("--base-rows", type=int, default=5000)
parser.add_argument("--seed", type=int, default=1)
options = parser.parse_args()

stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()


def main():
    choose = random.Random(options.seed)
    if options.storage_version:
        connection = duckdb.connect()
        connection.execute(
            f"ATTACH '{options.path}' AS attached (STORAGE_VERSION '{options.storage_version}')"
        )
        connection.execute("USE attached")
    else:
        connection = duckdb.connect(options.path)
    connection.execute(
        "BEGIN; CREATE TABLE events(seq BIGINT, v BIGINT, pad VARCHAR);"
        f"CREATE TABLE base AS SELECT i, 0::BIGINT AS v FROM range({options.base_rows}) r(i);"
        "CREATE TABLE state(seq BIGINT, events BIGINT, total BIGINT, base BIGINT);"
        "INSERT INTO state VALUES (0, 0, 0, 0); COMMIT"
    )
    os.write(1, f"{time.monotonic()} 0\n".encode())
    seq = 0
    while not stop.is_set():
        seq += 1
        connection.execute("BEGIN")
        connection.execute(
            "INSERT INTO events SELECT $seq, $seq * 31 + i, repeat('x', (50 + i * 13 % 100)::INTEGER)"
            " FROM range($n) r(i)",
            {"seq": seq, "n": choose.randrange(1, 40)},
        )
        part = choose.randrange(50)
        connection.execute("UPDATE base SET v = v + 1 WHERE i % 50 = ?", [part])
        if seq % 40 == 0:
            connection.execute("DELETE FROM events WHERE seq < ?", [seq - 20])
        connection.execute(
            "UPDATE state SET seq = ?, events = (SELECT count(*) FROM events),"
            " total = (SELECT sum(v) FROM events),"
            " base = (SELECT sum(v) FROM base)",
            [seq],
        )
        connection.execute("COMMIT")
        os.write(1, f"{time.monotonic()} {seq}\n".encode())
        if choose.randrange(options.checkpoint_every) == 0:
            connection.execute("CHECKPOINT")
    connection.close()


if __name__ == "__main__":
    main()
