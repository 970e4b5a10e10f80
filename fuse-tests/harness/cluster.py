"""Fixtures for several hosts: `postgres`, `s3`, `proxy`, `store`, `host`.

The servers run once per session; each test gets a database and a bucket of its own, and finds both servers
running, whatever the one before did to them.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from harness.hosts import Host, Store, command_prefix, host_paths
from harness.session import LOGS, SESSION, SHAKERS
from servers.namespace import Namespace, can_make_namespaces
from servers.postgres import PostgresServer
from servers.processes import accepts, last_lines
from servers.proxy import Proxy
from servers.s3 import Bucket, S3Server

_numbers = itertools.count(1)


class NewProxy(Protocol):
    def __call__(self, port: int, *, is_http: bool, namespace: Path | None = None) -> Proxy: ...


class NewHost(Protocol):
    def __call__(self, name: str, *, store: Store | None = None, own_network: bool = False) -> Host: ...


@pytest.fixture(scope="session")
def _postgres_server(pytestconfig: pytest.Config) -> Iterator[PostgresServer]:
    server = PostgresServer(pytestconfig.stash[SESSION] / "postgres")
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="session")
def _s3_server(pytestconfig: pytest.Config) -> Iterator[S3Server]:
    server = S3Server(pytestconfig.stash[SESSION] / "s3")
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def postgres(request: pytest.FixtureRequest, _postgres_server: PostgresServer) -> PostgresServer:
    """A running PostgreSQL server, which the test may stop, restart and kill."""
    server = _postgres_server
    if not accepts(server.port):
        server.restart()
    request.node.stash.setdefault(LOGS, []).append(lambda: f"--- PostgreSQL\n{last_lines(server.log)}")
    return server


@pytest.fixture
def new_database(postgres: PostgresServer) -> Callable[[], str]:
    """Makes empty databases."""

    def make() -> str:
        name = f"test_{next(_numbers)}"
        postgres.new_database(name)
        return name

    return make


@pytest.fixture
def s3(_s3_server: S3Server) -> S3Server:
    """A running S3 server, which the test may stop and start."""
    if not accepts(_s3_server.port):
        _s3_server.stop()
        _s3_server.start()
    return _s3_server


@pytest.fixture
def bucket(s3: S3Server) -> Iterator[Bucket]:
    """An empty bucket."""
    made = s3.new_bucket(f"bucket-{next(_numbers)}")
    yield made
    if not accepts(s3.port):
        s3.start()
    made.wipe()


@pytest.fixture
def proxy(request: pytest.FixtureRequest, closers: list[Callable[[], None]]) -> NewProxy:
    """Makes proxies to a loopback port; what they do by chance follows the session's seed."""
    seed = int(request.config.option.seed)

    def make(port: int, *, is_http: bool, namespace: Path | None = None) -> Proxy:
        made = Proxy(port, is_http=is_http, seed=seed, namespace=namespace)
        closers.append(made.close)
        return made

    return make


@pytest.fixture
def room_for_a_cache(work: Path) -> None:
    """A cache gives way while less than 5 % of its disk are free: on a fuller one there is nothing to see."""
    disk = os.statvfs(work)
    if disk.f_bavail < 0.06 * disk.f_blocks:
        pytest.skip("the disk is nearly full, so that nothing is cached")


@pytest.fixture
def store(postgres: PostgresServer, new_database: Callable[[], str], bucket: Bucket) -> Store:
    """An empty database and an empty bucket: a team's store before its first use."""
    return Store(postgres, new_database(), bucket)


@pytest.fixture
def host(
    request: pytest.FixtureRequest,
    work: Path,
    store: Store,
    s3: S3Server,
    proxy: NewProxy,
    closers: list[Callable[[], None]],
) -> NewHost:
    """Makes hosts over the test's store: `host("alpha")`. With `own_network` it lives in a network namespace
    where that is allowed; elsewhere its partition is its proxies'."""
    binary = Path(os.environ["OPENDUCK_FS"]).resolve()
    session = request.config.stash[SESSION]
    default_store = store

    def make(name: str, *, store: Store | None = None, own_network: bool = False) -> Host:
        shared = store or default_store
        namespace = None
        if own_network and can_make_namespaces():
            namespace = Namespace(f"{session.name}-{next(_numbers)}")
            closers.append(namespace.close)
        inside = None if namespace is None else namespace.path
        meta = proxy(shared.postgres.port, is_http=False, namespace=inside)
        objects = proxy(s3.port, is_http=True, namespace=inside)
        path, mounts = host_paths(work, name)
        made = Host(
            binary=binary,
            path=path,
            mount_root=mounts,
            prefix=command_prefix(name, namespace),
            env=shared.environment(meta.port, objects.endpoint),
            name=name,
            store=shared,
            meta=meta,
            objects=objects,
            namespace=namespace,
        )
        closers.append(made.close)
        request.node.stash.setdefault(SHAKERS, []).append(made.kill_servers)
        request.node.stash.setdefault(LOGS, []).append(made.logs)
        return made

    return make
