"""Takes one order a line (JSON) on stdin, answers each with a line on stdout, and ends with its input."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

from servers.proxying.faults import Faults
from servers.proxying.line import abort
from servers.proxying.relay import STREAM_LIMIT, Connection, Shared

CLONE_NEWNET = 0x40000000


class Proxy:
    """The listener, its connections, and the orders."""

    def __init__(self, shared: Shared, namespace: Path | None, *, is_http: bool) -> None:
        self.shared = shared
        self._namespace = namespace
        self._is_http = is_http
        self._port = 0
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], Connection] = {}

    async def listen(self) -> int:
        """Begins to accept connections, always on the same port."""
        listener = listening_socket(self._port, self._namespace)
        self._port = listener.getsockname()[1]
        self._server = await asyncio.start_server(self._accepted, sock=listener, limit=STREAM_LIMIT)
        return self._port

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connection = Connection(self.shared, reader, writer)
        self._connections[task] = connection
        try:
            await connection.run(is_http=self._is_http)
        except asyncio.CancelledError:
            pass
        finally:
            del self._connections[task]

    async def order(self, name: str, arguments: dict[str, Any]) -> Any:
        shared = self.shared
        match name:
            case "shape":
                shared.line.shape(**arguments)
            case "add_fault":
                return shared.faults.add(arguments)
            case "clear_faults":
                shared.faults.clear(**arguments)
            case "freeze":
                shared.line.gate.clear()
            case "disconnect":
                self._disconnect()
            case "cut":
                if self._server is not None:
                    self._server.close()
                    self._server = None
                self._disconnect()
            case "heal":
                shared.line.gate.set()
                if self._server is None:
                    await self.listen()
            case "mute":
                shared.is_mute = True
                self._disconnect()
            case "point_at":
                shared.upstream = (arguments["host"], arguments["port"])
                self._disconnect()
            case "counts":
                return shared.counts.document()
            case "log":
                return shared.counts.log()
            case "reset_counts":
                shared.counts.reset()
            case _:
                raise ValueError(f"no such order: {name!r}")
        return None

    def _disconnect(self) -> None:
        for task, connection in list(self._connections.items()):
            abort(connection.writer)
            connection.close()
            task.cancel()


def listening_socket(port: int, namespace: Path | None) -> socket.socket:
    """A socket on the loopback; of another network namespace where one is named, since a socket belongs to
    the one that it was made in."""
    with contextlib.ExitStack() as stack:
        if namespace is not None:
            own = os.open("/proc/self/ns/net", os.O_RDONLY)
            stack.callback(os.close, own)
            other = os.open(namespace, os.O_RDONLY)
            stack.callback(os.close, other)
            enter(other)
            stack.callback(enter, own)
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(256)
        return listener


def enter(namespace: int) -> None:
    """Moves this thread into a network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upstream", required=True, metavar="HOST:PORT")
    parser.add_argument("--http", action="store_true", help="requests instead of bytes")
    parser.add_argument("--namespace", type=Path, metavar="FILE", help="listen in this network namespace")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    host, _, port = options.upstream.rpartition(":")
    proxy = Proxy(Shared((host, int(port)), Faults(options.seed)), options.namespace, is_http=options.http)
    say({"answer": await proxy.listen()})
    orders = asyncio.StreamReader(limit=1 << 20)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while line := await orders.readline():
        name, arguments = json.loads(line)
        try:
            say({"answer": await proxy.order(name, arguments)})
        except (ValueError, TypeError, KeyError, OSError) as error:
            say({"error": f"{type(error).__name__}: {error}"})
    # Nothing that is still under way is waited for.
    os._exit(0)


def say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
