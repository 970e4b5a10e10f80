"""fsx, the file-system exerciser: thousands of random operations on one file, each read checked.

OPENDUCK_FSX is the path of the `fsx` program (`cargo install fsx`). A run is repeated by its seed.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.openduck import Home
from harness.processes import run

BASE = {"close_open": 2, "read": 10, "write": 10, "truncate": 5, "fsync": 2, "fdatasync": 2, "invalidate": 0}
PLAIN = {**BASE, "mapread": 0, "mapwrite": 0, "punch_hole": 5, "posix_fallocate": 3, "sendfile": 3}
MAPPED = {**BASE, "mapread": 10, "mapwrite": 10, "invalidate": 1, "punch_hole": 5, "posix_fallocate": 3}
# What DuckDB does: whole pages only, mostly large ones.
PAGES = {**PLAIN, "posix_fallocate": 0, "copy_file_range": 2, "posix_fadvise": 2}


def configuration(weights: dict[str, int], *, length: int, most: int, align: int) -> str:
    lines = [f"flen = {length}", "[opsize]", f"max = {most}", f"align = {align}", "[weights]"]
    return "\n".join([*lines, *(f"{name} = {weight}" for name, weight in weights.items())]) + "\n"


RUNS = {
    "plain": configuration(PLAIN, length=1 << 20, most=100_000, align=1),
    "mapped": configuration(MAPPED, length=1 << 20, most=100_000, align=1),
    "pages": configuration(PAGES, length=16 << 20, most=1 << 20, align=4096),
}


@pytest.mark.limit(240)
@pytest.mark.parametrize("kind", RUNS)
def test_fsx(home: Home, work: Path, choose: random.Random, rounds: Callable[[int], int], kind: str) -> None:
    """Every read gives what was written; the file is the same after umount and mount, and after a kill."""
    program = os.environ.get("OPENDUCK_FSX")
    if not program:
        pytest.skip("OPENDUCK_FSX is not set (scripts/test installs fsx and sets it)")
    config = work / "fsx.toml"
    config.write_text(RUNS[kind])
    mount = home.mount("mydb")
    seed = choose.randrange(1 << 32)
    operations = rounds(4000)
    outcome = run(
        [program, "-f", config, "-S", str(seed), "-N", str(operations), "-P", work, mount.dir / "fsx"],
        timeout_s=200 * max(1, operations / 4000),
    )
    assert outcome.status == 0, f"{outcome.command}\n{outcome.stdout[-3000:]}\n{outcome.stderr[-3000:]}"
    data = (mount.dir / "fsx").read_bytes()
    with open(mount.dir / "fsx", "rb+") as file:
        os.fsync(file.fileno())
    mount.kill()
    mount = home.mount("mydb", directory=mount.dir)
    assert (mount.dir / "fsx").read_bytes() == data
    mount.umount()
    home.verify("--deep")
    mount = home.mount("mydb")
    assert (mount.dir / "fsx").read_bytes() == data
