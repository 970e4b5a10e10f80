"""Reading from afar: a mount on another host fetches what is touched, keeps it, and is fresh within the
lag."""

from __future__ import annotations

import os
import shutil
import statistics
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.cluster import NewHost
from harness.duck import Clients, Version
from harness.follow import judge_writer, parse
from harness.hosts import REMOTE, SLACK_S, Host, Store, local, write_database
from harness.openduck import Mount
from harness.posix import pattern
from harness.processes import wait_until
from harness.streams import Stream, assert_nothing_lost, state
from servers.processes import free_port

MIB = 1 << 20
LAG_S = 1.0
# A page more or less where frames begin and end, tables, headers.
FRAME = 256 << 10


def make_data(machine: Host, size: int) -> bytes:
    """A database whose file is `size` bytes that do not compress."""
    data = pattern(7, size)
    write_database(machine, "mydb", data)
    return data


def test_a_cold_mount_loads_no_data(host: NewHost) -> None:
    """However large the database: mounting fetches indexes, looking at its size nothing more."""
    data = make_data(host("alpha"), 64 * MIB)
    beta = host("beta")
    beta.objects.reset_counts()
    mount = beta.mount("mydb@latest")
    assert mount.file.stat().st_size == len(data)
    assert beta.objects.counts().bytes_down < 4 * MIB, beta.objects.log()


@pytest.mark.usefixtures("room_for_a_cache")
def test_reads_fetch_what_they_touch(host: NewHost) -> None:
    """A few small reads at random places fetch a frame or two each, and the right bytes; again, nothing."""
    data = make_data(host("alpha"), 64 * MIB)
    beta = host("beta")
    mount = beta.mount("mydb@latest")
    beta.objects.reset_counts()
    places = [(number * 7919 * 4096 + number) % (len(data) - 5000) for number in range(12)]
    with mount.file.open("rb", buffering=0) as file:
        # The kernel's own read-ahead is no part of what was asked for.
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        for place in places:
            assert os.pread(file.fileno(), 5000, place) == data[place : place + 5000]
    fetched = beta.objects.counts().bytes_down
    assert fetched < len(places) * 4 * FRAME + 4 * MIB, "far more than was touched"
    beta.objects.reset_counts()
    mount.umount()
    mount = beta.mount("mydb@latest")
    with mount.file.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        for place in places:
            assert os.pread(file.fileno(), 5000, place) == data[place : place + 5000]
    assert beta.objects.counts().bytes_down < MIB, "read before, on this host, and fetched again"


@pytest.mark.usefixtures("room_for_a_cache")
def test_a_scan_runs_ahead(host: NewHost) -> None:
    """Over a long line a sequential read is many requests at once, and not many more bytes than there are."""
    data = make_data(host("alpha"), 48 * MIB)
    beta = host("beta")
    mount = beta.mount("mydb@latest")
    beta.objects.shape(round_trip_s=0.1)
    beta.objects.reset_counts()
    begin = time.monotonic()
    assert mount.file.read_bytes() == data
    seconds = time.monotonic() - begin
    counts = beta.objects.counts()
    assert counts.at_once >= 4, counts
    assert counts.bytes_down < 1.2 * len(data) + 4 * MIB
    # One request after the other, of at most 4 MiB each, would take longer than half of this.
    assert counts.round_trips < 24, counts
    assert seconds < 6, f"{seconds:.1f} s for {len(data) / MIB:.0f} MiB at a round trip of 0.1 s"


@pytest.mark.usefixtures("room_for_a_cache")
def test_prefetch_makes_it_whole(host: NewHost) -> None:
    """`--prefetch` fetches everything beside the work; then the store may be cut off."""
    data = make_data(host("alpha"), 32 * MIB)
    beta = host("beta")
    mount = beta.mount("mydb@latest", "--prefetch")
    wait_until("all of it to be here", lambda: beta.objects.counts().bytes_down >= len(data), 60)

    def is_still() -> bool:
        before = beta.objects.counts().requests
        time.sleep(1)
        return beta.objects.counts().requests == before

    wait_until("the prefetching to end", is_still, 60)
    beta.objects.cut()
    assert mount.file.read_bytes() == data
    assert beta.objects.counts().bytes_down < 1.3 * len(data) + 4 * MIB


@pytest.mark.usefixtures("room_for_a_cache")
def test_the_cache_survives_kills_and_is_shared(host: NewHost, clients: Clients, newest: Version) -> None:
    """What a killed mount fetched, another mount of the same home does not fetch again; two at once share."""
    data = make_data(host("alpha"), 32 * MIB)
    beta = host("beta")
    first = beta.mount("mydb@latest")
    second = beta.mount("mydb@latest")
    assert first.file.read_bytes() == data
    fetched = beta.objects.counts().bytes_down
    assert second.file.read_bytes() == data
    assert beta.objects.counts().bytes_down < fetched + 2 * MIB
    status = first.status()["cache"]
    assert status["bytes"] >= len(data)
    assert status["misses"] > 0
    assert second.status()["cache"]["hits"] > 0
    first.kill()
    second.kill()
    beta.objects.reset_counts()
    third = beta.mount("mydb@latest")
    assert third.file.read_bytes() == data
    assert beta.objects.counts().bytes_down < 2 * MIB


@pytest.mark.limit(180)
def test_a_wiped_cache_is_only_slower(host: NewHost, store: Store) -> None:
    """Nothing depends on the cache: gone between two mounts, or under a living one, it is filled again."""
    data = make_data(host("alpha"), 16 * MIB)
    beta = host("beta")
    mount = beta.mount("mydb@latest")
    assert mount.file.read_bytes() == data
    mount.umount()
    shutil.rmtree(beta.path / "cache")
    mount = beta.mount("mydb@latest")
    assert mount.file.read_bytes() == data
    assert store.object_sizes()


@pytest.mark.limit(240)
def test_a_follower_elsewhere_is_fresh_within_the_lag(
    host: NewHost, clients: Clients, newest: Version, record_property: Callable[[str, object], None]
) -> None:
    """Commits and checkpoints without pause on alpha; beta's opens see whole commits, never go back, and miss
    nothing older than the lag and a second."""
    alpha, beta = host("alpha"), host("beta")
    mount = alpha.mount("mydb", *local(f"{LAG_S:g}s"))
    writer = clients.start(newest, "follow_writer.py", mount.file, "--checkpoint-every", 10)
    for _ in range(5):
        writer.next_line("a commit")
    time.sleep(LAG_S + 1)
    follow = beta.mount("mydb", "--follow")
    reader = clients.start(newest, "follow_reader.py", follow.file, "--seconds", 20)
    lines = reader.wait(120)
    writer.finish()
    wrong = [line for line in lines if line.startswith(("bad", "error"))]
    assert not wrong, f"{len(wrong)} of {len(lines)} opens went wrong: {wrong[0]}"
    opens, commits = [parse(line) for line in lines], judge_writer(writer)
    seen = [seq for _, seq in opens]
    assert seen == sorted(seen), "a follower went back"
    assert len(set(seen)) > 5, "a follower that stands still is no follower"
    # For each open: for how long the oldest commit that it missed had been acknowledged.
    missed = []
    for moment, seq in opens:
        newer = [at for at, number in commits if number > seq]
        missed.append(max(0.0, moment - newer[0]) if newer else 0.0)
    ordered = sorted(missed)
    p99 = ordered[len(ordered) * 99 // 100]
    record_property("missed", f"p50 {statistics.median(ordered):.2f} s, p99 {p99:.2f} s")
    assert p99 <= LAG_S + 1 + SLACK_S / 5, f"p99 of what was missed is {p99:.2f} s old"


@pytest.mark.limit(240)
def test_work_from_another_host(host: NewHost, clients: Clients, newest: Version) -> None:
    """While alpha writes, beta takes snapshots, clones, restores the clone, reads the log and verifies:
    nothing disturbs the writer, and everything is what it says."""
    alpha, beta = host("alpha"), host("beta")
    mount = alpha.mount("mydb", *REMOTE)
    stream = Stream(clients, newest, mount.file, "--checkpoint-every", 8)
    stream.wait_for_commits(20)
    for number in range(4):
        before = stream.acked[0]
        document = beta.json("snapshot", "mydb", f"from-afar-{number}")
        lsn = document["snapshot"]["lsn"]
        assert lsn <= mount.head_lsn
        beta.run("clone", f"mydb@from-afar-{number}", f"copy-{number}")
        frozen = beta.mount(f"mydb@from-afar-{number}")
        duck = clients.duck(newest).open(frozen.file, read_only=True)
        there = state(duck)[0]
        # Published is what a remote fsync acknowledged.
        assert before <= there
        duck.quit()
        copied = beta.mount(f"copy-{number}", *REMOTE)
        duck = clients.duck(newest).open(copied.file)
        assert state(duck)[0] == there
        duck.sql("DROP TABLE rows")
        duck.quit()
        copied.umount()
        frozen.umount()
        beta.run("restore", f"copy-{number}@lsn:{lsn}")
        duck = clients.duck(newest).open(beta.mount(f"copy-{number}@latest").file, read_only=True)
        assert state(duck)[0] == there
        duck.quit()
        stream.wait_for_new_commits(5)
    assert len(beta.json("log", "mydb", "--commits")["commits"]) > 20
    beta.verify("mydb", "--deep")
    beta.fail("restore", "mydb@from-afar-0", names="mydb")
    stream.finish()
    assert len(beta.snapshots("mydb")) == 4


@pytest.mark.limit(180)
def test_status_tells_lag_and_cache(host: NewHost, clients: Clients, newest: Version) -> None:
    """Lag, remote bytes and cache in `status --json` and in the mount's own file."""
    alpha, beta = host("alpha"), host("beta")
    mount = alpha.mount("mydb", *local("1s"))
    duck = clients.duck(newest).open(mount.file)
    duck.sql("CREATE TABLE t AS SELECT i, md5(i::VARCHAR) AS m FROM range(200000) r(i)")
    duck.sql("CHECKPOINT")
    wait_until("all of it to be in the store", lambda: mount.status()["bytes_remote"] > MIB, 30)
    wait_until("the lag to fall", lambda: (mount.status()["upload_lag_ms"] or 0) < 1500, 30)
    alpha.objects.cut()
    duck.sql("INSERT INTO t SELECT 1, 'x'")
    duck.quit()
    wait_until("the lag to show", lambda: (mount.status()["upload_lag_ms"] or 0) > 3000, 15)
    (listed,) = alpha.json("status")["mounts"]
    assert listed["upload_lag_ms"] > 3000
    alpha.objects.heal()
    wait_until("the lag to fall", lambda: (mount.status()["upload_lag_ms"] or 0) < 1500, 60)
    assert set(beta.mount("mydb@latest").status()["cache"]) >= {"hits", "misses", "bytes"}


@pytest.mark.limit(180)
def test_metrics_are_served(host: NewHost, clients: Clients, newest: Version) -> None:
    """`mount --metrics ADDR` answers in Prometheus' format while it is mounted, and not after."""
    alpha = host("alpha")
    port = free_port()
    mount = alpha.mount("mydb", *REMOTE, "--metrics", f"127.0.0.1:{port}")
    mount.file.write_bytes(b"x" * MIB)

    def text() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            assert answer.headers["Content-Type"].startswith(("text/plain", "application/openmetrics-text"))
            return answer.read().decode()

    samples = [line for line in text().splitlines() if line and not line.startswith("#")]
    assert all(line.startswith("openduck_") for line in samples), samples[:5]
    names = " ".join(line.partition("{")[0] for line in samples)
    for words in (("lag",), ("cache",), ("lease", "epoch")):
        assert any(word in names for word in words), f"nothing about {words}: {names}"
    for line in samples:
        float(line.rpartition(" ")[2])
    mount.umount()
    with pytest.raises(urllib.error.URLError):
        text()


@pytest.mark.limit(240)
def test_copy_moves_a_database_with_its_history(
    host: NewHost, clients: Clients, newest: Version, work: Path
) -> None:
    """From the embedded default to PostgreSQL and S3, and back: names, numbers and bytes."""
    alpha, beta = host("alpha"), host("beta")
    remote = dict(alpha.env)
    embedded = {
        "OPENDUCK_META": f"sqlite:{alpha.path}/catalog.db",
        "OPENDUCK_OBJECTS": f"file:{alpha.path}/layers",
    }
    aws = {key: value for key, value in remote.items() if key.startswith("AWS_")}
    alpha.env = {**aws, **embedded}
    mount = alpha.mount("mydb")
    stream = Stream(clients, newest, mount.file, "--checkpoint-every", 6)
    stream.wait_for_commits(20)
    alpha.run("snapshot", "mydb", "half-way")
    stream.wait_for_new_commits(10)
    stream.finish()
    mount.umount()
    targets = ("--to-meta", remote["OPENDUCK_META"], "--to-objects", remote["OPENDUCK_OBJECTS"])
    alpha.run("copy", "mydb", *targets, timeout_s=120)
    before = [(row["name"], row["lsn"]) for row in alpha.snapshots("mydb")]
    assert [(row["name"], row["lsn"]) for row in beta.snapshots("mydb")] == before
    duck = clients.duck(newest)
    for ref in ("latest", "half-way"):
        assert alpha.mount(f"mydb@{ref}").file.read_bytes() == beta.mount(f"mydb@{ref}").file.read_bytes(), (
            ref
        )
    taken = beta.mount("mydb", *REMOTE)
    duck.open(taken.file)
    assert_nothing_lost(duck, stream)
    duck.quit()
    taken.umount()
    beta.verify("--deep")
    home = work / "another-home"
    targets = ("--to-meta", f"sqlite:{home}/catalog.db", "--to-objects", f"file:{home}/layers")
    beta.run("copy", "mydb", *targets, timeout_s=120)
    beta.env = {"OPENDUCK_META": f"sqlite:{home}/catalog.db", "OPENDUCK_OBJECTS": f"file:{home}/layers"}
    assert [(row["name"], row["lsn"]) for row in beta.snapshots("mydb")][:1] == before[:1]
    beta.verify("--deep")


def resident_bytes(mount: Mount) -> int:
    """What a mount's process holds in memory, at its most."""
    for line in Path(f"/proc/{mount.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


@pytest.mark.long
@pytest.mark.limit(600)
def test_memory_is_bounded(host: NewHost, record_property: Callable[[str, object], None]) -> None:
    """A large write and a large cold scan over a slow line: neither side takes more than 512 MiB."""
    alpha, beta = host("alpha"), host("beta")
    alpha.objects.shape(round_trip_s=0.05, bytes_per_s=60 * MIB)
    beta.objects.shape(round_trip_s=0.05, bytes_per_s=60 * MIB)
    size = 1 << 30
    mount = alpha.mount("mydb", *local("1s"))
    with mount.file.open("wb") as file:
        for number in range(size // (16 * MIB)):
            file.write(pattern(number, 16 * MIB))
        file.flush()
        os.fsync(file.fileno())
    wrote = resident_bytes(mount)
    mount.umount()
    follow = beta.mount("mydb@latest")
    with follow.file.open("rb") as file:
        number = 0
        while chunk := file.read(16 * MIB):
            assert chunk == pattern(number, 16 * MIB)
            number += 1
    assert number == size // (16 * MIB)
    read = resident_bytes(follow)
    record_property("VmHWM", f"writing {wrote / MIB:.0f} MiB, reading {read / MIB:.0f} MiB")
    assert max(wrote, read) <= 512 * MIB
