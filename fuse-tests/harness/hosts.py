"""Several hosts that share one store: a PostgreSQL database and a bucket.

A `Host` is a home with a network of its own: one proxy to the catalog, one to the objects, and where a
partition is needed a network namespace. It is known by its own host name. It can be partitioned, paused, and
lost with everything on its disk.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from harness.openduck import Home, Mount, lazy_unmount
from harness.processes import is_alive, wait_until
from servers.namespace import Namespace
from servers.postgres import PostgresServer
from servers.proxy import Proxy
from servers.s3 import Bucket

# fsync answers when another host could read what was written.
REMOTE = ("--durability", "remote")
# The contract: the lease is 15 s long, and nobody waits longer than this for a takeover.
LEASE_S = 15.0
TAKEOVER_S = 20.0
# What a busy machine adds to any time that is promised.
SLACK_S = 5.0

# Gives a command another host name, and is gone: its process is the command's.
_HOST_NAME = ("unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"')


@dataclass
class Store:
    """What all hosts share, as its servers show it."""

    postgres: PostgresServer
    database: str
    bucket: Bucket
    prefix: str = "team/ducks"

    @property
    def objects_url(self) -> str:
        return f"s3://{self.bucket.name}/{self.prefix}"

    def object_sizes(self) -> dict[str, int]:
        """Every object below the store's prefix."""
        return self.bucket.sizes(f"{self.prefix}/")

    def environment(self, meta_port: int, endpoint: str) -> dict[str, str]:
        """What tells openduck-fs to use this store, through two proxies."""
        return {
            "OPENDUCK_META": self.postgres.url(self.database, port=meta_port),
            "OPENDUCK_OBJECTS": self.objects_url,
            **self.bucket.environment(endpoint),
        }


@dataclass(kw_only=True)
class Host(Home):
    """See the module's text."""

    name: str
    store: Store
    # The network to the catalog and to the objects.
    meta: Proxy
    objects: Proxy
    namespace: Namespace | None = None
    _paused: list[int] = field(default_factory=list)

    def partition(self) -> None:
        """From now on nothing that this host sends arrives anywhere, and nobody tells it."""
        if self.namespace is not None:
            self.namespace.cut()
        else:
            self.meta.freeze()
            self.objects.freeze()

    def heal(self) -> None:
        """The network works again."""
        if self.namespace is not None:
            self.namespace.heal()
        for proxy in (self.meta, self.objects):
            proxy.heal()
            proxy.clear_faults()

    def pause(self) -> None:
        """SIGSTOP to every mounting process."""
        for pid in self.servers:
            if self.is_own_server(pid):
                os.kill(pid, signal.SIGSTOP)
                self._paused.append(pid)
        wait_until(f"the processes of {self.name} to stand still", lambda: all(map(is_paused, self._paused)))

    def resume(self) -> None:
        """SIGCONT to those that were paused."""
        for pid in self._paused:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self._paused.clear()

    def crash(self) -> None:
        """Every mounting process ends at once; the disk is as they left it."""
        self.kill_servers()
        wait_until(f"the processes of {self.name} to be gone", lambda: not any(map(is_alive, self.servers)))
        for directory in self.mount_dirs:
            lazy_unmount(directory)
        self.mounts.clear()

    def burn(self) -> None:
        """The machine is lost: every mounting process ends at once, and the home with its cache is gone."""
        self.crash()
        shutil.rmtree(self.path, ignore_errors=True)
        assert not self.path.exists(), f"{self.path} is still there"

    def close(self) -> None:
        """As a home closes; what was paused, cut or frozen would only make that slow."""
        self.resume()
        self.heal()
        super().close()


def local(lag: str = "1s") -> tuple[str, ...]:
    """fsync answers when this machine's disk has it; the store has it within the lag."""
    return ("--durability", "local", "--lag", lag)


def take_over(host: Host, database: str, *flags: str) -> Mount:
    """Mounts for writing what another host holds, or held; within the time that the contract names."""
    begin = time.monotonic()
    mount = host.mount(database, "--steal", *flags, timeout_s=90)
    seconds = time.monotonic() - begin
    assert seconds < TAKEOVER_S + SLACK_S, f"{host.name} waited {seconds:.1f} s for the writer's place"
    return mount


def wait_for_publication(writer: Mount, reader: Host) -> None:
    """Returns when another host could read what a local writer has acknowledged by now."""
    lsn = writer.head_lsn
    wait_until(
        f"commit {lsn} to be published", lambda: reader.head_lsn(writer.database) >= lsn, 2 * SLACK_S, 0.1
    )


def write_database(host: Host, database: str, data: bytes) -> None:
    """A database whose file holds these bytes, in the store and unmounted. No DuckDB would open it, but each
    byte of it is known, and referred to."""
    mount = host.mount(database, *REMOTE)
    fd = os.open(mount.file, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        with memoryview(data) as view:
            for at in range(0, len(view), 1 << 20):
                os.write(fd, view[at : at + (1 << 20)])
        os.fsync(fd)
    finally:
        os.close(fd)
    mount.umount()


def is_paused(pid: int) -> bool:
    """Whether every thread of a process stands still."""
    tasks = Path(f"/proc/{pid}/task").glob("*/stat")
    return all(task.read_text().rpartition(")")[2].split()[0] == "T" for task in tasks)


def command_prefix(name: str, namespace: Namespace | None) -> list[str]:
    """What stands before a host's commands."""
    inside = [] if namespace is None else namespace.prefix
    return [*inside, *_HOST_NAME, name] if os.geteuid() == 0 else inside


def host_paths(work: Path, name: str) -> tuple[Path, Path]:
    """Where a host's home and its mounts lie."""
    mounts = work / f"mnt-{name}"
    mounts.mkdir()
    return work / f"home-{name}", mounts
