"""Commits without pause and says so: `open` once, then `try <stream> <n>` before each commit, and
`<stream> <n>` after it, when DuckDB has acknowledged it.

Commit n of a stream inserts a number of rows that is known from n, each with values known from (stream, n,
i), and moves the stream's tally in the same transaction. So whoever reads the file later can tell every
lost, torn or invented row (`harness/streams.py` does). Goes on until it is killed, an error comes (`error
<message>`, exit 3), or stdin is closed.
"""

import argparse
import os
import sys
import threading

import duckdb

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("path")
parser.add_argument("--streams", type=int, default=1, help="threads that commit at once")
parser.add_argument("--first", type=int, default=0, help="number of the first stream")
parser.add_argument(
    "--checkpoint-every", type=int, default=0, help="CHECKPOINT after so many commits of stream 0"
)
parser.add_argument("--wal-limit", default="300KB", help="checkpoint by itself when the WAL is so large")
parser.add_argument("--storage-version")
parser.add_argument("--io-mode")
options = parser.parse_args()

say_lock = threading.Lock()
stop = threading.Event()


def say(text):
    with say_lock:
        os.write(1, (text + "\n").encode())


def connect():
    config = {"wal_autocheckpoint": options.wal_limit}
    attach = []
    if options.storage_version:
        attach.append(f"STORAGE_VERSION '{options.storage_version}'")
    if options.io_mode:
        attach.append(f"IO_MODE {options.io_mode}")
    if not attach:
        return duckdb.connect(options.path, config=config)
    connection = duckdb.connect(config=config)
    connection.execute(f"ATTACH '{options.path}' AS attached ({', '.join(attach)}); USE attached")
    return connection


def stream(connection, number):
    (n,) = connection.execute("SELECT coalesce(max(n), -1) FROM tally WHERE stream = ?", [number]).fetchone()
    if n < 0:
        connection.execute("INSERT INTO tally VALUES (?, -1, 0)", [number])
    while not stop.is_set():
        n += 1
        # Mostly a few rows; now and then as many as span several blocks.
        count = 6000 if n % 41 == 40 else 1 + n * 7919 % 37
        connection.execute("BEGIN")
        connection.execute(
            "INSERT INTO rows SELECT $stream, $n, i, (i * 7919 + $n * 104729 + $stream) % 1000003, $count, "
            "repeat(chr((65 + $n % 26)::INTEGER), (20 + i % 50)::INTEGER) FROM range($count) r(i)",
            {"stream": number, "n": n, "count": count},
        )
        connection.execute("UPDATE tally SET n = ?, total = total + ? WHERE stream = ?", [n, count, number])
        say(f"try {number} {n}")
        connection.execute("COMMIT")
        say(f"{number} {n}")
        if number == options.first and options.checkpoint_every and n % options.checkpoint_every == 0:
            try:
                connection.execute("CHECKPOINT")
            except duckdb.TransactionException:
                # Another stream is in a transaction: DuckDB of that version can't checkpoint now.
                connection.execute("SELECT 1")


def run_stream(connection, number):
    try:
        cursor = connection.cursor()
        if options.storage_version or options.io_mode:
            cursor.execute("USE attached")
        stream(cursor, number)
    except Exception as error:  # noqa: BLE001 - the test judges
        say("error " + str(error).replace("\n", " ")[:300])
        os._exit(3)


def main():
    try:
        connection = connect()
        connection.execute(
            "CREATE TABLE IF NOT EXISTS rows"
            "(stream INTEGER, n BIGINT, i BIGINT, v BIGINT, of_rows BIGINT, pad VARCHAR)"
        )
        connection.execute("CREATE TABLE IF NOT EXISTS tally(stream INTEGER, n BIGINT, total BIGINT)")
    except Exception as error:  # noqa: BLE001 - the test judges
        say("error " + str(error).replace("\n", " ")[:300])
        os._exit(3)
    say("open")
    threads = [
        threading.Thread(target=run_stream, args=(connection, options.first + k))
        for k in range(options.streams)
    ]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    stop.set()
    for thread in threads:
        thread.join()
    connection.close()


if __name__ == "__main__":
    main()
