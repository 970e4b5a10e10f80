"""Rounds: how two or more things are compared on a machine that is never quite still.

Every round measures each subject once, one right after the other, and every other round goes
through them backwards, so that whatever drifts meets all of them alike. A ratio is taken within
each round; the median of these is the result, and the smallest and the largest are its spread.
"""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Samples = dict[str, list[float]]


@dataclass(frozen=True)
class Ratio:
    """How many times as long as the other one, and the smallest and largest of any round."""

    middle: float
    least: float
    most: float


def alternate(subjects: Mapping[str, Callable[[], float]], rounds: int) -> Samples:
    """Measures each subject once per round."""
    samples: Samples = {name: [] for name in subjects}
    order = list(subjects)
    for _ in range(rounds):
        for name in order:
            samples[name].append(subjects[name]())
        order.reverse()
    return samples


def ratio(subject: list[float], baseline: list[float]) -> Ratio:
    """The subject's samples against the baseline's of the same rounds."""
    each = [mine / other for mine, other in zip(subject, baseline, strict=True)]
    return Ratio(statistics.median(each), min(each), max(each))


def percentile(samples: list[float], percent: int) -> float:
    """The sample that `percent` of all samples do not exceed."""
    ordered = sorted(samples)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]
