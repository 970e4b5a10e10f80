"""A machine burns in the middle of a commit stream, with its home and its cache; another one mounts.

With remote durability every acknowledged commit is there. With local durability at most the lag is missing,
and what is there is a prefix of what was acknowledged: no hole, no mix.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable

import pytest

from harness.cluster import NewHost
from harness.duck import Clients, Version
from harness.hosts import REMOTE, SLACK_S, Host, Store, local, take_over
from harness.openduck import Mount
from harness.processes import wait_until
from harness.streams import Stream, assert_nothing_lost, assert_order_kept, state

Rounds = Callable[[int], int]
LAG_S = 1.0


@pytest.fixture
def next_host(host: NewHost) -> Callable[[], Host]:
    """A machine that never saw the store."""
    numbers = itertools.count(1)
    return lambda: host(f"host{next(numbers)}")


def run_for_a_while(stream: Stream, choose: random.Random) -> None:
    """Some commits, and then a random instant."""
    stream.wait_for_commits(choose.randrange(2, 15))
    time.sleep(choose.choice((0.05, 1.5)) * choose.random())


def burn(machine: Host, stream: Stream) -> float:
    """The machine is lost; when, by `time.monotonic`. Its DuckDB is told by an error."""
    moment = time.monotonic()
    machine.burn()
    wait_until("the stream to end with its machine", lambda: stream.client.process.poll() is not None, 30)
    stream.kill()
    return moment


@pytest.mark.limit(420)
def test_remote_durability_keeps_every_acknowledged_commit(
    next_host: Callable[[], Host], clients: Clients, newest: Version, choose: random.Random, rounds: Rounds
) -> None:
    """kill -9 at random instants, the disk gone with it: whatever any fsync acknowledged is elsewhere."""
    found: dict[int, int] = {}
    machine = next_host()
    mount = machine.mount("mydb", *REMOTE)
    for number in range(rounds(4)):
        stream = Stream(
            clients,
            newest,
            mount.file,
            *("--streams", choose.choice((1, 4)), "--checkpoint-every", choose.choice((0, 3, 11))),
        )
        run_for_a_while(stream, choose)
        burn(machine, stream)
        assert stream.acked, f"round {number}: nothing was committed, so nothing was tried"
        machine = next_host()
        mount = take_over(machine, "mydb", *REMOTE)
        duck = clients.duck(newest).open(mount.file)
        found = assert_nothing_lost(duck, stream, known=found)
        duck.quit()
    mount.umount()
    next_host().verify("--deep")


@pytest.mark.limit(420)
def test_local_durability_loses_the_lag_at_most(
    next_host: Callable[[], Host], clients: Clients, newest: Version, choose: random.Random, rounds: Rounds
) -> None:
    """What was acknowledged longer ago than the lag is there; of what came later, a prefix."""
    found: dict[int, int] = {}
    machine = next_host()
    mount = machine.mount("mydb", *local(f"{LAG_S:g}s"))
    for number in range(rounds(4)):
        stream = Stream(
            clients, newest, mount.file, "--streams", choose.choice((1, 4)), "--checkpoint-every", 7
        )
        run_for_a_while(stream, choose)
        time.sleep(LAG_S * 2 * choose.random())
        moment = burn(machine, stream)
        machine = next_host()
        mount = take_over(machine, "mydb", *local(f"{LAG_S:g}s"))
        duck = clients.duck(newest).open(mount.file)
        due = stream.acked_by(moment - LAG_S - 1.0)
        found = assert_nothing_lost(duck, stream, known=found, due=due)
        assert_order_kept(stream, found)
        duck.quit()
        assert number or stream.acked
    mount.umount()
    next_host().verify("--deep")


@pytest.mark.limit(240)
def test_an_orderly_end_leaves_nothing_behind(
    next_host: Callable[[], Host], clients: Clients, newest: Version, store: Store
) -> None:
    """After `umount` the machine may burn, whatever the durability was: the store has everything."""
    alpha = next_host()
    mount = alpha.mount("mydb", *local("1h"))
    stream = Stream(clients, newest, mount.file, "--streams", 2)
    stream.wait_for_commits(40)
    stream.finish()
    mount.umount()
    alpha.burn()
    beta = next_host()
    begin = time.monotonic()
    mount = beta.mount("mydb")
    assert time.monotonic() - begin < SLACK_S, "a lease that was let go makes nobody wait"
    duck = clients.duck(newest).open(mount.file)
    assert state(duck) == stream.acked
    duck.quit()
    assert store.object_sizes()


@pytest.mark.limit(240)
def test_snapshots_and_history_survive_the_machine(
    next_host: Callable[[], Host], clients: Clients, newest: Version
) -> None:
    """Names, numbers and what they hold: each snapshot opens elsewhere as it was."""
    alpha = next_host()
    mount = alpha.mount("mydb", *REMOTE)
    duck = clients.duck(newest).open(mount.file)
    duck.sql("CREATE TABLE t(i BIGINT)")
    held = {}
    for number in range(5):
        duck.sql(f"INSERT INTO t SELECT {number} FROM range(1000)")
        document = alpha.json("snapshot", "mydb", f"step-{number}")
        held[f"step-{number}"] = (document["snapshot"]["lsn"], (number + 1) * 1000)
        if number == 2:
            duck.sql("CHECKPOINT")
    alpha.burn()
    duck.kill()
    beta = next_host()
    assert {row["name"]: row["lsn"] for row in beta.snapshots("mydb")} == {
        name: lsn for name, (lsn, _) in held.items()
    }
    reader = clients.duck(newest)
    for name, (lsn, rows) in held.items():
        for ref in (name, f"lsn:{lsn}"):
            frozen = beta.mount(f"mydb@{ref}")
            reader.open(frozen.file, read_only=True)
            assert reader.one("SELECT count(*) FROM t") == rows
            reader.close()
            frozen.umount()


@pytest.mark.limit(240)
def test_a_killed_writer_is_continued_by_its_own_host(
    next_host: Callable[[], Host], clients: Clients, newest: Version, choose: random.Random, rounds: Rounds
) -> None:
    """Killed without losing its disk, and with an hour of lag: the same home mounts again at once, and has
    everything that it acknowledged, in the store or not."""
    alpha = next_host()
    found: dict[int, int] = {}
    directory = alpha.new_mount_dir("mydb")
    for _ in range(rounds(4)):
        begin = time.monotonic()
        mount: Mount = alpha.mount("mydb", *local("1h"), directory=directory)
        assert time.monotonic() - begin < SLACK_S
        stream = Stream(clients, newest, mount.file, "--streams", 2, "--checkpoint-every", 5)
        run_for_a_while(stream, choose)
        mount.kill()
        stream.kill()
        mount = alpha.mount("mydb", *local("1h"), directory=directory)
        duck = clients.duck(newest).open(mount.file)
        found = assert_nothing_lost(duck, stream, known=found)
        duck.quit()
        mount.umount()
    beta = next_host()
    duck = clients.duck(newest).open(beta.mount("mydb@latest").file, read_only=True)
    assert state(duck) == found, "umount publishes what earlier mounts had kept to themselves"
    duck.quit()
