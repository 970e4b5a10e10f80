"""`python -m remotebench`: runs the measurements that were asked for, and prints the table."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from fsbench.machine import describe
from fsbench.report import Report
from harness.duck import DuckFailed, pythons
from harness.workplace import CommandFailed, Workplace
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
    report = Report()
    machine = describe()
    print(f"DuckDB {settings.version}, {settings.rounds} rounds; {machine}")
    print("  bar  what                                      median or ratio       min..max")
    try:
        with Workplace("bench") as place, Bench(place, settings, report) as bench:
            for name in arguments.only or MEASUREMENTS:
                MEASUREMENTS[name](bench)
    except KeyboardInterrupt:
        print("\nstopped; everything was cleaned up", file=sys.stderr)
        return 130
    except (CommandFailed, DuckFailed, NothingMeasured, ServerFailed) as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    finally:
        if arguments.json and report.rows:
            report.write(arguments.json, {"settings": vars(settings), "machine": machine})
    missed = report.missed()
    judged = sum(row.bar is not None for row in report.rows)
    print(f"\n{judged - len(missed)} of {judged} bars kept")
    for row in missed:
        print(f"  missed: {row.what}")
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench/remote",
        description="Measures databases in an object store over a line with a length and a width.",
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds and less of everything: minutes")
    parser.add_argument(
        "--only", nargs="+", choices=MEASUREMENTS, metavar="PART", help=" ".join(MEASUREMENTS)
    )
    versions = list(pythons())
    parser.add_argument("--duckdb", choices=versions, default=versions[0], help="the DuckDB that is used")
    parser.add_argument("--rounds", type=int, help="rounds of each comparison")
    parser.add_argument("--sf", type=float, default=1.0, help="TPC-H's scale factor")
    parser.add_argument("--wide-gb", type=float, help="size of the database that is read from afar")
    parser.add_argument(
        "--put-ms", type=float, default=20.0, help="round trip to the store for remote commits"
    )
    parser.add_argument("--scan-ms", type=float, default=50.0, help="round trip to the store for scans")
    parser.add_argument("--gbit", type=float, default=1.0, help="the line's width for scans, in Gbit/s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured there")
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
