"""Starting servers: as whom, on which port, until they answer, and how they end.

A server gets a signal from the kernel when the process that started it ends (`setpriv --pdeathsig`), so a
killed run leaves none behind.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

LOOPBACK = "127.0.0.1"


class ServerFailed(AssertionError):
    """A server did not start, or is gone; the text ends with what it said last."""


def free_port() -> int:
    """A port that nobody listens on now. Somebody else may take it before its server does, so a server that
    finds it taken is started again with another."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def start_server(
    argv: Sequence[str | Path], log: Path, *, env: Mapping[str, str] | None = None, user: str | None = None
) -> subprocess.Popen[bytes]:
    """Starts a server that writes to `log`; `user` counts only where this process is root."""
    prefix = ["setpriv", "--pdeathsig", "KILL"]
    if user is not None and os.geteuid() == 0:
        prefix += ["--reuid", user, "--regid", user, "--clear-groups"]
    with log.open("ab") as output:
        return subprocess.Popen(
            [*prefix, "--", *(str(part) for part in argv)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=None if env is None else dict(env),
            start_new_session=True,
        )


def wait_for_server(
    what: str,
    process: subprocess.Popen[bytes],
    log: Path,
    answers: Callable[[], bool],
    timeout_s: float = 30.0,
) -> None:
    """Returns when `answers` says so; fails where the process ends first."""
    deadline = time.monotonic() + timeout_s
    while not answers():
        status = process.poll()
        if status is not None:
            raise ServerFailed(f"{what} ended with {status}:\n{last_lines(log)}")
        if time.monotonic() > deadline:
            raise ServerFailed(f"{what} does not answer after {timeout_s:g} s:\n{last_lines(log)}")
        time.sleep(0.02)


def accepts(port: int) -> bool:
    """Whether somebody accepts connections on a loopback port."""
    with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=1):
        return True
    return False


def last_lines(log: Path, count: int = 20) -> str:
    """The end of a log."""
    with contextlib.suppress(OSError):
        return "\n".join(log.read_text(errors="replace").splitlines()[-count:])
    return ""


def end(process: subprocess.Popen[bytes], number: int, timeout_s: float) -> None:
    """Sends a signal and waits; a server that does not heed it in time is killed."""
    if process.poll() is not None:
        return
    process.send_signal(number)
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait(10)


def children_of(pid: int) -> list[int]:
    """The processes that a process, by whichever of its threads, started and that still run."""
    found: list[int] = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(child) for child in children.read_text().split()]
    return found
