"""HTTP/1.1 messages as a proxy needs them: a head, and where its body ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from servers.proxying.line import CHUNK_BYTES


@dataclass
class Head:
    """A request's or an answer's first line and headers."""

    first: str
    headers: list[tuple[str, str]]

    @property
    def method(self) -> str:
        return self.first.split(" ", 2)[0]

    @property
    def target(self) -> str:
        return self.first.split(" ", 2)[1]

    @property
    def status(self) -> int:
        return int(self.first.split(" ", 2)[1])

    def get(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)

    def put(self, name: str, value: str) -> None:
        self.headers = [(key, old) for key, old in self.headers if key.lower() != name.lower()]
        self.headers.append((name, value))

    @property
    def length(self) -> int | None:
        value = self.get("content-length")
        return None if value is None else int(value)

    @property
    def is_chunked(self) -> bool:
        return "chunked" in (self.get("transfer-encoding") or "").lower()

    @property
    def is_last(self) -> bool:
        """Whether the connection ends behind this message."""
        return "close" in (self.get("connection") or "").lower()

    def encode(self) -> bytes:
        lines = [self.first, *(f"{name}: {value}" for name, value in self.headers), "", ""]
        return "\r\n".join(lines).encode("latin-1")


async def read_head(reader: asyncio.StreamReader) -> Head | None:
    """The next head; `None` at the end of the connection."""
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as end:
        if end.partial:
            raise ConnectionError("the connection ended within a head") from None
        return None
    first, *lines = raw.decode("latin-1").split("\r\n")[:-2]
    headers = []
    for line in lines:
        name, _, value = line.partition(":")
        headers.append((name.strip(), value.strip()))
    return Head(first, headers)


def has_body(head: Head, method: str) -> bool:
    """Whether an answer to `method` has a body."""
    return method != "HEAD" and head.status >= 200 and head.status not in (204, 304)


async def body_of(reader: asyncio.StreamReader, head: Head, *, until_end: bool) -> AsyncIterator[bytes]:
    """A body as it stands on the wire, chunked framing and all; `until_end` where it ends with the connection
    if nothing else says where."""
    if head.is_chunked:
        async for piece in _chunks(reader):
            yield piece
    elif head.length is not None:
        left = head.length
        while left:
            piece = await reader.read(min(left, CHUNK_BYTES))
            if not piece:
                raise ConnectionError("the connection ended within a body")
            left -= len(piece)
            yield piece
    elif until_end:
        while piece := await reader.read(CHUNK_BYTES):
            yield piece


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while True:
        line = await reader.readuntil(b"\r\n")
        yield line
        size = int(line.split(b";")[0], 16)
        if size == 0:
            # Trailers, if any, and the empty line.
            while True:
                line = await reader.readuntil(b"\r\n")
                yield line
                if line == b"\r\n":
                    return
        yield await reader.readexactly(size + 2)
