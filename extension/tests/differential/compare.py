"""Whether two results are the same rows, in any order.

Sums of floating-point numbers depend on the order of their terms, so those are compared to nine digits;
everything else must be equal, and of the same type.
"""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

from client import Result


def assert_same(found: Result, wanted: Result, what: str) -> None:
    """Fails where they differ, with the first rows that do."""
    assert found.names == wanted.names, what
    assert found.types == wanted.types, what
    assert len(found.rows) == len(wanted.rows), f"{len(found.rows)} rows, not {len(wanted.rows)}: {what}"
    pairs = zip(sorted(found.rows, key=_order), sorted(wanted.rows, key=_order), strict=True)
    different = [(one, other) for one, other in pairs if not same(one, other)]
    assert not different, f"{len(different)} rows differ, first {different[0]}: {what}"


def assert_contains(limited: Result, all_rows: Result, what: str) -> None:
    """Fails where a row of the one is not in the other."""
    rest = sorted(all_rows.rows, key=_order)
    missing = [row for row in limited.rows if not any(same(row, other) for other in rest)]
    assert not missing, f"{missing[0]} is in no complete result: {what}"


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9) or (math.isnan(one) and math.isnan(other))
    if isinstance(one, (tuple, list)) and isinstance(other, (tuple, list)):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def _order(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """What to sort by: floating-point numbers last and rounded, since they may differ a little."""
    exact = [repr(value) for value in row if not isinstance(value, (float, Decimal))]
    decimals = [str(value) for value in row if isinstance(value, Decimal)]
    rounded = [f"{value:.6g}" for value in row if isinstance(value, float)]
    return (exact, decimals, rounded)
