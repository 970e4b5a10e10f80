"""How the demonstration speaks: headings, short lines, and a verdict at the end."""

import sys
import time

GREEN, RED, BOLD, PLAIN = "\033[32m", "\033[31m", "\033[1m", "\033[0m"


class Stage:
    """Prints lines as things happen, and counts what was checked."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._in_color = sys.stdout.isatty()
        self._chapters = 0
        self._held = 0
        self._failed: list[str] = []

    def chapter(self, title: str) -> None:
        """A heading."""
        self._chapters += 1
        print(f"\n{self._paint(BOLD, f'{self._chapters}. {title}')}", flush=True)

    def fact(self, what: str, value: str, seconds: float | None = None) -> None:
        """A line: what was done, what came out, how long it took."""
        took = "" if seconds is None else duration(seconds)
        print(f"   {what:<44} {value:>24} {took:>9}", flush=True)

    def block(self, text: str) -> None:
        """Something printed by a command, as it is."""
        for line in text.rstrip().splitlines():
            print(f"   | {line}")
        sys.stdout.flush()

    def check(self, claim: str, holds: bool, found: str = "") -> None:
        """A claim, and whether it was found true."""
        if holds:
            self._held += 1
            mark = self._paint(GREEN, "ok  ")
        else:
            self._failed.append(claim)
            mark = self._paint(RED, "FAIL")
        print(f"   {mark} {claim}{f': {found}' if found else ''}", flush=True)

    def verdict(self) -> int:
        """The last line; returns the exit status."""
        took = duration(time.monotonic() - self._began)
        if self._failed:
            print(f"\n{self._paint(RED, 'These did not hold:')}")
            for claim in self._failed:
                print(f"   {claim}")
            return 1
        print(f"\n{self._paint(GREEN, f'All {self._held} checks held')} ({took}). Nothing was left behind.")
        return 0

    def _paint(self, color: str, text: str) -> str:
        return f"{color}{text}{PLAIN}" if self._in_color else text


def duration(seconds: float) -> str:
    """A time as a person reads it."""
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"


def size(count: int) -> str:
    """Bytes as a person reads them."""
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"
