"""A network that misbehaves: a proxy in front of a server, and the orders to it.

A `Proxy` for HTTP understands requests, and can do wrong to single ones; one for bytes suits any protocol.
Both have a length (the round trip's time), a width (bytes per second, shared by all connections), can be cut
(nobody listens, every connection is reset) and frozen (nothing moves, nobody is told), and count what passes.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servers.processes import LOOPBACK, ServerFailed

PACKAGES = Path(__file__).resolve().parent.parent
ANSWER_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Counts:
    """What passed since the last `reset_counts`."""

    connections: int
    requests: int
    methods: dict[str, int]
    statuses: dict[str, int]
    faults: dict[str, int]
    bytes_up: int
    bytes_down: int
    # How many requests followed one another; those at once count as one.
    round_trips: int
    # The most requests that were under way at once.
    at_once: int
    # For bytes: how often the client spoke after the server had.
    turns: int


class Proxy:
    """A running proxy. `close` it, or end this process, and it is gone."""

    def __init__(
        self,
        upstream_port: int,
        *,
        is_http: bool,
        seed: int = 1,
        namespace: Path | None = None,
    ) -> None:
        """Starts a proxy to a loopback port; it listens on the loopback of `namespace`, if one is named."""
        argv = [
            *(sys.executable, "-B", "-m", "servers.proxying"),
            *("--upstream", f"{LOOPBACK}:{upstream_port}", "--seed", str(seed)),
            *(["--http"] if is_http else []),
            *(["--namespace", str(namespace)] if namespace else []),
        ]
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(PACKAGES)},
        )
        self.port: int = self._answer("start")

    @property
    def endpoint(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def pid(self) -> int:
        return self._process.pid

    def shape(self, *, round_trip_s: float = 0.0, bytes_per_s: float | None = None) -> None:
        """Sets the line's length and width; a new connection costs one round trip more."""
        self._order("shape", round_trip_s=round_trip_s, bytes_per_s=bytes_per_s)

    def fault(
        self,
        kind: str,
        *,
        methods: Sequence[str] | None = None,
        target: str = "",
        probability: float = 1.0,
        skip: int = 0,
        limit: int | None = None,
        after: float | None = None,
        **details: float,
    ) -> int:
        """Adds a rule of one of the kinds of `servers/proxying/faults.py`; its number is for `clear_faults`.

        `target` is a regular expression for the path and query, `skip` and `limit` count matching
        requests."""
        number: int = self._order(
            "add_fault",
            kind=kind,
            methods=None if methods is None else list(methods),
            target=target,
            probability=probability,
            skip=skip,
            limit=limit,
            after=after,
            **details,
        )
        return number

    def clear_faults(self, number: int | None = None) -> None:
        """Takes one rule away, or all."""
        self._order("clear_faults", number=number)

    def cut(self) -> None:
        """Nobody listens any more, and every connection is reset."""
        self._order("cut")

    def freeze(self) -> None:
        """Nothing moves any more, and nobody is told."""
        self._order("freeze")

    def disconnect(self) -> None:
        """Resets every connection; new ones are welcome."""
        self._order("disconnect")

    def heal(self) -> None:
        """Undoes `cut` and `freeze`; what was frozen goes on."""
        self._order("heal")

    def mute(self) -> None:
        """From now on no notification of PostgreSQL comes through, as behind a pooler that shares sessions;
        all else does. Resets every connection."""
        self._order("mute")

    def point_at(self, port: int) -> None:
        """From now on passes to another server; what is connected to the old one is reset."""
        self._order("point_at", host=LOOPBACK, port=port)

    def counts(self) -> Counts:
        return Counts(**self._order("counts"))

    def log(self) -> list[dict[str, Any]]:
        """The newest requests, in the order in which they began."""
        log: list[dict[str, Any]] = self._order("log")
        return log

    def reset_counts(self) -> None:
        self._order("reset_counts")

    def close(self) -> None:
        if self._process.returncode is not None:
            return
        assert self._process.stdin and self._process.stdout
        with self._process.stdout, self._process.stdin:
            pass
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)

    def _order(self, name: str, **arguments: Any) -> Any:
        assert self._process.stdin
        self._process.stdin.write(json.dumps([name, arguments]) + "\n")
        self._process.stdin.flush()
        return self._answer(name)

    def _answer(self, name: str) -> Any:
        assert self._process.stdout
        ready, _, _ = select.select([self._process.stdout], [], [], ANSWER_TIMEOUT_S)
        line = self._process.stdout.readline() if ready else ""
        if not line:
            raise ServerFailed(f"the proxy did not answer {name!r}")
        answer = json.loads(line)
        if "error" in answer:
            raise ServerFailed(f"the proxy refused {name!r}: {answer['error']}")
        return answer["answer"]
