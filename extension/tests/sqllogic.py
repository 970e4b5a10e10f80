"""Runs files in DuckDB's sqllogictest format, as far as the extension's tests use it.

`statement ok`, `statement error` (what follows `----` must stand in the message), `query TYPES [rowsort]`:
rows with tabs between their columns, or `<REGEX>:…` and `<!REGEX>:…`, which must be found in the result's
text, or not. `other` behind them runs it on a second connection. NULL is NULL, the empty text (empty).
"""

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Record:
    """One statement or query of a file, and what it should give."""

    line: int
    kind: str
    words: list[str]
    sql: str
    expected: list[str]


def records(path: Path) -> list[Record]:
    """Everything that a file asks for."""
    found = []
    lines = path.read_text().split("\n")
    place = 0
    while place < len(lines):
        words = lines[place].split()
        place += 1
        if not words or words[0].startswith("#"):
            continue
        if words[0] not in ("statement", "query"):
            raise ValueError(f"{path}:{place}: what is {words[0]}?")
        start, sql, expected = place, [], []
        while place < len(lines) and lines[place].strip() and lines[place] != "----":
            sql.append(lines[place])
            place += 1
        if place < len(lines) and lines[place] == "----":
            place += 1
            while place < len(lines) and lines[place].strip():
                expected.append(lines[place])
                place += 1
        found.append(Record(start, words[0], words[1:], "\n".join(sql), expected))
    return found


def shown(value: object) -> str:
    """A value, as the files write it."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) or "(empty)"


def run(path: Path, connections: dict, variables: dict[str, str]) -> None:
    """Runs a file; raises where something is not as it says."""
    for record in records(path):
        sql = record.sql
        for name, value in variables.items():
            sql = sql.replace("${" + name + "}", value)
        where = f"{path.name}:{record.line}: {sql}"
        named = [word for word in record.words if word in connections]
        con = connections[named[0] if named else "main"]
        failure, rows = None, []
        try:
            # Everything as text, by DuckDB's own casts.
            con.execute(sql)
            rows = con.fetchall() if record.kind == "query" else []
        except Exception as error:  # noqa: BLE001
            failure = f"{type(error).__name__}: {error}"
        if record.kind == "statement" and record.words[0] == "error":
            assert failure is not None, f"{where}\nshould have failed"
            for part in record.expected:
                assert part in failure, f"{where}\nfailed with {failure}\nwhich lacks {part}"
            continue
        assert failure is None, f"{where}\nfailed with {failure}"
        if record.kind == "statement":
            continue
        got = ["\t".join(shown(value) for value in row) for row in rows]
        patterns = [line for line in record.expected if line.startswith(("<REGEX>:", "<!REGEX>:"))]
        if patterns:
            text = "\n".join(got)
            for line in patterns:
                kind, pattern = line.split(":", 1)
                seen = re.search(pattern, text, re.DOTALL) is not None
                assert seen == (kind == "<REGEX>"), f"{where}\n{kind} {pattern}\n{text}"
            continue
        expected = record.expected
        if "rowsort" in record.words:
            got, expected = sorted(got), sorted(expected)
        assert got == expected, f"{where}\ngave\n" + "\n".join(got) + "\nnot\n" + "\n".join(expected)
