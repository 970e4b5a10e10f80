"""The table: each row is one measured value against its bar."""

import json
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path

from fsbench.rounds import ratio

MILLISECOND = 1e-3
MIB = 1 << 20


@dataclass(frozen=True)
class Row:
    """One value. Without a bar it is there for context only."""

    what: str
    value: float
    unit: str
    least: float | None = None
    most: float | None = None
    bar: float | None = None
    note: str = ""
    samples: dict[str, list[float]] = field(default_factory=dict)
    # Whether the bar is what the value must at least be.
    is_floor: bool = False

    def passes(self) -> bool | None:
        """Whether the bar is kept; `None` where there is none."""
        if self.bar is None:
            return None
        return self.value >= self.bar if self.is_floor else self.value <= self.bar


def against_plain(what: str, subject: list[float], plain: list[float], bar: float) -> Row:
    """A row for a ratio: seconds in the mount against seconds with the plain file."""
    found = ratio(subject, plain)
    note = f"{statistics.median(plain):.3g} s plain, {statistics.median(subject):.3g} s here"
    samples = {"plain_s": plain, "openduck_s": subject}
    return Row(what, found.middle, "x", found.least, found.most, bar, note, samples)


def in_milliseconds(what: str, seconds: list[float], bar_s: float | None, note: str = "") -> Row:
    """A row for a time of its own: the median."""
    found = [value / MILLISECOND for value in seconds]
    bar = None if bar_s is None else bar_s / MILLISECOND
    middle = statistics.median(found)
    return Row(what, middle, "ms", min(found), max(found), bar, note, {"seconds": seconds})


class Report:
    """Collects rows, printing each as it comes."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def heading(self, title: str) -> None:
        print(f"\n{title}", flush=True)

    def add(self, *rows: Row) -> None:
        for row in rows:
            self.rows.append(row)
            print(line(row), flush=True)

    def missed(self) -> list[Row]:
        return [row for row in self.rows if row.passes() is False]

    def write(self, path: Path, conditions: dict[str, object]) -> None:
        """Writes everything, with each sample, as JSON."""
        rows = [{**asdict(row), "passes": row.passes()} for row in self.rows]
        path.write_text(json.dumps({"conditions": conditions, "rows": rows}, indent=1) + "\n")


def line(row: Row) -> str:
    """A row as text."""
    mark = {None: "    ", True: "pass", False: "MISS"}[row.passes()]
    value = f"{figure(row.value, row.unit)} {row.unit}"
    spread = ""
    if row.least is not None and row.most is not None:
        spread = f"{figure(row.least, row.unit)}..{figure(row.most, row.unit)}"
    bar = "" if row.bar is None else f"{'>=' if row.is_floor else '<='} {figure(row.bar, row.unit)}"
    return f"  {mark} {row.what:<46} {value:>12} {spread:>17} {bar:>9}  {row.note}".rstrip()


def figure(value: float, unit: str) -> str:
    """A number with the digits that its unit deserves."""
    return f"{value:.3f}" if unit == "x" else f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
