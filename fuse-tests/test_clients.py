"""The instruments, tried on plain local files: they accept what is whole, and they notice what is not.

A checker that can't fail proves nothing. So each one is shown a file as it should be, and one that was
tampered with in the way that a broken filesystem would.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from harness.duck import Clients, DuckError, Version
from harness.follow import judge_reader, judge_writer
from harness.pages import PageWriter
from harness.streams import Stream, assert_nothing_lost, state


@pytest.mark.parametrize("streams", [1, 3])
def test_commit_stream_and_its_check_agree_on_a_plain_file(
    clients: Clients, version: Version, work: Path, streams: int
) -> None:
    """kill -9 of DuckDB on a local file loses nothing that was acknowledged, by this check."""
    path = work / "plain.duckdb"
    found: dict[int, int] = {}
    for _ in range(2):
        stream = Stream(clients, version, path, "--streams", streams, "--checkpoint-every", 20)
        stream.wait_for_commits(60)
        stream.kill()
        duck = clients.duck(version).open(path, read_only=True)
        found = assert_nothing_lost(duck, stream, known=found)
        assert set(found) == set(range(streams))
        duck.quit()


def test_stream_check_notices_lost_and_torn_commits(clients: Clients, oldest: Version, work: Path) -> None:
    """A missing row, a wrong value, a missing commit, a forgotten tail and an invented one are each found."""
    path = work / "plain.duckdb"
    stream = Stream(clients, oldest, path)
    stream.wait_for_commits(50)
    stream.finish()
    duck = clients.duck(oldest).open(path)
    assert_nothing_lost(duck, stream)
    damages = [
        "DELETE FROM rows WHERE n = 17 AND i = 0",
        "DELETE FROM rows WHERE n = 17",
        "UPDATE rows SET v = v + 1 WHERE n = 30 AND i = 0",
        "UPDATE rows SET pad = 'x' WHERE n = 30 AND i = 0",
        "UPDATE tally SET n = n - 1",
    ]
    for damage in damages:
        duck.sql("BEGIN")
        duck.sql(damage)
        with pytest.raises(AssertionError):
            assert_nothing_lost(duck, stream)
        duck.sql("ROLLBACK")
    beyond = stream.attempted[0] + 1
    duck.sql("BEGIN")
    duck.sql(
        "INSERT INTO rows VALUES "
        "(0, $1, 0, $1 * 104729 % 1000003, 1, repeat(chr((65 + $1 % 26)::INTEGER), 20))",
        beyond,
    )
    duck.sql("UPDATE tally SET n = n + 1, total = total + 1")
    assert state(duck) == {0: beyond}
    with pytest.raises(AssertionError, match="nobody tried"):
        assert_nothing_lost(duck, stream)
    duck.sql("ROLLBACK")
    duck.sql("DELETE FROM rows WHERE n >= 40")
    duck.sql("UPDATE tally SET n = 39, total = (SELECT count(*) FROM rows)")
    assert state(duck) == {0: 39}
    with pytest.raises(AssertionError, match="was acknowledged, only 39 is there"):
        assert_nothing_lost(duck, stream)


def test_follow_reader_accepts_whole_commits(clients: Clients, versions: list[Version], work: Path) -> None:
    """Copies of file and WAL that belong together satisfy the reader of every version."""
    for writer_version in versions:
        path = work / f"writer-{writer_version}.duckdb"
        storage = ["--storage-version", "v1.0.0"]
        writer = clients.start(writer_version, "follow_writer.py", path, *storage)
        for _ in range(40):
            writer.next_line("a commit")
        writer.finish()
        newest = judge_writer(writer)[-1][1]
        for version in versions:
            reader = clients.start(version, "follow_reader.py", path, "--seconds", 0.2)
            opens = judge_reader(reader)
            assert opens, f"DuckDB {version} opened nothing"
            assert {seq for _, seq in opens} == {newest}


def test_follow_reader_notices_a_file_and_a_wal_of_two_commits(
    clients: Clients, oldest: Version, newest: Version, work: Path
) -> None:
    """A data file from before a checkpoint beside a WAL from after it is an error or a missing commit, and
    both are noticed: the first as an error, the second because the commit was acknowledged long ago."""
    path = work / "plain.duckdb"
    writer = clients.start(oldest, "follow_writer.py", path, "--checkpoint-every", 1000)
    for _ in range(5):
        writer.next_line("a commit")
    writer.kill()
    old_file = path.read_bytes()
    # Opening and closing replays the WAL and checkpoints; the stream then goes on in a new WAL.
    duck = clients.duck(oldest).open(path)
    for _ in range(3):
        duck.sql("UPDATE state SET seq = seq + 1")
        duck.sql("CHECKPOINT")
    duck.sql("INSERT INTO events VALUES (-1, 0, 'in the new WAL')")
    duck.kill()
    mixed = work / "mixed.duckdb"
    mixed.write_bytes(old_file)
    shutil.copy(f"{path}.wal", f"{mixed}.wal")
    for version in (oldest, newest):
        reader = clients.start(version, "follow_reader.py", mixed, "--seconds", 0.3)
        lines = reader.wait()
        assert lines
        bad = [line for line in lines if line.startswith(("bad", "error"))]
        stale = [line for line in lines if not line.startswith(("bad", "error")) and int(line.split()[1]) < 5]
        assert bad or stale, f"DuckDB {version} accepted a mix as whole: {lines[:3]}"


def test_page_reader_notices_a_mix(clients: Clients, newest: Version, work: Path) -> None:
    """A file that is rewritten under the reader's opens, as on a plain filesystem, is reported as a mix."""
    path = work / "plain.duckdb"
    pages = PageWriter(path)
    pages.commit()
    reader = clients.start(newest, "page_reader.py", path, "--seconds", 1, "--gap-ms", 5)
    quiet = reader.wait()
    assert quiet
    assert all(line.split()[1] == "1" for line in quiet), quiet[:3]
    reader = clients.start(newest, "page_reader.py", path, "--seconds", 10, "--gap-ms", 20)
    while reader.process.poll() is None and not any(line.startswith("mix") for _, line in reader.lines):
        pages.commit()
    assert any(line.startswith("mix") for line in reader.finish())


def test_spill_reader_spills(clients: Clients, version: Version, work: Path) -> None:
    """The spilling reader really writes spill files, beside the database it reads."""
    path = work / "plain.duckdb"
    duck = clients.duck(version).open(path)
    duck.sql("CREATE TABLE t AS SELECT 1 AS i")
    duck.quit()
    reader = clients.start(version, "spill_reader.py", path)
    last = reader.wait(120)[-1].split()
    assert last[0] == "spilled"
    assert int(last[1]) > 0, "no spill file was seen"
    assert last[3] == "1"


def test_duck_passes_errors_on(clients: Clients, version: Version, work: Path) -> None:
    """An error of DuckDB arrives as an error, and the process goes on."""
    duck = clients.duck(version).open(work / "plain.duckdb")
    with pytest.raises(DuckError, match="nowhere"):
        duck.sql("SELECT * FROM nowhere")
    assert duck.one("SELECT 41 + 1") == 42
    assert os.path.exists(work / "plain.duckdb")
    duck.quit()
