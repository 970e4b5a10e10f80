"""What every test is given: the binary, the DuckDB versions, a home, clients, disks, and a seed of its own.

Two environment variables say what is tested: OPENDUCK_FS, the path of the binary, and OPENDUCK_PYTHONS,
such as `2.0.0=/venv/bin/python,1.5.5=/other/bin/python`. After each test its mounts, processes and disks
are taken away, whether it passed, failed, hung or was interrupted; after the last one a check looks for
anything left behind.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest

from harness import leftovers
from harness.disks import Disk, LoopDisk, TmpfsDisk
from harness.duck import Clients, Version
from harness.openduck import Home, lazy_unmount
from harness.processes import Watchdog, run
from harness.session import LOGS, SESSION, SHAKERS, WATCHDOG
from servers.namespace import remove_namespace

# PostgreSQL, S3, proxies and hosts.
pytest_plugins = ["harness.cluster"]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("openduck")
    environment = os.environ
    group.addoption(
        "--rounds",
        type=float,
        default=float(environment.get("OPENDUCK_ROUNDS", "1")),
        help="how many times as many rounds the random tests do (OPENDUCK_ROUNDS; default 1)",
    )
    group.addoption(
        "--seed",
        type=int,
        default=int(environment["OPENDUCK_SEED"]) if "OPENDUCK_SEED" in environment else None,
        help="seed of all random choices (OPENDUCK_SEED; default: a new one, printed)",
    )
    group.addoption(
        "--long",
        action="store_true",
        default=environment.get("OPENDUCK_LONG", "") not in ("", "0"),
        help="also run the tests that take minutes (OPENDUCK_LONG=1)",
    )
    group.addoption(
        "--hosts",
        action="store_true",
        default=environment.get("OPENDUCK_HOSTS", "") not in ("", "0"),
        help="also collect test_hosts_*.py: several hosts with PostgreSQL and S3 (OPENDUCK_HOSTS=1)",
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Without --hosts the files for several hosts are not even looked at."""
    is_for_hosts = collection_path.name.startswith("test_hosts_")
    return True if is_for_hosts and not config.option.hosts else None


def pytest_configure(config: pytest.Config) -> None:
    if config.option.seed is None:
        config.option.seed = random.SystemRandom().randrange(1 << 32)
    # A job that is asked to end ends as if by Ctrl-C: with all clean-up.
    if hasattr(signal, "SIGTERM"):
        signal.signal(signal.SIGTERM, _interrupt)
    if config.option.collectonly:
        return
    if not os.environ.get("OPENDUCK_FS") or not os.environ.get("OPENDUCK_PYTHONS"):
        raise pytest.UsageError(
            "set OPENDUCK_FS to the openduck-fs binary and OPENDUCK_PYTHONS to DuckDB versions and their "
            "Pythons (2.0.0=/venv/bin/python,1.5.5=…), or let scripts/test do it"
        )
    if gives_tests_away(config):
        # Each of the processes that run the tests has a session of its own.
        return
    # Below /tmp and readable by all, for the tests that change users; its name is in every command line.
    root = Path(tempfile.mkdtemp(prefix=leftovers.PREFIX, dir=sessions_directory())).resolve()
    root.chmod(0o755)
    leftovers.claim(root)
    for killed in leftovers.killed_sessions(sessions_directory()):
        sweep(killed)
    config.stash[SESSION] = root
    # Inherited by all that the tests start, so that leftovers are found whatever their command line.
    os.environ["FUSE_TESTS_ROOT"] = f"{root}/"


def gives_tests_away(config: pytest.Config) -> bool:
    """Whether this process only hands the tests out to others (pytest-xdist's `-n`)."""
    return config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(f"signal {number}")


def pytest_unconfigure(config: pytest.Config) -> None:
    """The last net: what even the fixtures could not clean up goes now."""
    root = config.stash.get(SESSION, None)
    if root is not None:
        sweep(root)
    elif not config.option.collectonly and gives_tests_away(config):
        # Those that were interrupted while they ran tests.
        for killed in leftovers.killed_sessions(sessions_directory()):
            sweep(killed)


def sessions_directory() -> Path:
    """Where the directories of sessions lie."""
    return Path(os.environ.get("OPENDUCK_TEST_TMP") or tempfile.gettempdir()).resolve()


def sweep(root: Path) -> None:
    """Takes away a session's directory and everything that still runs or is mounted in it."""
    for pid in leftovers.processes_of(root):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    for point in sorted(leftovers.mounts_below(root), key=len, reverse=True):
        lazy_unmount(Path(point))
    for device in leftovers.loop_devices_of(root):
        run(["losetup", "-d", device])
    for name in leftovers.namespaces_of(root):
        remove_namespace(name)
    shutil.rmtree(root, ignore_errors=True)


def pytest_report_header(config: pytest.Config) -> list[str]:
    if config.option.collectonly:
        return []
    return [
        f"binary: {os.environ['OPENDUCK_FS']}",
        f"DuckDB: {', '.join(str(version) for version in read_versions())}",
        f"seed: {config.option.seed}, rounds: x{config.option.rounds:g}",
    ]


def read_versions() -> list[Version]:
    """The versions of OPENDUCK_PYTHONS, newest first."""
    found = []
    for part in os.environ.get("OPENDUCK_PYTHONS", "").split(","):
        name, equals, python = part.strip().partition("=")
        if not equals:
            raise pytest.UsageError(f"OPENDUCK_PYTHONS: {part!r} is not VERSION=PYTHON")
        found.append(Version(name, Path(python)))
    return sorted(found, key=lambda version: version.key, reverse=True)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "version" in metafunc.fixturenames and os.environ.get("OPENDUCK_PYTHONS"):
        metafunc.parametrize("version", read_versions(), ids=str)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("long") and not config.option.long:
            item.add_marker(pytest.mark.skip(reason="takes minutes; --long runs it"))
        if item.get_closest_marker("root") and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="needs root"))
    if hasattr(config, "workerinput"):
        # What may take longest begins first, so that nobody waits for it at the end.
        items.sort(key=limit_of, reverse=True)


def limit_of(item: pytest.Item) -> float:
    """How long the test may take."""
    marker = item.get_closest_marker("limit")
    return float(marker.args[0] if marker else 120)


# ---- every test: a clean-up that always runs, a watchdog, and a report that can be repeated ----


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    seconds = limit_of(item) * max(1.0, item.config.option.rounds)

    def bite() -> None:
        for shake in item.stash.get(SHAKERS, []):
            shake()

    watchdog = item.stash[WATCHDOG] = Watchdog(seconds, bite)
    try:
        return (yield)
    finally:
        watchdog.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if report.failed:
        watchdog = item.stash[WATCHDOG]
        if watchdog.has_bitten:
            said = f"took longer than {watchdog.seconds:g} s; its mounts and clients were killed"
            report.sections.append(("watchdog", said))
        options = item.config.option
        repeat = f"pytest '{item.nodeid}' --seed {options.seed} --rounds {options.rounds:g}"
        report.sections.append(("repeat with", repeat + (" --long" if options.long else "")))
        logs = "\n".join(filter(None, (log() for log in item.stash.get(LOGS, []))))
        if logs:
            report.sections.append(("logs of the mounts", logs))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests measured on their way (`record_property`)."""
    reports = terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
    measured = [
        (report.nodeid, *line)
        for report in reports
        if report.when == "call"
        for line in report.user_properties
    ]
    if measured:
        terminalreporter.section("measured")
    for nodeid, name, value in measured:
        terminalreporter.line(f"{nodeid}: {name}: {value}")


@pytest.fixture
def closers(request: pytest.FixtureRequest) -> Iterator[list[Callable[[], None]]]:
    """What must be called when the test is over, last first; each one whatever the others do."""
    found: list[Callable[[], None]] = []
    yield found
    problems = []
    for close in reversed(found):
        try:
            close()
        except Exception as error:  # noqa: BLE001 - the others must run
            problems.append(f"{close}: {error}")
    assert not problems, "the clean-up failed:\n" + "\n".join(problems)


@pytest.fixture
def work(request: pytest.FixtureRequest, closers: list[Callable[[], None]]) -> Path:
    """A directory of this test alone, gone with it. When it goes, nothing may live in it any more."""
    session = request.config.stash[SESSION]
    number = len(list(session.iterdir())) + 1
    path = session / f"t{number}"
    path.mkdir(mode=0o755)

    def remove() -> None:
        left = leftovers.settled(path)
        for point in sorted(leftovers.mounts_below(path), key=len, reverse=True):
            lazy_unmount(Path(point))
        for pid in leftovers.processes_of(path):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(exist_ok=True)  # Keeps the number taken: no two tests share a path.
        assert not left, "the test left behind:\n" + "\n".join(left)

    closers.append(remove)
    return path


@pytest.fixture
def new_home(
    request: pytest.FixtureRequest, work: Path, closers: list[Callable[[], None]]
) -> Callable[..., Home]:
    """Makes homes; each is closed with the test."""
    binary = Path(os.environ["OPENDUCK_FS"]).resolve()
    shakers = request.node.stash.setdefault(SHAKERS, [])
    logs = request.node.stash.setdefault(LOGS, [])

    def make(path: Path | None = None, **fields: object) -> Home:
        mount_root = work / "mnt"
        mount_root.mkdir(exist_ok=True)
        chosen = {"binary": binary, "path": path or work / "home", "mount_root": mount_root, **fields}
        home = Home(**chosen)  # type: ignore[arg-type]
        closers.append(home.close)
        shakers.append(home.kill_servers)
        logs.append(home.logs)
        return home

    return make


@pytest.fixture
def home(new_home: Callable[..., Home]) -> Home:
    """A home that does not exist yet."""
    return new_home()


@pytest.fixture
def clients(request: pytest.FixtureRequest, work: Path, closers: list[Callable[[], None]]) -> Clients:
    """Client processes; ended before the mounts go."""
    found = Clients()
    closers.append(found.kill_all)
    request.node.stash.setdefault(SHAKERS, []).append(found.kill_all)
    return found


@pytest.fixture
def new_disk(work: Path, closers: list[Callable[[], None]]) -> Callable[[str, int], Disk]:
    """Makes small disks: `new_disk("ext4", MiB)` or `new_disk("tmpfs", MiB)`."""

    def make(kind: str, mib: int) -> Disk:
        name = work / f"disk-{len(list(work.iterdir()))}"
        # Registered before it is mounted: the making may be interrupted half-way.
        disk = object.__new__(LoopDisk if kind == "ext4" else TmpfsDisk)
        disk.path = name
        closers.append(disk.close)
        disk.__init__(name, mib)  # type: ignore[misc]
        return disk

    return make


@pytest.fixture(scope="session")
def versions() -> list[Version]:
    """All DuckDB versions, newest first."""
    return read_versions()


@pytest.fixture(scope="session")
def newest(versions: list[Version]) -> Version:
    return versions[0]


@pytest.fixture(scope="session")
def oldest(versions: list[Version]) -> Version:
    """Its files can be read by all."""
    return versions[-1]


@pytest.fixture
def choose(request: pytest.FixtureRequest) -> random.Random:
    """Random choices that depend on the seed and the test alone."""
    return random.Random(f"{request.config.option.seed}:{request.node.name}")


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> Callable[[int], int]:
    """How many rounds to do: `rounds(default)`."""
    return lambda default: max(1, round(default * request.config.option.rounds))


@pytest.fixture(scope="session", autouse=True)
def _nothing_stays_behind(pytestconfig: pytest.Config) -> Iterator[None]:
    """When all tests are over, no mount, no process with its ports, and no loop device of theirs is there."""
    yield
    left = leftovers.settled(pytestconfig.stash[SESSION])
    assert not left, "the session left behind:\n" + "\n".join(left)
