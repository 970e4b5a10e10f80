"""What one small commit costs on disk beyond the bytes that DuckDB wrote for it.

Two databases get the same commits, one of them more of them; both are unmounted, which seals
their layers at their true ends. What the additional commits added, less the growth of the WAL, is
what the log costs by commit: no constant part of a layer counts, only the index's few bytes each.
"""

from fsbench.bench import Bench
from fsbench.report import Row

FEW, MANY = 100, 1_100
BAR_BYTES = 4096


def measure(bench: Bench) -> None:
    """The difference between many commits and few."""
    bench.report.heading(f"bytes stored per single-row commit ({MANY - FEW:,} commits)")
    few_stored, few_written = commit(bench, FEW)
    many_stored, many_written = commit(bench, MANY)
    written = (many_written - few_written) / (MANY - FEW)
    stored = (many_stored - few_stored) / (MANY - FEW)
    bench.report.add(
        Row(
            "stored beyond what was written",
            stored - written,
            "B",
            bar=BAR_BYTES,
            note=f"{written:.0f} B written",
        ),
    )


def commit(bench: Bench, commits: int) -> tuple[int, int]:
    """Makes a database of so many commits; bytes stored for it, bytes in its WAL."""
    name = f"stored{commits}"
    mount = bench.place.mount(name)
    with bench.duck() as duck:
        duck.open(mount.file)
        # The WAL stays as it is when the process ends: no checkpoint adds to what is measured.
        duck.run("PRAGMA disable_checkpoint_on_shutdown")
        duck.run("CREATE TABLE t (id BIGINT, note VARCHAR)", "CHECKPOINT")
        duck.insert_each("INSERT INTO t VALUES (?, 'a small note')", range(commits))
        written = mount.file.with_name(mount.file.name + ".wal").stat().st_size
        duck.close()
    bench.place.umount(mount)
    stored = bench.place.fs_json("show", name)["bytes"]
    return stored, written
