"""Running, awaiting and ending processes; no wait is without an end, and each says what it waited for.

Only processes that a test started itself are ever ended, always by their id.
"""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def wait_until(
    what: str, condition: Callable[[], T | None], timeout_s: float = 15.0, pause_s: float = 0.02
) -> T:
    """Returns the first truthy value of `condition`; fails with `what` in the message when time is over."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s:g} s in vain for {what}")
        time.sleep(pause_s)


@dataclass(frozen=True)
class Outcome:
    """What a finished command said."""

    command: str
    status: int
    stdout: str
    stderr: str
    seconds: float

    def __str__(self) -> str:
        return f"$ {self.command}\n(exit {self.status}, {self.seconds:.3f} s)\n{self.stdout}{self.stderr}"


def run(
    argv: Sequence[str | Path],
    *,
    timeout_s: float = 60.0,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    pass_fds: Sequence[int] = (),
    cwd: str | Path | None = None,
) -> Outcome:
    """Runs a command to its end and catches what it says; a command that hangs is killed and named."""
    command = shlex.join(str(part) for part in argv)
    begin = time.monotonic()
    with subprocess.Popen(
        [str(part) for part in argv],
        stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=None if env is None else dict(env),
        pass_fds=pass_fds,
        cwd=cwd,
        start_new_session=True,
    ) as process:
        try:
            stdout, stderr = process.communicate(stdin, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            ended = process.poll() is not None
            kill_group(process.pid)
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
            why = "it ended, but something it started keeps its output open" if ended else "it was killed"
            raise AssertionError(f"waited {timeout_s:g} s for `{command}`: {why}") from None
        except BaseException:
            kill_group(process.pid)
            raise
    return Outcome(command, process.returncode, stdout, stderr, time.monotonic() - begin)


def read_line(process: subprocess.Popen[str], what: str, timeout_s: float = 30.0) -> str:
    """The one line that a helper process answers with."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], timeout_s)
    if not ready:
        raise AssertionError(f"waited {timeout_s:g} s in vain for {what}")
    return process.stdout.readline().strip()


def kill_group(leader: int) -> None:
    """Kills a process that was started in a session of its own, with its children."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


def command_line(pid: int) -> str:
    """A process's command line, empty where it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


class Watchdog:
    """Ends what a test started when the test takes too long, so that even a test that hangs inside a dead
    mount comes back with an error instead of stopping the suite."""

    def __init__(self, seconds: float, bite: Callable[[], None]) -> None:
        self.seconds = seconds
        self.has_bitten = False
        self._bite = bite
        self._timer = threading.Timer(seconds, self._expired)
        self._timer.daemon = True
        self._timer.start()

    def _expired(self) -> None:
        self.has_bitten = True
        self._bite()

    def stop(self) -> None:
        self._timer.cancel()
