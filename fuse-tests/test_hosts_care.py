"""Collection and compaction run without pause on one host, against a writer, pinned readers and clones on
others, and are killed at random: no read of a reader whose pin is alive fails, and the room comes back."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable

import pytest

from harness.cluster import NewHost
from harness.duck import Clients, Version
from harness.hosts import REMOTE, Host, Store, local, wait_for_publication
from harness.openduck import Mount
from harness.posix import pattern
from harness.processes import Outcome, kill_group
from harness.streams import Stream, state

Rounds = Callable[[int], int]
MIB = 1 << 20


class Workers:
    """Loops that run beside each other until they are told to end; the first that fails is the test's
    error."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._errors: list[BaseException] = []
        self._threads: list[threading.Thread] = []
        self.turns: dict[str, int] = {}

    def start(self, name: str, turn: Callable[[], None]) -> None:
        def loop() -> None:
            while not self._stop.is_set():
                try:
                    turn()
                except BaseException as error:  # noqa: BLE001 - told to the test
                    self._errors.append(error)
                    self._stop.set()
                    return
                self.turns[name] = self.turns.get(name, 0) + 1

        thread = threading.Thread(target=loop, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def run_for(self, seconds: float) -> None:
        self._stop.wait(seconds)
        self.end()
        if self._errors:
            raise self._errors[0]

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(120)


@pytest.fixture
def workers(closers: list[Callable[[], None]]) -> Workers:
    made = Workers()
    closers.append(made.end)
    return made


def killed_somewhere(machine: Host, choose: random.Random, *args: str) -> None:
    """Starts a command and kills it after a random while, if it has not ended by itself."""
    process = subprocess.Popen(
        machine.argv(*args),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=machine.environment(),
        start_new_session=True,
    )
    try:
        process.wait(choose.random() * 1.5)
    except subprocess.TimeoutExpired:
        kill_group(process.pid)
        process.wait(10)


def worked_or_was_told_why(outcome: Outcome) -> None:
    """Two cares of one database at once: one may be told to come again. Nothing else is an excuse."""
    assert outcome.status >= 0 and outcome.status != 101, str(outcome)
    assert "panicked" not in outcome.stderr, str(outcome)
    assert not any(word in outcome.stderr.lower() for word in ("checksum", "damage", "corrupt")), str(outcome)


@pytest.mark.limit(400)
def test_care_without_pause_harms_no_reader(
    host: NewHost,
    clients: Clients,
    newest: Version,
    choose: random.Random,
    rounds: Rounds,
    workers: Workers,
    store: Store,
) -> None:
    """Writer on alpha; compaction and collection on beta, whole and killed; readers of old snapshots, follow
    mounts and clones on gamma. Nothing that is pinned goes, and in the end nothing else stays."""
    alpha, beta, gamma = host("alpha"), host("beta"), host("gamma")
    mount = alpha.mount("mydb", *local("1s"))
    alpha.run("retention", "mydb", "0")
    stream = Stream(
        clients, newest, mount.file, "--streams", 2, "--checkpoint-every", 4, "--wal-limit", "100KB"
    )
    stream.wait_for_commits(15)
    wait_for_publication(mount, gamma)

    def care() -> None:
        for command in (("compact", "mydb"), ("gc", "--grace", "0s")):
            if choose.random() < 0.4:
                killed_somewhere(beta, choose, *command)
            else:
                worked_or_was_told_why(beta.try_run(*command, timeout_s=120))

    def read_pinned() -> None:
        """A commit of its own, read again and again while everything moves."""
        frozen = gamma.mount("mydb@latest")
        duck = clients.duck(newest).open(frozen.file, read_only=True)
        first = state(duck)
        for _ in range(4):
            time.sleep(choose.random())
            duck.close()
            duck.open(frozen.file, read_only=True)
            assert state(duck) == first, "a frozen mount moved"
        duck.quit()
        frozen.umount()

    def clone_and_drop() -> None:
        name = f"clone{choose.randrange(1 << 30)}"
        gamma.run("clone", "mydb", name)
        copied = gamma.mount(name, *REMOTE)
        duck = clients.duck(newest).open(copied.file)
        assert state(duck)
        duck.sql("CREATE TABLE own(i BIGINT)")
        duck.quit()
        copied.umount()
        gamma.run("remove", name)

    def follow() -> None:
        following = gamma.mount("mydb", "--follow")
        newest_there = -1
        for _ in range(6):
            duck = clients.duck(newest).open(following.file, read_only=True)
            there = state(duck)[0]
            assert there >= newest_there, "a follower went back"
            newest_there = there
            duck.quit()
            time.sleep(0.3)
        following.umount()

    workers.start("care", care)
    workers.start("readers", read_pinned)
    workers.start("clones", clone_and_drop)
    workers.start("followers", follow)
    workers.run_for(30 * rounds(1))
    assert set(workers.turns) == {"care", "readers", "clones", "followers"}, workers.turns
    assert not stream.errors
    stream.wait_for_new_commits(3)
    stream.finish()
    duck = clients.duck(newest).open(gamma.mount("mydb@latest").file, read_only=True)
    duck.kill()
    mount.umount()
    gamma.close()
    room_comes_back(beta, clients, newest, stream, store)


def room_comes_back(machine: Host, clients: Clients, version: Version, stream: Stream, store: Store) -> None:
    """With nothing retained the bucket holds one image of the database, and without the database nothing."""
    machine.verify("--deep")
    machine.run("compact", "mydb", timeout_s=120)
    machine.run("gc", "--grace", "0s", timeout_s=120)
    frozen = machine.mount("mydb@latest")
    duck = clients.duck(version).open(frozen.file, read_only=True)
    assert state(duck) == stream.acked
    duck.quit()
    image = sum(path.stat().st_size for path in (frozen.file, frozen.wal) if path.exists())
    frozen.umount()
    held = sum(store.object_sizes().values())
    assert held <= 1.2 * image + 2 * MIB, f"{held} bytes in the bucket for an image of {image}"
    machine.run("remove", "mydb")
    machine.run("gc", "--grace", "0s", timeout_s=120)
    assert store.object_sizes() == {}


@pytest.mark.limit(240)
def test_a_pin_elsewhere_keeps_what_it_reads(host: NewHost, store: Store) -> None:
    """A cold reader on another host pins a commit that everybody else has let go: it can still fetch all of
    it, and once it has gone, the room comes back."""
    alpha, beta = host("alpha"), host("beta")
    old, new = pattern(1, 12 * MIB), pattern(2, 1 * MIB)
    mount = alpha.mount("mydb", *REMOTE)
    write(mount, old)
    pinned = beta.mount("mydb@latest")
    (mount.file).unlink()
    write(mount, new)
    mount.umount()
    alpha.run("retention", "mydb", "0")
    for _ in range(2):
        alpha.run("compact", "mydb", timeout_s=120)
        alpha.run("gc", "--grace", "0s", timeout_s=120)
    assert sum(store.object_sizes().values()) >= 12 * MIB, "what is pinned was deleted"
    assert pinned.file.read_bytes() == old
    pinned.umount()
    alpha.run("compact", "mydb", timeout_s=120)
    alpha.run("gc", "--grace", "0s", timeout_s=120)
    assert sum(store.object_sizes().values()) < 3 * MIB
    beta.verify("--deep")


def write(mount: Mount, data: bytes) -> None:
    fd = os.open(mount.file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        os.write(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)


@pytest.mark.limit(240)
def test_grace_protects_uploads_under_way(
    host: NewHost, clients: Clients, newest: Version, workers: Workers
) -> None:
    """Uploads through a narrow line, while another host collects without pause, with the shortest grace: an
    object that is not published yet is not taken for an orphan, or the writer notices and sends it again."""
    alpha, beta, gamma = host("alpha"), host("beta"), host("gamma")
    alpha.objects.shape(round_trip_s=0.3, bytes_per_s=2 * MIB)
    mount = alpha.mount("mydb", *local("1s"))
    workers.start("gc", lambda: worked_or_was_told_why(beta.try_run("gc", "--grace", "0s", timeout_s=120)))
    stream = Stream(clients, newest, mount.file, "--streams", 2, "--checkpoint-every", 20)
    workers.run_for(15)
    stream.finish()
    mount.umount()
    alpha.burn()
    duck = clients.duck(newest).open(gamma.mount("mydb@latest").file, read_only=True)
    assert state(duck) == stream.acked
    duck.quit()
    gamma.verify("--deep")


@pytest.mark.limit(240)
def test_undrop_and_restore_from_another_host(host: NewHost) -> None:
    """Removed on one host, brought back on another, restored on a third: the bytes are those of then."""
    alpha, beta, gamma = host("alpha"), host("beta"), host("gamma")
    first, second = pattern(3, 2 * MIB), pattern(4, 3 * MIB)
    mount = alpha.mount("mydb", *REMOTE)
    write(mount, first)
    alpha.run("snapshot", "mydb", "one")
    write(mount, second)
    mount.umount()
    alpha.burn()
    beta.run("remove", "mydb")
    assert beta.json("list")["databases"] == []
    gamma.run("undrop", "mydb")
    assert gamma.mount("mydb@latest").file.read_bytes() == second
    beta.run("restore", "mydb@one")
    assert gamma.mount("mydb@latest").file.read_bytes() == first
    beta.verify("--deep")


@pytest.mark.limit(240)
def test_the_daemon_cares_for_all_databases(
    host: NewHost, clients: Clients, newest: Version, store: Store, closers: list[Callable[[], None]]
) -> None:
    """`daemon` on a host of its own compacts and collects what others write; it ends on SIGTERM, and mounts
    notice nothing of either."""
    alpha, beta = host("alpha"), host("beta")
    streams = []
    for name in ("one", "two"):
        mount = alpha.mount(name, *local("1s"))
        alpha.run("retention", name, "0")
        streams.append(Stream(clients, newest, mount.file, "--checkpoint-every", 3))
    daemon = subprocess.Popen(
        beta.argv("daemon"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=beta.environment(),
        start_new_session=True,
    )
    closers.append(lambda: kill_group(daemon.pid) if daemon.poll() is None else None)
    for stream in streams:
        stream.wait_for_commits(60)
    time.sleep(5)
    assert daemon.poll() is None, daemon.stderr and daemon.stderr.read()
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(30) == 0
    for name, stream in zip(("one", "two"), streams, strict=True):
        stream.finish()
        duck = clients.duck(newest).open(beta.mount(f"{name}@latest").file, read_only=True)
        assert state(duck)[0] <= stream.acked[0]
        duck.quit()
    assert store.object_sizes()
