"""What every measurement gets: the workplace, the settings, the report."""

from dataclasses import dataclass
from pathlib import Path

from fsbench.report import Report
from harness.duck import Duck
from harness.workplace import Workplace


@dataclass(frozen=True)
class Settings:
    """How much of everything."""

    version: str
    rounds: int
    load_rows: int
    commits: int
    scale_factor: float
    large_gb: float
    extents: int
    visible_commits: int


@dataclass(frozen=True)
class Bench:
    """See the module's text."""

    place: Workplace
    settings: Settings
    report: Report

    def duck(self, version: str | None = None) -> Duck:
        """A new DuckDB process, of the benchmark's version unless another is named."""
        return Duck(self.place, version or self.settings.version)

    def plain(self, name: str) -> Path:
        """Where a plain file lies: on the same disk as the home."""
        directory = self.place.directory / "plain"
        directory.mkdir(exist_ok=True)
        return directory / name
