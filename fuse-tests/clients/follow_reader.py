"""Opens a followed database again and again, and checks each time that what it sees is one commit.

Prints one line per open: `<CLOCK_MONOTONIC before the open> <seq>`, or `bad <what>` for counters that do
not fit, or `error <message>`; until `--seconds` are over or stdin is closed. Every open is a new DuckDB
instance.
"""

import argparse
import os
import sys
import threading
import time

import duckdb

CHECK = (
    "SELECT s.seq, s.events, s.total, s.base, e.n, e.total, e.last_seq, b.total FROM state s,"
    " (SELECT count(*) n, coalesce(sum(v), 0) total, coalesce(max(seq), 0) last_seq FROM events) e,"
    " (SELECT sum(v) total FROM base) b"
)

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("path")
parser.add_argument("--seconds", type=float, default=5.0)
parser.add_argument("--pause-ms", type=float, default=0.0, help="stay open for so long between two checks")
options = parser.parse_args()

stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()


def check(connection):
    (row,) = connection.execute(CHECK).fetchall()
    seq, events, total, base, counted, summed, last, base_summed = (int(value) for value in row)
    if (events, total, base, seq) != (counted, summed, base_summed, last):
        return (
            seq,
            f"state {(events, total, base, seq)} is not what is there {(counted, summed, base_summed, last)}",
        )
    return seq, None


def main():
    deadline = time.monotonic() + options.seconds
    while time.monotonic() < deadline and not stop.is_set():
        begin = time.monotonic()
        try:
            connection = duckdb.connect(options.path, read_only=True, config={"threads": 1})
            try:
                seq, wrong = check(connection)
                if wrong is None and options.pause_ms:
                    time.sleep(options.pause_ms / 1000)
                    later, wrong = check(connection)
                    if later != seq:
                        wrong = f"an open database moved from {seq} to {later}"
            finally:
                connection.close()
            line = f"{begin} {seq}" if wrong is None else f"bad {wrong}"
        except Exception as error:  # noqa: BLE001 - the test judges
            line = "error " + str(error).replace("\n", " ")[:300]
        os.write(1, (line + "\n").encode())


if __name__ == "__main__":
    main()
