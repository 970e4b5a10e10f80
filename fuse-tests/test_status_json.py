"""What programs read: the `--json` documents with their fixed keys, `.openduck/status`, and a mounting
process that keeps nothing of its caller's."""

from __future__ import annotations

import datetime
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.openduck import Home, Mount, parse_document
from harness.posix import opened, pattern
from harness.processes import is_alive, wait_until

STATUS_KEYS = {
    "database",
    "dir",
    "mode",
    "pid",
    "head_lsn",
    "epoch",
    "layers",
    "bytes_local",
    "bytes_remote",
    "upload_lag_ms",
    "cache",
}


def commit(mount: Mount, number: int = 1) -> int:
    with opened(mount.file, os.O_RDWR | os.O_CREAT) as fd:
        os.pwrite(fd, pattern(number, 50_000), 0)
        os.fsync(fd)
    return mount.head_lsn


def test_fixed_keys_of_every_document(home: Home) -> None:
    """The table of the contract, document by document, with the types that stand in it."""
    mount = home.mount("mydb")
    assert {"file", "mode", "pid", "ref"} <= set(mount.document)
    assert mount.document["file"] == str(mount.file)
    assert mount.document["mode"] == "rw"
    assert isinstance(mount.document["pid"], int)
    lsn = commit(mount)
    snapshot = home.json("snapshot", "mydb", "one")["snapshot"]
    assert {"id", "name", "lsn"} <= set(snapshot)
    assert (snapshot["name"], snapshot["lsn"]) == ("one", lsn)
    assert {"id", "name", "lsn"} <= set(home.json("clone", "mydb@one", "copy")["snapshot"])
    rows = home.json("list")["databases"]
    assert [row["name"] for row in rows] == ["copy", "mydb"]
    for row in rows:
        assert {"name", "head_lsn", "bytes", "created"} <= set(row)
        assert isinstance(row["bytes"], int)
        datetime.datetime.fromisoformat(row["created"])
    (row,) = home.json("log", "mydb")["snapshots"]
    assert {"id", "name", "lsn", "time", "added_bytes"} <= set(row)
    datetime.datetime.fromisoformat(row["time"])
    assert home.json("log", "copy")["snapshots"] == []
    document = home.json("status")
    assert [set(status) >= STATUS_KEYS for status in document["mounts"]] == [True]
    frozen = home.mount("mydb@one")
    assert (frozen.document["mode"], frozen.document["ref"]) == ("ro", "one")
    frozen.umount()
    mount.umount()
    assert {"id", "name", "lsn"} <= set(home.json("restore", "mydb@one")["snapshot"])
    document = home.json("verify", "--deep")
    assert {"ok", "checked_bytes", "problems"} <= set(document)
    assert document["checked_bytes"] > 50_000
    for flags in ((), ("--dry-run",), ("--grace", "0s")):
        assert {"layers_deleted", "bytes_freed", "layers_kept"} <= set(home.json("gc", *flags))
    assert home.json("status") == {"mounts": []}


def test_every_other_command_gives_one_document_too(home: Home, work: Path) -> None:
    """`--json` is for all commands, also where no key is fixed."""
    home.json("create", "mydb")
    mount = home.mount("mydb")
    commit(mount)
    home.json("snapshot", "mydb", "one")
    home.json("show", "mydb")
    home.json("log", "mydb", "--commits")
    home.json("diff", "mydb@one", "mydb@latest")
    home.json("export", "mydb", work / "out.duckdb")
    home.json("import", work / "out.duckdb", "imported")
    home.json("compact", "mydb")
    home.json("retention", "mydb", "1d")
    home.json("unsnapshot", "mydb", "one")
    home.json("umount", mount.dir)
    mount.forget()
    home.json("remove", "mydb")
    home.json("undrop", "mydb")


def test_a_failure_with_json_is_still_one_line_on_stderr(home: Home) -> None:
    """No half document on stdout."""
    outcome = home.try_run("show", "nodb", json_document=True)
    assert outcome.status != 0
    assert outcome.stdout == ""
    assert len(outcome.stderr.splitlines()) == 1


def test_status_of_every_kind_of_mount(home: Home) -> None:
    """`.openduck/status` is one object in every mount, read-only ones too, and `status` lists them all."""
    mount = home.mount("mydb")
    lsn = commit(mount)
    home.run("snapshot", "mydb", "one")
    later = commit(mount, 2)
    frozen = home.mount("mydb@one")
    follow = home.mount("mydb", "--follow")
    assert lsn < later
    assert (mount.head_lsn, follow.head_lsn) == (later, later)
    for one, mode in ((mount, "rw"), (frozen, "ro"), (follow, "ro")):
        status = one.status()
        assert set(status) >= STATUS_KEYS
        assert (status["database"], status["dir"], status["mode"]) == ("mydb", str(one.dir), mode)
        assert status["pid"] == one.pid
        assert status["layers"] >= 1
        assert status["bytes_local"] > 0
        assert set(status["cache"]) >= {"hits", "misses", "bytes"}
        assert os.stat(one.dir / ".openduck" / "status").st_mode & 0o222 == 0
    listed = {status["dir"]: status for status in home.json("status")["mounts"]}
    assert set(listed) == {str(mount.dir), str(frozen.dir), str(follow.dir)}
    # The file read piece by piece is still one document.
    with open(mount.dir / ".openduck" / "status", "rb", buffering=0) as file:
        pieces = iter(lambda: file.read(7), b"")
        assert set(json.loads(b"".join(pieces))) >= STATUS_KEYS


def test_status_survives_dead_and_stopped_servers(home: Home) -> None:
    """A killed server is not listed, and a stopped one neither hides the others nor hangs the command."""
    good, dead, stopped = (home.mount(name) for name in ("good", "dead", "stopped"))
    dead.kill()
    stopped.signal(signal.SIGSTOP)
    try:
        listed = {status["database"]: status for status in home.json("status", timeout_s=30)["mounts"]}
    finally:
        stopped.signal(signal.SIGCONT)
    assert "dead" not in listed
    assert listed["good"]["pid"] == good.pid
    assert listed["stopped"]["pid"] == stopped.pid
    assert is_alive(good.pid)


def test_the_server_keeps_none_of_the_callers_descriptors(home: Home, work: Path) -> None:
    """Pipes, files and the terminal of whoever called `mount` are closed in the process that serves it, so a
    script's pipeline ends and a directory can be unmounted."""
    reading, writing = os.pipe()
    secret = os.open(work / "secret", os.O_RDWR | os.O_CREAT)
    directory = home.new_mount_dir()
    outcome = home.try_run("mount", "mydb", directory, json_document=True, pass_fds=(writing, secret))
    document = parse_document(outcome)
    mount = Mount(home, "mydb", directory, document)
    home.servers.add(mount.pid)
    home.mounts.append(mount)
    os.close(writing)
    try:
        targets = {
            os.readlink(f"/proc/{mount.pid}/fd/{name}") for name in os.listdir(f"/proc/{mount.pid}/fd")
        }
        inode = os.fstat(reading).st_ino
        assert f"pipe:[{inode}]" not in targets
        assert str(work / "secret") not in targets
        # The pipe ends, since nobody else holds it.
        os.set_blocking(reading, False)
        assert os.read(reading, 1) == b""
    finally:
        os.close(reading)
        os.close(secret)
    # Its own standard streams lead nowhere, or to its log, as soon as it has told that it is live.
    for name in ("0", "1", "2"):
        wait_until(
            f"descriptor {name} of the mounting process to lead nowhere",
            lambda path=Path(f"/proc/{mount.pid}/fd/{name}"): leads_nowhere(path, home),
            5,
        )
    assert os.readlink(f"/proc/{mount.pid}/cwd") in ("/", str(home.path))
    assert os.getsid(mount.pid) != os.getsid(0)


def leads_nowhere(descriptor: Path, home: Home) -> bool:
    """A standard stream that is closed, discarded, or written to a log in the home."""
    if not descriptor.is_symlink():
        return True
    target = os.readlink(descriptor)
    return target == "/dev/null" or target.startswith(str(home.path))


def test_mount_in_a_pipeline_returns(home: Home) -> None:
    """`openduck-fs mount … | cat` comes back: nobody holds the pipe open."""
    directory = home.new_mount_dir()
    command = subprocess.run(
        ["sh", "-c", '"$@" 2>&1 | cat', "sh", *home.argv("mount", "mydb", directory)],
        timeout=30,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "mydb" in command.stdout
    (status,) = home.json("status")["mounts"]
    home.servers.add(status["pid"])
    home.run("umount", directory)


def test_the_newest_commits_number_is_a_file(home: Home) -> None:
    """`.openduck/head_lsn` of a live mount: the last acknowledged commit, read anew each time by an open
    file."""
    mount = home.mount("mydb")
    with open(mount.dir / ".openduck/head_lsn", "rb", buffering=0) as head:
        seen = []
        for _ in range(3):
            commit(mount)
            seen.append(int(os.pread(head.fileno(), 100, 0)))
            assert seen[-1] == mount.status()["head_lsn"]
        assert seen == sorted(set(seen))
        assert os.fstat(head.fileno()).st_size == len(os.pread(head.fileno(), 100, 0))
    with pytest.raises(PermissionError):
        (mount.dir / ".openduck/head_lsn").write_bytes(b"7")
    follow = home.mount("mydb", "--follow")
    assert not (follow.dir / ".openduck/head_lsn").exists()


def test_foreground_serves_until_it_is_told_to_end(home: Home, closers: list[Callable[[], None]]) -> None:
    """`--foreground` is live when the file can be seen, ends on SIGINT, and releases everything."""
    directory = home.new_mount_dir()
    other = home.mount("other")
    held = os.open(other.dir, os.O_RDONLY)
    process = subprocess.Popen(
        home.argv("mount", "mydb", directory, "--foreground"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        pass_fds=[held],
    )
    os.close(held)
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.append(process.communicate()[0]), daemon=True)
    reader.start()
    closers.append(process.kill)
    wait_until("the foreground mount", lambda: os.path.isdir(directory / ".openduck"))
    (directory / "mydb.duckdb").write_bytes(b"x" * 5000)
    # What its caller had open at that moment holds up nobody.
    home.run("umount", other.dir)
    process.send_signal(signal.SIGINT)
    reader.join(30)
    assert process.returncode == 0
    mount = home.mount("mydb")
    assert mount.file.read_bytes() == b"x" * 5000


def test_cache_bytes_count_what_was_fetched(home: Home) -> None:
    """On one host everything is local: nothing is fetched, and nothing waits for an upload."""
    mount = home.mount("mydb")
    commit(mount)
    mount.file.read_bytes()
    status = mount.status()
    assert status["cache"]["bytes"] == 0
    assert status["bytes_remote"] == 0
    assert not status["upload_lag_ms"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completions(home: Home, shell: str) -> None:
    """Completion scripts for the usual shells."""
    assert "openduck-fs" in home.run("completions", shell).stdout


def test_every_command_has_help_with_an_example(home: Home) -> None:
    """`--help` of each command of the contract shows how it is used."""
    commands = [
        "mount",
        "umount",
        "create",
        "list",
        "show",
        "status",
        "snapshot",
        "unsnapshot",
        "log",
        "clone",
        "restore",
        "remove",
        "undrop",
        "import",
        "export",
        "diff",
        "verify",
        "compact",
        "gc",
        "retention",
    ]
    listing = home.run("--help").stdout
    for command in commands:
        assert command in listing
        assert f"openduck-fs {command}" in home.run(command, "--help").stdout
