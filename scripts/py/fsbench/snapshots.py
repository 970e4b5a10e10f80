"""Snapshots and clones: metadata only, so the same time at any size of the database."""

from collections.abc import Callable

from fsbench.bench import Bench
from fsbench.report import in_milliseconds
from harness.workplace import Mount, stopwatch

SMALL_BYTES = 10_000_000
REPEATS = 15

ENGINE_SNAPSHOT_BAR_S = 0.005
ENGINE_CLONE_BAR_S = 0.010
COMMAND_BAR_S = 0.050


def measure(bench: Bench) -> None:
    """A small database and a large one, mounted and written to in between."""
    bench.report.heading("snapshot and clone, of a database that is being written")
    for size in (SMALL_BYTES, int(bench.settings.large_gb * 1e9)):
        measure_at(bench, size)


def measure_at(bench: Bench, size: int) -> None:
    """Commits a row before each one, so that there is something new to keep."""
    name = f"db{size}"
    title = f"{size / 1e9:g} GB" if size >= 1e9 else f"{size / 1e6:g} MB"
    place, report = bench.place, bench.report
    mount = fill(bench, name, size)
    found: dict[str, list[float]] = {"file": [], "snapshot": [], "list": [], "clone": []}
    with bench.duck() as duck:
        duck.open(mount.file)
        for number in range(REPEATS):
            duck.run("INSERT INTO t VALUES (1)")
            found["file"].append(timed(snapshot_through, mount, f"file{number}"))
            duck.run("INSERT INTO t VALUES (2)")
            found["snapshot"].append(timed(place.fs, "snapshot", name, f"command{number}"))
            found["list"].append(timed(place.fs, "list"))
            duck.run("INSERT INTO t VALUES (3)")
            found["clone"].append(timed(place.fs, "clone", name, "copy"))
            place.fs("remove", "copy")
        duck.close()
    place.umount(mount)
    place.fs("remove", name)
    # A command's own part is what it takes beyond one that opens the store and does next to nothing.
    inside = [max(0.0, clone - empty) for clone, empty in zip(found["clone"], found["list"], strict=True)]
    report.add(
        in_milliseconds(f"snapshot, {title}: by .openduck/snapshot", found["file"], ENGINE_SNAPSHOT_BAR_S),
        in_milliseconds(f"snapshot, {title}: whole command", found["snapshot"], COMMAND_BAR_S),
        in_milliseconds(f"clone, {title}: beyond a list command", inside, ENGINE_CLONE_BAR_S),
        in_milliseconds(f"clone, {title}: whole command", found["clone"], COMMAND_BAR_S),
    )


def fill(bench: Bench, name: str, size: int) -> Mount:
    """Writes a database of that size through the mount, and mounts it anew, so that nothing of the
    load is left to be done."""
    mount = bench.place.mount(name)
    with bench.duck() as duck:
        duck.open(mount.file)
        # Hashes of 8 bytes each, which no compression makes smaller.
        duck.run(f"CREATE TABLE t AS SELECT hash(i) AS id FROM range({size // 8}) AS r(i)", "CHECKPOINT")
        duck.close()
    bench.place.umount(mount)
    return bench.place.mount(name)


def snapshot_through(mount: Mount, name: str) -> None:
    """Takes a snapshot by the file in the mount: no process is started, so this is the engine and
    one write through the kernel."""
    (mount.directory / ".openduck/snapshot").write_text(name + "\n")


def timed(action: Callable[..., object], *arguments: object) -> float:
    with stopwatch() as seconds:
        action(*arguments)
    return seconds[0]
