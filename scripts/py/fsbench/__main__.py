"""`python -m fsbench`: runs the measurements that were asked for, and prints the table."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from fsbench import commits, disk, extents, load, queries, snapshots, stored, visible
from fsbench.bench import Bench, Settings
from fsbench.machine import describe
from fsbench.report import Report
from harness.duck import DuckFailed, pythons
from harness.workplace import CommandFailed, Workplace

MEASUREMENTS: dict[str, Callable[[Bench], None]] = {
    "disk": disk.measure,
    "load": load.measure,
    "commits": commits.measure,
    "queries": queries.measure,
    "snapshots": snapshots.measure,
    "visible": visible.measure,
    "extents": extents.measure,
    "stored": stored.measure,
}


def main() -> int:
    arguments = parse()
    settings = settings_of(arguments)
    report = Report()
    machine = describe()
    print(f"DuckDB {settings.version}, {settings.rounds} rounds; {machine}")
    print("  bar  what                                      median or ratio       min..max")
    try:
        with Workplace("bench") as place:
            bench = Bench(place, settings, report)
            for name in arguments.only or MEASUREMENTS:
                MEASUREMENTS[name](bench)
    except KeyboardInterrupt:
        print("\nstopped; everything was cleaned up", file=sys.stderr)
        return 130
    except (CommandFailed, DuckFailed) as error:
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
        prog="scripts/bench/fs",
        description="Compares databases in a mount with the same databases in plain files.",
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds and less of everything: minutes")
    parser.add_argument(
        "--only", nargs="+", choices=MEASUREMENTS, metavar="PART", help=" ".join(MEASUREMENTS)
    )
    versions = list(pythons())
    parser.add_argument("--duckdb", choices=versions, default=versions[0], help="the DuckDB that is used")
    parser.add_argument("--rounds", type=int, help="rounds of each comparison")
    parser.add_argument("--sf", type=float, default=1.0, help="TPC-H's scale factor")
    parser.add_argument("--large-gb", type=float, help="size of the large database for snapshots")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured there")
    return parser.parse_args()


def settings_of(arguments: argparse.Namespace) -> Settings:
    quick = arguments.quick
    return Settings(
        version=arguments.duckdb,
        rounds=arguments.rounds or (5 if quick else 9),
        load_rows=2_000_000 if quick else 8_000_000,
        commits=250 if quick else 500,
        scale_factor=arguments.sf,
        large_gb=arguments.large_gb or (1.0 if quick else 10.0),
        extents=40_000 if quick else 400_000,
        visible_commits=100 if quick else 500,
    )


if __name__ == "__main__":
    sys.exit(main())
