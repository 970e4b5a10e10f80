"""What a finished test may leave behind: nothing.

Everything that a session makes carries the session's temporary directory in its mount point, command line or
environment, so that what is left can be found without a list of what was started.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from harness.disks import loop_devices
from harness.processes import command_line, is_alive
from servers.namespace import namespaces_named

# How the directories of sessions begin.
PREFIX = "openduck-tests-"
OWNER = "owner"


def claim(root: Path) -> None:
    """Says that a session's directory belongs to this process."""
    (root / OWNER).write_text(f"{os.getpid()} {start_of(os.getpid())}")


def killed_sessions(parent: Path) -> list[Path]:
    """The directories of sessions whose process ended without taking them away."""
    found = []
    for root in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError, ValueError):
            pid, start = (root / OWNER).read_text().split()
            if start_of(int(pid)) != start:
                found.append(root)
    return found


def start_of(pid: int) -> str:
    """When a process began, in the kernel's ticks: process ids are given out again. Empty where it is
    gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def namespaces_of(root: Path) -> list[str]:
    """Network namespaces that carry a session's name."""
    return namespaces_named(f"{root.name}-")


def mounts_below(root: Path) -> list[str]:
    """Mount points at or below a directory."""
    points = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return [point for point in points if point == str(root) or point.startswith(f"{root}/")]


def processes_of(root: Path) -> list[int]:
    """Processes, besides this one, whose command line or environment names something below a directory."""
    needle = f"{root}/".encode()
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            text = (
                Path(f"/proc/{entry}/cmdline").read_bytes()
                + b"\0"
                + Path(f"/proc/{entry}/environ").read_bytes()
            )
            if needle in text and is_alive(int(entry)):
                found.append(int(entry))
    return found


def loop_devices_of(root: Path) -> list[str]:
    """Loop devices whose file lies below a directory."""
    return [device for path, device in loop_devices() if path.startswith(f"{root}/")]


def listening_ports(pid: int) -> list[str]:
    """Local addresses that a process listens on."""
    inodes = set()
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                inodes.add(os.readlink(f"/proc/{pid}/fd/{name}"))
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                    found.append(fields[1])
    return found


def describe(root: Path) -> list[str]:
    """One line for each thing that was left behind."""
    left = [f"mount {point}" for point in mounts_below(root)]
    left += [f"loop device {device}" for device in loop_devices_of(root)]
    left += [f"network namespace {name}" for name in namespaces_of(root)]
    for pid in processes_of(root):
        ports = listening_ports(pid)
        listening = f", listening on {', '.join(ports)}" if ports else ""
        left.append(f"process {pid}: {command_line(pid)[:200]}{listening}")
    return left


def settled(root: Path, patience_s: float = 5.0) -> list[str]:
    """As `describe`, once what was told to end has had time to do so."""
    deadline = time.monotonic() + patience_s
    while (left := describe(root)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left
