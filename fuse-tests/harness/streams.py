"""Commit streams and their judgement: what `clients/commit_stream.py` acknowledged, against what a file
holds.

The rule after any crash: every acknowledged commit is there, whole, and beyond it at most the one commit of
each stream that was in flight, whole too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from harness.duck import Client, Clients, Duck, Version
from harness.processes import wait_until

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
            line = self.client.next_line(f"commit {number + 1} of {count}", timeout_s)
            assert not line.startswith("error"), f"{self.client.name}: {line}"

    def wait_for_new_commits(self, count: int, timeout_s: float = 60.0) -> None:
        """Waits for commits that are acknowledged from now on."""
        before = len(self.client.lines)

        def there() -> bool:
            assert not self.errors, f"{self.client.name}: {self.errors[0]}"
            return len(self.client.lines) >= before + count

        wait_until(f"{count} new commits", there, timeout_s)

    def kill(self) -> None:
        self.client.kill()

    def finish(self) -> None:
        self.client.finish()

    @property
    def acked(self) -> dict[int, int]:
        """The newest acknowledged commit of each stream, so far."""
        return acked(line for _, line in self.client.lines)

    def acked_by(self, moment: float) -> dict[int, int]:
        """The newest commit of each stream that was acknowledged by a moment of `time.monotonic`."""
        return acked(line for time, line in self.client.lines if time <= moment)

    @property
    def errors(self) -> list[str]:
        return [line for _, line in self.client.lines if line.startswith("error")]


def acked(lines: Iterable[str]) -> dict[int, int]:
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
    acknowledged: dict[int, int],
    *,
    known: dict[int, int] | None = None,
    said: dict[int, int] | None = None,
) -> dict[int, int]:
    """Every acknowledged commit is in the open database, and at most one more per stream; returns what is
    there.

    `known` is what an earlier round found. `said` are the newest acknowledgements that may not count, since
    they came when the disk was already gone, but show how far the stream can have come.
    """
    found = state(duck)
    least = {**(known or {}), **acknowledged}
    most = {**least, **(said or {})}
    for stream, newest in least.items():
        there = found.get(stream, -1)
        assert there >= newest, f"stream {stream}: commit {newest} was acknowledged, only {there} is there"
    for stream, there in found.items():
        limit = most.get(stream, -1) + 1
        assert there <= limit, f"stream {stream}: {there} is there, nobody can have got further than {limit}"
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
