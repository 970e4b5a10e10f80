"""The instruments for several hosts themselves: each server is real, and each fault of the proxy is what a
plain client sees."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import io
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest

from harness import leftovers
from harness.cluster import NewHost, NewProxy
from harness.hosts import Store, is_paused
from harness.processes import is_alive, run, wait_until
from servers.postgres import PostgresServer, server_programs
from servers.processes import LOOPBACK, ServerFailed
from servers.proxy import Proxy
from servers.s3 import Bucket, S3Server

MIB = 1 << 20
# What a client raises where the network is at fault, and not the server.
NETWORK_ERRORS = (botocore.exceptions.HTTPClientError, botocore.exceptions.ResponseStreamingError)


@pytest.fixture
def line(s3: S3Server, proxy: NewProxy) -> Proxy:
    """A proxy to the S3 server."""
    return proxy(s3.port, is_http=True)


@pytest.fixture
def client(line: Proxy, bucket: Bucket) -> Any:
    """An S3 client behind the proxy, which gives up after two seconds."""
    return bucket.client(line.endpoint, timeout_s=2)


def bytes_of(seed: int, length: int) -> bytes:
    return random.Random(seed).randbytes(length)


def get(client: Any, bucket: Bucket, key: str, span: str | None = None) -> bytes:
    data: bytes = client.get_object(Bucket=bucket.name, Key=key, **({"Range": span} if span else {}))[
        "Body"
    ].read()
    return data


def error_code(raised: pytest.ExceptionInfo[botocore.exceptions.ClientError]) -> tuple[int, str]:
    response = raised.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]


# ---- S3 ----


def test_s3_keeps_large_objects_and_gives_ranges(s3: S3Server, bucket: Bucket) -> None:
    """100 MB in parts, whole and in ranges, from both ends."""
    data = bytes_of(1, 100 * MIB)
    client = bucket.client()
    upload = client.create_multipart_upload(Bucket=bucket.name, Key="a/large")["UploadId"]

    def part(number: int) -> dict[str, Any]:
        piece = data[(number - 1) * 8 * MIB : number * 8 * MIB]
        made = client.upload_part(
            Bucket=bucket.name, Key="a/large", UploadId=upload, PartNumber=number, Body=piece
        )
        return {"PartNumber": number, "ETag": made["ETag"]}

    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(part, range(1, 14)))
    assert s3.parts_left() == 13
    assert bucket.sizes() == {}, "an upload that is not complete is no object"
    client.complete_multipart_upload(
        Bucket=bucket.name, Key="a/large", UploadId=upload, MultipartUpload={"Parts": parts}
    )
    assert s3.parts_left() == 0
    assert bucket.sizes() == {"a/large": len(data)}
    assert get(client, bucket, "a/large") == data
    assert get(client, bucket, "a/large", "bytes=4095-8191") == data[4095:8192]
    assert get(client, bucket, "a/large", "bytes=-100") == data[-100:]
    with pytest.raises(botocore.exceptions.ClientError) as raised:
        get(client, bucket, "a/large", f"bytes={len(data)}-")
    assert error_code(raised)[0] == 416


def test_s3_lists_and_deletes(bucket: Bucket) -> None:
    """More keys than a page holds, prefixes, deletes of many and of none."""
    client = bucket.client()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: bucket.write(f"p{n % 2}/{n:04}", b"x" * n), range(1100)))
    assert len(bucket.sizes()) == 1100
    assert bucket.sizes("p1/") == {f"p1/{n:04}": n for n in range(1, 1100, 2)}
    assert bucket.total_bytes() == sum(range(1100))
    client.delete_objects(
        Bucket=bucket.name, Delete={"Objects": [{"Key": f"p1/{n:04}"} for n in range(1, 1100, 2)]}
    )
    assert bucket.sizes("p1/") == {}
    bucket.delete("not-there")
    bucket.wipe()
    assert bucket.sizes() == {}


def test_s3_checks_what_it_is_sent(bucket: Bucket) -> None:
    """Signatures, checksums and conditions count."""
    client = bucket.client()
    digest = hashlib.sha256(b"whole").digest()
    encoded = base64.b64encode(digest).decode()
    client.put_object(Bucket=bucket.name, Key="k", Body=b"whole", ChecksumSHA256=encoded)
    with pytest.raises(botocore.exceptions.ClientError) as raised:
        client.put_object(Bucket=bucket.name, Key="l", Body=b"other", ChecksumSHA256=encoded)
    # Refused, and there all the same: a peculiarity of this server, and no harm to who believes no list.
    assert error_code(raised)[0] == 400
    with pytest.raises(botocore.exceptions.ClientError) as raised:
        client.put_object(Bucket=bucket.name, Key="k", Body=b"again", IfNoneMatch="*")
    assert error_code(raised)[0] == 412
    stranger = bucket.client()
    stranger._request_signer._credentials.secret_key = "wrong"
    with pytest.raises(botocore.exceptions.ClientError) as raised:
        get(stranger, bucket, "k")
    assert error_code(raised) == (403, "SignatureDoesNotMatch")
    assert bucket.read("k") == b"whole"
    bucket.flip_bit("k", 0)
    assert bucket.read("k") == b"ghole"


def test_s3_keeps_objects_over_a_restart(s3: S3Server, bucket: Bucket) -> None:
    """A stopped server answers nobody; started again, on the same port, it has everything."""
    bucket.write("k", b"kept")
    s3.stop()
    with pytest.raises(botocore.exceptions.EndpointConnectionError):
        bucket.read("k")
    s3.start()
    assert bucket.read("k") == b"kept"


# ---- PostgreSQL ----


def test_postgres_survives_restarts_and_kills(
    postgres: PostgresServer, new_database: Callable[[], str]
) -> None:
    """Stopped, restarted, killed: what was committed is there, on the same port."""
    database = new_database()
    port = postgres.port
    postgres.sql("CREATE TABLE t(i int); INSERT INTO t VALUES (1)", database)
    postgres.restart()
    postgres.sql("INSERT INTO t VALUES (2)", database)
    postgres.kill()
    with pytest.raises(ServerFailed):
        postgres.sql("SELECT 1")
    postgres.start()
    postgres.sql("INSERT INTO t VALUES (3)", database)
    assert postgres.sql("SELECT i FROM t ORDER BY i", database).split() == ["1", "2", "3"]
    assert postgres.port == port
    assert new_database() != database


def psql(postgres: PostgresServer, database: str, port: int, text: str) -> subprocess.Popen[str]:
    """A client that connects as openduck-fs would."""
    return subprocess.Popen(
        [str(server_programs() / "psql"), "-XqtA", postgres.url(database, port=port)]
        + ["-v", "ON_ERROR_STOP=1", "-c", text],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PGCONNECT_TIMEOUT": "2"},
    )


def test_postgres_behind_a_proxy(
    postgres: PostgresServer, new_database: Callable[[], str], proxy: NewProxy
) -> None:
    """Cut, frozen, disconnected and healed, as a client of the database sees it."""
    database = new_database()
    line = proxy(postgres.port, is_http=False)

    def ask(text: str = "SELECT 7") -> tuple[int, str]:
        process = psql(postgres, database, line.port, text)
        said, _ = process.communicate(timeout=30)
        return process.returncode, said.strip()

    assert ask() == (0, "7")
    assert line.counts().connections == 1
    assert line.counts().turns >= 2
    assert line.counts().bytes_down > 0
    line.cut()
    status, said = ask()
    assert status and "refused" in said
    line.heal()
    assert ask() == (0, "7")
    sleeper = psql(postgres, database, line.port, "SELECT pg_sleep(60)")
    wait_until(
        "the sleeping query",
        lambda: (
            "pg_sleep"
            in postgres.sql(
                f"SELECT query FROM pg_stat_activity WHERE datname = '{database}' AND state = 'active'"
            )
        ),
    )
    line.disconnect()
    said, _ = sleeper.communicate(timeout=10)
    assert sleeper.returncode and "clos" in said
    line.freeze()
    status, said = ask()
    assert status and "timeout" in said
    frozen = psql(postgres, database, line.port, "SELECT 8")
    line.heal()
    assert frozen.communicate(timeout=10)[0].strip() == "8"
    line.shape(round_trip_s=0.2)
    begin = time.monotonic()
    assert ask() == (0, "7")
    # A handshake, the login's questions, and the query.
    assert 0.8 < time.monotonic() - begin < 4
    line.shape()
    line.point_at(1)
    assert ask()[0] != 0
    line.point_at(postgres.port)
    assert ask() == (0, "7")


def test_a_client_that_only_waits_is_told_of_a_servers_reset(proxy: NewProxy) -> None:
    """A server dies with a request that it has not read: its kernel says so by a reset, and nothing else."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        line = proxy(listener.getsockname()[1], is_http=False)
        with socket.create_connection((LOOPBACK, line.port), timeout=10) as waiting:
            server, _ = listener.accept()
            waiting.sendall(b"a request")
            # It has come, and is not read.
            assert server.recv(100, socket.MSG_PEEK) == b"a request"
            server.close()
            with contextlib.suppress(ConnectionResetError):
                assert waiting.recv(100) == b"", "the end, not a word"


def test_a_mute_line_swallows_notifications_alone(
    postgres: PostgresServer, new_database: Callable[[], str], proxy: NewProxy
) -> None:
    """What is asked is answered, at any length; what nobody asked for does not come."""
    database = new_database()
    line = proxy(postgres.port, is_http=False)
    text = "LISTEN channel; NOTIFY channel, 'word'; SELECT length(repeat('x', 3000000)), repeat('y', 300000)"

    def ask() -> str:
        process = psql(postgres, database, line.port, text)
        said, _ = process.communicate(timeout=30)
        assert process.returncode == 0, said
        return said

    heard = ask()
    assert "notification" in heard and "word" in heard
    line.mute()
    muted = ask()
    assert "notification" not in muted
    assert muted.strip() == "3000000|" + "y" * 300000


def test_a_promoted_standby_has_every_acknowledged_commit(work: Path) -> None:
    """A primary that is killed in the middle of commits: its synchronous standby has them all, and takes
    more."""
    primary = PostgresServer(work / "primary")
    standby = None
    try:
        primary.start()
        primary.new_database("ducks")
        primary.sql("CREATE TABLE t(i BIGINT)", "ducks")
        standby = PostgresServer(work / "standby", primary=primary)
        standby.start()
        primary.wait_for_standby()
        for number in range(5):
            primary.sql(f"INSERT INTO t VALUES ({number})", "ducks")
        primary.kill()
        standby.promote()
        standby.sql("INSERT INTO t VALUES (5)", "ducks")
        assert standby.sql("SELECT string_agg(i::TEXT, ' ' ORDER BY i) FROM t", "ducks") == "0 1 2 3 4 5"
    finally:
        primary.kill()
        if standby is not None:
            standby.kill()


def test_postgres_clients_can_be_thrown_out(
    postgres: PostgresServer, new_database: Callable[[], str]
) -> None:
    """`disconnect` ends exactly the connections of one database."""
    database = new_database()
    sleeper = psql(postgres, database, postgres.port, "SELECT pg_sleep(60)")
    wait_until("the connection to be ended", lambda: postgres.disconnect(database) == 1)
    said, _ = sleeper.communicate(timeout=10)
    assert "terminat" in said


# ---- the proxy ----


def test_the_proxy_passes_everything_on(client: Any, bucket: Bucket, line: Proxy) -> None:
    """Without faults nothing changes: parts, ranges, signatures, errors."""
    data = bytes_of(2, 20 * MIB)
    client.upload_fileobj(io.BytesIO(data), bucket.name, "big")
    assert bucket.read("big") == data
    assert get(client, bucket, "big") == data
    assert get(client, bucket, "big", "bytes=5-9") == data[5:10]
    client.put_object(Bucket=bucket.name, Key="empty", Body=b"")
    assert get(client, bucket, "empty") == b""
    assert client.head_object(Bucket=bucket.name, Key="big")["ContentLength"] == len(data)
    with pytest.raises(client.exceptions.NoSuchKey):
        get(client, bucket, "missing")
    client.delete_object(Bucket=bucket.name, Key="empty")
    assert set(bucket.sizes()) == {"big"}
    counts = line.counts()
    assert counts.methods["GET"] == 4
    assert counts.methods["HEAD"] == counts.methods["DELETE"] == 1
    assert counts.bytes_up >= len(data)
    assert counts.bytes_down >= len(data)
    assert counts.statuses["404"] == 1
    assert [row["span"] for row in line.log() if row["span"]] == ["bytes=5-9"]
    line.reset_counts()
    assert line.counts().requests == 0


def test_round_trips_are_counted_in_depth(client: Any, bucket: Bucket, line: Proxy) -> None:
    """Five requests in turn are five round trips; five at once are one."""
    bucket.write("k", b"x")
    for _ in range(5):
        get(client, bucket, "k")
    assert line.counts().round_trips == 5
    line.shape(round_trip_s=0.3)
    line.reset_counts()
    with ThreadPoolExecutor(5) as pool:
        list(pool.map(lambda _: get(client, bucket, "k"), range(5)))
    counts = line.counts()
    assert (counts.requests, counts.round_trips, counts.at_once) == (5, 1, 5)


def test_a_line_has_a_length(client: Any, bucket: Bucket, line: Proxy) -> None:
    """A request takes a round trip, and on a new connection two."""
    bucket.write("k", b"x")
    line.shape(round_trip_s=0.2)
    took = []
    for _ in range(3):
        begin = time.monotonic()
        get(client, bucket, "k")
        took.append(time.monotonic() - begin)
    assert 0.4 <= took[0] < 0.6
    assert all(0.2 <= seconds < 0.35 for seconds in took[1:]), took


def test_a_line_has_a_width(client: Any, bucket: Bucket, line: Proxy) -> None:
    """All connections share it, in both directions."""
    data = bytes_of(3, 4 * MIB)
    bucket.write("k", data)
    line.shape(bytes_per_s=8 * MIB)
    begin = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: get(client, bucket, "k"), range(4))) == [data] * 4
    assert 1.9 < time.monotonic() - begin < 3.5
    begin = time.monotonic()
    client.put_object(Bucket=bucket.name, Key="l", Body=data * 2)
    assert 0.9 < time.monotonic() - begin < 2.5


def test_status_refuses_and_the_server_hears_nothing(client: Any, bucket: Bucket, line: Proxy) -> None:
    line.fault("status", status=500, methods=["PUT"])
    with pytest.raises(botocore.exceptions.ClientError) as raised:
        client.put_object(Bucket=bucket.name, Key="k", Body=b"x" * 100_000)
    assert error_code(raised) == (500, "InternalError")
    assert bucket.sizes() == {}
    line.clear_faults()
    client.put_object(Bucket=bucket.name, Key="k", Body=b"x")
    assert line.counts().faults == {"status": 1}


def test_probability_follows_the_seed(bucket: Bucket, s3: S3Server, proxy: NewProxy) -> None:
    """Half of the requests fail, and the same ones with the same seed; `skip` and `limit` count."""
    bucket.write("k", b"x")

    def failures(**rule: Any) -> list[bool]:
        line = proxy(s3.port, is_http=True)
        line.fault("status", **rule)
        client = bucket.client(line.endpoint)
        found = []
        for _ in range(40):
            try:
                get(client, bucket, "k")
                found.append(False)
            except botocore.exceptions.ClientError:
                found.append(True)
        return found

    assert failures(probability=0.5) == (first := failures(probability=0.5))
    assert 8 < sum(first) < 32
    assert failures(skip=3, limit=2) == [False] * 3 + [True] * 2 + [False] * 35
    assert not any(failures(target="/other"))
    assert not any(failures(methods=["DELETE"]))


def test_swallow_says_yes_and_does_nothing(client: Any, bucket: Bucket, line: Proxy) -> None:
    """Success after failure: PUT, DELETE, DELETE of many, and the completion of an upload."""
    bucket.write("old", b"old")
    upload = client.create_multipart_upload(Bucket=bucket.name, Key="parts")["UploadId"]
    part = client.upload_part(Bucket=bucket.name, Key="parts", UploadId=upload, PartNumber=1, Body=b"p")
    line.fault("swallow")
    client.put_object(Bucket=bucket.name, Key="new", Body=b"x" * 50_000)
    client.delete_object(Bucket=bucket.name, Key="old")
    said = client.delete_objects(Bucket=bucket.name, Delete={"Objects": [{"Key": "old"}]})
    assert said["Deleted"] == [{"Key": "old"}]
    said = client.complete_multipart_upload(
        Bucket=bucket.name,
        Key="parts",
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
    )
    assert said["Key"] == "parts"
    assert get(client, bucket, "old") == b"old"
    assert bucket.sizes() == {"old": 3}
    assert line.counts().faults == {"swallow": 4}


def test_fail_after_says_no_and_has_done_it(client: Any, bucket: Bucket, line: Proxy) -> None:
    """Failure after success, as an error and as a reset."""
    line.fault("fail_after", methods=["PUT"], status=500)
    with pytest.raises(botocore.exceptions.ClientError) as raised:
        client.put_object(Bucket=bucket.name, Key="k", Body=b"there")
    assert error_code(raised)[0] == 500
    assert bucket.read("k") == b"there"
    line.clear_faults()
    line.fault("cut_after", methods=["DELETE"])
    with pytest.raises(NETWORK_ERRORS):
        client.delete_object(Bucket=bucket.name, Key="k")
    assert bucket.sizes() == {}


def test_resets(client: Any, bucket: Bucket, line: Proxy) -> None:
    """Before the server hears anything, and in the middle of an answer."""
    data = bytes_of(4, 2 * MIB)
    line.fault("reset", methods=["PUT"])
    with pytest.raises(NETWORK_ERRORS):
        client.put_object(Bucket=bucket.name, Key="k", Body=data)
    assert bucket.sizes() == {}
    bucket.write("k", data)
    line.fault("reset", methods=["GET"], after=0.5)
    with pytest.raises((*NETWORK_ERRORS, botocore.exceptions.IncompleteReadError)):
        get(client, bucket, "k")
    assert 0.4 * len(data) < line.counts().bytes_down < 0.6 * len(data)


def test_stalls(client: Any, bucket: Bucket, line: Proxy) -> None:
    """A stall longer than the client's patience is a timeout; a shorter one only takes time."""
    data = bytes_of(5, MIB)
    bucket.write("k", data)
    rule = line.fault("stall", seconds=60)
    with pytest.raises(botocore.exceptions.ReadTimeoutError):
        get(client, bucket, "k")
    line.clear_faults(rule)
    rule = line.fault("stall", seconds=60, after=0.5)
    with pytest.raises(botocore.exceptions.ReadTimeoutError):
        get(client, bucket, "k")
    line.clear_faults(rule)
    line.fault("stall", seconds=0.5, after=0.5)
    begin = time.monotonic()
    assert get(client, bucket, "k") == data
    assert 0.5 < time.monotonic() - begin < 1.5


def test_slow_bodies(client: Any, bucket: Bucket, line: Proxy) -> None:
    data = bytes_of(6, 300_000)
    bucket.write("k", data)
    line.fault("slow", bytes_per_s=200_000)
    begin = time.monotonic()
    assert get(client, bucket, "k") == data
    assert 1.4 < time.monotonic() - begin < 3


def test_truncated_and_shortened_bodies(client: Any, bucket: Bucket, line: Proxy) -> None:
    """A truncated body is less than was announced; a shortened one looks whole."""
    data = bytes_of(7, MIB)
    bucket.write("k", data)
    rule = line.fault("truncate", after=0.25)
    with pytest.raises((*NETWORK_ERRORS, botocore.exceptions.IncompleteReadError)):
        get(client, bucket, "k")
    line.clear_faults(rule)
    line.fault("shorten", after=0.25)
    # Not of a whole object, whose checksum the server sends with it.
    assert get(client, bucket, "k", f"bytes=0-{len(data) // 2 - 1}") == data[: len(data) // 8]


def test_corrupted_bodies(client: Any, bucket: Bucket, line: Proxy) -> None:
    """One bit of what is read, and of what is written, which a signed body does not survive."""
    data = bytes_of(8, 700_000)
    bucket.write("k", data)
    line.fault("corrupt", methods=["GET"])
    for _ in range(3):
        # Not the whole object, whose checksum the server sends with it.
        seen = get(client, bucket, "k", f"bytes=0-{len(data) - 2}")
        assert sum((a ^ b).bit_count() for a, b in zip(seen, data[:-1], strict=True)) == 1
    line.fault("corrupt_upload", methods=["PUT"])
    with pytest.raises(botocore.exceptions.ClientError):
        client.put_object(Bucket=bucket.name, Key="l", Body=data)
    assert set(bucket.sizes()) == {"k"}


def test_stale_lists(client: Any, bucket: Bucket, line: Proxy) -> None:
    """A list as it was a moment ago; later the new one."""

    def keys() -> list[str]:
        rows = client.list_objects_v2(Bucket=bucket.name).get("Contents", [])
        return [row["Key"] for row in rows]

    bucket.write("a", b"x")
    assert keys() == ["a"]
    bucket.write("b", b"x")
    bucket.delete("a")
    line.fault("stale", seconds=1)
    assert keys() == ["a"]
    time.sleep(1.1)
    assert keys() == ["b"]


def test_cut_and_frozen(client: Any, bucket: Bucket, line: Proxy) -> None:
    """A cut line refuses at once; a frozen one says nothing, and goes on where it stood."""
    bucket.write("k", b"x" * 1000)
    get(client, bucket, "k")
    line.cut()
    begin = time.monotonic()
    with pytest.raises(botocore.exceptions.BotoCoreError):
        get(client, bucket, "k")
    assert time.monotonic() - begin < 1
    line.heal()
    assert get(client, bucket, "k") == b"x" * 1000
    line.freeze()
    with pytest.raises(botocore.exceptions.ReadTimeoutError):
        get(client, bucket, "k")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(get, bucket.client(line.endpoint), bucket, "k")
        time.sleep(0.5)
        assert not waiting.done()
        line.heal()
        assert waiting.result(5) == b"x" * 1000


def test_bodies_in_chunks_are_understood(bucket: Bucket, line: Proxy) -> None:
    """Where a body that tells its length piece by piece ends, the next request begins."""
    line.fault("swallow", methods=["PUT"])
    connection = http.client.HTTPConnection("127.0.0.1", line.port, timeout=5)
    pieces = iter([b"a" * 10, b"b" * 70_000])
    connection.request(
        "PUT", f"/{bucket.name}/k", pieces, {"Transfer-Encoding": "chunked"}, encode_chunked=True
    )
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 200
    connection.request("GET", "/")
    # The server's own word: this request is not signed.
    assert connection.getresponse().status == 403
    connection.close()


def test_the_proxy_refuses_nonsense(line: Proxy) -> None:
    with pytest.raises(ServerFailed, match="no kind of fault"):
        line.fault("gremlins")
    line.close()
    assert not is_alive(line.pid)


# ---- hosts ----


def test_hosts_have_homes_and_names_of_their_own(host: NewHost, store: Store) -> None:
    """Two hosts: the same store, other homes, other environment, other names."""
    alpha, beta = host("alpha"), host("beta")
    assert alpha.path != beta.path
    assert alpha.env["OPENDUCK_OBJECTS"] == beta.env["OPENDUCK_OBJECTS"] == store.objects_url
    assert alpha.env["OPENDUCK_META"] != beta.env["OPENDUCK_META"]
    if os.geteuid() == 0:
        for one in (alpha, beta):
            assert run([*one.prefix, "uname", "-n"]).stdout.strip() == one.name


@pytest.mark.root
def test_a_partition_drops_packets(host: NewHost, bucket: Bucket) -> None:
    """Inside its namespace a host reaches the store only by its proxies; cut off, it hears nothing at all."""
    alpha = host("alpha", own_network=True)
    if alpha.namespace is None:
        pytest.skip("network namespaces are not allowed here")
    probe = (
        "import http.client, sys\n"
        "connection = http.client.HTTPConnection('127.0.0.1', int(sys.argv[1]), timeout=1)\n"
        "connection.request('GET', '/')\n"
        "print(connection.getresponse().status)"
    )

    def ask(port: int) -> str:
        outcome = run([*alpha.prefix, sys.executable, "-c", probe, str(port)])
        return outcome.stdout.strip() or outcome.stderr.strip().splitlines()[-1]

    assert ask(alpha.objects.port) == "403"
    assert "refused" in ask(int(bucket.endpoint.rpartition(":")[2]))
    alpha.partition()
    assert "timed out" in ask(alpha.objects.port)
    alpha.heal()
    assert ask(alpha.objects.port) == "403"
    alpha.namespace.close()
    assert not alpha.namespace.path.exists()


def test_a_lost_machine_leaves_nothing(host: NewHost) -> None:
    """`burn` ends the mounting processes and takes the home. It needs no store: this host has its own."""
    alpha = host("alpha")
    local = {"OPENDUCK_META": f"sqlite:{alpha.path}/meta.db", "OPENDUCK_OBJECTS": f"file:{alpha.path}/layers"}
    alpha.env = local
    mount = alpha.mount("mydb")
    mount.file.write_bytes(b"x" * 5000)
    alpha.pause()
    assert is_paused(mount.pid)
    alpha.resume()
    assert mount.file.read_bytes() == b"x" * 5000
    alpha.burn()
    assert not is_alive(mount.pid)
    assert not alpha.path.exists()
    assert os.listdir(mount.dir) == []
    again = alpha.mount("other")
    assert again.status()["database"] == "other"


def test_servers_end_with_a_killed_session(work: Path) -> None:
    """A test run that is killed takes its servers with it, and the next one finds its directory."""
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from harness import leftovers\n"
        "from servers.postgres import PostgresServer\n"
        "from servers.proxy import Proxy\n"
        "from servers.s3 import S3Server\n"
        "root = Path(sys.argv[1])\n"
        "leftovers.claim(root)\n"
        "postgres, s3 = PostgresServer(root / 'postgres'), S3Server(root / 's3')\n"
        "postgres.start(), s3.start()\n"
        "proxy = Proxy(s3.port, is_http=True)\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)\n"
    )
    root = work / f"{leftovers.PREFIX}killed"
    root.mkdir(mode=0o755)
    path = os.pathsep.join(sys.path)
    process = subprocess.Popen(
        [sys.executable, "-B", "-c", script, root],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "FUSE_TESTS_ROOT": f"{root}/"},
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "ready"
    assert len(leftovers.processes_of(root)) > 3
    assert leftovers.killed_sessions(work) == []
    process.kill()
    process.wait(10)
    wait_until("the servers of a killed session to end", lambda: leftovers.processes_of(root) == [])
    assert leftovers.killed_sessions(work) == [root]
    process.stdout.close()
