"""What the demonstration tells, chapter by chapter, and what each chapter checks."""

import itertools
import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from demo.cast import Reader, Writer
from demo.journal import Bounds, Journal
from demo.shop import JUDGE, MAKE, ORDERS, State
from demo.stage import Stage, size
from harness.duck import Duck, pythons
from harness.workplace import Mount, Workplace, stopwatch

READ_SECONDS = 3.0
KILLS = 3


@dataclass(frozen=True)
class Moment:
    """A state to go back to, and what it must hold."""

    title: str
    ref: str
    bounds: Bounds

    def admits(self, state: State) -> bool:
        return state.is_whole() and self.bounds.admit(state.transfers)


def tell(stage: Stage, place: Workplace) -> None:
    """The whole story."""
    versions = list(pythons())
    plain = import_a_database(stage, place, versions[-1])
    mount, took = mount_it(place)
    stage.fact("mounted for writing", "", took)

    journal = Journal(place.directory / "journal")
    writer = Writer(place, versions[0], mount.file, place.directory / "journal")
    moments = read_while_it_writes(stage, place, mount, journal, versions)
    go_back(stage, place, mount, moments, versions)
    clone(stage, place, versions[0], moments[0])
    mount = kill_and_remount(stage, place, mount, writer, journal, versions[0])
    take_away(stage, place, mount, plain, versions)


def import_a_database(stage: Stage, place: Workplace, version: str) -> Path:
    """A plain DuckDB file becomes a database in the store. The oldest version makes it: that file
    opens in all of them, also after the newest has written to it."""
    stage.chapter(f"A database of {ORDERS:,} rows")
    plain = place.directory / "plain.duckdb"
    with Duck(place, version) as duck:
        duck.open(plain)
        took = sum(duck.run(*MAKE))
    stage.fact(f"a plain file, made by DuckDB {version}", size(plain.stat().st_size), took)
    with stopwatch() as seconds:
        place.fs("import", str(plain), "shop")
    stage.fact("imported as shop", "", seconds[0])
    return plain


def mount_it(place: Workplace, directory: Path | None = None) -> tuple[Mount, float]:
    """Mounts the shop for writing; how long it took."""
    with stopwatch() as seconds:
        mount = place.mount_at(directory, "shop") if directory else place.mount("shop")
    return mount, seconds[0]


def read_while_it_writes(
    stage: Stage, place: Workplace, mount: Mount, journal: Journal, versions: list[str]
) -> list[Moment]:
    """Readers of all versions beside the writer; three moments are noted to go back to."""
    stage.chapter("One process writes, the others read")
    follow = place.mount("shop", "--follow")
    latest = mount.directory / ".snapshots/latest/shop.duckdb"
    readers = [
        Reader(place, version, where, path)
        for version in versions
        for where, path in ((".snapshots/latest", latest), ("follow mount", follow.file))
    ]
    time.sleep(READ_SECONDS)
    moments = note_moments(stage, place, mount, journal)
    time.sleep(READ_SECONDS)

    commits, median = journal.pace()
    stage.fact(f"writer   {versions[0]}  shop.duckdb", f"{commits:,} commits", median)
    wrong = []
    for reader in readers:
        report = reader.stop()
        wrong += report.wrong
        stage.fact(
            f"reader   {reader.version}  {reader.where}",
            f"{report.opens} opens, {report.first:,}..{report.last:,}",
            report.median_s,
        )
    stage.check("no reader met a lock, an error, or a torn transaction", not wrong, "; ".join(wrong[:3]))
    place.umount(follow)
    return moments


def note_moments(stage: Stage, place: Workplace, mount: Mount, journal: Journal) -> list[Moment]:
    """A named snapshot, an LSN and a time, and what each must hold, all under the writer."""
    began = time.time()
    with stopwatch() as seconds:
        place.fs("snapshot", "shop", "before-lunch")
    stage.fact("snapshot before-lunch taken", "", seconds[0])
    named = Moment("name before-lunch", "before-lunch", journal.bounds(began, time.time()))
    time.sleep(0.5)
    began = time.time()
    lsn = mount.status()["head_lsn"]
    numbered = Moment(f"lsn {lsn}", f"lsn:{lsn}", journal.bounds(began, time.time()))
    time.sleep(0.5)
    now = datetime.now(UTC)
    time.sleep(0.5)
    bounds = journal.bounds(now.timestamp(), now.timestamp())
    return [named, numbered, Moment(f"time {now:%H:%M:%S.%f}", now.isoformat(), bounds)]


def go_back(
    stage: Stage,
    place: Workplace,
    mount: Mount,
    moments: list[Moment],
    versions: list[str],
) -> None:
    """Each moment opens as it was, while the writer goes on."""
    stage.chapter("Back in time, while the writer goes on")
    for moment, version in zip(moments, itertools.cycle(versions), strict=False):
        with stopwatch() as seconds:
            state = judge(place, version, mount.directory / ".snapshots" / moment.ref / "shop.duckdb")
        stage.fact(f"{moment.title}, DuckDB {version}", f"{state.transfers:,} transfers", seconds[0])
        stage.check(f"is whole and holds {moment.bounds} transfers", moment.admits(state))
    frozen = place.mount(f"shop@{moments[0].ref}")
    again = judge(place, versions[-1], frozen.file)
    stage.check(f"mount shop@{moments[0].ref} shows the same", moments[0].admits(again))
    place.umount(frozen)


def clone(stage: Stage, place: Workplace, version: str, moment: Moment) -> None:
    """A writable copy that copies nothing."""
    stage.chapter("A clone to break things in")
    with stopwatch() as seconds:
        place.fs("clone", f"shop@{moment.ref}", "trial")
    [trial] = [entry for entry in place.fs_json("list")["databases"] if entry["name"] == "trial"]
    stage.fact("clone of before-lunch", size(trial["bytes"]), seconds[0])
    mount = place.mount("trial")
    with Duck(place, version) as duck:
        duck.open(mount.file)
        [took] = duck.run("DELETE FROM orders WHERE id % 2 = 0")
        duck.run("DELETE FROM ledger", "CHECKPOINT")
    stage.fact("half its orders deleted, its ledger emptied", "", took)
    broken = judge(place, version, mount.file)
    stage.check("the clone has changed", broken.orders == ORDERS // 2 and broken.transfers == 0)
    place.umount(mount)
    frozen = place.mount(f"shop@{moment.ref}")
    source = judge(place, version, frozen.file)
    stage.check("what it was cloned from has not", moment.admits(source))
    place.umount(frozen)


def kill_and_remount(
    stage: Stage, place: Workplace, mount: Mount, writer: Writer, journal: Journal, version: str
) -> Mount:
    """SIGKILL to the filesystem under a stream of commits, more than once."""
    stage.chapter("The filesystem is killed in mid-commit")
    for _ in range(KILLS):
        time.sleep(1 + random.random())
        if not writer.runs():
            stage.check("the writer was writing when the filesystem was killed", False, writer.outcome())
            break
        mount.kill()
        writer.outcome()
        acknowledged = journal.acknowledged()
        mount, took = mount_it(place, mount.directory)
        stage.fact("SIGKILL, then mounted again", "", took)
        state = judge(place, version, mount.file)
        beyond = state.transfers - acknowledged
        stage.check(
            f"all {acknowledged:,} acknowledged transfers are there",
            state.is_whole() and 0 <= beyond <= 1,
            f"{max(0, -beyond)} lost, {max(0, beyond)} more that was in flight",
        )
        writer = Writer(place, version, mount.file, place.directory / "journal")
    time.sleep(1)
    writer.stop()
    return mount


def take_away(stage: Stage, place: Workplace, mount: Mount, plain: Path, versions: list[str]) -> None:
    """What is stored, whether it is sound, and the way out."""
    stage.chapter("What is stored, and the way out")
    place.umount(mount)
    stage.block(place.fs("show", "shop"))
    with stopwatch() as seconds:
        report = place.fs_json("verify", "--deep")
    stage.fact("every byte of every layer verified", size(report["checked_bytes"]), seconds[0])
    stage.check("no damage", report["ok"])
    out = place.directory / "out.duckdb"
    with stopwatch() as seconds:
        place.fs("export", "shop", str(out))
    stage.fact("exported to a plain file", size(out.stat().st_size), seconds[0])
    state = judge(place, versions[-1], out)
    stage.check(f"DuckDB {versions[-1]} opens it without OpenDuck", state.is_whole())
    started = judge(place, versions[-1], plain)
    stage.check("the file it all began with is untouched", started == State(0, 0, 0, ORDERS))


def judge(place: Workplace, version: str, path: Path) -> State:
    """Opens a database read-only and looks at it."""
    with Duck(place, version) as duck:
        duck.open(path, read_only=True)
        return State(*duck.row(JUDGE))
