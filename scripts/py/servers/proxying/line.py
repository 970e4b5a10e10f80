"""The line between client and server: how long bytes travel, how many fit, and whether any pass at all.

One line serves all connections of a proxy, so they share its width. Each connection has a `Lane` per
direction, in which bytes arrive in order and in time; a lane that is full makes its sender wait, as a socket
does.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import socket
import struct

# At most as much is on its way in one lane, beyond what the line's length and width ask for.
LANE_BYTES = 1 << 20
CHUNK_BYTES = 256 << 10


class Direction:
    """One direction of the line."""

    def __init__(self) -> None:
        self.delay_s = 0.0
        self.bytes_per_s: float | None = None
        self._free_at = 0.0

    def arrival(self, size: int, not_before: float) -> float:
        """Sends so many bytes now, or when they may be: when they arrive, by the loop's clock."""
        now = max(asyncio.get_running_loop().time(), not_before)
        self._free_at = max(now, self._free_at)
        if self.bytes_per_s:
            self._free_at += size / self.bytes_per_s
        return self._free_at + self.delay_s

    @property
    def lane_bytes(self) -> float:
        return LANE_BYTES + 2 * self.delay_s * (self.bytes_per_s or (1 << 27))


class Line:
    """Both directions, and a gate that stops everything."""

    def __init__(self) -> None:
        self.up = Direction()
        self.down = Direction()
        self.gate = asyncio.Event()
        self.gate.set()

    @property
    def round_trip_s(self) -> float:
        return self.up.delay_s + self.down.delay_s

    def shape(self, round_trip_s: float, bytes_per_s: float | None) -> None:
        for direction in (self.up, self.down):
            direction.delay_s = round_trip_s / 2
            direction.bytes_per_s = bytes_per_s


class Lane:
    """One connection's bytes in one direction, on their way to `writer`."""

    def __init__(self, line: Line, direction: Direction, writer: asyncio.StreamWriter) -> None:
        # Nothing is sent before: the connection is still being made.
        self.opens_at = 0.0
        self._line = line
        self._direction = direction
        self._writer = writer
        self._queue: collections.deque[tuple[float, bytes]] = collections.deque()
        self._bytes = 0
        self._changed = asyncio.Condition()
        self._error: Exception | None = None
        self._task = asyncio.create_task(self._deliver())

    async def send(self, data: bytes) -> None:
        """Puts bytes on their way; waits while the lane is full."""
        async with self._changed:
            while self._bytes > self._direction.lane_bytes and self._error is None:
                await self._changed.wait()
            if self._error is not None:
                raise self._error
            self._queue.append((self._direction.arrival(len(data), self.opens_at), data))
            self._bytes += len(data)
            self._changed.notify_all()

    async def arrived(self) -> None:
        """Waits until everything that was sent has arrived."""
        async with self._changed:
            while self._bytes and self._error is None:
                await self._changed.wait()
            if self._error is not None:
                raise self._error

    async def finish(self) -> None:
        """Everything arrives, and then the end of the stream does."""
        await self.arrived()
        with contextlib.suppress(OSError):
            self._writer.write_eof()

    def close(self) -> None:
        self._task.cancel()

    async def _deliver(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                async with self._changed:
                    while not self._queue:
                        await self._changed.wait()
                    due, data = self._queue.popleft()
                if (wait_s := due - loop.time()) > 0:
                    await asyncio.sleep(wait_s)
                await self._line.gate.wait()
                self._writer.write(data)
                await self._writer.drain()
                async with self._changed:
                    self._bytes -= len(data)
                    self._changed.notify_all()
        except OSError as error:
            async with self._changed:
                self._error = error
                self._changed.notify_all()


def acknowledge_at_once(writer: asyncio.StreamWriter) -> None:
    """Has the kernel acknowledge what comes next without delay. A server that writes an answer's head and
    body apart, and has not turned Nagle's algorithm off, waits with the second for the acknowledgement of
    the first: 40 ms that no line ever had. The kernel forgets this by and by, so it is said for each
    answer."""
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


def abort(writer: asyncio.StreamWriter) -> None:
    """Ends a connection by a reset, without a word."""
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
