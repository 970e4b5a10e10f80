"""What goes wrong: rules, each with a kind, the requests it is for, and how often.

The choice is by a seed and the order of the matching requests, so a run can be repeated as far as its clients
repeat theirs.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from typing import Any

from servers.proxying.answers import can_be_made_up, is_list
from servers.proxying.message import Head

KINDS = {
    # The request does not reach the server.
    "status": "answers `status`",
    "swallow": "answers as if it had been done",
    "reset": "resets the connection; with `after`, when so much of the answer's body has passed",
    "stall": "stands still for `seconds`; with `after`, when so much of the answer's body has passed",
    # The request reaches the server.
    "fail_after": "drops the server's answer, and answers `status`",
    "cut_after": "drops the server's answer, and resets the connection",
    "truncate": "ends the connection when a part of the answer's body has passed: `after`, from 0 to 1",
    "shorten": "leaves the end of the answer's body away and fits Content-Length: `after`, from 0 to 1",
    "corrupt": "flips one bit of the answer's body",
    "corrupt_upload": "flips one bit of the request's body",
    "slow": "passes the answer's body at `bytes_per_s`",
    "stale": "answers a list as it was up to `seconds` ago",
}


@dataclass
class Rule:
    """One fault. It passes over requests that it can't be done to: no GET is swallowed, only lists are
    stale."""

    kind: str
    methods: list[str] | None = None
    # Found anywhere in the request's target: path and query.
    target: str = ""
    probability: float = 1.0
    # So many matching requests pass first, and at most so many are hit.
    skip: int = 0
    limit: int | None = None
    after: float | None = None
    seconds: float = 0.0
    status: int = 503
    bytes_per_s: float = 1 << 20
    matched: int = 0
    fired: int = 0
    _pattern: re.Pattern[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"no kind of fault: {self.kind!r}; there are {', '.join(KINDS)}")
        self._pattern = re.compile(self.target)

    def is_for(self, request: Head) -> bool:
        if self.methods is not None and request.method not in self.methods:
            return False
        if self.kind == "swallow" and not can_be_made_up(request):
            return False
        if self.kind == "stale" and not is_list(request):
            return False
        return self._pattern.search(request.target) is not None


class Faults:
    """The rules in force."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self._rules: dict[int, Rule] = {}
        self._next = 0

    def add(self, fields: dict[str, Any]) -> int:
        self._next += 1
        self._rules[self._next] = Rule(**fields)
        return self._next

    def clear(self, number: int | None = None) -> None:
        if number is None:
            self._rules.clear()
        else:
            self._rules.pop(number, None)

    def choose(self, request: Head) -> Rule | None:
        """The first rule that hits this request."""
        for rule in self._rules.values():
            if not rule.is_for(request):
                continue
            rule.matched += 1
            if rule.matched <= rule.skip or (rule.limit is not None and rule.fired >= rule.limit):
                continue
            if self.chance.random() < rule.probability:
                rule.fired += 1
                return rule
        return None
