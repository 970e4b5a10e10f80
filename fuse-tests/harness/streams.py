"""Commit streams and their judgement: what `clients/commit_stream.py` acknowledged, against what a file
holds.

The rule after any crash: every acknowledged commit is there, whole, and beyond it at most the one commit of
each stream that was in flight, whole too. Which one that was the stream has announced: an acknowledgement
that was not yet read when somebody was killed says nothing of how far the stream had got.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from harness.duck import Client, Clients, Duck, Version
from harness.processes import wait_until

# What stands before `<stream> <n>` when that commit is about to be made.
ANNOUNCED = "try "

CHECK = """
    SELECT stream, count(*), max(n),
           count(*) FILTER (WHERE there <> of_rows OR last <> of_rows - 1 OR wrong > 0), sum(there)
    FROM (SELECT stream, n, count(*) AS there, min(of_rows) AS of_rows, max(i) AS last,
                 count(*) FILTER (
                     WHERE v <> (i * 7919 + n * 104729 + stream) % 1000003
                        OR pad <> repeat(chr((65 + n % 26)::INTEGER), (20 + i % 50)::INTEGER)) AS wrong
          FROM rows GROUP BY stream, n)
    GROUP BY stream
"""


class Stream:
    """A running `commit_stream.py`."""

    def __init__(self, clients: Clients, version: Version, path: Path, *args: str | int) -> None:
        self.client: Client = clients.start(version, "commit_stream.py", path, *args)
        first = self.client.next_line("the stream to open its database")
        assert first == "open", f"{self.client.name} said {first!r}"

    def wait_for_commits(self, count: int, timeout_s: float = 60.0) -> None:
        for number in range(count):
            line = ANNOUNCED
            while line.startswith(ANNOUNCED):
                line = self.client.next_line(f"commit {number + 1} of {count}", timeout_s)
            assert not line.startswith("error"), f"{self.client.name}: {line}"

    def wait_for_new_commits(self, count: int, timeout_s: float = 60.0) -> None:
        """Waits for commits that are acknowledged from now on."""
        before = self._count()

        def there() -> bool:
            assert not self.errors, f"{self.client.name}: {self.errors[0]}"
            return self._count() >= before + count

        wait_until(f"{count} new commits", there, timeout_s)

    def _count(self) -> int:
        """How many commits were acknowledged so far."""
        return sum(line[0].isdigit() for _, line in self.client.lines)

    def kill(self) -> None:
        self.client.kill()

    def finish(self) -> None:
        self.client.finish()

    @property
    def acked(self) -> dict[int, int]:
        """The newest acknowledged commit of each stream, so far."""
        return newest_of(line for _, line in self.client.lines)

    def acked_by(self, moment: float) -> dict[int, int]:
        """The newest commit of each stream that was acknowledged by a moment of `time.monotonic`."""
        return newest_of(line for time, line in self.client.lines if time <= moment)

    @property
    def attempted(self) -> dict[int, int]:
        """The newest commit of each stream that it was about to make; all of them once the stream has
        ended."""
        lines = (line for _, line in self.client.lines)
        return newest_of(line.removeprefix(ANNOUNCED) for line in lines if line.startswith(ANNOUNCED))

    @property
    def errors(self) -> list[str]:
        return [line for _, line in self.client.lines if line.startswith("error")]


def newest_of(lines: Iterable[str]) -> dict[int, int]:
    """The last of the lines `<stream> <n>` of each stream."""
    newest: dict[int, int] = {}
    for line in lines:
        if match := re.fullmatch(r"(\d+) (\d+)", line):
            newest[int(match[1])] = int(match[2])
    return newest


def state(duck: Duck) -> dict[int, int]:
    """The newest commit of each stream in an open database, all of them found whole and without a gap."""
    names = {row[0] for row in duck.sql("SELECT table_name FROM duckdb_tables()")}
    if "rows" not in names or "tally" not in names:
        return {}
    tally = {
        row[0]: (row[1], row[2]) for row in duck.sql("SELECT stream, n, total FROM tally") if row[1] >= 0
    }
    found = {}
    for stream, commits, newest, broken, total in duck.sql(CHECK):
        assert broken == 0, f"stream {stream}: {broken} commits are torn or hold wrong values"
        assert commits == newest + 1, (
            f"stream {stream}: {newest + 1 - commits} commits before {newest} are missing"
        )
        assert tally.get(stream) == (newest, int(total)), (
            f"stream {stream}: rows say commit {newest}, {total} rows; the tally says {tally.get(stream)}"
        )
        found[stream] = newest
    assert set(tally) == set(found), f"tally has streams {set(tally)}, rows have {set(found)}"
    return found


def assert_nothing_lost(
    duck: Duck,
    *streams: Stream,
    known: dict[int, int] | None = None,
    due: dict[int, int] | None = None,
) -> dict[int, int]:
    """Every commit that the ended streams acknowledged is in the open database, and beyond it at most the one
    that each was making; returns what is there.

    `known` is what an earlier round found. `due` are the newest acknowledged commits that must be there,
    where those are not all: what was acknowledged after the disk was gone does not count.
    """
    found = state(duck)
    least, most = dict(known or {}), dict(known or {})
    for stream in streams:
        least.update(stream.acked if due is None else {})
        most.update(stream.attempted)
    least.update(due or {})
    for number, newest in least.items():
        there = found.get(number, -1)
        assert there >= newest, f"stream {number}: commit {newest} was acknowledged, only {there} is there"
    for number, there in found.items():
        limit = most.get(number, -1)
        assert there <= limit, f"stream {number}: {there} is there, and nobody tried more than {limit}"
    return found


def assert_order_kept(stream: Stream, found: dict[int, int]) -> None:
    """What is there is a prefix of the order in which commits were acknowledged, across all streams of a
    process: no commit that began after an acknowledged one is there without it."""
    order = [
        (int(match[1]), int(match[2]))
        for _, line in stream.client.lines
        if (match := re.fullmatch(r"(\d+) (\d+)", line))
    ]
    missing = [at for at, (number, n) in enumerate(order) if n > found.get(number, -1)]
    if not missing:
        return
    first = missing[0]
    for at, (number, n) in enumerate(order):
        # Commit n + 1 began when n had been acknowledged.
        if at > first and n < found.get(number, -1):
            lost, kept = order[first], (number, n + 1)
            raise AssertionError(
                f"(stream, commit) {lost} was acknowledged before {kept} began; only the later one is there"
            )
