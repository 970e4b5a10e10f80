"""A workplace: a temporary directory on a real disk, with a home for openduck-fs, mounts and
processes in it. Whatever happens, nothing of it is left when it ends.

Processes are ended by handles on exactly those that were started here, never by name or by a
number that may have been given to somebody else. The directory is only deleted once nothing is
mounted in it any more.
"""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any


class CommandFailed(Exception):
    """A command of openduck-fs failed; the text is what it said."""


@dataclass(frozen=True)
class Mount:
    """A mount, and a handle on the process that serves it."""

    directory: Path
    file: Path
    pid: int
    pidfd: int

    def kill(self) -> None:
        """SIGKILL to the serving process; returns when it is gone."""
        signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        wait_for_end(self.pidfd, timeout_s=10)

    def status(self) -> dict[str, Any]:
        """The mount's own `.openduck/status`."""
        status: dict[str, Any] = json.loads((self.directory / ".openduck/status").read_text())
        return status


class Workplace:
    """See the module's text. Use it in a `with` statement."""

    def __init__(self, name: str, environment: Mapping[str, str] | None = None) -> None:
        """`environment` is what openduck-fs finds beside this process's own."""
        self.environment = environment or {}
        self.binary = os.environ["OPENDUCK_FS"]
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "openduck"
        cache.mkdir(parents=True, exist_ok=True)
        self.directory = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=cache))
        self.home = self.directory / "home"
        self._mounts: list[Mount] = []
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> "Workplace":
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _end_by_signal)
        return self

    def __exit__(self, *_: object) -> None:
        # A second Ctrl-C must not stop the cleaning up that the first one began.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        for process in self._processes:
            end_process(process)
        for mount in reversed(self._mounts):
            self._drop(mount)
        # A mount command that was interrupted may have finished all the same.
        for point in mounts_below(self.directory):
            self._umount_quietly(Path(point))
        left = mounts_below(self.directory)
        if left:
            print(f"still mounted, so not deleted: {', '.join(left)}", file=sys.stderr)
        else:
            shutil.rmtree(self.directory, ignore_errors=True)

    def fs(self, *arguments: str, timeout_s: float = 600) -> str:
        """Runs a command of openduck-fs on this home; returns what it printed."""
        shown = f"openduck-fs {' '.join(arguments)}"
        try:
            done = subprocess.run(
                [self.binary, "--home", str(self.home), *arguments],
                capture_output=True,
                text=True,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **self.environment},
                start_new_session=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise CommandFailed(f"{shown}: not done after {timeout_s:g} s") from None
        if done.returncode != 0:
            raise CommandFailed(f"{shown}: {done.stderr.strip()}")
        return done.stdout

    def fs_json(self, *arguments: str) -> dict[str, Any]:
        """Runs a command with --json; returns its document."""
        document: dict[str, Any] = json.loads(self.fs("--json", *arguments))
        return document

    def mount(self, database: str, *flags: str) -> Mount:
        """Mounts `DB` or `DB@REF` in a directory of its own."""
        directory = Path(tempfile.mkdtemp(prefix="mount-", dir=self.directory))
        return self.mount_at(directory, database, *flags)

    def mount_at(self, directory: Path, database: str, *flags: str) -> Mount:
        """Mounts `DB` or `DB@REF` at an empty directory, or where a mount was killed."""
        for killed in [mount for mount in self._mounts if mount.directory == directory]:
            self._forget(killed)
        answer = self.fs_json("mount", database, str(directory), *flags)
        pid = answer["pid"]
        mount = Mount(directory, Path(answer["file"]), pid, os.pidfd_open(pid))
        self._mounts.append(mount)
        return mount

    def umount(self, mount: Mount) -> None:
        """Unmounts in the orderly way."""
        self.fs("umount", str(mount.directory))
        wait_for_end(mount.pidfd, timeout_s=60)
        self._forget(mount)

    def start(self, command: list[str], **options: Any) -> subprocess.Popen[str]:
        """Starts a process that is ended with the workplace."""
        process: subprocess.Popen[str] = subprocess.Popen(
            command, text=True, start_new_session=True, **options
        )
        self._processes.append(process)
        return process

    def _drop(self, mount: Mount) -> None:
        self._umount_quietly(mount.directory)
        if not wait_for_end(mount.pidfd, timeout_s=20):
            mount.kill()
        os.close(mount.pidfd)

    def _umount_quietly(self, directory: Path) -> None:
        with contextlib.suppress(CommandFailed):
            self.fs("umount", str(directory), timeout_s=60)
        _detach(directory)

    def _forget(self, mount: Mount) -> None:
        self._mounts.remove(mount)
        os.close(mount.pidfd)


def end_process(process: subprocess.Popen[str]) -> None:
    """Ends a process that was started here: asks first."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_for_end(pidfd: int, timeout_s: float) -> bool:
    """Waits until a process has ended. False if it runs on after the timeout."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))


def mounts_below(directory: Path) -> list[str]:
    """Mount points at or below a directory."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4].replace("\\040", " ") for line in lines]
    return [point for point in points if Path(point).is_relative_to(directory)]


@contextlib.contextmanager
def stopwatch() -> Iterator[list[float]]:
    """Times a block: the list gets the seconds."""
    seconds: list[float] = []
    started = time.perf_counter()
    yield seconds
    seconds.append(time.perf_counter() - started)


def _detach(directory: Path) -> None:
    if str(directory) in mounts_below(directory):
        subprocess.run(["fusermount3", "-u", "-z", str(directory)], check=False)


def _end_by_signal(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
