"""The writer's journal: what a state of the database must hold, and what it may.

A transfer that was acknowledged before a moment must be in any state taken at that moment; one
that had not begun to commit by then must not. Between the two lies at most the one in flight.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Bounds:
    """How many transfers a state may hold."""

    least: int
    most: int

    def admit(self, transfers: int) -> bool:
        return self.least <= transfers <= self.most

    def __str__(self) -> str:
        return f"{self.least:,}" if self.least == self.most else f"{self.least:,} to {self.most:,}"


class Journal:
    """Reads what the writer notes."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def acknowledged(self) -> int:
        """The newest transfer acknowledged by now."""
        return max((number for what, number, _ in self._lines() if what == "acknowledged"), default=0)

    def bounds(self, begin: float, end: float) -> Bounds:
        """For a state taken at some moment between two wall times."""
        least = most = 0
        for what, number, at in self._lines():
            if what == "acknowledged" and at <= begin:
                least = max(least, number)
            if what == "begun" and at <= end:
                most = max(most, number)
        return Bounds(least, most)

    def pace(self) -> tuple[int, float]:
        """Commits acknowledged, and the median seconds from begun to acknowledged."""
        begun: dict[int, float] = {}
        took = []
        for what, number, at in self._lines():
            if what == "begun":
                begun[number] = at
            else:
                took.append(at - begun[number])
        return len(took), sorted(took)[len(took) // 2] if took else 0.0

    def _lines(self) -> list[tuple[str, int, float]]:
        whole = self._path.read_text().rpartition("\n")[0] if self._path.exists() else ""
        fields = (line.split() for line in whole.splitlines())
        return [(what, int(number), float(at)) for what, number, at in fields]
