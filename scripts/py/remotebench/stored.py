"""What the bucket holds for DuckDB's own blocks: TPC-H, as DuckDB stores it, against the file's size."""

from fsbench.report import Row
from fsbench.tpch import Tpch
from remotebench.bench import Bench

BAR = 0.8


def measure(bench: Bench) -> None:
    """Imported, so that each byte is there once."""
    settings = bench.settings
    bench.report.heading(f"bytes in the bucket, TPC-H SF{settings.scale_factor:g}")
    data = Tpch(settings.scale_factor)
    data.prepare(bench.place)
    store = bench.new_store()
    host = store.new_host()
    host.place.fs("import", str(data.path), "tpch", timeout_s=1800)
    host.counts()
    stored, raw = store.bucket.total_bytes(), data.path.stat().st_size
    bench.report.add(
        Row(
            "bytes in the bucket, against raw",
            stored / raw,
            "x",
            bar=BAR,
            note=f"{stored / 1e6:,.0f} of {raw / 1e6:,.0f} MB",
        )
    )
