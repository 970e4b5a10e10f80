"""A DuckDB that does what it is told: one JSON request per line on stdin, one JSON answer per line on
stdout.

With `--uid N` it becomes that user once Python and DuckDB are loaded, so that a user who may not read this
Python can still be tried.
"""

import argparse
import json
import os
import sys

import duckdb


def rows_of(cursor):
    try:
        return [list(row) for row in cursor.fetchall()]
    except duckdb.InvalidInputException:
        # A statement without a result.
        return []


def answer(state, request):
    what = request["do"]
    if what == "open":
        arguments = {"config": request["config"]}
        if request.get("read_only"):
            arguments["read_only"] = True
        state["connection"] = duckdb.connect(request["path"], **arguments)
        return []
    if what == "sql":
        parameters = request["parameters"]
        connection = state["connection"]
        return rows_of(
            connection.execute(request["sql"], parameters)
            if parameters
            else connection.execute(request["sql"])
        )
    if what == "close":
        state.pop("connection").close()
        return []
    if what == "listdir":
        return sorted(os.listdir(request["path"]))
    raise ValueError(f"unknown request {what!r}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uid", type=int)
    options = parser.parse_args()
    if options.uid is not None:
        duckdb.connect().execute("SELECT 1").fetchall()
        os.setgroups([])
        os.setresgid(options.uid, options.uid, options.uid)
        os.setresuid(options.uid, options.uid, options.uid)
    print("ready", flush=True)
    state = {}
    for line in sys.stdin:
        try:
            reply = {"rows": answer(state, json.loads(line))}
        except Exception as error:  # noqa: BLE001 - every error is an answer
            reply = {"error": str(error)[:600], "kind": type(error).__name__}
        print(json.dumps(reply, default=str), flush=True)


if __name__ == "__main__":
    main()
