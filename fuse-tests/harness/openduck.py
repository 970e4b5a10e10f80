"""The binary under test: homes, commands and mounts.

A `Home` is one directory of layers with everything that a test mounted from it; closing it unmounts, ends the
mounting processes by the ids that `mount --json` told, and leaves nothing.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.processes import Outcome, command_line, is_alive, run, wait_until

# Commands that long for nothing but metadata end within this; generous, for a busy machine.
COMMAND_TIMEOUT_S = 60.0


class CommandFailed(AssertionError):
    """A command that should have worked did not."""


def mounted_types(directory: Path) -> list[str]:
    """The filesystem types mounted at a directory, by the kernel's table; does not touch the mounts."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        point = left.split()[4].encode().decode("unicode_escape")
        if point == str(directory):
            found.append(right.split()[0])
    return found


def lazy_unmount(directory: Path) -> None:
    """Takes a mount away whatever state it is in."""
    for command in (["fusermount3", "-u", "-z", "-q", str(directory)], ["umount", "-l", str(directory)]):
        if not mounted_types(directory):
            return
        with contextlib.suppress(AssertionError, FileNotFoundError):
            run(command, timeout_s=20)


@dataclass
class Mount:
    """One mounted database."""

    home: Home
    database: str
    dir: Path
    document: dict[str, Any]

    @property
    def pid(self) -> int:
        return int(self.document["pid"])

    @property
    def file(self) -> Path:
        """The database's file in this mount."""
        return self.dir / f"{self.database}.duckdb"

    @property
    def wal(self) -> Path:
        return self.dir / f"{self.database}.duckdb.wal"

    def snapshot_file(self, ref: str) -> Path:
        """The database's file in `.snapshots/<ref>/`."""
        return self.dir / ".snapshots" / ref / f"{self.database}.duckdb"

    def status(self) -> dict[str, Any]:
        return json.loads((self.dir / ".openduck" / "status").read_text())

    @property
    def head_lsn(self) -> int:
        return int(self.status()["head_lsn"])

    def umount(self) -> Outcome:
        """Unmounts as a user does, and waits for the mounting process to end."""
        outcome = self.home.run("umount", self.dir)
        self.forget()
        wait_until(f"process {self.pid} to end after umount {self.dir}", lambda: not is_alive(self.pid), 30)
        return outcome

    def kill(self) -> None:
        """SIGKILL to the mounting process. The dead mount stays in the kernel's table."""
        self.signal(signal.SIGKILL)
        wait_until(f"the killed process {self.pid} to be gone", lambda: not is_alive(self.pid))
        self.forget()

    def signal(self, number: int) -> None:
        assert self.home.is_own_server(self.pid), f"process {self.pid} is not a mount of this test"
        os.kill(self.pid, number)

    def forget(self) -> None:
        with contextlib.suppress(ValueError):
            self.home.mounts.remove(self)


@dataclass
class Home:
    """One OPENDUCK_HOME, the commands against it, and the mounts made from it."""

    binary: Path
    path: Path
    mount_root: Path
    # What stands before the binary: `setpriv …` for another user.
    prefix: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    mounts: list[Mount] = field(default_factory=list)
    # Every process that served a mount of this home, and every directory it was mounted at, for the clean-up.
    servers: set[int] = field(default_factory=set)
    mount_dirs: set[Path] = field(default_factory=set)
    commands: list[Outcome] = field(default_factory=list)
    # Numbered, not looked for: a look at a directory of a dead mount is an error.
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def argv(self, *args: str | Path, json_document: bool = False) -> list[str]:
        flags = ["--home", str(self.path), *(["--json"] if json_document else [])]
        return [*self.prefix, str(self.binary), *flags, *(str(arg) for arg in args)]

    def environment(self) -> dict[str, str]:
        """What a command of this home finds in its environment."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith("OPENDUCK_")}
        return {**clean, **self.env}

    def try_run(
        self,
        *args: str | Path,
        json_document: bool = False,
        timeout_s: float = COMMAND_TIMEOUT_S,
        pass_fds: Sequence[int] = (),
        env: Mapping[str, str] | None = None,
    ) -> Outcome:
        """Runs a command that may fail."""
        outcome = run(
            self.argv(*args, json_document=json_document),
            timeout_s=timeout_s,
            env={**self.environment(), **(env or {})},
            pass_fds=pass_fds,
        )
        self.commands.append(outcome)
        return outcome

    def run(self, *args: str | Path, timeout_s: float = COMMAND_TIMEOUT_S) -> Outcome:
        """Runs a command that must work."""
        outcome = self.try_run(*args, timeout_s=timeout_s)
        if outcome.status != 0:
            raise CommandFailed(f"the command failed:\n{outcome}")
        return outcome

    def json(
        self, *args: str | Path, timeout_s: float = COMMAND_TIMEOUT_S, status: int = 0
    ) -> dict[str, Any]:
        """Runs a command with `--json` and returns its one document."""
        outcome = self.try_run(*args, json_document=True, timeout_s=timeout_s)
        if outcome.status != status:
            raise CommandFailed(f"the command should have ended with {status}:\n{outcome}")
        return parse_document(outcome)

    def fail(
        self, *args: str | Path, names: str | None = None, timeout_s: float = COMMAND_TIMEOUT_S
    ) -> Outcome:
        """Runs a command that must be refused as the contract says: exit status not 0, no panic, one line on
        stderr, and in it `names`."""
        outcome = self.try_run(*args, timeout_s=timeout_s)
        assert_refusal(outcome, names)
        return outcome

    def mount(
        self, target: str, *flags: str, directory: Path | None = None, timeout_s: float = COMMAND_TIMEOUT_S
    ) -> Mount:
        """Mounts DB[@REF] at a new directory (or a given one) and returns when the command does."""
        database = target.partition("@")[0]
        if directory is None:
            directory = self.new_mount_dir(database)
        self.mount_dirs.add(directory)
        document = self.json("mount", target, directory, *flags, timeout_s=timeout_s)
        mount = Mount(self, database, directory, document)
        self.servers.add(mount.pid)
        self.mounts.append(mount)
        return mount

    def new_mount_dir(self, name: str = "mnt") -> Path:
        """An empty directory to mount at, unlike any before it."""
        directory = self.mount_root / f"{name[:40]}-{next(self._numbers)}"
        directory.mkdir()
        self.mount_dirs.add(directory)
        return directory

    def is_own_server(self, pid: int) -> bool:
        """Whether a process id still means a mounting process of this home: ids are given out again."""
        return pid in self.servers and is_alive(pid) and self.binary.name in command_line(pid)

    def kill_servers(self) -> None:
        """SIGKILL to every mounting process; wakes up whoever waits inside a mount."""
        for pid in self.servers:
            if self.is_own_server(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """Unmounts what is mounted, by force where asking does not help."""
        for mount in list(self.mounts):
            with contextlib.suppress(AssertionError):
                self.try_run("umount", mount.dir, timeout_s=30)
        with contextlib.suppress(AssertionError):
            wait_until(
                "mounting processes to end", lambda: not any(map(self.is_own_server, self.servers)), 10
            )
        self.kill_servers()
        for directory in self.mount_dirs:
            for _ in range(4):
                if mounted_types(directory):
                    lazy_unmount(directory)
        self.mounts.clear()

    def logs(self, lines: int = 40, files: int = 4) -> str:
        """The ends of the newest logs in the home, for a failure's report."""
        parts = []
        found = self.path.rglob("*.log") if self.path.exists() else []
        for log in sorted(found, key=lambda log: log.stat().st_mtime_ns)[-files:]:
            with contextlib.suppress(OSError):
                tail = log.read_text(errors="replace").splitlines()[-lines:]
                parts.append("\n".join([f"--- {log.relative_to(self.path)}", *tail]))
        return "\n".join(parts)

    # ---- what the tests ask again and again ----

    def verify(self, *args: str) -> None:
        """`verify` must find nothing."""
        document = self.json("verify", *args)
        assert document["ok"] is True, f"verify {args}: {document['problems']}"
        assert document["problems"] == []

    def snapshots(self, database: str) -> list[dict[str, Any]]:
        return self.json("log", database)["snapshots"]

    def head_lsn(self, database: str) -> int:
        """The head of an unmounted or mounted database, as `list` tells it."""
        rows = {row["name"]: row for row in self.json("list")["databases"]}
        return int(rows[database]["head_lsn"])

    def allocated_bytes(self) -> int:
        """What the home takes on its disk."""
        total = 0
        for directory, _, names in os.walk(self.path):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    total += os.lstat(os.path.join(directory, name)).st_blocks * 512
        return total


def parse_document(outcome: Outcome) -> dict[str, Any]:
    """`--json` gives exactly one JSON document on stdout."""
    try:
        document = json.loads(outcome.stdout)
    except json.JSONDecodeError as error:
        raise AssertionError(f"stdout is not one JSON document ({error}):\n{outcome}") from None
    assert isinstance(document, dict), f"the document is not an object:\n{outcome}"
    return document


def assert_refusal(outcome: Outcome, names: str | None = None) -> None:
    """A refusal as the contract says: exit status not 0, one clear line on stderr that names the thing."""
    assert outcome.status > 0, f"should have been refused (and not by a signal):\n{outcome}"
    assert outcome.status != 101, f"a panic:\n{outcome}"
    assert "panicked" not in outcome.stderr, f"a panic:\n{outcome}"
    lines = [line for line in outcome.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, f"one line on stderr is the contract:\n{outcome}"
    if names is not None:
        assert names in lines[0], f"the message should name {names!r}:\n{outcome}"
