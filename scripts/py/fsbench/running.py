"""What every benchmark does around its measurements: common flags, the table's head and foot, how it ends."""

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from fsbench.machine import describe
from fsbench.report import Report
from harness.workplace import CommandFailed, Workplace


def add_common_flags(parser: argparse.ArgumentParser, parts: Iterable[str]) -> None:
    """The flags that all benchmarks have; `parts` are what `--only` may name."""
    names = list(parts)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and less of everything: minutes")
    parser.add_argument("--only", nargs="+", choices=names, metavar="PART", help=" ".join(names))
    parser.add_argument("--rounds", type=int, help="rounds of each comparison")
    parser.add_argument("--sf", type=float, default=1.0, help="TPC-H's scale factor")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured there")


def run(
    title: str,
    settings: object,
    json: Path | None,
    failures: tuple[type[Exception], ...],
    measure: Callable[[Workplace, Report], None],
) -> int:
    """Runs `measure` in a workplace and prints the table; returns the exit status. What of `failures` it
    raises is told in one line."""
    report = Report()
    machine = describe()
    print(f"{title}; {machine}")
    print("  bar  what                                      median or ratio       min..max")
    try:
        with Workplace("bench") as place:
            measure(place, report)
    except KeyboardInterrupt:
        print("\nstopped; everything was cleaned up", file=sys.stderr)
        return 130
    except (CommandFailed, *failures) as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    finally:
        if json and report.rows:
            report.write(json, {"settings": vars(settings), "machine": machine})
    missed = report.missed()
    judged = sum(row.bar is not None for row in report.rows)
    print(f"\n{judged - len(missed)} of {judged} bars kept")
    for row in missed:
        print(f"  missed: {row.what}")
    return 0
