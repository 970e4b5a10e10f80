"""The machine under the benchmark: its caches, its disk, and what else it is doing."""

import os
import shutil
import subprocess
import time
from pathlib import Path

LOOK_SECONDS = 2


def describe() -> str:
    """One line for the head of the table."""
    release = os.uname().release
    busy = busy_percent()
    warning = "; the ratios will scatter" if busy > 5 else ""
    return f"{os.cpu_count()} CPUs, {busy:.0f} % busy with other work{warning}; Linux {release}"


def busy_percent() -> float:
    """How much of all CPUs other programs use right now."""
    before = _ticks()
    time.sleep(LOOK_SECONDS)
    busy, total = (after - was for after, was in zip(_ticks(), before, strict=True))
    return 100 * busy / total


def _ticks() -> tuple[int, int]:
    """Busy and all CPU time since the machine was started."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    idle = fields[3] + fields[4]
    return sum(fields) - idle, sum(fields)


def settle() -> None:
    """Lets the disk finish what earlier measurements left to it."""
    os.sync()


def can_drop_caches() -> bool:
    """Whether the kernel's caches can be emptied: that takes root, or sudo without a password."""
    if os.geteuid() == 0:
        return True
    if shutil.which("sudo") is None:
        return False
    return subprocess.run(["sudo", "-n", "true"], capture_output=True).returncode == 0


def drop_caches() -> None:
    """Empties the kernel's page cache, so that the next reads come from the disk."""
    settle()
    command = ["sh", "-c", "echo 3 > /proc/sys/vm/drop_caches"]
    subprocess.run(command if os.geteuid() == 0 else ["sudo", "-n", *command], check=True)
