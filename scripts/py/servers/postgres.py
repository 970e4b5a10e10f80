"""A real PostgreSQL server (Debian's), and its databases.

It can be stopped, restarted and killed. It keeps its port, so what was connected can connect again. It can
have a standby, which is a server of its own once it is promoted.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path

from servers.processes import (
    LOOPBACK,
    ServerFailed,
    children_of,
    end,
    free_port,
    last_lines,
    start_server,
    wait_for_server,
)

OWNER = "postgres"
ROLE = "openduck"
# What a primary calls its standby.
STANDBY = "standby"

# Small, and quick to end; connections are many, since each host of a test has a pool.
SETTINGS = {
    "listen_addresses": LOOPBACK,
    "max_connections": "200",
    "shared_buffers": "32MB",
    "logging_collector": "off",
    "log_min_messages": "warning",
}


def server_programs() -> Path:
    """Where `initdb`, `postgres` and `psql` are: OPENDUCK_POSTGRES_BIN, or Debian's newest."""
    if named := os.environ.get("OPENDUCK_POSTGRES_BIN"):
        return Path(named)
    versions = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if (path / "initdb").exists()]
    if versions:
        return max(versions, key=lambda path: float(path.parent.name))
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    raise ServerFailed(
        "there is no PostgreSQL here: install Debian's postgresql, or set OPENDUCK_POSTGRES_BIN"
    )


class PostgresServer:
    """One cluster below `directory`, and the process that serves it."""

    def __init__(
        self, directory: Path, *, is_durable: bool = False, primary: PostgresServer | None = None
    ) -> None:
        """Makes the cluster. Unless it `is_durable` its commits do not wait for the disk, which matters only
        to a power failure, and to measurements. With a `primary`, which runs, it is that one's standby."""
        self._programs = server_programs()
        self._directory = directory
        self._password = secrets.token_hex(16) if primary is None else primary._password
        self.log = directory / "postgres.log"
        self.port = 0
        self._has_role = primary is not None
        self._process: subprocess.Popen[bytes] | None = None
        self._settings = {
            **SETTINGS,
            "unix_socket_directories": str(directory),
            "fsync": "on" if is_durable else "off",
        }
        directory.mkdir(parents=True)
        if os.geteuid() == 0:
            shutil.chown(directory, OWNER, OWNER)
        if primary is None:
            self._initialize()
        else:
            self._copy(primary)

    def _initialize(self) -> None:
        password_file = self._directory / "password"
        password_file.write_text(self._password)
        if os.geteuid() == 0:
            shutil.chown(password_file, OWNER, OWNER)
        self._make(
            "initdb",
            *("--pgdata", self._data, "--username", OWNER, "--pwfile", password_file),
            *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync"),
        )

    def _copy(self, primary: PostgresServer) -> None:
        """Copies a running server's cluster, to follow it."""
        source = (
            f"host={LOOPBACK} port={primary.port} user={OWNER} password={self._password} "
            f"application_name={STANDBY}"
        )
        self._make(
            "pg_basebackup",
            *("--pgdata", self._data, "--dbname", source, "--write-recovery-conf"),
            *("--wal-method", "stream", "--checkpoint", "fast", "--no-sync"),
        )

    def _make(self, program: str, *arguments: str | Path) -> None:
        log = self._directory / f"{program}.log"
        making = start_server([self._programs / program, *arguments], log, user=OWNER)
        if making.wait(60) != 0:
            raise ServerFailed(f"{program} failed:\n{last_lines(log)}")

    @property
    def _data(self) -> Path:
        return self._directory / "data"

    def url(self, database: str, *, port: int | None = None) -> str:
        """How a program connects, through a proxy's port where one is named."""
        return f"postgres://{ROLE}:{self._password}@{LOOPBACK}:{port or self.port}/{database}"

    def start(self) -> None:
        """Starts the server: the first time on a free port, then always on the same."""
        attempts = 1 if self.port else 5
        for attempt in range(attempts):
            port = self.port or free_port()
            settings = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
            process = start_server(
                [self._programs / "postgres", "-D", self._data, "-p", str(port), *settings],
                self.log,
                user=OWNER,
            )
            try:
                wait_for_server("PostgreSQL", process, self.log, functools.partial(self._answers, port), 60)
            except ServerFailed:
                end(process, signal.SIGQUIT, 10)
                if attempt + 1 == attempts:
                    raise
                continue
            self.port, self._process = port, process
            break
        if not self._has_role:
            self.sql(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{self._password}'")
            self._has_role = True

    def stop(self) -> None:
        """Stops the server in order: its clients are disconnected."""
        if self._process is not None:
            end(self._process, signal.SIGINT, 30)
            self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def kill(self) -> None:
        """SIGKILL to the server and to everything that it started, as the kernel's out-of-memory killer
        does."""
        if self._process is None:
            return
        pids = [*children_of(self._process.pid), self._process.pid]
        for pid in reversed(pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(10)
        self._process = None

    def wait_for_standby(self) -> None:
        """From now on no commit is acknowledged before the standby, which runs, has it too."""
        self.sql(f"ALTER SYSTEM SET synchronous_standby_names = '{STANDBY}'")
        self.sql("SELECT pg_reload_conf()")
        deadline = time.monotonic() + 30
        while self.sql("SELECT sync_state FROM pg_stat_replication") != "sync":
            if time.monotonic() > deadline:
                raise ServerFailed(f"the standby does not follow:\n{last_lines(self.log)}")
            time.sleep(0.05)

    def promote(self) -> None:
        """The standby is a primary from now on."""
        if self.sql("SELECT pg_promote()") != "t":
            raise ServerFailed(f"the standby was not promoted:\n{last_lines(self.log)}")

    def new_database(self, name: str) -> None:
        """Makes an empty database that belongs to the role of `url`, which has no rights beyond it."""
        self.sql(f"CREATE DATABASE {name} OWNER {ROLE}")

    def disconnect(self, database: str) -> int:
        """Ends every connection to a database; how many there were."""
        said = self.sql(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            f"WHERE datname = '{database}' AND pid <> pg_backend_pid()"
        )
        return int(said)

    def sql(self, text: str, database: str = "postgres") -> str:
        """Runs SQL as the server's owner, past every proxy; its rows, one a line."""
        done = subprocess.run(
            [
                str(self._programs / "psql"),
                *("--no-psqlrc", "--quiet", "--tuples-only", "--no-align"),
                *("--host", LOOPBACK, "--port", str(self.port), "--username", OWNER, "--dbname", database),
                *("--set", "ON_ERROR_STOP=1", "--command", text),
            ],
            env={**os.environ, "PGPASSWORD": self._password, "PGCONNECT_TIMEOUT": "10"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        if done.returncode != 0:
            raise ServerFailed(f"psql: {done.stderr.strip()}")
        return done.stdout.strip()

    def _answers(self, port: int) -> bool:
        command = [self._programs / "pg_isready", "--quiet", "--host", LOOPBACK, "--port", str(port)]
        return subprocess.run([str(part) for part in command]).returncode == 0
