"""How much memory the mounting processes of all other measurements had at their most."""

from fsbench.report import Row
from remotebench.bench import Bench

BAR_MIB = 512.0


def measure(bench: Bench) -> None:
    """One row for each kind of work that was done; nothing where none was."""
    bench.report.heading("memory of the mounting processes, at their most")
    for what, size in bench.memory.items():
        bench.report.add(Row(what, size / (1 << 20), "MiB", bar=BAR_MIB))
