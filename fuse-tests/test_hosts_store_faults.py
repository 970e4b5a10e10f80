"""The object store misbehaves, in every way that the proxy knows: no acknowledged commit is lost, no wrong
byte is read, nothing hangs for ever, and when the store is well again so are the mounts, without a
restart."""

from __future__ import annotations

import errno
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness.cluster import NewHost
from harness.duck import Clients, DuckError, Version
from harness.hosts import LEASE_S, REMOTE, SLACK_S, Host, Store, local, take_over, write_database
from harness.openduck import Mount
from harness.posix import pattern
from harness.processes import wait_until
from harness.streams import Stream, assert_nothing_lost, state
from servers.proxy import Proxy

# One request may take 30 s and all retries of one call 60 s; what waits for longer hangs.
HANG_S = 75.0
# A remote fsync waits for so long for a store that says nothing; who only looks at what is there, so long.
SYNC_S = 60.0
LOOK_S = 5.0
MIB = 1 << 20


@dataclass(frozen=True)
class Trouble:
    """Some rules at once."""

    name: str
    rules: list[dict[str, Any]] = field(default_factory=list)

    def begin(self, line: Proxy) -> None:
        for rule in self.rules:
            line.fault(**rule)

    def will_hit(self, method: str) -> bool:
        """Whether some requests of this method are bound to be hit before long."""
        return any(
            (rule["methods"] is None or method in rule["methods"])
            and rule["probability"] >= 0.1
            and rule["kind"] != "stale"
            and (rule["kind"], method) != ("swallow", "GET")
            for rule in self.rules
        )

    def __str__(self) -> str:
        return self.name


def rule(kind: str, probability: float, *methods: str, **details: float) -> dict[str, Any]:
    return {"kind": kind, "probability": probability, "methods": methods or None, **details}


TROUBLES = [
    Trouble("5xx", [rule("status", 0.3, status=503), rule("status", 0.2, status=500)]),
    Trouble("resets", [rule("reset", 0.3), rule("reset", 0.3, "GET", after=0.5)]),
    Trouble("stalls", [rule("stall", 0.2, seconds=3), rule("stall", 0.2, "GET", after=0.5, seconds=3)]),
    Trouble("timeouts", [rule("stall", 0.05, seconds=300)]),
    Trouble("slow", [rule("slow", 0.3, "GET", bytes_per_s=100_000)]),
    Trouble("truncated", [rule("truncate", 0.4, "GET", after=0.6)]),
    Trouble("shortened", [rule("shorten", 0.4, "GET", after=0.6)]),
    Trouble("corrupted", [rule("corrupt", 0.4, "GET"), rule("corrupt_upload", 0.2, "PUT")]),
    Trouble("success after failure", [rule("swallow", 0.3)]),
    Trouble("failure after success", [rule("fail_after", 0.3, status=500), rule("cut_after", 0.2)]),
    Trouble("stale lists", [rule("stale", 1.0, seconds=30)]),
    Trouble(
        "everything",
        [
            rule("status", 0.1, status=503),
            rule("reset", 0.1),
            rule("stall", 0.05, seconds=2),
            rule("corrupt", 0.1, "GET"),
            rule("truncate", 0.1, "GET", after=0.3),
            rule("shorten", 0.1, "GET", after=0.9),
            rule("swallow", 0.1),
            rule("fail_after", 0.1, status=500),
            rule("cut_after", 0.1),
        ],
    ),
]


# A local writer does not wait for the store, and a remote one reads little: a few kinds of trouble stand for
# the rest, but in a long run.
WRITINGS = [
    pytest.param(
        trouble, flags, id=f"{trouble}-{name}", marks=[] if trouble.name in few else [pytest.mark.long]
    )
    for name, flags, few in (
        (
            "remote",
            REMOTE,
            ("5xx", "timeouts", "corrupted", "success after failure", "failure after success", "everything"),
        ),
        ("local", local("1s"), ("timeouts", "success after failure", "everything")),
    )
    for trouble in TROUBLES
]


@pytest.mark.parametrize(("trouble", "durability"), WRITINGS)
@pytest.mark.limit(400)
def test_writing_into_a_store_in_trouble(
    host: NewHost,
    clients: Clients,
    newest: Version,
    trouble: Trouble,
    durability: tuple[str, ...],
) -> None:
    """The writer's requests fail for a while. It goes on, at most slower; afterwards the lag falls to nothing
    by itself, and a machine that never saw any of it finds everything."""
    alpha, beta = host("alpha"), host("beta")
    mount = alpha.mount("mydb", *durability)
    stream = Stream(clients, newest, mount.file, "--streams", 2, "--checkpoint-every", 5)
    stream.wait_for_commits(10)
    trouble.begin(alpha.objects)
    time.sleep(8)
    alpha.objects.clear_faults()
    # Without a restart: the same process, the same mount, the same DuckDB.
    stream.wait_for_new_commits(20, HANG_S)
    assert alpha.objects.counts().faults or not trouble.will_hit("PUT")
    wait_until("the lag to fall", lambda: (mount.status()["upload_lag_ms"] or 0) < 3000, HANG_S)
    if durability == REMOTE:
        alpha.burn()
        stream.kill()
    else:
        stream.finish()
        mount.umount()
        alpha.burn()
    mount = take_over(beta, "mydb", *REMOTE)
    duck = clients.duck(newest).open(mount.file)
    assert_nothing_lost(duck, stream)
    duck.quit()
    mount.umount()
    beta.verify("--deep")


def make_data(machine: Host, clients: Clients, version: Version) -> tuple[int, int]:
    """A database of some 30 MB in the store; its count and its checksum."""
    mount = machine.mount("mydb", *REMOTE)
    duck = clients.duck(version).open(mount.file)
    duck.sql(
        "CREATE TABLE t AS SELECT i, hash(i) AS h, md5(i::VARCHAR) AS m FROM range(600000) r(i)",
        timeout_s=120,
    )
    duck.sql("CHECKPOINT", timeout_s=120)
    duck.quit()
    answer = scan(clients, version, mount)
    mount.umount()
    return answer


def scan(clients: Clients, version: Version, mount: Mount, timeout_s: float = HANG_S * 2) -> tuple[int, int]:
    """Looks at every value, by a DuckDB that knows none of them yet."""
    duck = clients.duck(version)
    try:
        duck.open(mount.file, read_only=True, timeout_s=timeout_s)
        ((count, checksum),) = duck.sql("SELECT count(*), bit_xor(hash(t)) FROM t", timeout_s=timeout_s)
        return int(count), int(checksum)
    finally:
        duck.kill()


@pytest.mark.parametrize(
    "trouble", [trouble for trouble in TROUBLES if trouble.name != "stale lists"], ids=str
)
@pytest.mark.limit(400)
def test_reading_from_a_store_in_trouble(
    host: NewHost, clients: Clients, newest: Version, trouble: Trouble
) -> None:
    """A cold reader's requests fail: it answers with the right bytes, later, or with an error; and it is well
    again when the store is, in the same mount."""
    expected = make_data(host("alpha"), clients, newest)
    beta = host("beta")
    mount = beta.mount("mydb@latest")
    trouble.begin(beta.objects)
    try:
        assert scan(clients, newest, mount) == expected
    except DuckError:
        pass
    beta.objects.clear_faults()
    assert scan(clients, newest, mount) == expected
    assert beta.objects.counts().faults or not trouble.will_hit("GET")


# What the store's client sees itself it tries again for a minute, each in the same way.
LONG_KINDS = [pytest.param(kind, marks=[pytest.mark.long]) for kind in ("truncate", "reset")]


@pytest.mark.parametrize("kind", ["corrupt", "shorten", "status", *LONG_KINDS])
@pytest.mark.limit(600)
@pytest.mark.usefixtures("room_for_a_cache")
def test_reading_where_nothing_right_comes(
    host: NewHost, clients: Clients, newest: Version, kind: str
) -> None:
    """Every answer is wrong: an error within the documented time, never a wrong byte, and what is in the
    cache can still be read; later everything is right."""
    expected = make_data(host("alpha"), clients, newest)
    beta = host("beta")
    mount = beta.mount("mydb@latest")
    beta.objects.fault(
        kind, methods=["GET"], **({} if kind in ("status", "reset", "corrupt") else {"after": 0.5})
    )
    begin = time.monotonic()
    with pytest.raises(DuckError):
        scan(clients, newest, mount)
    # The kernel asks once for more than was asked for, and then for just that.
    assert time.monotonic() - begin < 2 * HANG_S
    beta.objects.clear_faults()
    assert scan(clients, newest, mount) == expected
    beta.objects.fault(
        kind, methods=["GET"], **({} if kind in ("status", "reset", "corrupt") else {"after": 0.5})
    )
    assert scan(clients, newest, mount) == expected, "the second scan needs nothing from the store"


@pytest.mark.limit(600)
def test_a_silent_store_stops_nobody_for_ever(host: NewHost, clients: Clients, newest: Version) -> None:
    """Not a byte comes, and nobody is told. A remote fsync waits or fails within the documented time; a local
    one goes on and shows its lag; a reader gets an error in time. Then everything goes on."""
    expected = make_data(host("alpha"), clients, newest)
    beta, gamma = host("beta"), host("gamma")
    reading = gamma.mount("mydb@latest")
    writing = beta.mount("mydb", *local("1s"))
    stream = Stream(clients, newest, writing.file)
    stream.wait_for_commits(5)
    beta.objects.freeze()
    gamma.objects.freeze()
    stream.wait_for_new_commits(100, 30)
    wait_until("the lag to show", lambda: (writing.status()["upload_lag_ms"] or 0) > 2000, 30)
    begin = time.monotonic()
    with pytest.raises(DuckError):
        scan(clients, newest, reading)
    # The kernel asks once for more than was asked for, and then for just that.
    assert time.monotonic() - begin < 2 * HANG_S
    beta.objects.heal()
    gamma.objects.heal()
    wait_until("the lag to fall", lambda: (writing.status()["upload_lag_ms"] or 0) < 3000, HANG_S)
    assert scan(clients, newest, reading) == expected
    stream.finish()
    assert not stream.errors


@pytest.mark.limit(400)
def test_remote_durability_acknowledges_nothing_without_a_store(
    host: NewHost, clients: Clients, newest: Version, store: Store
) -> None:
    """The store is cut off: not one commit is acknowledged until it is back, and then they go on."""
    alpha, beta = host("alpha"), host("beta")
    mount = alpha.mount("mydb", *REMOTE)
    stream = Stream(clients, newest, mount.file)
    stream.wait_for_commits(10)
    alpha.objects.cut()
    time.sleep(0.5)
    told = dict(stream.acked)
    time.sleep(5)
    assert stream.acked == told, "acknowledged with remote durability while the store was cut off"
    alpha.objects.heal()
    stream.wait_for_new_commits(10, HANG_S)
    alpha.burn()
    stream.kill()
    taken = take_over(beta, "mydb", *REMOTE)
    duck = clients.duck(newest).open(taken.file)
    assert_nothing_lost(duck, stream)
    duck.quit()
    assert store.object_sizes()


@pytest.mark.limit(240)
def test_a_remote_fsync_fails_in_time(host: NewHost, clients: Clients, newest: Version) -> None:
    """Not a byte comes: an fsync fails after its minute, and not before; when the store is back, what it
    could not promise is there all the same, in the same mount."""
    alpha = host("alpha")
    mount = alpha.mount("mydb", *REMOTE)
    stream = Stream(clients, newest, mount.file)
    stream.wait_for_commits(5)
    alpha.objects.freeze()
    begin = time.monotonic()
    wait_until("an error", lambda: stream.client.process.poll() is not None, SYNC_S + SLACK_S)
    assert time.monotonic() - begin > SYNC_S - SLACK_S
    stream.kill()
    assert stream.errors
    alpha.objects.heal()
    duck = clients.duck(newest).open(mount.file)
    assert_nothing_lost(duck, stream)
    duck.quit()
    mount.umount()


@pytest.mark.limit(240)
def test_nobody_waits_for_a_store_to_look_at_what_is_here(
    host: NewHost, clients: Clients, newest: Version
) -> None:
    """A killed writer left commits that the store does not have, and the store says nothing. `list` answers
    at once, a reader soon, and both have the newest acknowledged commit; then the store gets it."""
    alpha, beta = host("alpha"), host("beta")
    mount = alpha.mount("mydb", *local("1s"))
    stream = Stream(clients, newest, mount.file)
    stream.wait_for_commits(5)
    alpha.objects.freeze()
    stream.wait_for_new_commits(10)
    mount.kill()
    stream.kill()
    for _ in range(2):
        begin = time.monotonic()
        listed = alpha.head_lsn("mydb")
        assert time.monotonic() - begin < SLACK_S, "`list` waited for the store"
        begin = time.monotonic()
        frozen = alpha.mount("mydb@latest")
        assert time.monotonic() - begin < LOOK_S + SLACK_S
        assert frozen.head_lsn == listed
        duck = clients.duck(newest).open(frozen.file, read_only=True)
        assert_nothing_lost(duck, stream)
        duck.quit()
        frozen.umount()
    alpha.objects.heal()
    alpha.run("show", "mydb")
    duck = clients.duck(newest).open(beta.mount("mydb@latest").file, read_only=True)
    assert_nothing_lost(duck, stream)
    duck.quit()


@pytest.mark.limit(400)
def test_rot_in_the_bucket_is_found_and_named(host: NewHost, store: Store) -> None:
    """One flipped bit in the largest object: an error where it is read, and the right bytes elsewhere;
    `verify --deep` names the layer, from any host, and ends with status 1."""
    data = pattern(11, 24 * MIB)
    write_database(host("alpha"), "mydb", data)
    key, size = largest_object(store)
    store.bucket.flip_bit(key, size // 2)
    beta = host("beta")
    mount = beta.mount("mydb@latest")
    assert pages_in_error(mount, data) > 0
    assert_verify_names(beta, layer_of(key))
    store.bucket.flip_bit(key, size // 2)
    assert pages_in_error(mount, data) == 0
    beta.verify("--deep")


@pytest.mark.limit(400)
@pytest.mark.usefixtures("room_for_a_cache")
def test_a_missing_object_is_an_error_and_named(host: NewHost, store: Store) -> None:
    """Somebody deleted an object behind our back: the same, and all is right where it is in a cache."""
    data = pattern(12, 24 * MIB)
    write_database(host("alpha"), "mydb", data)
    beta, gamma = host("beta"), host("gamma")
    warm = beta.mount("mydb@latest")
    assert pages_in_error(warm, data) == 0
    key, _ = largest_object(store)
    store.bucket.delete(key)
    warm.umount()
    assert pages_in_error(beta.mount("mydb@latest"), data) == 0
    # It held the layer's beginning, without which nothing of it can be found.
    gamma.fail("mount", "mydb@latest", gamma.new_mount_dir(), names=layer_of(key))
    assert_verify_names(gamma, layer_of(key))


def largest_object(store: Store) -> tuple[str, int]:
    return max(store.object_sizes().items(), key=lambda item: item[1])


def layer_of(key: str) -> str:
    """Keys are `<database>/<layer>/<begin>-<random>` below the prefix."""
    return key.split("/")[-2]


def assert_verify_names(machine: Host, layer: str) -> None:
    """`verify --deep` finds problems in this layer, and in no other."""
    document = machine.json("verify", "mydb", "--deep", status=1, timeout_s=120)
    assert document["ok"] is False
    named = {problem["layer"] for problem in document["problems"]}
    assert named and all(name.startswith(layer) for name in named), named


def pages_in_error(mount: Mount, data: bytes) -> int:
    """Reads a file in pieces: each is right, or an error of the disk; how many of the latter."""
    piece = 256 << 10
    errors = 0
    fd = os.open(mount.file, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        for at in range(0, len(data), piece):
            try:
                assert os.pread(fd, piece, at) == data[at : at + piece], f"wrong bytes at {at}"
            except OSError as error:
                assert error.errno == errno.EIO, error
                errors += 1
    finally:
        os.close(fd)
    return errors


@pytest.mark.limit(400)
@pytest.mark.usefixtures("room_for_a_cache")
def test_rot_in_the_cache_heals(host: NewHost, clients: Clients, newest: Version) -> None:
    """The cache's files are overwritten with nonsense, cut, or made by somebody else: what is read is right
    all the same, since it is fetched again."""
    expected = make_data(host("alpha"), clients, newest)
    beta = host("beta")
    mount = beta.mount("mydb@latest")
    assert scan(clients, newest, mount) == expected
    mount.umount()
    files = [path for path in (beta.path / "cache").rglob("*") if path.is_file() and path.stat().st_size]
    assert files, "a cache below the home"
    for harm in ("noise", "zeros", "cut"):
        for path in files:
            if not path.exists():
                continue
            size = path.stat().st_size
            with path.open("r+b") as file:
                if harm == "cut":
                    file.truncate(size // 2)
                    continue
                for offset in range(0, size, 64 << 10):
                    file.seek(offset)
                    file.write(os.urandom(512) if harm == "noise" else bytes(512))
        mount = beta.mount("mydb@latest")
        assert scan(clients, newest, mount) == expected, f"after {harm}"
        mount.umount()


@pytest.mark.limit(400)
def test_killed_uploads_leave_only_what_gc_finds(
    host: NewHost, clients: Clients, newest: Version, store: Store
) -> None:
    """A machine burns in the middle of large uploads. Its leftovers are no part of any database, and the
    collection on another host takes them away."""
    alpha, beta = host("alpha"), host("beta")
    alpha.objects.shape(bytes_per_s=4 * MIB)
    mount = alpha.mount("mydb", *local("1s"))
    duck = clients.duck(newest).open(mount.file)
    duck.sql("CREATE TABLE small AS SELECT 1 AS i")
    duck.sql("CHECKPOINT")
    time.sleep(4)
    duck.sql("CREATE TABLE big AS SELECT i, md5(i::VARCHAR) AS m FROM range(2000000) r(i)", timeout_s=120)
    time.sleep(1.5)
    alpha.burn()
    duck.kill()
    taken = take_over(beta, "mydb", *REMOTE)
    duck = clients.duck(newest).open(taken.file)
    assert duck.one("SELECT i FROM small") == 1
    duck.sql("DROP TABLE small; DROP TABLE IF EXISTS big")
    duck.sql("CHECKPOINT")
    duck.quit()
    image = taken.file.stat().st_size
    taken.umount()
    beta.run("retention", "mydb", "0")
    beta.run("compact", "mydb", timeout_s=120)
    beta.run("gc", "--grace", "0s", timeout_s=120)
    assert sum(store.object_sizes().values()) <= 1.2 * image + 2 * MIB, store.object_sizes()
    beta.verify("--deep")


@pytest.mark.limit(180)
def test_an_import_may_take_longer_than_a_lease_lasts(host: NewHost, tmp_path: Path) -> None:
    """The lease is renewed while a large file is on its way over a thin line."""
    alpha = host("alpha")
    alpha.objects.shape(bytes_per_s=MIB)
    size = int((LEASE_S + SLACK_S) * MIB)
    file = tmp_path / "large.duckdb"
    file.write_bytes(os.urandom(size))
    begun = time.monotonic()
    alpha.run("import", str(file), "mydb", timeout_s=120)
    assert time.monotonic() - begun > LEASE_S, "that shows nothing"
    assert alpha.json("show", "mydb")


@pytest.mark.limit(300)
def test_followers_of_a_store_in_trouble_see_whole_commits(
    host: NewHost, clients: Clients, newest: Version
) -> None:
    """A follow mount whose fetches fail: each open is one commit or an error, and it catches up."""
    alpha, beta = host("alpha"), host("beta")
    mount = alpha.mount("mydb", *local("1s"))
    stream = Stream(clients, newest, mount.file, "--checkpoint-every", 4)
    stream.wait_for_commits(10)
    time.sleep(2)
    follow = beta.mount("mydb", "--follow")
    TROUBLES[-1].begin(beta.objects)
    seen = []
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        duck = clients.duck(newest)
        try:
            duck.open(follow.file, read_only=True, timeout_s=HANG_S)
            seen.append(state(duck).get(0, -1))
        except DuckError:
            pass
        finally:
            duck.kill()
    assert seen == sorted(seen), "a follower went back"
    beta.objects.clear_faults()
    stream.finish()

    def has_caught_up() -> bool:
        duck = clients.duck(newest)
        try:
            duck.open(follow.file, read_only=True)
            return state(duck)[0] == stream.acked[0]
        finally:
            duck.kill()

    wait_until("the follower to catch up", has_caught_up, 30, 0.5)
