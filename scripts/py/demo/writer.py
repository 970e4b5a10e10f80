"""The writer: one DuckDB process that transfers money, a transaction each, until its input ends
or the file fails.

It keeps a journal outside the database: a line before each commit and one after the commit was
acknowledged, so that others can tell what a state must hold. It checkpoints now and then.

    writer.py DATABASE JOURNAL
"""

import os
import random
import sys
import threading
import time

import duckdb

COMMITS_PER_CHECKPOINT = 400


def main() -> None:
    database, journal_path = sys.argv[1:]
    stop = threading.Event()
    threading.Thread(target=wait_for_end_of_input, args=[stop], daemon=True).start()
    journal = os.open(journal_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    connection = duckdb.connect(database)
    [(transfer,)] = connection.execute("SELECT coalesce(max(transfer), 0) FROM ledger").fetchall()
    [(accounts,)] = connection.execute("SELECT count(*) FROM account").fetchall()
    while not stop.is_set():
        transfer += 1
        debtor, creditor = random.sample(range(accounts), 2)
        move(connection, transfer, debtor, creditor, random.randint(1, 100), journal)
        if transfer % COMMITS_PER_CHECKPOINT == 0:
            connection.execute("CHECKPOINT")
    connection.close()


def move(
    connection: duckdb.DuckDBPyConnection,
    transfer: int,
    debtor: int,
    creditor: int,
    amount: int,
    journal: int,
) -> None:
    """One transaction of three statements."""
    connection.execute("BEGIN")
    connection.execute("UPDATE account SET balance = balance - ? WHERE id = ?", [amount, debtor])
    connection.execute("UPDATE account SET balance = balance + ? WHERE id = ?", [amount, creditor])
    connection.execute("INSERT INTO ledger VALUES (?, ?, ?, ?)", [transfer, debtor, creditor, amount])
    note(journal, "begun", transfer)
    connection.execute("COMMIT")
    note(journal, "acknowledged", transfer)


def note(journal: int, what: str, transfer: int) -> None:
    os.write(journal, f"{what} {transfer} {time.time()}\n".encode())


def wait_for_end_of_input(stop: threading.Event) -> None:
    sys.stdin.read()
    stop.set()


if __name__ == "__main__":
    main()
