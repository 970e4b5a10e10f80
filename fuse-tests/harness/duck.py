"""DuckDB clients: one process, one DuckDB version, spoken to in lines of JSON.

`Duck` drives `clients/duck.py`, a DuckDB that does what it is told; `Client` runs the scripts that work on
their own (commit streams, hammers, spilling readers) and collects the lines they print.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.processes import kill_group

CLIENTS = Path(__file__).resolve().parent.parent / "clients"


@dataclass(frozen=True)
class Version:
    """One DuckDB version, and the Python that has it."""

    name: str
    python: Path

    @property
    def key(self) -> tuple[int, ...]:
        return tuple(int(part) for part in self.name.split("."))

    def __str__(self) -> str:
        return self.name


class DuckError(Exception):
    """DuckDB raised an error, which is not the test's error yet."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind


class Client:
    """A client script that runs by itself; its stdout lines are collected with the time they arrived."""

    def __init__(self, version: Version, script: str, *args: str | Path | int | float) -> None:
        self.name = f"{script} {version} {' '.join(str(arg) for arg in args)}"
        self.lines: list[tuple[float, str]] = []
        self._fresh: queue.Queue[str | None] = queue.Queue()
        self.process = subprocess.Popen(
            [str(version.python), str(CLIENTS / script), *(str(arg) for arg in args)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
            env=client_environment(),
        )
        self._stderr: list[str] = []
        self._threads = [
            threading.Thread(target=self._collect, daemon=True),
            threading.Thread(target=self._collect_stderr, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _collect(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append((time.monotonic(), line.rstrip("\n")))
            self._fresh.put(line.rstrip("\n"))
        self._fresh.put(None)

    def _collect_stderr(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._stderr.append(line)

    @property
    def stderr(self) -> str:
        return "".join(self._stderr)

    @property
    def pid(self) -> int:
        return self.process.pid

    def next_line(self, what: str, timeout_s: float = 60.0) -> str:
        """The next line of the client, which should say `what`."""
        try:
            line = self._fresh.get(timeout=timeout_s)
        except queue.Empty:
            raise AssertionError(
                f"waited {timeout_s:g} s for {what} from {self.name}\n{self.stderr}"
            ) from None
        if line is None:
            self.process.wait(10)
            raise AssertionError(
                f"{self.name} ended (exit {self.process.returncode}) before {what}\n{self.stderr}"
            )
        return line

    def send(self, line: str) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()

    def finish(self, timeout_s: float = 60.0) -> list[str]:
        """Closes the client's stdin, which asks it to end, and waits as `wait` does."""
        self._close_stdin()
        return self.wait(timeout_s)

    def wait(self, timeout_s: float = 60.0) -> list[str]:
        """Waits until the client has done its work, which it must do well. Returns all its lines."""
        try:
            status = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"waited {timeout_s:g} s for {self.name} to end\n{self.stderr}") from None
        self._join()
        assert status == 0, f"{self.name} ended with {status}\n{self.stderr}"
        return [line for _, line in self.lines]

    def kill(self) -> None:
        """SIGKILL, and wait until all it had printed is collected."""
        kill_group(self.process.pid)
        self._close_stdin()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        self._join()

    def pause(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)

    def _close_stdin(self) -> None:
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()

    def _join(self) -> None:
        for thread in self._threads:
            thread.join(10)


class Duck:
    """A DuckDB process that runs what it is told, and says what came."""

    def __init__(self, version: Version, *, uid: int | None = None) -> None:
        self.version = version
        self._client = Client(version, "duck.py", *(["--uid", uid] if uid is not None else []))
        self._client.next_line(f"DuckDB {version} to start")

    @property
    def pid(self) -> int:
        return self._client.pid

    def _ask(self, request: dict[str, Any], timeout_s: float) -> Any:
        self._client.send(json.dumps(request))
        answer = json.loads(self._client.next_line(f"the answer to {str(request)[:300]}", timeout_s))
        if "error" in answer:
            raise DuckError(answer["kind"], answer["error"])
        return answer["rows"]

    def open(
        self,
        path: str | Path,
        *,
        read_only: bool = False,
        config: Mapping[str, Any] | None = None,
        storage_version: str | None = None,
        io_mode: str | None = None,
        timeout_s: float = 60.0,
    ) -> Duck:
        """Opens a database file; with `storage_version` or `io_mode` by ATTACH and USE."""
        options = []
        if storage_version is not None:
            options.append(f"STORAGE_VERSION '{storage_version}'")
        if io_mode is not None:
            options.append(f"IO_MODE {io_mode}")
        if options:
            if read_only:
                options.append("READ_ONLY")
            self._ask({"do": "open", "path": ":memory:", "config": dict(config or {})}, timeout_s)
            self.sql(f"ATTACH '{path}' AS attached ({', '.join(options)})", timeout_s=timeout_s)
            self.sql("USE attached", timeout_s=timeout_s)
        else:
            request = {"do": "open", "path": str(path), "read_only": read_only, "config": dict(config or {})}
            self._ask(request, timeout_s)
        return self

    def sql(self, text: str, *parameters: Any, timeout_s: float = 60.0) -> list[list[Any]]:
        """Runs SQL and returns all rows of its last statement."""
        return self._ask({"do": "sql", "sql": text, "parameters": list(parameters)}, timeout_s)

    def one(self, text: str, *parameters: Any, timeout_s: float = 60.0) -> Any:
        """The one value that a query gives."""
        return self.sql(text, *parameters, timeout_s=timeout_s)[0][0]

    def close(self) -> None:
        """Closes the database; the process stays."""
        self._ask({"do": "close"}, 60)

    def listdir(self, path: str | Path) -> list[str]:
        """What this process sees in a directory."""
        return self._ask({"do": "listdir", "path": str(path)}, 30)

    def quit(self) -> None:
        """Ends the process, and closes the database if it is open."""
        self._client.finish()

    def kill(self) -> None:
        self._client.kill()


def client_environment() -> dict[str, str]:
    """The clients know nothing of OpenDuck, and don't write bytecode beside the scripts."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("OPENDUCK_")}
    return {**kept, "PYTHONDONTWRITEBYTECODE": "1"}


class Clients:
    """All client processes of one test; what is left of them is killed at the end."""

    def __init__(self) -> None:
        self._enders: list[Callable[[], None]] = []

    def duck(self, version: Version, *, uid: int | None = None) -> Duck:
        duck = Duck(version, uid=uid)
        self._enders.append(duck.kill)
        return duck

    def start(self, version: Version, script: str, *args: str | Path | int | float) -> Client:
        client = Client(version, script, *args)
        self._enders.append(client.kill)
        return client

    def kill_all(self) -> None:
        for end in reversed(self._enders):
            end()
        self._enders.clear()
