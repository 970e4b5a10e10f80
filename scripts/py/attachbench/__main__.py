"""`python -m attachbench`: runs the measurements that were asked for, and prints the table."""

import argparse
import sys
from collections.abc import Callable

from attachbench import moving, small
from execbench.bench import Bench, Settings
from fsbench.report import Report
from fsbench.running import add_common_flags, run
from harness.workplace import Workplace
from servers.processes import ServerFailed

MEASUREMENTS: dict[str, Callable[[Bench], None]] = {
    "down": moving.measure_down,
    "small": small.measure_small,
    "inserts": small.measure_inserts,
    "aggregate": small.measure_aggregate,
    "join": moving.measure_join,
    "up": moving.measure_up,
    "attach": small.measure_attach,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/bench/attach",
        description="Measures DuckDB's extension against Quack, Arrow Flight, and the server's own DuckDB.",
    )
    add_common_flags(parser, MEASUREMENTS)
    arguments = parser.parse_args()
    quick = arguments.quick
    settings = Settings(
        rounds=arguments.rounds or (3 if quick else 7),
        scale_factor=arguments.sf,
        small=500 if quick else 3000,
        seconds=3.0 if quick else 10.0,
        # Nothing here is larger than TPC-H.
        large_gb=0.0,
    )

    def measure(place: Workplace, report: Report) -> None:
        bench = Bench(place, settings, report)
        bench.prepare()
        for name in arguments.only or MEASUREMENTS:
            MEASUREMENTS[name](bench)

    return run(f"{settings.rounds} rounds", settings, arguments.json, (RuntimeError, ServerFailed), measure)


if __name__ == "__main__":
    sys.exit(main())
