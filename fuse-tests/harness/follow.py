"""Judging followers: what readers saw, against what the writer had acknowledged.

A reader must see whole commits only, never go back, and never be more than a little behind: the writer
prints each commit's time, the reader the time before each open, both on the machine's one monotonic clock.
"""

from __future__ import annotations

import bisect

from harness.duck import Client

# How long ago a commit that a reader misses may have been acknowledged. The goal is 0.1 s for 99 of 100 opens
# (benchmarks measure it); beyond this a reader on the same host is wrong, not slow.
LAG_MAX_S = 1.5


def judge_writer(writer: Client) -> list[tuple[float, int]]:
    """The writer's commits as (time of acknowledgement, seq)."""
    return [parse(line) for _, line in list(writer.lines)]


def judge_reader(reader: Client) -> list[tuple[float, int]]:
    """Waits for a reader's end; every open must have gone well. Returns (time before the open, seq)."""
    lines = reader.wait(120)
    wrong = [line for line in lines if line.startswith(("bad", "error", "mix", "stale"))]
    assert not wrong, f"{reader.name}: {len(wrong)} of {len(lines)} opens went wrong, the first: {wrong[0]}"
    return [parse(line) for line in lines]


def judge_freshness(
    name: str, opens: list[tuple[float, int]], commits: list[tuple[float, int]]
) -> list[float]:
    """Counts never fall, and no open misses a commit that was acknowledged long before it.

    Returns for each open how many seconds before it the oldest commit that it missed had been acknowledged; 0
    where it missed none.
    """
    times = [time for time, _ in commits]
    numbers = [seq for _, seq in commits]
    newest_seen = -1
    lags = []
    for time, seq in opens:
        assert seq >= newest_seen, f"{name}: an open saw commit {seq} after one that saw {newest_seen}"
        newest_seen = seq
        missed = bisect.bisect_right(numbers, seq)
        lags.append(max(0.0, time - times[missed]) if missed < len(times) else 0.0)
    worst = max(lags, default=0.0)
    assert worst <= LAG_MAX_S, (
        f"{name}: an open missed a commit that was acknowledged {worst:.2f} s before it"
    )
    return lags


def describe_opens(lags: list[float], commits: list[tuple[float, int]]) -> str:
    """How many opens there were beside how many commits, and how old what they missed was."""
    ordered = sorted(lags)
    worst, p99 = ordered[-1] * 1000, ordered[len(ordered) * 99 // 100] * 1000
    missed = f"what they missed was {worst:.0f} ms old at most, p99 {p99:.0f} ms"
    return f"{len(ordered)} beside {len(commits)} commits; {missed}"


def parse(line: str) -> tuple[float, int]:
    time, seq = line.split()
    return float(time), int(seq)
