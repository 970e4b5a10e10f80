"""What every measurement gets: hosts, the line to the store, the settings, the report.

A host is a workplace of its own, with its own home and its own proxy to the objects. The catalog is
reached without one, as on a local network. The highest memory use of every mounting process is kept, since
the last row is about it.
"""

import itertools
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from fsbench.report import Report
from harness.duck import Duck
from harness.workplace import Mount, Workplace
from servers.postgres import PostgresServer
from servers.proxy import Counts, Proxy
from servers.s3 import Bucket, S3Server

LOCAL = ("--durability", "local", "--lag", "1s")
REMOTE = ("--durability", "remote")
LAG_S = 1.0


@dataclass(frozen=True)
class Settings:
    """How much of everything."""

    version: str
    rounds: int
    load_rows: int
    commits: int
    visible_commits: int
    wide_gb: float
    scale_factor: float
    # The line of the commits, and of the scans.
    commit_round_trip_s: float
    scan_round_trip_s: float
    bytes_per_s: float


class NothingMeasured(Exception):
    """The figure would be about something else."""


@dataclass(frozen=True)
class Host:
    """A machine of the team."""

    place: Workplace
    objects: Proxy

    def counts(self) -> Counts:
        """What passed between this host and the store; a measurement during which nothing did is none."""
        counts = self.objects.counts()
        if counts.requests == 0:
            raise NothingMeasured("not one request reached the store")
        return counts


class Bench:
    """See the module's text. Use it in a `with` statement."""

    def __init__(self, place: Workplace, settings: Settings, report: Report) -> None:
        self.place = place
        self.settings = settings
        self.report = report
        self.memory: dict[str, int] = {}
        self._stack = ExitStack()
        self._numbers = itertools.count(1)
        # Where the user postgres can get at it, which a cache in root's home is not.
        shared = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="openduck-bench-")))
        shared.chmod(0o755)
        # The commits of the catalog wait for the disk, as they do in the field.
        self._postgres = PostgresServer(shared / "postgres", is_durable=True)
        self._s3 = S3Server(place.directory / "s3")

    def __enter__(self) -> "Bench":
        self._stack.callback(self._s3.stop)
        self._stack.callback(self._postgres.kill)
        self._postgres.start()
        self._s3.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def new_store(self) -> "Store":
        """A database and a bucket that are empty."""
        name = f"bench_{next(self._numbers)}"
        self._postgres.new_database(name)
        return Store(self, name, self._s3.new_bucket(name.replace("_", "-")))

    def new_local_home(self) -> Workplace:
        """A home with the embedded default: no store, no uploads."""
        return self._stack.enter_context(Workplace("bench-local"))

    def new_host(self, store: "Store") -> Host:
        """A machine that never saw the store."""
        objects = Proxy(self._s3.port, is_http=True)
        self._stack.callback(objects.close)
        environment = {
            "OPENDUCK_META": self._postgres.url(store.database),
            "OPENDUCK_OBJECTS": f"s3://{store.bucket.name}/bench",
            **store.bucket.environment(objects.endpoint),
        }
        return Host(self._stack.enter_context(Workplace("bench-host", environment)), objects)

    def duck(self) -> Duck:
        """A new DuckDB process."""
        return Duck(self.place, self.settings.version)

    def umount(self, what: str, place: Workplace, mount: Mount) -> None:
        """Unmounts, and keeps how much memory the mounting process had at its most."""
        self.memory[what] = max(self.memory.get(what, 0), resident_bytes(mount.pid))
        place.umount(mount)


@dataclass(frozen=True)
class Store:
    """What some hosts share."""

    bench: Bench
    database: str
    bucket: Bucket

    def new_host(self) -> Host:
        return self.bench.new_host(self)


def resident_bytes(pid: int) -> int:
    """The most that a process ever had in memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
