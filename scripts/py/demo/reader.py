"""A reader: a DuckDB process that opens a database, judges its state, closes it, and again, until
its input ends. Then it reports, as JSON: how many openings, the median seconds of one, the newest
transfer first and last seen, and every state or error that should not be.

    reader.py DATABASE JUDGE_SQL
"""

import json
import statistics
import sys
import threading
import time

import duckdb


def main() -> None:
    database, judge = sys.argv[1:]
    stop = threading.Event()
    threading.Thread(target=wait_for_end_of_input, args=[stop], daemon=True).start()
    seconds: list[float] = []
    seen: list[int] = []
    wrong: list[str] = []
    while not stop.is_set():
        started = time.perf_counter()
        try:
            with duckdb.connect(database, read_only=True) as connection:
                [(transfers, newest, wrong_accounts, _orders)] = connection.execute(judge).fetchall()
        except duckdb.Error as error:
            wrong.append(f"{type(error).__name__}: {error}")
            continue
        seconds.append(time.perf_counter() - started)
        if transfers != newest or wrong_accounts or (seen and newest < seen[-1]):
            wrong.append(
                f"{transfers} of {newest} transfers, {wrong_accounts} accounts wrong, after {seen[-1:]}"
            )
        seen.append(newest)
    report = {
        "opens": len(seconds),
        "median_s": statistics.median(seconds) if seconds else 0,
        "first": seen[0] if seen else 0,
        "last": seen[-1] if seen else 0,
        "wrong": wrong,
    }
    print(json.dumps(report), flush=True)


def wait_for_end_of_input(stop: threading.Event) -> None:
    sys.stdin.read()
    stop.set()


if __name__ == "__main__":
    main()
