"""pyarrow's own Flight server and client over the same DuckDB file, each a process: what draining is
compared with.

`python flight.py serve FILE PORT`, `python flight.py drain PORT SQL`.
"""

import json
import sys
import time

import pyarrow.flight as flight


class Server(flight.FlightServerBase):
    """Runs the SQL of a ticket, and streams its batches in one stream."""

    def __init__(self, file: str, location: str) -> None:
        super().__init__(location)
        import duckdb

        self.database = duckdb.connect(file, read_only=True)

    def do_get(self, context: object, ticket: flight.Ticket) -> flight.FlightDataStream:
        cursor = self.database.cursor()
        cursor.execute(ticket.ticket.decode())
        return flight.RecordBatchStream(cursor.to_arrow_reader(122_880))


def drain(location: str, sql: str) -> dict[str, float]:
    client = flight.connect(location)
    begin = time.perf_counter()
    rows = size = 0
    for chunk in client.do_get(flight.Ticket(sql.encode())):
        rows += chunk.data.num_rows
        size += chunk.data.nbytes
    return {"rows": rows, "bytes": size, "seconds": time.perf_counter() - begin}


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        Server(sys.argv[2], f"grpc://127.0.0.1:{sys.argv[3]}").serve()
    else:
        print(json.dumps(drain(f"grpc://127.0.0.1:{sys.argv[2]}", sys.argv[3])))
