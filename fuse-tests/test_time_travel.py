"""Snapshots, any past commit, clones, restores, removal, import and export, and the room that comes back.

Everything is tried mounted and unmounted, since `snapshot`, `log`, `clone` and the rest work either way.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.duck import Clients, Version
from harness.openduck import Home, Mount
from harness.posix import opened, pattern

MIB = 1 << 20


def put(mount: Mount, number: int, size: int = 200_000) -> int:
    """Makes one commit whose file is known from `number`; returns its LSN."""
    with opened(mount.file, os.O_RDWR | os.O_CREAT) as fd:
        os.pwrite(fd, pattern(number, size), 0)
        os.ftruncate(fd, size)
        os.fsync(fd)
    return mount.head_lsn


def holds(path: Path, number: int, size: int = 200_000) -> bool:
    return path.read_bytes() == pattern(number, size)


def read_at(home: Home, ref: str, database: str = "mydb") -> bytes:
    """The database's bytes at a ref, through a frozen mount."""
    mount = home.mount(f"{database}@{ref}")
    assert mount.document["mode"] == "ro"
    data = mount.file.read_bytes()
    mount.umount()
    return data


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")


# ---- snapshots and refs ----


def test_a_snapshot_keeps_what_was_there(home: Home) -> None:
    """Named and unnamed snapshots, by name and by id, with their bytes and LSNs, while the writer goes on;
    on the mount's own `.snapshots`, and in frozen mounts."""
    mount = home.mount("mydb")
    documents = []
    for number in range(1, 4):
        lsn = put(mount, number)
        document = home.json("snapshot", "mydb", f"s{number}")["snapshot"]
        assert (document["name"], document["lsn"]) == (f"s{number}", lsn)
        documents.append(document)
    unnamed = home.json("snapshot", "mydb")["snapshot"]
    assert unnamed["name"] is None
    assert unnamed["lsn"] == mount.head_lsn
    put(mount, 9)
    for number, document in enumerate(documents, start=1):
        for ref in (document["name"], document["id"], f"lsn:{document['lsn']}"):
            assert holds(mount.snapshot_file(ref), number), ref
            assert read_at(home, ref) == pattern(number, 200_000)
    assert holds(mount.snapshot_file(unnamed["id"]), 3)
    assert holds(mount.snapshot_file("latest"), 9)
    listed = sorted(os.listdir(mount.dir / ".snapshots"))
    assert listed == ["latest", "s1", "s2", "s3"], "readdir lists named snapshots and latest"
    mount.umount()
    assert read_at(home, "s2") == pattern(2, 200_000)
    rows = home.snapshots("mydb")
    assert [row["name"] for row in rows] == ["s1", "s2", "s3", None]
    assert [row["lsn"] for row in rows] == sorted(row["lsn"] for row in rows)
    assert all(row["added_bytes"] >= 0 for row in rows)
    assert rows[1]["added_bytes"] >= 200_000


def test_snapshots_are_taken_unmounted_too(home: Home) -> None:
    """`snapshot` on an unmounted database names its newest commit."""
    mount = home.mount("mydb")
    put(mount, 1)
    mount.umount()
    document = home.json("snapshot", "mydb", "later")["snapshot"]
    assert document["lsn"] == home.head_lsn("mydb")
    assert read_at(home, "later") == pattern(1, 200_000)


def test_a_snapshot_after_a_kill_names_the_newest_acknowledged_commit(home: Home) -> None:
    """Also with the writer dead and nobody having mounted since."""
    mount = home.mount("mydb")
    lsn = put(mount, 1)
    mount.kill()
    document = home.json("snapshot", "mydb", "after-kill")["snapshot"]
    assert document["lsn"] == lsn
    assert read_at(home, "after-kill") == pattern(1, 200_000)


def test_unsnapshot_frees_the_name(home: Home) -> None:
    """The commit stays addressable by its LSN under retention; the name can be given again."""
    mount = home.mount("mydb")
    lsn = put(mount, 1)
    home.run("snapshot", "mydb", "name")
    put(mount, 2)
    home.run("unsnapshot", "mydb", "name")
    home.fail("mount", "mydb@name", home.new_mount_dir(), names="name")
    assert holds(mount.snapshot_file(f"lsn:{lsn}"), 1)
    home.run("snapshot", "mydb", "name")
    assert holds(mount.snapshot_file("name"), 2)


def test_every_commit_by_number_and_by_time(home: Home) -> None:
    """@lsn:n opens exactly commit n; @timestamp opens the newest commit that is not after it, in UTC and in
    local time, at the second and at the microsecond."""
    mount = home.mount("mydb")
    commits = []
    for number in range(1, 8):
        lsn = put(mount, number)
        time.sleep(0.02)
        commits.append((number, lsn, now()))
        time.sleep(0.02)
    for number, lsn, moment in commits:
        assert holds(mount.snapshot_file(f"lsn:{lsn}"), number)
        assert holds(mount.snapshot_file(moment), number), moment
        assert read_at(home, moment) == pattern(number, 200_000)
    listed = home.json("log", "mydb", "--commits")["commits"]
    assert [row["lsn"] for row in listed][-7:] == [lsn for _, lsn, _ in commits]
    for row, (number, _, _) in zip(listed[-7:], commits, strict=True):
        assert holds(mount.snapshot_file(row["time"]), number), "a commit's own time means that commit"
    time.sleep(1.1)
    local = datetime.datetime.now()
    assert read_at(home, local.strftime("%Y-%m-%d %H:%M:%S")) == pattern(7, 200_000)
    home.fail("mount", "mydb@2001-01-01 00:00", home.new_mount_dir(), names="2001-01-01")
    mount.umount()
    for number, lsn, moment in commits:
        assert read_at(home, f"lsn:{lsn}") == pattern(number, 200_000)
        assert read_at(home, moment) == pattern(number, 200_000)


def test_the_acknowledged_commit_opens_at_once(home: Home) -> None:
    """`head_lsn` in the status is uncached, and @lsn:<it> opens right after the fsync, without waiting for
    any publishing."""
    mount = home.mount("mydb")
    for number in range(1, 30):
        lsn = put(mount, number, 5000)
        assert mount.status()["head_lsn"] == lsn
        assert holds(mount.snapshot_file(f"lsn:{lsn}"), number, 5000)
    assert read_at(home, f"lsn:{lsn}") == pattern(29, 5000)


# ---- clone and restore ----


def test_a_clone_is_a_database_of_its_own(home: Home) -> None:
    """A clone shows its source's image under its own name, starts at the source's LSN, and neither sees
    what the other writes. Clones of clones, of snapshots, of LSNs, of mounted and unmounted databases."""
    mount = home.mount("mydb")
    first = put(mount, 1)
    mount.wal.write_bytes(b"wal")
    with opened(mount.file, os.O_RDWR) as fd:
        os.fsync(fd)
    second = put(mount, 2)
    home.run("snapshot", "mydb", "two")
    put(mount, 3)
    for ref, new, number, lsn in (
        ("", "live", 3, mount.head_lsn),
        ("@two", "named", 2, second),
        (f"@lsn:{first}", "early", 1, first),
    ):
        document = home.json("clone", f"mydb{ref}", new)["snapshot"]
        assert document["lsn"] == lsn
        assert home.head_lsn(new) == lsn
        clone = home.mount(new)
        assert clone.file.name == f"{new}.duckdb"
        assert holds(clone.file, number)
        assert (f"{new}.duckdb.wal" in os.listdir(clone.dir)) == (number > 1)
        assert not [name for name in os.listdir(clone.dir) if name.startswith("mydb.")]
        assert clone.head_lsn == lsn
        assert put(clone, 40) == lsn + 1
        assert holds(mount.file, 3)
    put(mount, 4)
    home.run("clone", "named", "grandchild")
    mount.umount()
    grandchild = home.mount("grandchild")
    assert holds(grandchild.file, 40)
    put(grandchild, 41)
    # Earlier LSNs resolve in the parents.
    assert read_at(home, f"lsn:{first}", "grandchild") == pattern(1, 200_000)
    assert read_at(home, f"lsn:{second}", "grandchild") == pattern(2, 200_000)
    home.verify("--deep")


def test_clones_outlive_their_source(home: Home) -> None:
    """Removing the source, collecting garbage and compacting take nothing from a clone."""
    mount = home.mount("mydb")
    for number in range(1, 6):
        put(mount, number, 2 * MIB)
    mount.umount()
    home.run("clone", "mydb", "child")
    home.run("retention", "mydb", "0")
    home.run("remove", "mydb")
    home.run("gc", "--grace", "0s")
    home.run("compact", "child")
    home.run("gc", "--grace", "0s")
    child = home.mount("child")
    assert holds(child.file, 5, 2 * MIB)
    put(child, 6, 2 * MIB)
    child.umount()
    home.verify("--deep")


def test_restore_adds_a_commit_with_the_old_image(home: Home) -> None:
    """Restore makes commit n+1 of the old image; LSNs between stay addressable, and restoring can be
    undone."""
    mount = home.mount("mydb")
    lsns = [put(mount, number) for number in range(1, 6)]
    mount.umount()
    head = home.head_lsn("mydb")
    document = home.json("restore", f"mydb@lsn:{lsns[1]}")["snapshot"]
    assert document["lsn"] == head + 1
    assert home.head_lsn("mydb") == head + 1
    mount = home.mount("mydb")
    assert holds(mount.file, 2)
    for number, lsn in enumerate(lsns, start=1):
        assert holds(mount.snapshot_file(f"lsn:{lsn}"), number)
    assert put(mount, 7) == head + 2
    mount.umount()
    home.run("restore", f"mydb@lsn:{lsns[4]}")
    mount = home.mount("mydb")
    assert holds(mount.file, 5)
    assert holds(mount.snapshot_file(f"lsn:{head + 2}"), 7)
    assert holds(mount.snapshot_file(f"lsn:{head + 1}"), 2)
    mount.umount()
    listed = [row["lsn"] for row in home.json("log", "mydb", "--commits")["commits"]]
    assert listed == sorted(set(listed))
    home.verify("--deep")


def test_restore_of_a_mounted_database_is_refused(home: Home) -> None:
    """It says who has it mounted, and changes nothing."""
    mount = home.mount("mydb")
    lsn = put(mount, 1)
    put(mount, 2)
    home.fail("restore", f"mydb@lsn:{lsn}", names="mydb")
    assert holds(mount.file, 2)


def test_clone_and_restore_with_duckdb(home: Home, clients: Clients, version: Version) -> None:
    """The way back after a bad DELETE: look at it, clone it, restore it."""
    mount = home.mount("mydb")
    duck = clients.duck(version).open(mount.file)
    duck.sql("CREATE TABLE t AS SELECT range AS i FROM range(50000)")
    home.run("snapshot", "mydb", "good")
    duck.sql("DELETE FROM t WHERE i % 2 = 0")
    duck.sql("CHECKPOINT")
    assert duck.one("SELECT count(*) FROM t") == 25000
    duck.quit()
    home.run("clone", "mydb@good", "rescue")
    rescue = home.mount("rescue")
    duck = clients.duck(version).open(rescue.file)
    assert duck.one("SELECT count(*) FROM t") == 50000
    duck.sql("INSERT INTO t VALUES (-1)")
    duck.quit()
    mount.umount()
    home.run("restore", "mydb@good")
    mount = home.mount("mydb")
    duck = clients.duck(version).open(mount.file)
    assert duck.one("SELECT count(*) FROM t") == 50000
    duck.quit()


def test_remove_and_undrop(home: Home) -> None:
    """A removed database is gone from the list, its name is free, and it comes back with its history; a
    mounted one is not removed."""
    mount = home.mount("mydb")
    lsn = put(mount, 1)
    home.run("snapshot", "mydb", "one")
    put(mount, 2)
    home.fail("remove", "mydb", names="mydb")
    mount.umount()
    home.run("remove", "mydb")
    assert home.json("list")["databases"] == []
    home.fail("show", "mydb", names="mydb")
    home.fail("remove", "mydb", names="mydb")
    home.run("gc", "--grace", "0s")
    home.run("undrop", "mydb")
    mount = home.mount("mydb")
    assert holds(mount.file, 2)
    assert holds(mount.snapshot_file("one"), 1)
    assert holds(mount.snapshot_file(f"lsn:{lsn}"), 1)
    mount.umount()
    home.fail("undrop", "mydb", names="mydb")
    home.run("remove", "mydb")
    home.run("create", "mydb")
    home.fail("undrop", "mydb", names="mydb")


# ---- import and export ----


def plain_database(clients: Clients, version: Version, path: Path, *, leave_wal: bool) -> int:
    """A plain DuckDB file of some MiB; with a WAL beside it, as a killed process leaves it."""
    duck = clients.duck(version).open(path)
    duck.sql("CREATE TABLE t AS SELECT range AS i, hash(range) AS h FROM range(300000)")
    duck.sql("CHECKPOINT")
    duck.sql("INSERT INTO t SELECT range, 0 FROM range(1234)")
    rows = int(duck.one("SELECT count(*) FROM t"))
    if leave_wal:
        duck.kill()
        assert path.with_name(path.name + ".wal").stat().st_size > 0
    else:
        duck.quit()
        assert not path.with_name(path.name + ".wal").exists()
    return rows


@pytest.mark.parametrize("leave_wal", [False, True], ids=["closed", "with-wal"])
def test_import_and_export_are_bit_exact(
    home: Home, clients: Clients, version: Version, work: Path, leave_wal: bool
) -> None:
    """A plain file goes in, with its WAL, opens as a database, and comes out as the same bytes; the file is
    not touched."""
    source = work / "plain.duckdb"
    rows = plain_database(clients, version, source, leave_wal=leave_wal)
    names = ["", ".wal"] if leave_wal else [""]
    before = [sha256(work / f"plain.duckdb{name}") for name in names]
    home.run("import", source, "mydb")
    assert [sha256(work / f"plain.duckdb{name}") for name in names] == before
    home.run("export", "mydb", work / "out.duckdb")
    assert [sha256(work / f"out.duckdb{name}") for name in names] == before
    assert (work / "out.duckdb.wal").exists() == leave_wal
    frozen = home.mount("mydb@latest")
    reader = clients.duck(version).open(frozen.file, read_only=True)
    assert reader.one("SELECT count(*) FROM t") == rows
    reader.quit()
    home.run("snapshot", "mydb", "imported")
    mount = home.mount("mydb")
    duck = clients.duck(version).open(mount.file)
    assert duck.one("SELECT count(*) FROM t") == rows
    duck.sql("DELETE FROM t")
    duck.sql("CHECKPOINT")
    home.run("export", "mydb@imported", work / "again.duckdb")
    assert [sha256(work / f"again.duckdb{name}") for name in names] == before
    duck.quit()
    exported = clients.duck(version).open(work / "again.duckdb")
    assert exported.one("SELECT count(*) FROM t") == rows
    exported.quit()
    home.verify("--deep")


def test_import_and_export_refuse_what_would_harm(
    home: Home, clients: Clients, newest: Version, work: Path
) -> None:
    """A file that a DuckDB has open for writing, a name that is taken, a target that exists, a file that is
    none."""
    source = work / "plain.duckdb"
    duck = clients.duck(newest).open(source)
    duck.sql("CREATE TABLE t AS SELECT 1 AS i")
    home.fail("import", source, "mydb", names=str(source))
    assert home.json("list")["databases"] == []
    duck.quit()
    home.run("import", source, "mydb")
    home.fail("import", source, "mydb", names="mydb")
    target = work / "there.duckdb"
    target.write_bytes(b"precious")
    home.fail("export", "mydb", target, names=str(target))
    assert target.read_bytes() == b"precious"
    home.fail("import", work / "nowhere.duckdb", "other", names="nowhere")
    home.fail("import", work, "other", names=str(work))
    home.fail("export", "mydb", work / "no" / "such" / "dir.duckdb", names="dir.duckdb")
    assert [row["name"] for row in home.json("list")["databases"]] == ["mydb"]


def test_sparse_files_go_in_and_out(home: Home, work: Path) -> None:
    """A huge sparse file takes no more room in the store, or when it comes out, than its data."""
    source = work / "sparse.duckdb"
    with opened(source, os.O_RDWR | os.O_CREAT) as fd:
        os.ftruncate(fd, 64 << 30)
        for number in range(8):
            os.pwrite(fd, pattern(number, 100_000), number * (7 << 30) + 13)
    home.run("import", source, "mydb")
    assert home.allocated_bytes() < 300 * MIB
    home.run("export", "mydb", work / "out.duckdb")
    assert (work / "out.duckdb").stat().st_size == 64 << 30
    assert (work / "out.duckdb").stat().st_blocks * 512 < 16 * MIB
    with opened(work / "out.duckdb", os.O_RDONLY) as fd:
        for number in range(8):
            assert os.pread(fd, 100_000, number * (7 << 30) + 13) == pattern(number, 100_000)


def test_diff_tells_what_changed(home: Home) -> None:
    """Nothing between a state and itself; the file that changed, and no other, between two states."""
    mount = home.mount("mydb")
    other = mount.dir / "other.bin"
    other.write_bytes(pattern(1, 100_000))
    put(mount, 1)
    home.run("snapshot", "mydb", "before")
    with opened(mount.file, os.O_RDWR) as fd:
        os.pwrite(fd, b"\0" * 4096, 40_960)
        os.fsync(fd)
    home.run("snapshot", "mydb", "after")
    same = home.run("diff", "mydb@before", "mydb@before")
    assert "mydb.duckdb" not in same.stdout
    changed = home.run("diff", "mydb@before", "mydb@after")
    assert "mydb.duckdb" in changed.stdout
    assert "other.bin" not in changed.stdout
    other.unlink()
    put(mount, 2)
    removed = home.run("diff", "mydb@after", "mydb@latest")
    assert "other.bin" in removed.stdout


def test_show_draws_the_stack(home: Home) -> None:
    """`show` works mounted, unmounted and at a ref, and names the database."""
    mount = home.mount("mydb")
    lsn = put(mount, 1)
    assert "mydb" in home.run("show", "mydb").stdout
    mount.umount()
    assert "mydb" in home.run("show", "mydb").stdout
    assert str(lsn) in home.run("show", f"mydb@lsn:{lsn}").stdout


# ---- retention, compaction, garbage ----


def live_bytes(home: Home) -> int:
    """What the newest image holds, without its holes."""
    mount = home.mount("mydb@latest")
    total = sum(
        (mount.dir / name).stat().st_blocks * 512
        for name in os.listdir(mount.dir)
        if name.startswith("mydb.duckdb")
    )
    mount.umount()
    return total


def churn(mount: Mount, rounds: int, size: int = 4 * MIB) -> None:
    for number in range(rounds):
        put(mount, number, size)


@pytest.mark.parametrize("mounted", [False, True], ids=["unmounted", "mounted"])
def test_room_comes_back(home: Home, mounted: bool) -> None:
    """`retention DB 0`, `compact`, `gc --grace 0s` leave about the live image, on a mounted database too."""
    mount = home.mount("mydb")
    empty = home.allocated_bytes()
    churn(mount, 20)
    if not mounted:
        mount.umount()
    full = home.allocated_bytes()
    assert full >= 80 * MIB
    kept = home.json("gc", "--grace", "0s")
    assert kept["layers_kept"] >= 1
    assert home.allocated_bytes() >= 80 * MIB, "retention of 7 days keeps every commit"
    home.run("retention", "mydb", "0")
    home.run("compact", "mydb")
    document = home.json("gc", "--grace", "0s")
    assert {"layers_deleted", "bytes_freed", "layers_kept"} <= set(document)
    after = home.allocated_bytes()
    # Catalog, logs, indexes, and (mounted) what the active layer has allocated ahead.
    slack = 4 * MIB + (empty if mounted else 0)
    live = live_bytes(home)
    assert live <= 4 * MIB + 65536
    assert after <= live * 1.05 + slack, f"{after / MIB:.1f} MiB are left for {live / MIB:.1f} MiB of data"
    if mounted:
        assert holds(mount.file, 19, 4 * MIB)
        churn(mount, 2)
        mount.umount()
    else:
        mount = home.mount("mydb")
        assert holds(mount.file, 19, 4 * MIB)
    home.verify("--deep")


def test_snapshots_hold_their_room_until_unnamed(home: Home) -> None:
    """A named snapshot survives retention 0, compaction and collection; `unsnapshot` lets its room go."""
    mount = home.mount("mydb")
    for number in range(6):
        put(mount, number, 4 * MIB)
        if number in (1, 3):
            home.run("snapshot", "mydb", f"s{number}")
    mount.umount()
    home.run("retention", "mydb", "0")
    home.run("compact", "mydb")
    home.run("gc", "--grace", "0s")
    held = home.allocated_bytes()
    assert read_at(home, "s1") == pattern(1, 4 * MIB)
    assert read_at(home, "s3") == pattern(3, 4 * MIB)
    assert read_at(home, "latest") == pattern(5, 4 * MIB)
    assert held < 20 * MIB
    home.run("unsnapshot", "mydb", "s1")
    home.run("unsnapshot", "mydb", "s3")
    home.run("compact", "mydb")
    home.run("gc", "--grace", "0s")
    assert home.allocated_bytes() < held - 6 * MIB
    assert read_at(home, "latest") == pattern(5, 4 * MIB)
    home.verify("--deep")


def test_expired_commits_are_gone_and_say_so(home: Home) -> None:
    """After retention ended, an LSN between snapshots is a clear error, not old or wrong bytes."""
    mount = home.mount("mydb")
    lsns = [put(mount, number) for number in range(1, 8)]
    mount.umount()
    home.run("retention", "mydb", "0")
    home.run("compact", "mydb")
    home.run("gc", "--grace", "0s")
    home.fail("mount", f"mydb@lsn:{lsns[2]}", home.new_mount_dir(), names=str(lsns[2]))
    home.fail("clone", f"mydb@lsn:{lsns[2]}", "new", names=str(lsns[2]))
    home.fail("mount", f"mydb@lsn:{lsns[-1] + 1000}", home.new_mount_dir(), names=str(lsns[-1] + 1000))
    assert read_at(home, "latest") == pattern(7, 200_000)


def test_compaction_within_retention_keeps_every_commit(home: Home) -> None:
    """Compact merely concatenates what retention holds: each LSN still opens, with its own bytes."""
    mount = home.mount("mydb")
    lsns = []
    for number in range(1, 13):
        lsns.append(put(mount, number, 300_000))
        if number % 4 == 0:
            mount.umount()
            mount = home.mount("mydb")
    home.run("compact", "mydb")
    home.run("gc", "--grace", "0s")
    for number, lsn in enumerate(lsns, start=1):
        assert holds(mount.snapshot_file(f"lsn:{lsn}"), number, 300_000)
    mount.umount()
    home.run("compact", "mydb")
    home.run("gc", "--grace", "0s")
    for number, lsn in enumerate(lsns, start=1):
        assert read_at(home, f"lsn:{lsn}") == pattern(number, 300_000)
    home.verify("--deep")


def test_readers_keep_what_they_read(home: Home, clients: Clients, versions: list[Version]) -> None:
    """Retention 0, compaction and collection while frozen mounts and open files hold old states: the
    readers read on, and what they held goes only after they are gone."""
    mount = home.mount("mydb")
    duck = clients.duck(versions[-1]).open(mount.file)
    duck.sql("CREATE TABLE t AS SELECT range AS i, hash(range) AS h FROM range(200000)")
    duck.sql("CHECKPOINT")
    lsn = mount.head_lsn
    frozen = home.mount(f"mydb@lsn:{lsn}")
    readers = [clients.duck(version).open(frozen.file, read_only=True) for version in versions]
    readers.append(clients.duck(versions[-1]).open(mount.snapshot_file("latest"), read_only=True))
    fingerprint = "SELECT count(*), sum(i)::BIGINT, bit_xor(h)::VARCHAR FROM t"
    expected = readers[0].sql(fingerprint)
    for number in range(5):
        duck.sql("CREATE OR REPLACE TABLE t AS SELECT range AS i, range AS h FROM range(?)", 100_000 + number)
        duck.sql("CHECKPOINT")
    home.run("retention", "mydb", "0")
    home.run("compact", "mydb")
    home.run("gc", "--grace", "0s")
    Path("/proc/sys/vm/drop_caches").write_text("1") if os.geteuid() == 0 else None
    for reader in readers:
        assert reader.sql(fingerprint) == expected
        reader.quit()
    fresh = clients.duck(versions[0]).open(frozen.file, read_only=True)
    assert fresh.sql(fingerprint) == expected
    fresh.quit()
    frozen.umount()
    held = home.allocated_bytes()
    home.run("compact", "mydb")
    home.run("gc", "--grace", "0s")
    assert home.allocated_bytes() < held
    assert duck.one("SELECT count(*) FROM t") == 100_004
    duck.quit()
    mount.umount()
    home.verify("--deep")


def test_dry_run_deletes_nothing(home: Home) -> None:
    """`gc --dry-run` says what `gc` would free, and frees nothing."""
    mount = home.mount("mydb")
    churn(mount, 6)
    mount.umount()
    home.run("retention", "mydb", "0")
    home.run("compact", "mydb")
    before = home.allocated_bytes()
    promised = home.json("gc", "--dry-run", "--grace", "0s")
    assert home.allocated_bytes() >= before - 65536
    done = home.json("gc", "--grace", "0s")
    assert promised["layers_deleted"] == done["layers_deleted"] > 0
    assert promised["bytes_freed"] == done["bytes_freed"] > 0
    assert home.allocated_bytes() < before


def test_grace_protects_what_was_just_let_go(home: Home) -> None:
    """Without `--grace 0s`, layers that nothing refers to stay for the grace period."""
    mount = home.mount("mydb")
    churn(mount, 6)
    mount.umount()
    home.run("retention", "mydb", "0")
    home.run("compact", "mydb")
    before = home.allocated_bytes()
    assert home.json("gc")["layers_deleted"] == 0
    assert home.allocated_bytes() >= before - 65536


def test_maintenance_killed_anywhere_harms_nothing(
    home: Home, choose: random.Random, rounds: Callable[[int], int]
) -> None:
    """compact and gc are killed at random instants; all states read as before, and a later run finishes."""
    mount = home.mount("mydb")
    churn(mount, 10)
    home.run("snapshot", "mydb", "mid")
    churn(mount, 4)
    mount.umount()
    home.run("retention", "mydb", "0")
    for number in range(rounds(12)):
        command = ("compact", "mydb") if number % 2 == 0 else ("gc", "--grace", "0s")
        process = subprocess.Popen(
            home.argv(*command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        time.sleep(choose.random() * 0.15)
        process.send_signal(signal.SIGKILL)
        process.wait(20)
        assert read_at(home, "mid") == pattern(9, 4 * MIB)
        assert read_at(home, "latest") == pattern(3, 4 * MIB)
    home.run("compact", "mydb")
    home.run("gc", "--grace", "0s")
    home.verify("--deep")
    assert home.allocated_bytes() < 16 * MIB
