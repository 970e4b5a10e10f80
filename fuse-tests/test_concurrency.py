"""Many openduck-fs commands at once against one home: each does its work, or says why not, and the catalog
stays whole."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness.duck import Clients, Version
from harness.openduck import Home, assert_refusal
from harness.processes import Outcome
from harness.streams import Stream, assert_nothing_lost

Rounds = Callable[[int], int]


def all_at_once(jobs: list[Callable[[], Outcome]], workers: int = 8) -> list[Outcome]:
    with ThreadPoolExecutor(workers) as pool:
        return [future.result() for future in [pool.submit(job) for job in jobs]]


def test_one_of_many_creators_wins(home: Home) -> None:
    """The same name by ten at once: one makes it, nine are told that it is there."""
    outcomes = all_at_once([lambda: home.try_run("create", "mydb") for _ in range(10)], 10)
    assert sorted(outcome.status for outcome in outcomes)[:2] == [0, outcomes[0].status or outcomes[1].status]
    assert sum(outcome.status == 0 for outcome in outcomes) == 1
    for outcome in outcomes:
        if outcome.status:
            assert_refusal(outcome, "mydb")
    assert [row["name"] for row in home.json("list")["databases"]] == ["mydb"]


def test_one_of_many_mounts_wins(home: Home) -> None:
    """The same database for writing by six at once: one gets it, five are told who has it; none hangs."""
    directories = [home.new_mount_dir("mydb") for _ in range(6)]
    outcomes = all_at_once([lambda d=d: home.try_run("mount", "mydb", d) for d in directories], 6)
    mounts = home.json("status")["mounts"]
    home.servers.update(status["pid"] for status in mounts)
    assert sum(outcome.status == 0 for outcome in outcomes) == 1, "\n".join(map(str, outcomes))
    assert len(mounts) == 1
    for outcome in outcomes:
        if outcome.status:
            assert_refusal(outcome, "mydb")
    home.run("umount", mounts[0]["dir"])


def test_snapshots_and_clones_by_many(home: Home, clients: Clients, newest: Version) -> None:
    """Forty snapshots and clones at once beside a running commit stream: all are made, each is a whole
    state, and the stream does not mind."""
    mount = home.mount("mydb")
    stream = Stream(clients, newest, mount.file, "--checkpoint-every", 10)
    stream.wait_for_commits(10)
    jobs: list[Callable[[], Outcome]] = []
    for number in range(20):
        jobs.append(lambda number=number: home.try_run("snapshot", "mydb", f"s{number}"))
        jobs.append(lambda number=number: home.try_run("clone", "mydb", f"c{number}"))
    outcomes = all_at_once(jobs)
    failed = [str(outcome) for outcome in outcomes if outcome.status != 0]
    assert not failed, "\n".join(failed)
    stream.finish()
    assert len([row for row in home.snapshots("mydb") if row["name"]]) == 20
    assert len(home.json("list")["databases"]) == 21
    before = -1
    duck = clients.duck(newest)
    for row in home.snapshots("mydb"):
        duck.open(mount.snapshot_file(row["name"]), read_only=True)
        there = duck.one("SELECT max(n) FROM rows")
        assert there >= before
        before = there
        duck.close()
    duck.open(mount.file)
    assert_nothing_lost(duck, stream)
    duck.quit()
    mount.umount()
    home.verify("--deep")


@pytest.mark.limit(240)
def test_everything_at_once(
    home: Home, clients: Clients, oldest: Version, choose: random.Random, rounds: Rounds
) -> None:
    """A random mix of commands by six threads, with compaction, collection and retention among them, on
    databases that are being written: commands succeed or refuse in one line, streams lose nothing, verify
    is content."""
    names = ["a", "b"]
    mounts = {name: home.mount(name) for name in names}
    streams = {
        name: Stream(clients, oldest, mount.file, "--checkpoint-every", 5, "--wal-limit", "100KB")
        for name, mount in mounts.items()
    }
    for stream in streams.values():
        stream.wait_for_commits(5)
    counter = iter(range(1_000_000))
    lock = threading.Lock()

    def one_command(pick: random.Random) -> Outcome:
        name = pick.choice(names)
        with lock:
            fresh = next(counter)
        commands: list[tuple[str, ...]] = [
            ("snapshot", name, f"s{fresh}"),
            ("snapshot", name),
            ("clone", name, f"clone{fresh}"),
            ("remove", f"clone{pick.randrange(fresh + 1)}"),
            ("undrop", f"clone{pick.randrange(fresh + 1)}"),
            ("unsnapshot", name, f"s{pick.randrange(fresh + 1)}"),
            ("list",),
            ("log", name, "--commits"),
            ("status",),
            ("show", name),
            ("verify",),
            ("compact", name),
            ("gc", "--grace", "0s"),
            ("gc",),
            ("retention", name, pick.choice(("0", "1h", "7d"))),
            ("diff", f"{name}@latest", f"{name}@latest"),
        ]
        return home.try_run(*pick.choice(commands))

    def worker(seed: int) -> list[Outcome]:
        pick = random.Random(seed)
        return [one_command(pick) for _ in range(rounds(15))]

    with ThreadPoolExecutor(6) as pool:
        results = [pool.submit(worker, choose.randrange(1 << 30)) for _ in range(6)]
        outcomes = [outcome for result in results for outcome in result.result()]
    for name, stream in streams.items():
        assert stream.client.process.poll() is None, f"the stream on {name} ended: {stream.errors}"
        stream.finish()
        duck = clients.duck(oldest).open(mounts[name].file)
        assert_nothing_lost(duck, stream)
        duck.quit()
        mounts[name].umount()
    for outcome in outcomes:
        if outcome.status != 0:
            assert_refusal(outcome)
            assert any(
                word in outcome.command for word in ("remove", "undrop", "unsnapshot", "clone", "diff")
            ), f"this one has no reason to fail:\n{outcome}"
    home.verify("--deep")
    for name in names:
        mount = home.mount(name)
        duck = clients.duck(oldest).open(mount.file)
        assert_nothing_lost(duck, streams[name])
        duck.quit()
        mount.umount()
