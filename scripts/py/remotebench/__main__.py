"""`python -m remotebench`: runs the measurements that were asked for, and prints the table."""

import argparse
import sys
from collections.abc import Callable

from fsbench.report import Report
from fsbench.running import add_common_flags, run
from harness.duck import DuckFailed, pythons
from harness.workplace import Workplace
from remotebench import memory, reading, stored, visible, writing
from remotebench.bench import Bench, NothingMeasured, Settings
from servers.processes import ServerFailed

# In this order: the last one tells of all before it.
MEASUREMENTS: dict[str, Callable[[Bench], None]] = {
    "throughput": writing.measure_throughput,
    "commits": writing.measure_remote_commits,
    "visible": visible.measure,
    "reading": reading.measure,
    "stored": stored.measure,
    "memory": memory.measure,
}


def main() -> int:
    arguments = parse()
    settings = settings_of(arguments)

    def measure(place: Workplace, report: Report) -> None:
        with Bench(place, settings, report) as bench:
            for name in arguments.only or MEASUREMENTS:
                MEASUREMENTS[name](bench)

    title = f"DuckDB {settings.version}, {settings.rounds} rounds"
    failures = (DuckFailed, NothingMeasured, ServerFailed)
    return run(title, settings, arguments.json, failures, measure)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench/remote",
        description="Measures databases in an object store over a line with a length and a width.",
    )
    add_common_flags(parser, MEASUREMENTS)
    versions = list(pythons())
    parser.add_argument("--duckdb", choices=versions, default=versions[0], help="the DuckDB that is used")
    parser.add_argument("--wide-gb", type=float, help="size of the database that is read from afar")
    parser.add_argument(
        "--put-ms", type=float, default=20.0, help="round trip to the store for remote commits"
    )
    parser.add_argument("--scan-ms", type=float, default=50.0, help="round trip to the store for scans")
    parser.add_argument("--gbit", type=float, default=1.0, help="the line's width for scans, in Gbit/s")
    return parser.parse_args()


def settings_of(arguments: argparse.Namespace) -> Settings:
    quick = arguments.quick
    return Settings(
        version=arguments.duckdb,
        rounds=arguments.rounds or (3 if quick else 5),
        load_rows=2_000_000 if quick else 8_000_000,
        commits=250 if quick else 500,
        visible_commits=60 if quick else 300,
        wide_gb=arguments.wide_gb or (0.25 if quick else 1.0),
        scale_factor=arguments.sf,
        commit_round_trip_s=arguments.put_ms / 1e3,
        scan_round_trip_s=arguments.scan_ms / 1e3,
        bytes_per_s=arguments.gbit * 125e6,
    )


if __name__ == "__main__":
    sys.exit(main())
