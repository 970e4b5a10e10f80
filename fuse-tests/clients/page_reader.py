"""Opens a file the way DuckDB 2.0 does, three times and then its WAL, and checks that all bytes are of one
commit.

The file's pages, and the WAL's, all begin with the number of the commit that wrote them. Between the opens
it waits for random times, so that commits fall in between. Prints one line per session: `<CLOCK_MONOTONIC>
<commit>`, `stale` where an open was refused with ESTALE, `mix <what>` for bytes of two commits, or `error
<message>`.
"""

import argparse
import errno
import os
import random
import sys
import threading
import time

PAGE = 4096
parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("path")
parser.add_argument("--seconds", type=float, default=5.0)
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--gap-ms", type=float, default=300.0, help="the longest wait between two opens")
options = parser.parse_args()

stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()


def numbers(data, offset):
    """The commit numbers of the pages that begin in `data`."""
    return {int.from_bytes(data[at : at + 8], "little") for at in range(-offset % PAGE, len(data) - 7, PAGE)}


def read_whole(fd):
    parts = []
    offset = 0
    while part := os.pread(fd, 1 << 20, offset):
        parts.append(part)
        offset += len(part)
    return b"".join(parts)


def session(choose):
    def gap():
        time.sleep(choose.random() ** 2 * options.gap_ms / 1000)

    found = {}
    fd = os.open(options.path, os.O_RDONLY)
    found["first open"] = numbers(os.pread(fd, 16, 0), 0)
    os.close(fd)
    gap()
    fd = os.open(options.path, os.O_RDONLY)
    found["second open"] = numbers(os.pread(fd, 12288, 0), 0)
    os.close(fd)
    gap()
    fd = os.open(options.path, os.O_RDONLY)
    try:
        size = os.fstat(fd).st_size
        data = read_whole(fd)
        if len(data) != size:
            return f"mix fstat says {size} bytes, reading gave {len(data)}"
        found["third open"] = numbers(data, 0)
        gap()
        try:
            wal = os.open(options.path + ".wal", os.O_RDONLY)
        except FileNotFoundError:
            return f"mix no WAL beside the file, but every commit has one; {found}"
        try:
            found["WAL"] = numbers(read_whole(wal), 0)
        finally:
            os.close(wal)
        found["third open again"] = numbers(read_whole(fd), 0)
    finally:
        os.close(fd)
    commits = set().union(*found.values())
    if len(commits) != 1:
        return f"mix {found}"
    # Every commit makes the file longer by a page, up to 64, and then short again.
    (commit,) = commits
    if size != (16 + commit % 64) * PAGE:
        return f"mix commit {commit} has {16 + commit % 64} pages, this file {size / PAGE}"
    return str(commit)


def main():
    choose = random.Random(options.seed)
    deadline = time.monotonic() + options.seconds
    while time.monotonic() < deadline and not stop.is_set():
        begin = time.monotonic()
        try:
            said = session(choose)
            line = f"{begin} {said}" if said.isdigit() else said
        except OSError as error:
            line = "stale" if error.errno == errno.ESTALE else f"error {error}"
        os.write(1, (line + "\n").encode())


if __name__ == "__main__":
    main()
