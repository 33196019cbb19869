"""Rows chosen at random without replacement."""

from __future__ import annotations

from typing import Any

from .._core.namespace import device, namespace
from .._core.random import random_bits
from .._core.segments import ranked

# The stream of random words (a change changes every sketch).
SAMPLE = 5


def sample(n: int, like: Any, seed: int) -> Any:
    """The numbers of n rows in random order: the first s of them are the rows that are taken."""
    xp = namespace(like)
    index = xp.arange(n, device=device(like))
    return xp.argsort(random_bits(index, seed=seed, stream=SAMPLE)[:, 0], stable=True)


def chosen_rows(a: Any, shape: tuple[int, int], seed: int, start: int) -> Any:
    """The chosen rows of which ``a`` (..., m, d) is the part from ``start`` on; zero where they are elsewhere."""
    xp = namespace(a)
    (s, n), m = shape, a.shape[-2]
    place = sample(n, a, seed)[:s] - start
    here = (place >= 0) & (place < m)
    rows = xp.take(a, xp.where(here, place, xp.zeros_like(place)), axis=-2)
    return xp.where(here[:, None], rows, xp.zeros_like(rows)) * (n / s) ** 0.5


def placed_rows(y: Any, shape: tuple[int, int], seed: int) -> Any:
    """The transpose: rows of ``y`` (..., s, d) back in their places, zeros elsewhere."""
    s, n = shape
    return ranked(sample(n, y, seed), y) * (n / s) ** 0.5
