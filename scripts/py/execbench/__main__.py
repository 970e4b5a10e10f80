"""`python -m execbench`: runs the measurements that were asked for, and prints the table."""

import argparse
import sys
from collections.abc import Callable

from execbench import latency, throughput
from execbench.bench import Bench, Settings
from fsbench.report import Report
from fsbench.running import add_common_flags, run
from harness.workplace import Workplace
from servers.processes import ServerFailed

MEASUREMENTS: dict[str, Callable[[Bench], None]] = {
    "throughput": throughput.measure,
    "small": latency.measure_small,
    "mixed": latency.measure_mixed,
    "slow": throughput.measure_slow_reader,
    "inserts": latency.measure_inserts,
    "fresh": latency.measure_fresh,
}


def main() -> int:
    arguments = parse()
    settings = settings_of(arguments)

    def measure(place: Workplace, report: Report) -> None:
        bench = Bench(place, settings, report)
        bench.prepare()
        for name in arguments.only or MEASUREMENTS:
            MEASUREMENTS[name](bench)

    return run(f"{settings.rounds} rounds", settings, arguments.json, (RuntimeError, ServerFailed), measure)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench/exec",
        description="Measures remote execution against DuckDB in process, Arrow Flight and Quack.",
    )
    add_common_flags(parser, MEASUREMENTS)
    return parser.parse_args()


def settings_of(arguments: argparse.Namespace) -> Settings:
    quick = arguments.quick
    return Settings(
        rounds=arguments.rounds or (3 if quick else 7),
        scale_factor=arguments.sf,
        small=500 if quick else 3000,
        seconds=3.0 if quick else 10.0,
        large_gb=1.0 if quick else 10.0,
    )


if __name__ == "__main__":
    sys.exit(main())
