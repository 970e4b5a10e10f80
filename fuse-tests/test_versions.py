"""Every DuckDB version works on a mount as on a local file, and reads what another one writes.

Nothing here is special to the mount: the clients are the ones from PyPI, and only the path is ours.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.duck import Clients, Duck, DuckError, Version
from harness.openduck import Home, Mount
from harness.streams import Stream, assert_nothing_lost

MIXED_TYPES = """
    CREATE TABLE wide AS
    SELECT i, i % 7 = 0 AS flag, (i * 1.5)::DECIMAL(18, 3) AS price,
           repeat('text ', (i % 30)::INTEGER) || i AS words,
           TIMESTAMP '2020-01-01' + INTERVAL (i) SECOND AS moment, [i, i + 1, i % 3] AS items,
           {'a': i, 'b': 'x' || i} AS struct, CASE WHEN i % 5 = 0 THEN NULL ELSE hash(i) END AS hashed
    FROM range(120000) r(i)
"""
FINGERPRINT = """
    SELECT count(*), sum(i), sum(price), count(hashed), max(moment), sum(length(words)), sum(items[2])
    FROM wide
"""


def work_hard(duck: Duck, path: Path, **options: str) -> list[list[object]]:
    """Writes, checkpoints, changes, deletes and reopens; returns what is there in the end."""
    duck.open(path, **options)  # type: ignore[arg-type]
    duck.sql(MIXED_TYPES)
    duck.sql("CREATE INDEX wide_i ON wide(i)")
    duck.sql("CHECKPOINT")
    duck.sql("UPDATE wide SET words = 'changed ' || i, price = price + 1 WHERE i % 11 = 3")
    duck.sql("DELETE FROM wide WHERE i % 13 = 5")
    duck.sql("BEGIN")
    duck.sql("INSERT INTO wide SELECT * FROM wide WHERE i < 100")
    duck.sql("ROLLBACK")
    duck.sql("ALTER TABLE wide ADD COLUMN extra INTEGER DEFAULT 42")
    before = duck.sql(FINGERPRINT)
    duck.sql("USE memory" if options else "SELECT 1")
    if options:
        duck.sql("DETACH attached")
    duck.close()
    duck.open(path, **options)  # type: ignore[arg-type]
    assert duck.sql(FINGERPRINT) == before
    # Grow, drop, checkpoint: freed blocks, a shorter file, and a WAL that comes and goes.
    for _ in range(3):
        duck.sql("CREATE TABLE big AS SELECT range AS i, repeat('z', 100) AS pad FROM range(200000)")
        duck.sql("CHECKPOINT")
        duck.sql("DROP TABLE big")
        duck.sql("CHECKPOINT")
    duck.sql("INSERT INTO wide (i) VALUES (-1)")
    return duck.sql(FINGERPRINT)


def test_writes_checkpoints_and_reopens_as_locally(
    home: Home, clients: Clients, version: Version, work: Path
) -> None:
    """The same work gives the same database on the mount and locally, also after umount and mount."""
    local = clients.duck(version)
    expected = work_hard(local, work / "local.duckdb")
    local.quit()
    mount = home.mount("mydb")
    duck = clients.duck(version)
    assert work_hard(duck, mount.file) == expected
    duck.quit()
    mount.umount()
    mount = home.mount("mydb")
    duck = clients.duck(version).open(mount.file)
    assert duck.sql(FINGERPRINT) == expected
    duck.quit()
    mount.umount()
    home.verify("--deep")


def supports_io_mode(clients: Clients, version: Version) -> bool:
    duck = clients.duck(version)
    try:
        duck.open(":memory:")
        duck.sql("ATTACH ':memory:' AS probe (IO_MODE BUFFERED_IO)")
    except DuckError:
        return False
    finally:
        duck.kill()
    return True


@pytest.mark.parametrize("io_mode", ["MMAP", "DIRECT_IO", "BUFFERED_IO"])
def test_io_modes_work_at_least_as_locally(
    home: Home, clients: Clients, newest: Version, work: Path, io_mode: str
) -> None:
    """2.0's IO_MODEs: what one can do on a local file, it can on the mount, and its data survives a remount.

    DIRECT_IO of 2.0.0 fails on local filesystems that want aligned writes; the mount need not be so strict.
    """
    if not supports_io_mode(clients, newest):
        pytest.skip(f"DuckDB {newest} has no IO_MODE")
    expected = work_hard(clients.duck(newest), work / "plain.duckdb")
    mount = home.mount("mydb")
    works = []
    for path in (work / "local.duckdb", mount.file):
        duck = clients.duck(newest)
        try:
            assert work_hard(duck, path, io_mode=io_mode) == expected
            works.append(True)
        except DuckError:
            works.append(False)
        duck.kill()
    local_works, mount_works = works
    assert local_works or io_mode == "DIRECT_IO", "works locally, or this test proves nothing"
    assert mount_works or not local_works
    mount.umount()
    mount = home.mount("mydb")
    if mount_works:
        duck = clients.duck(newest).open(mount.file)
        assert duck.sql(FINGERPRINT) == expected
        duck.quit()
    home.verify("--deep")


def test_mmap_commits_survive_a_kill(home: Home, clients: Clients, newest: Version) -> None:
    """A stream that commits through a shared mapping loses nothing acknowledged when the filesystem is
    killed."""
    if not supports_io_mode(clients, newest):
        pytest.skip(f"DuckDB {newest} has no IO_MODE")
    mount = home.mount("mydb")
    stream = Stream(clients, newest, mount.file, "--io-mode", "MMAP", "--checkpoint-every", 15)
    stream.wait_for_commits(50)
    mount.kill()
    stream.kill()
    mount = home.mount("mydb", directory=mount.dir)
    duck = clients.duck(newest).open(mount.file)
    assert_nothing_lost(duck, stream)
    duck.quit()


def faces(home: Home, mount: Mount) -> dict[str, Path]:
    """All ways to read the newest commit besides the live file."""
    home.run("snapshot", mount.database, "fixed")
    latest = home.mount(f"{mount.database}@latest")
    named = home.mount(f"{mount.database}@fixed")
    follow = home.mount(mount.database, "--follow")
    follow_latest = home.mount(f"{mount.database}@latest", "--follow")
    return {
        ".snapshots/latest": mount.snapshot_file("latest"),
        ".snapshots/fixed": mount.snapshot_file("fixed"),
        ".snapshots/lsn": mount.snapshot_file(f"lsn:{mount.head_lsn}"),
        "mount @latest": latest.file,
        "mount @fixed": named.file,
        "mount --follow": follow.file,
        "mount @latest --follow": follow_latest.file,
    }


def storage_for(writer: Version) -> str | None:
    """What the writer must be told so that all versions can read its file."""
    return "v1.0.0" if writer.key >= (1, 2) else None


def test_readers_of_every_version_on_every_face(
    home: Home, clients: Clients, version: Version, versions: list[Version]
) -> None:
    """While this version holds the live file open for writing, with commits in its WAL, all others read
    them."""
    mount = home.mount("mydb")
    writer = clients.duck(version).open(mount.file, storage_version=storage_for(version))
    writer.sql("CREATE TABLE t AS SELECT range AS i FROM range(100000)")
    writer.sql("CHECKPOINT")
    writer.sql("INSERT INTO t SELECT range FROM range(5000)")
    for name, path in faces(home, mount).items():
        for reader_version in versions:
            reader = clients.duck(reader_version).open(path, read_only=True)
            found = reader.sql("SELECT count(*), sum(i) FROM t")
            assert found == [[105000, 5012447500]], f"{name}, DuckDB {reader_version}"
            reader.quit()
    writer.sql("INSERT INTO t VALUES (1)")
    assert writer.one("SELECT count(*) FROM t") == 105001
    writer.quit()


def test_versions_take_turns_on_one_file(home: Home, clients: Clients, versions: list[Version]) -> None:
    """Older and newer versions write the same file one after the other, each leaving it by a kill or by a
    close."""
    mount = home.mount("mydb")
    creator = clients.duck(versions[-1]).open(mount.file)
    creator.sql("CREATE TABLE turns(version VARCHAR, n BIGINT)")
    creator.quit()
    expected = 0
    for turn, version in enumerate(versions[::-1] * 2):
        duck = clients.duck(version).open(mount.file)
        assert duck.one("SELECT count(*) FROM turns") == expected
        for n in range(20):
            duck.sql("INSERT INTO turns VALUES (?, ?)", str(version), n)
        expected += 20
        # A close checkpoints, so that another version need not replay this one's WAL.
        duck.quit()
        if turn == 2:
            mount.umount()
            mount = home.mount("mydb", directory=mount.dir)
    mount.umount()
    home.verify("--deep")


def test_several_files_and_directories_in_one_database(
    home: Home, clients: Clients, version: Version
) -> None:
    """A database is a directory image: attached siblings, exports and Parquet files live in it too."""
    mount = home.mount("mydb")
    duck = clients.duck(version).open(mount.file)
    duck.sql("CREATE TABLE t AS SELECT range AS i FROM range(1000)")
    duck.sql(f"ATTACH '{mount.dir}/other.duckdb' AS other")
    duck.sql("CREATE TABLE other.u AS SELECT i * 2 AS j FROM t")
    duck.sql(f"EXPORT DATABASE '{mount.dir}/export' (FORMAT csv)")
    duck.sql(f"COPY t TO '{mount.dir}/parts' (FORMAT csv, PER_THREAD_OUTPUT)")
    duck.quit()
    mount.umount()
    mount = home.mount("mydb")
    assert {"mydb.duckdb", "other.duckdb", "export", "parts"} <= set(os.listdir(mount.dir))
    duck = clients.duck(version).open(mount.file, read_only=True)
    duck.sql(f"ATTACH '{mount.dir}/other.duckdb' AS other (READ_ONLY)")
    assert duck.one("SELECT sum(j)::BIGINT FROM other.u") == 999000
    assert duck.one(f"SELECT count(*) FROM read_csv('{mount.dir}/parts/*.csv')") == 1000
    duck.quit()


def test_a_second_writer_process_meets_duckdbs_own_lock(
    home: Home, clients: Clients, versions: list[Version]
) -> None:
    """The live file keeps DuckDB's rule of one writing process; readers of snapshots meet no lock."""
    mount = home.mount("mydb")
    first = clients.duck(versions[0]).open(mount.file, storage_version="v1.0.0")
    first.sql("CREATE TABLE t AS SELECT 1 AS i")
    for version in versions:
        with pytest.raises(DuckError, match="lock"):
            clients.duck(version).open(mount.file)
        reader = clients.duck(version).open(mount.snapshot_file("latest"), read_only=True)
        assert reader.one("SELECT i FROM t") == 1
        reader.quit()
    first.quit()
    second = clients.duck(versions[-1]).open(mount.file)
    assert second.one("SELECT i FROM t") == 1
