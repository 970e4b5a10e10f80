"""What a PostgreSQL server says, without its notifications: so a pooler that shares sessions passes it on."""

from __future__ import annotations

NOTIFICATION = b"A"
# The answer of a server without TLS to the question for it, before everything else: not a message.
NO_TLS = b"N"


class Mute:
    """One connection's answers, from their beginning on."""

    def __init__(self) -> None:
        self._rest = b""
        self._is_first = True

    def pass_on(self, data: bytes) -> bytes:
        """What is to be passed on now that these bytes came."""
        if self._is_first:
            self._is_first = False
            # The client waits for it, so nothing else comes with it.
            if data == NO_TLS:
                return data
        rest, passed = self._rest + data, []
        while len(rest) >= 5 and len(rest) >= (end := 1 + int.from_bytes(rest[1:5])):
            if rest[:1] != NOTIFICATION:
                passed.append(rest[:end])
            rest = rest[end:]
        self._rest = rest
        return b"".join(passed)
