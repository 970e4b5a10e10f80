"""What passed: requests, bytes, and how many round trips had to follow one another.

A request's depth is one more than that of the deepest request whose answer was complete when it began:
requests at once are one round trip, a request that needs another's answer is one more. `round_trips` is the
deepest.
"""

from __future__ import annotations

import collections
import time
from dataclasses import dataclass, field
from typing import Any

LOG_LENGTH = 20_000


@dataclass
class Passage:
    """One request."""

    method: str
    target: str
    span: str
    began: float
    depth: int
    status: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    fault: str | None = None
    seconds: float = 0.0
    generation: int = field(default=0, repr=False)


class Counts:
    """See the module's text."""

    def __init__(self) -> None:
        self._generation = 0
        self.reset()

    def reset(self) -> None:
        """Begins anew; requests that are under way are not counted any more."""
        self._generation += 1
        self.connections = 0
        self.turns = 0
        self.bytes_up = 0
        self.bytes_down = 0
        self._depth_done = 0
        self._round_trips = 0
        self._at_once = 0
        self._at_once_most = 0
        self._methods: collections.Counter[str] = collections.Counter()
        self._statuses: collections.Counter[str] = collections.Counter()
        self._faults: collections.Counter[str] = collections.Counter()
        self._log: collections.deque[Passage] = collections.deque(maxlen=LOG_LENGTH)

    def begin(self, method: str, target: str, span: str) -> Passage:
        passage = Passage(method, target, span, time.monotonic(), self._depth_done + 1)
        passage.generation = self._generation
        self._round_trips = max(self._round_trips, passage.depth)
        self._at_once += 1
        self._at_once_most = max(self._at_once_most, self._at_once)
        self._methods[method] += 1
        self._log.append(passage)
        return passage

    def end(self, passage: Passage) -> None:
        if passage.generation != self._generation:
            return
        passage.seconds = time.monotonic() - passage.began
        self._at_once -= 1
        self._depth_done = max(self._depth_done, passage.depth)
        self._statuses[str(passage.status)] += 1
        self.bytes_up += passage.bytes_up
        self.bytes_down += passage.bytes_down
        if passage.fault is not None:
            self._faults[passage.fault] += 1

    def document(self) -> dict[str, Any]:
        return {
            "connections": self.connections,
            "requests": sum(self._methods.values()),
            "methods": dict(self._methods),
            "statuses": dict(self._statuses),
            "faults": dict(self._faults),
            "bytes_up": self.bytes_up,
            "bytes_down": self.bytes_down,
            "round_trips": self._round_trips,
            "at_once": self._at_once_most,
            "turns": self.turns,
        }

    def log(self) -> list[dict[str, Any]]:
        return [
            {name: value for name, value in vars(passage).items() if name != "generation"}
            for passage in self._log
        ]
