"""What an extension was built for, as the end of its file says.

DuckDB checks this too, and more strictly, when it loads the file; here it is read to say in plain words
what does not fit. Eight fields of 32 bytes stand before the 256 bytes of the signature; the sixth is
DuckDB's version, the seventh the platform.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

_FOOTER_BYTES = 512
_FIELD_BYTES = 32


class BuiltFor(NamedTuple):
    """DuckDB's version without its `v`, and the platform in DuckDB's words."""

    duckdb: str
    platform: str


def read(path: Path) -> BuiltFor:
    """What the extension in `path` was built for."""
    with path.open("rb") as file:
        file.seek(-_FOOTER_BYTES, 2)
        end = file.read(_FOOTER_BYTES)
    version, platform = (
        end[_FIELD_BYTES * number : _FIELD_BYTES * (number + 1)].rstrip(b"\0").decode("ascii", "replace")
        for number in (5, 6)
    )
    return BuiltFor(version.removeprefix("v"), platform)
