"""The processes of the demonstration: one writer, several readers, each a DuckDB of its own
version. A process is told to stop by the end of its input."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from demo.shop import JUDGE
from harness.duck import pythons
from harness.workplace import Workplace

HERE = Path(__file__).parent


class Writer:
    """The one process that writes."""

    def __init__(self, place: Workplace, version: str, database: Path, journal: Path) -> None:
        self._process = place.start(
            [pythons()[version], str(HERE / "writer.py"), str(database), str(journal)],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def stop(self) -> None:
        """Lets it finish its transfer and close the database."""
        _, complaint = self._process.communicate(timeout=60)
        if self._process.returncode != 0:
            print(complaint, file=sys.stderr)

    def outcome(self) -> str:
        """Waits for a writer whose file failed; returns DuckDB's last word."""
        _, complaint = self._process.communicate(timeout=60)
        return complaint.strip().splitlines()[-1] if complaint.strip() else "it ended in peace"

    def runs(self) -> bool:
        return self._process.poll() is None


@dataclass(frozen=True)
class Report:
    """What a reader saw."""

    opens: int
    median_s: float
    first: int
    last: int
    wrong: list[str]


class Reader:
    """A process that opens, judges and closes without pause."""

    def __init__(self, place: Workplace, version: str, where: str, database: Path) -> None:
        self.version = version
        self.where = where
        self._process = place.start(
            [pythons()[version], str(HERE / "reader.py"), str(database), JUDGE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def stop(self) -> Report:
        """Ends it and takes its report."""
        said, _ = self._process.communicate(timeout=60)
        if not said:
            return Report(0, 0.0, 0, 0, [f"the reader ended with status {self._process.returncode}"])
        return Report(**json.loads(said))
