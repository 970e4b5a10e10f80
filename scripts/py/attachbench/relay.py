"""A relay that counts: what really crosses between a client and a server, in bytes each way."""

import contextlib
import socket
import threading
from collections.abc import Iterator

from servers.processes import LOOPBACK


class Relay:
    """Passes connections on to a port of this host, in threads of its own."""

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self._sockets: list[socket.socket] = []
        self._counting = threading.Lock()
        self.port = 0
        self.up_bytes = 0
        self.down_bytes = 0

    @contextlib.contextmanager
    def running(self) -> Iterator["Relay"]:
        with socket.create_server((LOOPBACK, 0)) as listener:
            self.port = listener.getsockname()[1]
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
            yield self
            for each in [listener, *self._sockets]:
                # Wakes the thread that reads it.
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.create_connection((LOOPBACK, self._to_port))
            self._sockets += [client, server]
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for pair, count in (((client, server), "up_bytes"), ((server, client), "down_bytes")):
                threading.Thread(target=self._copy, args=(*pair, count), daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket, count: str) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(1 << 16):
                with self._counting:
                    setattr(self, count, getattr(self, count) + len(piece))
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)
