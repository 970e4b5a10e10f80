"""A network namespace: a host that can be cut off from everything, its loopback too.

A program in it reaches the servers only through proxies that listen inside and connect from outside, so no
address and no route is needed. A partition drops every packet of its loopback without an answer, which is
what a host behind a dead switch sees. Needs root.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


class Namespace:
    """One namespace, by a name that no other has."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._is_cut = False
        _ip("netns", "add", name)
        _ip("-n", name, "link", "set", "lo", "up")

    @property
    def path(self) -> Path:
        return Path("/run/netns") / self.name

    @property
    def prefix(self) -> list[str]:
        """What stands before a command that is to run inside. Only the network is another: `ip netns exec`
        would give it mounts of its own too, which nobody outside would see."""
        return ["nsenter", f"--net={self.path}", "--"]

    def cut(self) -> None:
        """From now on no packet arrives."""
        if not self._is_cut:
            # A queue with room for nothing drops what is sent; every kernel has it.
            _run(*self.prefix, "tc", "qdisc", "add", "dev", "lo", "root", "pfifo", "limit", "0")
            self._is_cut = True

    def heal(self) -> None:
        """Packets arrive again; connections that were not given up go on."""
        if self._is_cut:
            _run(*self.prefix, "tc", "qdisc", "del", "dev", "lo", "root")
            self._is_cut = False

    def close(self) -> None:
        if self.path.exists():
            _ip("netns", "del", self.name)


def can_make_namespaces() -> bool:
    """Whether this process may: it takes root, and a container may forbid it all the same."""
    if os.geteuid() != 0:
        return False
    name = f"openduck-probe-{os.getpid()}"
    try:
        Namespace(name).close()
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def namespaces_named(beginning: str) -> list[str]:
    """The namespaces whose names begin so."""
    directory = Path("/run/netns")
    return sorted(path.name for path in directory.glob(f"{beginning}*")) if directory.is_dir() else []


def remove_namespace(name: str) -> None:
    """Takes a namespace away that another process made."""
    subprocess.run(["ip", "netns", "del", name], capture_output=True)


def _ip(*arguments: str) -> None:
    _run("ip", *arguments)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=20)
