"""Where the parts of a test session find each other: keys of pytest's stashes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.processes import Watchdog

# The directory that everything of this session lies below.
SESSION = pytest.StashKey[Path]()
# Of one test: what wakes up whoever waits inside a mount, and what its mounts wrote into their logs.
SHAKERS = pytest.StashKey[list[Callable[[], None]]]()
LOGS = pytest.StashKey[list[Callable[[], str]]]()
# What ends the test if it hangs.
WATCHDOG = pytest.StashKey[Watchdog]()
