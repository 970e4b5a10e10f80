"""One writer, whatever happens: races for the lease, a handover on request, a takeover of the unreachable."""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness.cluster import NewHost
from harness.duck import Clients, Version
from harness.hosts import LEASE_S, REMOTE, SLACK_S, TAKEOVER_S, Host, local, take_over
from harness.openduck import CommandFailed, Mount, assert_refusal, mounted_types
from harness.posix import opened
from harness.processes import Outcome, is_alive, wait_until
from harness.streams import Stream, assert_nothing_lost, state

Rounds = Callable[[int], int]


def try_to_mount(machine: Host) -> Mount | str:
    try:
        return machine.mount("mydb", *REMOTE)
    except CommandFailed as refusal:
        return str(refusal)


def add_one(mount: Mount) -> int:
    """Counts up in the database's file; what it is now."""
    with opened(mount.file, os.O_RDWR | os.O_CREAT) as fd:
        number = int.from_bytes(os.pread(fd, 8, 0), "little") + 1
        os.pwrite(fd, number.to_bytes(8, "little"), 0)
        os.fsync(fd)
    return number


@pytest.mark.limit(600)
def test_exactly_one_of_two_wins_each_race(host: NewHost, rounds: Rounds) -> None:
    """A hundred races; who wins finds what all winners before did, and who loses is told who won."""
    machines = [host("alpha"), host("beta")]
    wins = [0, 0]
    machines[0].run("create", "mydb")
    for number in range(rounds(100)):
        with ThreadPoolExecutor(2) as pool:
            results = list(pool.map(try_to_mount, machines))
        winners = [at for at, result in enumerate(results) if isinstance(result, Mount)]
        assert len(winners) == 1, f"race {number}: {len(winners)} winners: {results}"
        (winner,) = winners
        mount, refusal = results[winner], results[1 - winner]
        assert isinstance(mount, Mount) and isinstance(refusal, str)
        wins[winner] += 1
        assert machines[winner].name in refusal or os.geteuid() != 0, f"race {number}: {refusal}"
        assert add_one(mount) == number + 1, f"race {number}: an earlier winner's commit is gone"
        mount.umount()
    assert all(wins) or number < 10, f"the same host won every race: {wins}"


def test_a_second_writer_is_told_everything(host: NewHost) -> None:
    """Holder, host, process, age and expiry, in one line, at once; and the holder is not disturbed."""
    alpha, beta = host("alpha"), host("beta")
    mount = alpha.mount("mydb", *REMOTE)
    assert add_one(mount) == 1
    time.sleep(1)
    begin = time.monotonic()
    outcome = beta.fail("mount", "mydb", beta.new_mount_dir(), names="mydb")
    assert time.monotonic() - begin < SLACK_S
    assert str(mount.pid) in outcome.stderr
    if os.geteuid() == 0:
        assert "alpha" in outcome.stderr
    assert "expires in" in outcome.stderr
    assert "--steal" in outcome.stderr
    assert len(re.findall(r"\d+ ?(?:m?s|seconds?)\b", outcome.stderr)) >= 2, "an age and an expiry"
    assert add_one(mount) == 2


@pytest.mark.parametrize("durability", [REMOTE, local("1h")], ids=["remote", "local"])
@pytest.mark.limit(240)
def test_a_living_holder_hands_over(
    host: NewHost, clients: Clients, newest: Version, durability: tuple[str, ...]
) -> None:
    """`--steal` asks; the holder flushes, publishes and lets go, and nothing is missing, not even with an
    hour of lag."""
    alpha, beta = host("alpha"), host("beta")
    mount = alpha.mount("mydb", *durability)
    stream = Stream(clients, newest, mount.file, "--streams", 2, "--checkpoint-every", 9)
    stream.wait_for_commits(30)
    stream.finish()
    epoch = mount.status()["epoch"]
    taken = take_over(beta, "mydb", *durability)
    assert taken.status()["epoch"] > epoch
    duck = clients.duck(newest).open(taken.file)
    assert state(duck) == stream.acked
    duck.quit()
    wait_until("the old mount to end", lambda: not is_alive(mount.pid), 20)
    assert not mounted_types(mount.dir)
    assert [row["name"] for row in beta.json("list")["databases"]] == ["mydb"], (
        "nothing was lost, so no clone"
    )


@pytest.mark.parametrize("durability", [REMOTE, local("1h")], ids=["remote", "local"])
@pytest.mark.limit(300)
def test_a_handover_under_a_working_duckdb(
    host: NewHost,
    clients: Clients,
    newest: Version,
    choose: random.Random,
    rounds: Rounds,
    durability: tuple[str, ...],
) -> None:
    """The writer's place goes back and forth while DuckDB commits: it gets an error, and what it was told is
    there, and at most the one commit in flight more."""
    machines = [host("alpha"), host("beta")]
    found: dict[int, int] = {}
    mount = machines[0].mount("mydb", *durability)
    for number in range(rounds(3)):
        stream = Stream(clients, newest, mount.file, "--checkpoint-every", choose.choice((3, 8)))
        stream.wait_for_commits(choose.randrange(3, 12))
        taken = take_over(machines[(number + 1) % 2], "mydb", *durability)
        wait_until("the stream to get its error", lambda s=stream: s.client.process.poll() is not None, 30)
        stream.kill()
        mount.forget()
        duck = clients.duck(newest).open(taken.file)
        found = assert_nothing_lost(duck, stream, known=found)
        duck.quit()
        mount = taken
    mount.umount()
    machines[0].verify("--deep")


@pytest.mark.root
@pytest.mark.limit(240)
def test_an_unreachable_holder_is_taken_over_at_expiry(
    host: NewHost, clients: Clients, newest: Version
) -> None:
    """The holder's network is dead and it can't be asked. Its own fsyncs fail once its lease is over, and
    never does it acknowledge anything at the same time as its successor."""
    alpha, beta = host("alpha", own_network=True), host("beta")
    mount = alpha.mount("mydb", *local("1s"))
    stream = Stream(clients, newest, mount.file)
    stream.wait_for_commits(20)
    time.sleep(2)
    alpha.partition()
    cut_at = time.monotonic()
    taken = take_over(beta, "mydb", *REMOTE)
    taken_at = time.monotonic()
    assert taken_at - cut_at > LEASE_S / 2, "a lease that was just renewed was taken away before its time"
    wait_until(
        "the cut-off writer to be told by an error", lambda: stream.client.process.poll() is not None, 30
    )
    after = [line for at, line in stream.client.lines if at > taken_at + 0.2 and line[0].isdigit()]
    assert not after, f"acknowledged by a writer without a lease: {after}"
    stream.kill()
    duck = clients.duck(newest).open(taken.file)
    found = assert_nothing_lost(duck, stream, due=stream.acked_by(cut_at - 2.0))
    duck.sql("CREATE TABLE by_beta(i BIGINT)")
    duck.quit()
    taken.umount()
    alpha.heal()
    # Time enough for a wrong publication.
    time.sleep(3)
    gamma = host("gamma")
    duck = clients.duck(newest).open(gamma.mount("mydb@latest").file, read_only=True)
    assert state(duck) == found, "the old writer published after its lease"
    assert duck.one("SELECT count(*) FROM by_beta") == 0
    duck.quit()


@pytest.mark.limit(120)
def test_an_expired_lease_is_taken_at_once(host: NewHost) -> None:
    """Of a machine that burned a while ago nobody waits for anything; without `--steal` neither."""
    alpha, beta, gamma = host("alpha"), host("beta"), host("gamma")
    add_one(alpha.mount("mydb", *REMOTE))
    alpha.burn()
    time.sleep(LEASE_S + 1)
    begin = time.monotonic()
    mount = beta.mount("mydb", *REMOTE)
    assert time.monotonic() - begin < SLACK_S
    assert add_one(mount) == 2
    beta.burn()
    time.sleep(LEASE_S + 1)
    begin = time.monotonic()
    mount = gamma.mount("mydb", "--steal", *REMOTE)
    assert time.monotonic() - begin < SLACK_S
    assert add_one(mount) == 3


@pytest.mark.limit(120)
def test_takeover_never_shortens_a_lease(host: NewHost) -> None:
    """A stranger without `--steal` is refused as long as a burned holder's lease lasts."""
    alpha, beta = host("alpha"), host("beta")
    mount = alpha.mount("mydb", *REMOTE)
    add_one(mount)
    alpha.burn()
    refused: Outcome = beta.try_run("mount", "mydb", beta.new_mount_dir())
    assert_refusal(refused, "mydb")
    begin = time.monotonic()
    wait_until(
        "the lease to expire",
        lambda: isinstance(try_to_mount(beta), Mount),
        TAKEOVER_S + SLACK_S,
        0.5,
    )
    assert time.monotonic() - begin > LEASE_S - 6.0, "heartbeats are 5 s apart, so at least 10 s were left"
