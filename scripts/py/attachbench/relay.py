"""A relay that counts: what really crosses between a client and a server, in bytes each way."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator

from servers.processes import LOOPBACK


class Relay:
    """Passes connections on to a port of this host, in a thread of its own."""

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self.port = 0
        self.up_bytes = 0
        self.down_bytes = 0

    @contextlib.contextmanager
    def running(self) -> Iterator["Relay"]:
        loop = asyncio.new_event_loop()
        server = loop.run_until_complete(asyncio.start_server(self._pass, LOOPBACK, 0))
        self.port = server.sockets[0].getsockname()[1]
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(server.close)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(10)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        other_reader, other_writer = await asyncio.open_connection(LOOPBACK, self._to_port)
        await asyncio.gather(
            self._copy(reader, other_writer, "up_bytes"), self._copy(other_reader, writer, "down_bytes")
        )

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, count: str) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(1 << 16):
                setattr(self, count, getattr(self, count) + len(piece))
                writer.write(piece)
                await writer.drain()
        writer.close()
