"""`python -m execbench`: runs the measurements that were asked for, and prints the table."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from execbench import latency, throughput
from execbench.bench import Bench, Settings
from fsbench.machine import describe
from fsbench.report import Report
from harness.workplace import CommandFailed, Workplace
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
    quick = arguments.quick
    settings = Settings(
        rounds=arguments.rounds or (3 if quick else 7),
        scale_factor=arguments.sf,
        small=500 if quick else 3000,
        seconds=3.0 if quick else 10.0,
        large_gb=1.0 if quick else 10.0,
    )
    report = Report()
    machine = describe()
    print(f"{settings.rounds} rounds; {machine}")
    print("  bar  what                                      median or ratio       min..max")
    try:
        with Workplace("bench") as place:
            bench = Bench(place, settings, report)
            bench.prepare()
            for name in arguments.only or MEASUREMENTS:
                MEASUREMENTS[name](bench)
    except KeyboardInterrupt:
        print("\nstopped; everything was cleaned up", file=sys.stderr)
        return 130
    except (CommandFailed, RuntimeError, ServerFailed) as error:
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
        prog="scripts/bench/exec",
        description="Measures remote execution against DuckDB in process, Arrow Flight and Quack.",
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds and less of everything: minutes")
    parser.add_argument(
        "--only", nargs="+", choices=MEASUREMENTS, metavar="PART", help=" ".join(MEASUREMENTS)
    )
    parser.add_argument("--rounds", type=int, help="rounds of each comparison")
    parser.add_argument("--sf", type=float, default=1.0, help="TPC-H's scale factor")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured there")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
