"""`python -m fsbench`: runs the measurements that were asked for, and prints the table."""

import argparse
import sys
from collections.abc import Callable

from fsbench import commits, disk, extents, load, queries, snapshots, stored, visible
from fsbench.bench import Bench, Settings
from fsbench.report import Report
from fsbench.running import add_common_flags, run
from harness.duck import DuckFailed, pythons
from harness.workplace import Workplace

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

    def measure(place: Workplace, report: Report) -> None:
        bench = Bench(place, settings, report)
        for name in arguments.only or MEASUREMENTS:
            MEASUREMENTS[name](bench)

    return run(
        f"DuckDB {settings.version}, {settings.rounds} rounds",
        settings,
        arguments.json,
        (DuckFailed,),
        measure,
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench/fs",
        description="Compares databases in a mount with the same databases in plain files.",
    )
    add_common_flags(parser, MEASUREMENTS)
    versions = list(pythons())
    parser.add_argument("--duckdb", choices=versions, default=versions[0], help="the DuckDB that is used")
    parser.add_argument("--large-gb", type=float, help="size of the large database for snapshots")
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
