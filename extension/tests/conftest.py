"""A real server for each file of tests, and connections with the extension.

OPENDUCK and OPENDUCK_FS name the binaries, OPENDUCK_EXTENSION_DIR the directory with the extension.
"""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

TOKEN = "a-token-of-the-tests"
# These have a configuration of their own, and are run by their own folders' names.
collect_ignore = ["differential", "python"]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    """`openduck serve` on a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.process = None
        self.start()

    def start(self) -> None:
        """Starts it, and waits until it is ready."""
        command = [os.environ["OPENDUCK"], "--home", str(self.home), "serve", "-d", "mydb"]
        command += ["--listen", f"127.0.0.1:{self.port}", "--mounter", os.environ["OPENDUCK_FS"]]
        environment = dict(os.environ, OPENDUCK_TOKEN=TOKEN)
        log = (self.home.parent / "server.log").open("ab")
        self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert self.process.poll() is None, (self.home.parent / "server.log").read_text()
            try:
                self.connect().close()
            except duckdb.Error:
                time.sleep(0.1)
                continue
            return
        raise TimeoutError((self.home.parent / "server.log").read_text())

    def stop(self) -> None:
        """Ends it in order."""
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        # A mount of a server that was killed may still be there.
        for place in self.mounts():
            command = [os.environ["OPENDUCK_FS"], "--home", str(self.home), "umount", place]
            subprocess.run(command, check=False, stdout=subprocess.DEVNULL)

    def mounts(self) -> list[str]:
        """What is mounted below its home."""
        places = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        return [place for place in places if place.startswith(str(self.home))]

    def kill(self) -> None:
        """Kills it, and waits until its worker has ended by itself."""
        self.process.kill()
        self.process.wait()
        deadline = time.monotonic() + 30
        while self.mounts() and time.monotonic() < deadline:
            time.sleep(0.05)

    def connect(self, options: str = "") -> duckdb.DuckDBPyConnection:
        """A connection with the database attached as `cloud`."""
        con = connection()
        con.execute(f"ATTACH 'openduck:mydb' AS cloud (ENDPOINT '{self.endpoint}', TOKEN '{TOKEN}'{options})")
        return con


def connection() -> duckdb.DuckDBPyConnection:
    """A connection with the extension."""
    con = duckdb.connect(config={"allow_unsigned_extensions": "true"})
    con.execute(f"LOAD '{os.environ['OPENDUCK_EXTENSION_DIR']}/openduck.duckdb_extension'")
    return con


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server."""
    running = Server(tmp_path_factory.mktemp("server") / "home")
    yield running
    running.stop()
