"""PostgreSQL is restarted, killed, throws its clients out, is cut off, or tells nobody of changes: mounted
readers go on, a writer goes on inside its lease, and everybody comes back by themselves."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable

import pytest

from harness.cluster import NewHost
from harness.duck import Clients, Version
from harness.hosts import LEASE_S, REMOTE, SLACK_S, Host, Store, local, take_over, wait_for_publication
from harness.openduck import Mount, assert_refusal
from harness.processes import wait_until
from harness.streams import Stream, assert_nothing_lost, state

# The catalog's connection is known to be dead after 10 s.
NOTICED_S = 10.0
# Who is not told of changes asks so often.
POLLED_S = 3.0


def restart(store: Store, machine: Host) -> None:
    store.postgres.restart()


def kill(store: Store, machine: Host) -> None:
    store.postgres.kill()
    time.sleep(1)
    store.postgres.start()


def throw_out(store: Store, machine: Host) -> None:
    store.postgres.disconnect(store.database)


def reset(store: Store, machine: Host) -> None:
    machine.meta.disconnect()


def cut_shortly(store: Store, machine: Host) -> None:
    machine.meta.cut()
    time.sleep(3)
    machine.meta.heal()


def freeze_shortly(store: Store, machine: Host) -> None:
    machine.meta.freeze()
    time.sleep(3)
    machine.meta.heal()


MISHAPS = [restart, kill, throw_out, reset, cut_shortly, freeze_shortly]


def newest_seen(clients: Clients, version: Version, follow: Mount) -> int:
    duck = clients.duck(version)
    try:
        duck.open(follow.file, read_only=True)
        return state(duck).get(0, -1)
    finally:
        duck.kill()


@pytest.mark.parametrize("durability", [REMOTE, local("1s")], ids=["remote", "local"])
@pytest.mark.parametrize("mishap", MISHAPS, ids=lambda mishap: mishap.__name__)
@pytest.mark.limit(300)
def test_a_mishap_of_the_catalog_is_no_error(
    host: NewHost,
    clients: Clients,
    newest: Version,
    store: Store,
    mishap: Callable[[Store, Host], None],
    durability: tuple[str, ...],
) -> None:
    """Three times in mid-stream: DuckDB gets no error, followers catch up, and nothing is missing
    elsewhere."""
    alpha, beta, gamma = host("alpha"), host("beta"), host("gamma")
    mount = alpha.mount("mydb", *durability)
    follow = beta.mount("mydb", "--follow")
    stream = Stream(clients, newest, mount.file, "--checkpoint-every", 6)
    stream.wait_for_commits(10)
    wait_for_publication(mount, beta)
    for _ in range(3):
        mishap(store, alpha)
        stream.wait_for_new_commits(10, NOTICED_S + LEASE_S)
    stream.finish()
    assert not stream.errors
    wait_until(
        "the follower to catch up",
        lambda: newest_seen(clients, newest, follow) == stream.acked[0],
        NOTICED_S + SLACK_S,
        0.3,
    )
    mount.umount()
    alpha.burn()
    taken = take_over(gamma, "mydb", *REMOTE)
    duck = clients.duck(newest).open(taken.file)
    assert_nothing_lost(duck, stream)
    duck.quit()


@pytest.mark.limit(300)
def test_mounts_outlast_the_catalog(host: NewHost, clients: Clients, newest: Version, store: Store) -> None:
    """PostgreSQL is away for longer than the lease. Readers go on with what they mounted, also with what they
    must fetch first; the local writer goes on until its deadline, its lag shows, and then its fsyncs fail."""
    alpha, beta = host("alpha"), host("beta")
    mount = alpha.mount("mydb", *local("1s"))
    duck = clients.duck(newest).open(mount.file)
    duck.sql("CREATE TABLE t AS SELECT i, md5(i::VARCHAR) AS m FROM range(300000) r(i)")
    duck.sql("CHECKPOINT")
    expected = duck.sql("SELECT count(*), bit_xor(hash(m)) FROM t")
    duck.quit()
    # From another host it names the newest commit that was published.
    wait_for_publication(mount, beta)
    beta.json("snapshot", "mydb", "before")
    frozen = beta.mount("mydb@before")
    stream = Stream(clients, newest, mount.file)
    stream.wait_for_commits(10)
    time.sleep(2)
    store.postgres.stop()
    stopped_at = time.monotonic()
    # The cold reader fetches now, without a catalog.
    reader = clients.duck(newest).open(frozen.file, read_only=True)
    assert reader.sql("SELECT count(*), bit_xor(hash(m)) FROM t") == expected
    stream.wait_for_new_commits(50, 10)
    wait_until("the lag to show", lambda: (mount.status()["upload_lag_ms"] or 0) > 2000, 10)
    assert_refusal(beta.try_run("list", timeout_s=30))
    wait_until(
        "the writer to be told that its lease is over",
        lambda: stream.client.process.poll() is not None,
        LEASE_S + SLACK_S,
    )
    last = max(at for at, line in stream.client.lines if line[0].isdigit())
    assert last - stopped_at < LEASE_S + 1, "acknowledged after its lease"
    assert reader.sql("SELECT count(*), bit_xor(hash(m)) FROM t") == expected
    reader.quit()
    stream.kill()
    store.postgres.start()
    # Nobody else came: what only this host has is published when it mounts again.
    mount.kill()
    again = alpha.mount("mydb", *local("1s"), directory=mount.dir)
    duck = clients.duck(newest).open(again.file)
    found = assert_nothing_lost(duck, stream)
    duck.quit()
    again.umount()
    duck = clients.duck(newest).open(beta.mount("mydb@latest").file, read_only=True)
    assert state(duck) == found
    duck.quit()


@pytest.mark.limit(300)
def test_commands_say_what_is_wrong_with_the_catalog(host: NewHost, store: Store) -> None:
    """Unreachable, silent, a wrong password, a database that is not there: one line, in time, without the
    password."""
    alpha = host("alpha")
    alpha.run("create", "mydb")
    password = store.postgres.url("x").split("@")[0].rpartition(":")[2]
    good = alpha.env
    alpha.meta.cut()
    outcomes = [alpha.try_run("list", timeout_s=30)]
    alpha.meta.heal()
    alpha.meta.freeze()
    outcomes.append(alpha.try_run("list", timeout_s=60))
    alpha.meta.heal()
    for wrong in (
        store.postgres.url("not_there", port=alpha.meta.port),
        store.postgres.url(store.database, port=alpha.meta.port).replace(password, "wrong-one"),
    ):
        alpha.env = {**good, "OPENDUCK_META": wrong}
        outcomes.append(alpha.try_run("list", timeout_s=30))
    for outcome in outcomes:
        assert_refusal(outcome)
        assert password not in outcome.stderr
        assert "wrong-one" not in outcome.stderr
    alpha.env = good
    assert [row["name"] for row in alpha.json("list")["databases"]] == ["mydb"]


@pytest.mark.limit(300)
def test_a_line_to_the_catalog_as_long_as_the_ocean(host: NewHost, clients: Clients, newest: Version) -> None:
    """150 ms of round trip: everything works, commits of a local writer do not wait for it."""
    alpha = host("alpha")
    mount = alpha.mount("mydb", *local("1s"))
    stream = Stream(clients, newest, mount.file)
    stream.wait_for_commits(5)
    alpha.meta.shape(round_trip_s=0.15)
    alpha.objects.shape(round_trip_s=0.15)
    begin = time.monotonic()
    stream.wait_for_new_commits(100)
    assert time.monotonic() - begin < 10, "local commits waited for the network"
    stream.finish()
    mount.umount()
    beta = host("beta")
    duck = clients.duck(newest).open(beta.mount("mydb@latest").file, read_only=True)
    assert state(duck) == stream.acked
    duck.quit()


def swallowed(store: Store, machine: Host) -> Callable[[], None]:
    """The connection that listens lives, and nothing comes through it."""
    machine.meta.mute()
    return lambda: None


def cut_off(store: Store, machine: Host) -> Callable[[], None]:
    """The connection that listens is ended, again and again; all others live."""
    over = threading.Event()

    def end_listeners() -> None:
        while not over.wait(0.1):
            store.postgres.sql(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                f"WHERE datname = '{store.database}' AND (query = '' OR query LIKE 'LISTEN%')"
            )

    thread = threading.Thread(target=end_listeners, daemon=True)
    thread.start()

    def end() -> None:
        over.set()
        thread.join(30)

    return end


@pytest.mark.parametrize("fail", [swallowed, cut_off], ids=lambda fail: fail.__name__)
@pytest.mark.limit(240)
def test_a_follower_that_is_told_nothing_asks(
    host: NewHost,
    clients: Clients,
    newest: Version,
    store: Store,
    closers: list[Callable[[], None]],
    fail: Callable[[Store, Host], Callable[[], None]],
    record_property: Callable[[str, object], None],
) -> None:
    """Notifications do not get through, and nothing else is wrong: a commit is seen within the time between
    two questions all the same."""
    alpha, beta = host("alpha"), host("beta")
    mount = alpha.mount("mydb", *REMOTE)
    stream = Stream(clients, newest, mount.file, "--checkpoint-every", 6)
    stream.wait_for_commits(5)
    closers.append(fail(store, beta))
    follow = beta.mount("mydb", "--follow")
    waited = []
    for _ in range(6):
        stream.wait_for_new_commits(1)
        made, begin = stream.acked[0], time.monotonic()
        wait_until(
            f"commit {made} to be seen",
            lambda made=made: newest_seen(clients, newest, follow) >= made,
            POLLED_S + SLACK_S,
        )
        waited.append(time.monotonic() - begin)
    stream.finish()
    record_property("seen after", f"p50 {statistics.median(waited):.2f} s, at most {max(waited):.2f} s")
    assert statistics.median(waited) < POLLED_S + 1
