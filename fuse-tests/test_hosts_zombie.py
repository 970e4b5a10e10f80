"""A writer that was stopped past its lease, while another one wrote, and goes on: it acknowledges nothing
more, publishes nothing, and what it alone had acknowledged is kept beside the database."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest

from harness.cluster import NewHost
from harness.duck import Client, Clients, Version
from harness.hosts import LEASE_S, REMOTE, Host, local, take_over
from harness.openduck import Mount
from harness.processes import is_alive, wait_until
from harness.streams import Stream, assert_nothing_lost, state

# An acknowledgement that was on its way when the process was stopped has arrived after this.
PIPES_S = 0.5


def lost_databases(machine: Host) -> list[str]:
    names = [row["name"] for row in machine.json("list")["databases"]]
    return [name for name in names if name.startswith("mydb-lost-")]


def commits_of(client: Client) -> list[str]:
    return [line for _, line in client.lines if re.fullmatch(r"\d+ \d+", line)]


def stop_and_take_over(
    alpha: Host, beta: Host, stream: Stream, clients: Clients, version: Version, *flags: str
) -> tuple[Mount, Stream, list[str]]:
    """Stops alpha's writer in mid-stream; beta takes over and commits. Returns beta's mount, its stream, and
    all that alpha's DuckDB was told."""
    alpha.pause()
    time.sleep(PIPES_S)
    told = commits_of(stream.client)
    taken = take_over(beta, "mydb", *flags)
    successor = Stream(clients, version, taken.file, "--first", 100)
    successor.wait_for_commits(20)
    assert commits_of(stream.client) == told, "a stopped process acknowledged something"
    return taken, successor, told


def assert_silenced(stream: Stream, told: list[str], streams: int = 1) -> None:
    """The woken writer's DuckDB gets an error, and no acknowledgement before it. Only an answer that the stop
    came upon behind the last look at the deadline, on its way out, arrives now: one per stream."""
    wait_until(
        "the woken writer to be told by an error", lambda: stream.client.process.poll() is not None, 30
    )
    stream.kill()
    commits = commits_of(stream.client)
    assert commits[: len(told)] == told
    assert len(commits) <= len(told) + streams, "a writer without a lease acknowledged a commit"
    assert stream.errors


@pytest.mark.limit(240)
def test_a_woken_writer_acknowledges_and_publishes_nothing(
    host: NewHost, clients: Clients, newest: Version
) -> None:
    """With remote durability: exact on both sides. All that it was told before is there, and nothing
    after."""
    alpha, beta, gamma = host("alpha"), host("beta"), host("gamma")
    mount = alpha.mount("mydb", *REMOTE)
    stream = Stream(clients, newest, mount.file, "--streams", 2, "--checkpoint-every", 6)
    stream.wait_for_commits(25)
    taken, successor, told = stop_and_take_over(alpha, beta, stream, clients, newest, *REMOTE)
    alpha.resume()
    assert_silenced(stream, told, streams=2)
    successor.wait_for_new_commits(10)
    successor.finish()
    taken.umount()
    duck = clients.duck(newest).open(gamma.mount("mydb@latest").file, read_only=True)
    found = state(duck)
    assert found[100] == successor.acked[100]
    for number, n in stream.acked.items():
        assert n <= found[number] <= stream.attempted[number]
    duck.quit()
    gamma.verify("--deep")


@pytest.mark.limit(240)
def test_a_writer_stopped_at_its_fsyncs_end_does_not_answer(
    host: NewHost, clients: Clients, newest: Version
) -> None:
    """Many short stops around the lease's length: the deadline is checked after the sync, just before the
    answer, so no instant of waking up acknowledges."""
    alpha, beta = host("alpha"), host("beta")
    for number in range(3):
        mount = alpha.mount("mydb", *REMOTE)
        stream = Stream(clients, newest, mount.file, "--first", number)
        stream.wait_for_commits(5)
        alpha.pause()
        time.sleep(PIPES_S)
        told = commits_of(stream.client)
        taken = take_over(beta, "mydb", *REMOTE)
        alpha.resume()
        assert_silenced(stream, told)
        duck = clients.duck(newest).open(taken.file)
        assert state(duck)[number] >= stream.acked[number]
        duck.quit()
        taken.umount()
        wait_until("the silenced mount to end", lambda m=mount: not is_alive(m.pid), 30)
        mount.forget()


@pytest.mark.parametrize("end", ["woken", "killed"])
@pytest.mark.limit(300)
def test_what_only_the_old_writer_had_is_kept_beside(
    host: NewHost, clients: Clients, newest: Version, end: str
) -> None:
    """With local durability and a long lag the old host alone has acknowledged commits. When it comes back
    they are a clone, `mydb-lost-<epoch>`: never merged, never thrown away."""
    alpha, beta, gamma = host("alpha"), host("beta"), host("gamma")
    mount = alpha.mount("mydb", *local("1s"))
    first = Stream(clients, newest, mount.file)
    first.wait_for_commits(15)
    first.finish()
    epoch = mount.status()["epoch"]
    time.sleep(3)
    # From here on nothing of alpha reaches the store.
    alpha.objects.cut()
    stream = Stream(clients, newest, mount.file, "--first", 1)
    stream.wait_for_commits(15)
    taken, successor, told = stop_and_take_over(alpha, beta, stream, clients, newest, *REMOTE)
    alpha.objects.heal()
    if end == "woken":
        alpha.resume()
        assert_silenced(stream, told)
        wait_until("the silenced mount to end", lambda: not is_alive(mount.pid), 60)
        mount.forget()
    else:
        alpha.crash()
        stream.kill()
    # It comes back: any mount of the database looks at what its home has.
    alpha.mount("mydb", "--follow")
    successor.wait_for_new_commits(5)
    successor.finish()
    taken.umount()
    lost = f"mydb-lost-{epoch}"
    wait_until("what was lost to be listed", lambda: lost in lost_databases(gamma), 60, 0.5)
    assert lost_databases(gamma) == [lost]
    # The database itself: what was published, and what the successor did.
    duck = clients.duck(newest).open(gamma.mount("mydb@latest").file, read_only=True)
    found = state(duck)
    assert found[0] == first.acked[0]
    assert 1 not in found, "commits of the old writer were merged after it had lost its place"
    assert found[100] == successor.acked[100]
    duck.quit()
    # And what the old one had acknowledged, all of it, also from another host.
    kept = gamma.mount(lost, *REMOTE)
    duck = clients.duck(newest).open(kept.file)
    there = assert_nothing_lost(duck, first, stream)
    assert 100 not in there
    duck.sql("CREATE TABLE goes_on(i BIGINT)")
    duck.quit()
    kept.umount()
    gamma.verify("--deep")


@pytest.mark.limit(240)
def test_a_short_stop_is_no_reason_to_stop(
    host: NewHost, clients: Clients, newest: Version, rounds: Callable[[int], int]
) -> None:
    """Stopped for less than the lease, and nobody else came: the writer goes on without an error."""
    alpha, beta = host("alpha"), host("beta")
    mount = alpha.mount("mydb", *REMOTE)
    stream = Stream(clients, newest, mount.file)
    stream.wait_for_commits(5)
    for _ in range(rounds(2)):
        alpha.pause()
        time.sleep(LEASE_S / 3)
        assert beta.try_run("mount", "mydb", beta.new_mount_dir()).status != 0
        alpha.resume()
        stream.wait_for_new_commits(5)
    stream.finish()
    mount.umount()
    duck = clients.duck(newest).open(beta.mount("mydb@latest").file, read_only=True)
    assert state(duck) == stream.acked
    duck.quit()
