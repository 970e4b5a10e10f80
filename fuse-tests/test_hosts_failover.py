"""PostgreSQL's machine dies and its synchronous standby is promoted: what was acknowledged as remote is
there, and mounts go on with the new primary as if it were the old one."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.cluster import NewHost
from harness.duck import Clients, Version
from harness.hosts import LEASE_S, REMOTE, SLACK_S, Host, Store, local, take_over, wait_for_publication
from harness.processes import wait_until
from harness.streams import Stream, assert_nothing_lost, state
from servers.postgres import PostgresServer
from servers.s3 import Bucket

# A connection is known to be dead after 10 s.
NOTICED_S = 10.0

NewServer = Callable[[PostgresServer | None], PostgresServer]


@pytest.fixture
def new_server(work: Path, closers: list[Callable[[], None]]) -> NewServer:
    """Starts a server of this test alone; with a primary, as its synchronous standby."""
    numbers = itertools.count(1)

    def make(primary: PostgresServer | None) -> PostgresServer:
        server = PostgresServer(work / f"postgres-{next(numbers)}", primary=primary)
        closers.append(server.kill)
        server.start()
        if primary is None:
            server.new_database("ducks")
        else:
            primary.wait_for_standby()
        return server

    return make


def fail_over(primary: PostgresServer, standby: PostgresServer, machines: list[Host]) -> None:
    """The primary is lost, the standby is promoted, and clients reach it by the same address."""
    primary.kill()
    standby.promote()
    for machine in machines:
        machine.meta.point_at(standby.port)


@pytest.mark.parametrize("durability", [REMOTE, local("1s")], ids=["remote", "local"])
@pytest.mark.limit(240)
def test_mounts_outlast_a_failover(
    host: NewHost,
    clients: Clients,
    newest: Version,
    choose: random.Random,
    rounds: Callable[[int], int],
    bucket: Bucket,
    new_server: NewServer,
    durability: tuple[str, ...],
) -> None:
    """Twice in mid-stream: DuckDB gets no error, a pinned reader and a follower go on, and the new primary
    knows of everything that was acknowledged."""
    primary = new_server(None)
    team = Store(primary, "ducks", bucket)
    alpha, beta = host("alpha", store=team), host("beta", store=team)
    mount = alpha.mount("mydb", *durability)
    stream = Stream(clients, newest, mount.file, "--streams", 2, "--checkpoint-every", 6)
    stream.wait_for_commits(15)
    wait_for_publication(mount, beta)
    frozen, follow = beta.mount("mydb@latest"), beta.mount("mydb", "--follow")
    reader = clients.duck(newest).open(frozen.file, read_only=True)
    pinned = state(reader)
    for _ in range(rounds(2)):
        standby = new_server(primary)
        stream.wait_for_new_commits(choose.randrange(3, 20))
        time.sleep(0.1 * choose.random())
        fail_over(primary, standby, [alpha, beta])
        stream.wait_for_new_commits(10, NOTICED_S + LEASE_S)
        primary = standby
    assert state(reader) == pinned
    reader.quit()
    if durability == REMOTE:
        # What was acknowledged is elsewhere already.
        alpha.burn()
        stream.kill()
    else:
        stream.finish()
        assert not stream.errors
        mount.umount()
        alpha.burn()

    def has_caught_up() -> bool:
        duck = clients.duck(newest)
        try:
            found = state(duck.open(follow.file, read_only=True))
            return all(found.get(number, -1) >= n for number, n in stream.acked.items())
        finally:
            duck.kill()

    wait_until("the follower to catch up", has_caught_up, NOTICED_S + SLACK_S, 0.3)
    gamma = host("gamma", store=Store(primary, "ducks", bucket))
    taken = take_over(gamma, "mydb", *REMOTE)
    duck = clients.duck(newest).open(taken.file)
    assert_nothing_lost(duck, stream)
    duck.quit()
    taken.umount()
    gamma.verify("--deep")


@pytest.mark.limit(240)
def test_a_failover_that_comes_late(
    host: NewHost, clients: Clients, newest: Version, bucket: Bucket, new_server: NewServer
) -> None:
    """Promoted only when the writer's lease has ended: its DuckDB was told by an error, another host has the
    place at once, and finds what was acknowledged. The old writer adds nothing to it."""
    primary = new_server(None)
    standby = new_server(primary)
    team = Store(primary, "ducks", bucket)
    alpha, beta = host("alpha", store=team), host("beta", store=team)
    mount = alpha.mount("mydb", *REMOTE)
    stream = Stream(clients, newest, mount.file, "--checkpoint-every", 6)
    stream.wait_for_commits(15)
    primary.kill()
    killed_at = time.monotonic()
    wait_until(
        "the writer to be told that its lease is over",
        lambda: stream.client.process.poll() is not None,
        LEASE_S + NOTICED_S + SLACK_S,
    )
    stream.kill()
    # By the catalog's clock too.
    time.sleep(max(0.0, killed_at + LEASE_S + 1 - time.monotonic()))
    standby.promote()
    beta.meta.point_at(standby.port)
    begin = time.monotonic()
    taken = beta.mount("mydb", *REMOTE)
    assert time.monotonic() - begin < SLACK_S, "nobody waits for a lease that is over"
    duck = clients.duck(newest).open(taken.file)
    found = assert_nothing_lost(duck, stream)
    alpha.meta.point_at(standby.port)
    # Time enough for a wrong publication.
    time.sleep(3)
    duck.sql("CREATE TABLE by_beta(i BIGINT)")
    duck.quit()
    taken.umount()
    duck = clients.duck(newest).open(beta.mount("mydb@latest").file, read_only=True)
    assert state(duck) == found, "the old writer published after its lease"
    duck.quit()
