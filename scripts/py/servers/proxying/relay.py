"""Passing one client's connection on: as bytes, or request by request."""

from __future__ import annotations

import asyncio
import collections
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from servers.proxying.answers import failure, is_list, success
from servers.proxying.counts import Counts, Passage
from servers.proxying.faults import Faults, Rule
from servers.proxying.line import CHUNK_BYTES, Lane, Line, abort, acknowledge_at_once
from servers.proxying.message import Head, body_of, has_body, read_head
from servers.proxying.mute import Mute

STREAM_LIMIT = 1 << 20
# For how long answers to lists are kept, to be given again.
LISTS_KEPT_S = 120.0


@dataclass
class Shared:
    """What all connections of a proxy have in common."""

    upstream: tuple[str, int]
    faults: Faults
    # PostgreSQL's notifications are swallowed, on connections that begin from now on.
    is_mute: bool = False
    line: Line = field(default_factory=Line)
    counts: Counts = field(default_factory=Counts)
    # For each list that was asked for: when, and what the server said.
    lists: dict[str, collections.deque[tuple[float, bytes]]] = field(default_factory=dict)


class Connection:
    """A client's connection and the one to the server that it is passed on by."""

    def __init__(self, shared: Shared, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.shared = shared
        self.reader = reader
        self.writer = writer
        self._server_writer: asyncio.StreamWriter | None = None
        self._lanes: list[Lane] = []
        self._uploads: list[asyncio.Task[None]] = []

    async def run(self, *, is_http: bool) -> None:
        """Serves the connection to its end."""
        self.shared.counts.connections += 1
        line = self.shared.line
        # The handshake, which the kernel has answered at once, takes a round trip, and what the client has to
        # say comes behind it.
        connected_at = asyncio.get_running_loop().time() + line.round_trip_s
        try:
            await line.gate.wait()
            server_reader, self._server_writer = await asyncio.open_connection(
                *self.shared.upstream, limit=STREAM_LIMIT
            )
            up = Lane(line, line.up, self._server_writer)
            down = Lane(line, line.down, self.writer)
            self._lanes = [up, down]
            up.opens_at = down.opens_at = connected_at
            if is_http:
                await self._pass_requests(server_reader, up, down)
            else:
                await self._pass_bytes(server_reader, up, down)
            self.writer.close()
        except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            abort(self.writer)
        finally:
            self.close()

    def close(self) -> None:
        """Ends both connections; what is on its way is lost."""
        for upload in self._uploads:
            upload.cancel()
        for lane in self._lanes:
            lane.close()
        if self._server_writer is not None:
            abort(self._server_writer)

    # ---- bytes ----

    async def _pass_bytes(self, server_reader: asyncio.StreamReader, up: Lane, down: Lane) -> None:
        counts = self.shared.counts
        mute = Mute() if self.shared.is_mute else None
        has_answered = True

        async def upwards() -> None:
            nonlocal has_answered
            while data := await self.reader.read(CHUNK_BYTES):
                if has_answered:
                    has_answered = False
                    counts.turns += 1
                counts.bytes_up += len(data)
                await up.send(data)
            await up.finish()

        async def downwards() -> None:
            nonlocal has_answered
            while data := await server_reader.read(CHUNK_BYTES):
                has_answered = True
                counts.bytes_down += len(data)
                await down.send(data if mute is None else mute.pass_on(data))
            await down.finish()

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(upwards())
                group.create_task(downwards())
        except* OSError:
            # A reset of one side is one of the other.
            abort(self.writer)

    # ---- requests ----

    async def _pass_requests(self, server_reader: asyncio.StreamReader, up: Lane, down: Lane) -> None:
        while (request := await read_head(self.reader)) is not None:
            passage = self.shared.counts.begin(request.method, request.target, request.get("range") or "")
            rule = self.shared.faults.choose(request)
            passage.fault = None if rule is None else rule.kind
            exchange = Exchange(self, request, rule, passage, server_reader, up, down)
            try:
                goes_on = await exchange.run()
            finally:
                self.shared.counts.end(passage)
            if not goes_on:
                return

    def upload(self, task: asyncio.Task[None]) -> None:
        self._uploads = [task]

    def hurry_server(self) -> None:
        """The server need not wait for an acknowledgement before it goes on with its answer."""
        if self._server_writer is not None:
            acknowledge_at_once(self._server_writer)


class Exchange:
    """One request and its answer, with at most one fault."""

    def __init__(
        self,
        connection: Connection,
        request: Head,
        rule: Rule | None,
        passage: Passage,
        server_reader: asyncio.StreamReader,
        up: Lane,
        down: Lane,
    ) -> None:
        self.connection = connection
        self.shared = connection.shared
        self.request = request
        self.rule = rule
        self.kind = "" if rule is None else rule.kind
        self.passage = passage
        self.server_reader = server_reader
        self.up = up
        self.down = down
        self._may_send_body = "100-continue" not in (request.get("expect") or "").lower()

    async def run(self) -> bool:
        """Whether the connection may serve another request."""
        rule = self.rule
        if rule is not None:
            if self.kind in ("status", "swallow"):
                body = await self._take_body()
                await asyncio.sleep(self.shared.line.up.delay_s)
                made_up = failure(rule.status) if self.kind == "status" else success(self.request, body)
                assert made_up is not None
                return await self._say(made_up)
            if self.kind == "reset" and rule.after is None:
                raise ConnectionError("injected")
            if self.kind == "stall" and rule.after is None:
                await asyncio.sleep(rule.seconds)
            if self.kind == "stale" and (old := self._old_list(rule.seconds)) is not None:
                return await self._say(old)
        upload = asyncio.create_task(self._send_request())
        self.connection.upload(upload)
        answer = await self._answer_head(upload)
        goes_on = await self._pass_answer(answer)
        if not upload.done() and not self._may_send_body:
            # The client was told before it was asked to go on: its body will not come.
            return False
        await upload
        return goes_on and not answer.is_last and not self.request.is_last

    async def _take_body(self) -> bytes:
        """The request's body, which goes no further."""
        if not self._may_send_body:
            await self.down.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        pieces = [piece async for piece in body_of(self.connection.reader, self.request, until_end=False)]
        self.passage.bytes_up += sum(map(len, pieces))
        return b"".join(pieces)

    async def _send_request(self) -> None:
        await self.up.send(self.request.encode())
        body = body_of(self.connection.reader, self.request, until_end=False)
        if self.kind == "corrupt_upload":
            body = self._flipped(body, self.request.length)
        async for piece in body:
            self.passage.bytes_up += len(piece)
            await self.up.send(piece)

    async def _answer_head(self, upload: asyncio.Task[None]) -> Head:
        """The answer's head. Leaves with the upload's error where that ends first."""
        while True:
            self.connection.hurry_server()
            reading = asyncio.create_task(read_head(self.server_reader))
            try:
                waiting: set[asyncio.Task[Head | None] | asyncio.Task[None]] = {reading}
                if not upload.done():
                    waiting.add(upload)
                while not reading.done():
                    done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                    if upload in done:
                        upload.result()
                        waiting.discard(upload)
            finally:
                reading.cancel()
            head = reading.result()
            if head is None:
                raise ConnectionError("the server ended the connection")
            if head.status >= 200:
                self.passage.status = head.status
                return head
            self._may_send_body = True
            await self.down.send(head.encode())

    async def _pass_answer(self, answer: Head) -> bool:
        rule = self.rule
        body = self._answer_body(answer)
        if rule is not None and self.kind in ("fail_after", "cut_after"):
            async for _ in body:
                pass
            if self.kind == "cut_after":
                raise ConnectionError("injected")
            return await self._say(failure(rule.status))
        if rule is not None and self.kind == "shorten":
            whole = b"".join([piece async for piece in body])
            kept = whole[: int(len(whole) * (rule.after or 0))]
            answer.put("Content-Length", str(len(kept)))
            return await self._say(answer.encode() + kept, is_real=True)
        if is_list(self.request) and answer.status == 200:
            whole = answer.encode() + b"".join([piece async for piece in body])
            kept_lists = self.shared.lists.setdefault(self.request.target, collections.deque(maxlen=100))
            kept_lists.append((time.monotonic(), whole))
            return await self._say(whole, is_real=True)
        await self.down.send(answer.encode())
        if rule is not None and self.kind == "corrupt":
            body = self._flipped(body, answer.length)
        if rule is not None and self.kind == "slow":
            body = _paced(body, rule.bytes_per_s)
        stop_at = None
        if rule is not None and self.kind in ("truncate", "reset", "stall") and rule.after is not None:
            stop_at = int((answer.length or 0) * rule.after)
        passed = 0
        async for piece in body:
            if stop_at is not None and passed + len(piece) >= stop_at:
                await self._pass(piece[: stop_at - passed])
                assert rule is not None
                if self.kind == "reset":
                    raise ConnectionError("injected")
                if self.kind == "truncate":
                    return False
                await asyncio.sleep(rule.seconds)
                piece, passed, stop_at = piece[stop_at - passed :], stop_at, None
            passed += len(piece)
            await self._pass(piece)
        await self.down.arrived()
        return True

    def _answer_body(self, answer: Head) -> AsyncIterator[bytes]:
        if has_body(answer, self.request.method):
            return body_of(self.server_reader, answer, until_end=True)
        return _nothing()

    async def _pass(self, piece: bytes) -> None:
        self.passage.bytes_down += len(piece)
        await self.down.send(piece)
        if self.rule is not None:
            # What a fault lets pass has arrived before it strikes.
            await self.down.arrived()

    async def _say(self, answer: bytes, *, is_real: bool = False) -> bool:
        """Answers with a whole message."""
        if not is_real:
            self.passage.status = int(answer.split(b" ", 2)[1])
        self.passage.bytes_down += len(answer)
        await self.down.send(answer)
        await self.down.arrived()
        return True

    def _old_list(self, seconds: float) -> bytes | None:
        now = time.monotonic()
        kept = self.shared.lists.get(self.request.target, collections.deque())
        while kept and now - kept[0][0] > LISTS_KEPT_S:
            kept.popleft()
        return next((answer for at, answer in kept if now - at <= seconds), None)

    async def _flipped(self, body: AsyncIterator[bytes], length: int | None) -> AsyncIterator[bytes]:
        """The body with one bit of it flipped."""
        chance = self.shared.faults.chance
        left = chance.randrange(length) if length else None
        async for piece in body:
            if left is not None and left < len(piece):
                wrong = bytearray(piece)
                wrong[left] ^= 1 << chance.randrange(8)
                piece, left = bytes(wrong), None
            elif left is not None:
                left -= len(piece)
            yield piece


async def _paced(body: AsyncIterator[bytes], bytes_per_s: float) -> AsyncIterator[bytes]:
    step = max(1, int(bytes_per_s / 20))
    async for piece in body:
        for at in range(0, len(piece), step):
            part = piece[at : at + step]
            await asyncio.sleep(len(part) / bytes_per_s)
            yield part


async def _nothing() -> AsyncIterator[bytes]:
    for piece in list[bytes]():
        yield piece
