"""A writer of files whose every page says which commit wrote it: what `clients/page_reader.py` reads.

Each commit rewrites the whole file and the WAL beside it and syncs once. On a plain filesystem a reader may
see any mix of that; on a follow mount it must see one commit.
"""

from __future__ import annotations

import os
from pathlib import Path

PAGE = 4096


class PageWriter:
    """Writes commits 1, 2, 3 … of pages. Commit n's file has 16 + n % 64 pages, its WAL 3."""

    def __init__(self, path: Path) -> None:
        self.commits = 0
        flags = os.O_RDWR | os.O_CREAT
        self._file = os.open(path, flags, 0o644)
        self._wal = os.open(f"{path}.wal", flags, 0o644)

    def commit(self) -> int:
        self.commits += 1
        page = self.commits.to_bytes(8, "little") + bytes([self.commits % 251]) * (PAGE - 8)
        count = 16 + self.commits % 64
        os.pwrite(self._wal, page * 3, 0)
        # In two writes, the headers last, as DuckDB does.
        os.pwrite(self._file, page * (count - 3), 3 * PAGE)
        os.pwrite(self._file, page * 3, 0)
        os.ftruncate(self._file, count * PAGE)
        os.fsync(self._file)
        return self.commits

    def close(self) -> None:
        os.close(self._file)
        os.close(self._wal)
