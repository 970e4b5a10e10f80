"""How queries end: cancelled, dropped, resumed, too late, twice, or with the process."""

from __future__ import annotations

import copy
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from client import Client
from conftest import Served
from harness.workplace import Workplace
from servers.processes import children_of

LONG = "SELECT count(*) FROM range(200000) a, range(200000) b WHERE hash(a.range, b.range) = 1"


def running(served: Served) -> int:
    client = served.client()
    try:
        return client.query(
            "SELECT count(*) FROM openduck_queries() WHERE sql LIKE '%range(200000)%'"
        ).value()
    finally:
        client.close()


def test_a_cancelled_call_interrupts_the_statement(client: Client, served: Served) -> None:
    client.query("CREATE OR REPLACE TABLE sink (n BIGINT)")
    call = client.service.ExecuteQuery.future(
        client.request(f"INSERT INTO sink {LONG}"), metadata=client.metadata
    )
    time.sleep(0.5)
    call.cancel()
    begin = time.monotonic()
    client.query("INSERT INTO sink VALUES (1)")
    assert time.monotonic() - begin < 5
    assert client.query("SELECT count(*) FROM sink", options={"max_staleness_ms": 0}).value() == 1


def test_a_deadline_ends_a_query(client: Client) -> None:
    begin = time.monotonic()
    with pytest.raises(grpc.RpcError) as late:
        client.query(LONG, options={"statement_timeout_ms": 300})
    assert late.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - begin < 5


def test_a_dropped_stream_cancels_the_query(client: Client) -> None:
    answer = client.execute("SELECT i, repeat('x', 200) FROM range(50000000) r(i)")
    stream = client.stream(answer)
    next(stream)
    stream.cancel()
    deadline = time.monotonic() + 10
    while True:
        try:
            list(client.stream(answer))
        except grpc.RpcError as gone:
            if gone.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.CANCELLED):
                break
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_resumable_stream_goes_on_where_it_was(client: Client, served: Served) -> None:
    answer = client.execute(
        "SELECT i, m FROM (SELECT i, i % 3 AS m FROM range(3000000) r(i))",
        options={"resumable": True, "max_streams": 1},
    )
    broken = served.client()
    stream = broken.stream(answer)
    got = [next(stream) for _ in range(3)]
    broken.close()
    last = max(r.sequence for r in got)
    rest = list(client.stream(answer, resume_after=last))
    assert [r.sequence for r in rest if r.sequence][:1] == [last + 1]
    assert client.check(answer, [[*got, *[r for r in rest if r.sequence]]]).table.num_rows == 3_000_000


def test_a_key_runs_a_statement_once(client: Client) -> None:
    client.query("CREATE OR REPLACE TABLE once (i INTEGER)")
    key = client.session()
    first = client.execute("INSERT INTO once VALUES (1)", idempotency_key=key)
    second = client.execute("INSERT INTO once VALUES (1)", idempotency_key=key)
    assert second.lsn == first.lsn
    assert client.query("SELECT count(*) FROM once", options={"max_staleness_ms": 0}).value() == 1


def test_an_unopened_handle_expires(client: Client) -> None:
    answer = client.execute("SELECT 1", options={"handle_ttl_ms": 200})
    time.sleep(1.5)
    with pytest.raises(grpc.RpcError) as gone:
        list(client.stream(answer))
    assert gone.value.code() == grpc.StatusCode.NOT_FOUND


def test_forged_and_foreign_handles_are_not_found(client: Client) -> None:
    answer = client.execute("SELECT 1")
    flipped = answer.query_id[:-1] + ("A" if answer.query_id[-1] != "A" else "B")
    for handle in (flipped, "", "x" * 5000, "../../etc/passwd", answer.query_id + "x"):
        with pytest.raises(grpc.RpcError) as refused:
            list(
                client.service.StreamResults(
                    client.pb.StreamResultsRequest(query_id=handle), metadata=client.metadata
                )
            )
        assert refused.value.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT)
    assert client.read(answer).value() == 1


@pytest.mark.parametrize(
    ("sql", "code", "kind"),
    [
        ("SELEC 1", "INVALID_ARGUMENT", "Parser"),
        ("SELECT nope FROM range(1)", "INVALID_ARGUMENT", "Binder"),
        ("FROM not_there", "INVALID_ARGUMENT", "Catalog"),
        ("SELECT 'x'::INTEGER", "INVALID_ARGUMENT", "Conversion"),
        ("SELECT 9223372036854775807 + 1", "INVALID_ARGUMENT", "OutOfRange"),
        ("INSERT INTO strict VALUES (NULL)", "FAILED_PRECONDITION", "Constraint"),
        ("SELECT 1; SELECT 2", "INVALID_ARGUMENT", ""),
        ("", "INVALID_ARGUMENT", ""),
    ],
)
def test_errors_are_duckdbs_own(client: Client, sql: str, code: str, kind: str) -> None:
    client.query("CREATE TABLE IF NOT EXISTS strict (i INTEGER NOT NULL)")
    with pytest.raises(grpc.RpcError) as failed:
        client.query(sql)
    assert failed.value.code().name == code
    assert failed.value.details()
    if kind:
        detail = client.detail(failed.value)
        assert detail is not None
        assert detail.exception_type.replace(" ", "").lower().startswith(kind.lower())


def test_tokens_are_asked_for(served: Served, client: Client) -> None:
    for metadata in ([], [("authorization", "Bearer wrong")], [("authorization", "Basic eDp5")]):
        with pytest.raises(grpc.RpcError) as refused:
            client.service.ExecuteQuery(client.request("SELECT 1"), metadata=metadata, timeout=10)
        assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_the_token_is_not_in_the_process_title(served: Served) -> None:
    assert served.process is not None
    for pid in [served.process.pid, *children_of(served.process.pid)]:
        for file in ("cmdline", "environ"):
            assert served.token.encode() not in Path(f"/proc/{pid}/{file}").read_bytes()


@pytest.mark.parametrize("is_at_once", [False, True])
def test_what_was_acknowledged_is_there_after_a_kill(serve: Callable[..., Served], is_at_once: bool) -> None:
    served = serve(f"killed{is_at_once:d}")
    client = served.client()
    client.query("CREATE TABLE t (i INTEGER)")
    acknowledged = -1
    for number in range(50):
        client.query(f"INSERT INTO t VALUES ({number})")
        acknowledged = number
    assert served.process is not None
    workers = children_of(served.process.pid)
    served.kill()
    with pytest.raises(grpc.RpcError) as gone:
        client.query("SELECT 1", timeout=10)
    assert gone.value.code() == grpc.StatusCode.UNAVAILABLE
    client.close()
    deadline = time.monotonic() + 20
    while not is_at_once and any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < deadline, "a worker outlives its server"
        time.sleep(0.05)
    served.start()
    client = served.client()
    assert client.query("SELECT max(i), count(*) FROM t").rows() == [(acknowledged, acknowledged + 1)]
    client.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="a small disk is a mount, which needs root")
def test_a_full_disk_loses_nothing_and_passes(place: Workplace) -> None:
    """Statements fail with an error while the disk is full, those that were acknowledged stay, and once there
    is room again the next ones work, without anybody starting anything anew."""
    disk = place.directory / "small"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", str(disk)], check=True)
    try:
        ballast = disk / "ballast"
        ballast.write_bytes(b"x" * (60 << 20))
        small = copy.copy(place)
        small.home = disk / "home"
        served = Served(small, "full")
        served.log = place.directory / "full.log"
        served.start()
        try:
            fills_and_recovers(served, ballast)
        finally:
            served.stop()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def fills_and_recovers(served: Served, ballast: Path) -> None:
    client = served.client()
    client.query("CREATE TABLE t (n INTEGER, filler VARCHAR)")
    acknowledged: set[int] = set()
    unknown: set[int] = set()
    insert = "INSERT INTO t SELECT {}, md5(random()::VARCHAR) || md5(random()::VARCHAR) FROM range(20000)"
    for number in range(1000):
        try:
            client.query(insert.format(number))
            acknowledged.add(number)
        except grpc.RpcError as full:
            unknown.add(number)
            assert full.code() in (
                grpc.StatusCode.INTERNAL,
                grpc.StatusCode.UNAVAILABLE,
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                grpc.StatusCode.ABORTED,
            ), full
            assert full.details()
            if len(unknown) == 5:
                break
    else:
        pytest.fail("the disk is never full")
    assert acknowledged
    ballast.unlink()
    deadline = time.monotonic() + 60
    while True:
        try:
            client.query(insert.format(5000))
            break
        except grpc.RpcError as error:
            assert time.monotonic() < deadline, error
            time.sleep(0.2)
    counts = dict(client.query("SELECT n, count(*) FROM t GROUP BY n", timeout=60).rows())
    assert set(counts.values()) == {20000}
    assert acknowledged <= set(counts) - {5000}
    assert set(counts) - {5000} <= acknowledged | unknown
    client.close()
