"""A client of the protocol, written from `execution.proto` and `docs/protocol.md` alone."""

from __future__ import annotations

import io
import sys
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pyarrow as pa

END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"
MESSAGE_MAX = 64 << 20
PROTO = Path(__file__).resolve().parents[3] / "proto"


def generate_stubs(directory: Path) -> None:
    """Makes the Python stubs from the .proto file, and puts them where `import openduck` finds them."""
    from grpc_tools import protoc

    status = protoc.main(
        [
            "protoc",
            f"-I{PROTO}",
            f"--python_out={directory}",
            f"--grpc_python_out={directory}",
            "openduck/v1/execution.proto",
        ]
    )
    assert status == 0
    sys.path.insert(0, str(directory))


class Parts(io.RawIOBase):
    """Parts of a stream, as a file that can be read while they come."""

    def __init__(self, parts: Iterable[bytes]) -> None:
        self._parts = iter(parts)
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        while not self._left:
            part = next(self._parts, None)
            if part is None:
                return 0
            self._left = part
        count = min(len(into), len(self._left))
        into[:count] = self._left[:count]
        self._left = self._left[count:]
        return count


@dataclass
class Result:
    """A result that was read whole."""

    answer: Any
    table: pa.Table
    summary: Any
    streams: list[list[Any]] = field(default_factory=list)

    def rows(self) -> list[tuple[Any, ...]]:
        columns = [column.to_pylist() for column in self.table.columns]
        return list(zip(*columns, strict=True))

    def value(self) -> Any:
        [(value,)] = self.rows()
        return value


def messages(schema: bytes, responses: Sequence[Any]) -> bytes:
    """The Arrow IPC stream that the protocol promises: schema, batches in any order, the end."""
    return b"".join(
        [schema, *(r.batch for r in responses if r.WhichOneof("content") == "batch"), END_OF_STREAM]
    )


def in_order(responses: Sequence[Any]) -> list[Any]:
    """Dictionaries first, then batches by their place in the result."""
    dictionaries = [r for r in responses if r.WhichOneof("content") == "batch" and r.sequence == 0]
    batches = [r for r in responses if r.WhichOneof("content") == "batch" and r.sequence > 0]
    return dictionaries + sorted(batches, key=lambda r: r.batch_index)


def ipc_row(values: dict[str, Any] | pa.RecordBatch) -> bytes:
    """One Arrow row as an IPC stream, as `parameters` wants it."""
    batch = values
    if not isinstance(values, pa.RecordBatch):
        batch = pa.RecordBatch.from_pydict({name: [value] for name, value in values.items()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def ipc_batches(batches: Sequence[pa.RecordBatch]) -> bytes:
    """Batches as encapsulated messages, one after the other, without a schema."""
    return b"".join(batch.serialize().to_pybytes() for batch in batches)


class Client:
    """A connection with a token."""

    def __init__(self, address: str, token: str, database: str) -> None:
        from openduck.v1 import execution_pb2, execution_pb2_grpc

        self.pb = execution_pb2
        self.database = database
        self.channel = grpc.insecure_channel(
            address,
            options=[
                ("grpc.max_receive_message_length", MESSAGE_MAX),
                ("grpc.max_send_message_length", MESSAGE_MAX),
                ("grpc.use_local_subchannel_pool", 1),
            ],
        )
        self.service = execution_pb2_grpc.ExecutionServiceStub(self.channel)
        self.metadata = [("authorization", f"Bearer {token}")]

    def close(self) -> None:
        self.channel.close()

    def session(self) -> str:
        return uuid.uuid4().hex

    def request(self, sql: str = "", **fields: Any) -> Any:
        options = fields.pop("options", {})
        if "query_id" not in fields:
            fields.setdefault("database", self.database)
        settings = options.pop("settings", {})
        message = self.pb.ExecuteQueryRequest(sql=sql, options=self.pb.Options(**options), **fields)
        message.options.settings.update(settings)
        return message

    def execute(self, sql: str = "", *, timeout: float = 60, **fields: Any) -> Any:
        """The answer to one call, without reading its streams."""
        return self.service.ExecuteQuery(self.request(sql, **fields), metadata=self.metadata, timeout=timeout)

    def stream(self, answer: Any, stream: int = 0, resume_after: int = 0, timeout: float = 60) -> Any:
        """The responses of one stream, as they come."""
        request = self.pb.StreamResultsRequest(
            query_id=answer.query_id, stream=stream, resume_after=resume_after
        )
        return self.service.StreamResults(request, metadata=self.metadata, timeout=timeout)

    def query(self, sql: str, **fields: Any) -> Result:
        """Runs a statement and reads all of its result, checking what the protocol promises of it."""
        return self.read(self.execute(sql, **fields))

    def read(self, answer: Any) -> Result:
        assert answer.query_id
        assert answer.streams >= 1
        streams = []
        for number in range(answer.streams):
            responses = list(answer.inline) if number == 0 else []
            if not (responses and responses[-1].WhichOneof("content") == "summary"):
                responses += list(self.stream(answer, number))
            streams.append(responses)
        return self.check(answer, streams)

    def check(self, answer: Any, streams: list[list[Any]]) -> Result:
        """Everything that must hold of a whole result."""
        total = 0
        for responses in streams:
            assert [r.WhichOneof("content") for r in responses].count("summary") == 1
            assert responses[-1].WhichOneof("content") == "summary"
            batches = [r for r in responses[:-1] if r.sequence > 0]
            assert [r.sequence for r in batches] == list(range(1, len(batches) + 1))
            assert responses[-1].sequence == len(batches) + 1
            # In any order of the streams, each one's own responses are readable by themselves.
            read = pa.ipc.open_stream(messages(answer.schema, responses)).read_all()
            assert read.num_rows == responses[-1].summary.rows
            total += read.num_rows
        every = [r for responses in streams for r in responses]
        places = sorted(r.batch_index for r in every if r.WhichOneof("content") == "batch" and r.sequence > 0)
        assert places == list(range(len(places)))
        summary = streams[0][-1].summary
        assert summary.total_rows == total
        # And all of them together, streams last to first.
        backwards = [r for responses in reversed(streams) for r in responses]
        assert pa.ipc.open_stream(messages(answer.schema, backwards)).read_all().num_rows == total
        table = pa.ipc.open_stream(messages(answer.schema, in_order(every))).read_all()
        assert [column.name for column in answer.columns] == table.schema.names
        return Result(answer, table, summary, streams)

    def upload(
        self, sql: str, name: str, chunks: Iterator[pa.RecordBatch] | Sequence[pa.RecordBatch], **fields: Any
    ) -> Result:
        """Runs a statement over an input that is sent in chunks, one batch each."""
        batches = list(chunks)
        schema = batches[0].schema
        first = self.pb.Input(
            name=name, schema=schema.serialize().to_pybytes(), batch=ipc_batches(batches[:1])
        )
        first.last = len(batches) == 1
        answer = self.execute(sql, inputs=[first], **fields)
        for number, batch in enumerate(batches[1:], 1):
            last = number == len(batches) - 1
            chunk = self.pb.Input(name=name, chunk_seq=number, batch=ipc_batches([batch]), last=last)
            answer = self.execute(query_id=answer.query_id, inputs=[chunk])
        return self.read(answer)

    def detail(self, error: grpc.RpcError) -> Any:
        """The `ErrorDetail` in a failed call's status."""
        from google.rpc import status_pb2

        for key, value in error.trailing_metadata() or ():
            if key == "grpc-status-details-bin":
                status = status_pb2.Status.FromString(value)
                for any_detail in status.details:
                    found = self.pb.ErrorDetail()
                    if any_detail.Unpack(found):
                        return found
        return None
