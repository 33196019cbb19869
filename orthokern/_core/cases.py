"""Examples of the ops that every family stands on, and how their results are judged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .random import KEY_STEPS, MASK, MULTIPLIERS, ROUNDS, random_bits
from .registry import Case, Residual, declare
from .scaling import balance

Arrays = tuple[np.ndarray, ...]


def exact_words(counter: int, seed: int, group: int, stream: int) -> list[int]:
    """The four words in Python's own integers."""
    c = [counter & MASK, counter >> 32, group, stream]
    k = [seed & MASK, seed >> 32]
    for _ in range(ROUNDS):
        p, q = MULTIPLIERS[0] * c[0], MULTIPLIERS[1] * c[2]
        c = [q >> 32 ^ c[1] ^ k[0], q & MASK, p >> 32 ^ c[3] ^ k[1], p & MASK]
        k = [(key + step) & MASK for key, step in zip(k, KEY_STEPS, strict=True)]
    return c


def _bits_residuals(
    arrays: Arrays, words: Any, options: Mapping[str, Any], eps: float
) -> dict[str, Residual]:
    """Number of wrong words."""
    (index,) = arrays
    given = (options["seed"], options.get("group", 0), options["stream"])
    exact = np.array([exact_words(int(i), *given) for i in index.ravel()], dtype=float)
    wrong = np.count_nonzero(words.reshape(-1, 4) != exact) if words.size == exact.size else 1
    return {"wrong words": Residual(float(wrong), 0.0)}


def _balance_residuals(
    arrays: Arrays, out: Any, options: Mapping[str, Any], eps: float
) -> dict[str, Residual]:
    """Entries that do not come back bit for bit; members whose largest entry leaves [0.5, 1)."""
    (x,), (y, undo) = arrays, out
    finite = np.isfinite(undo)
    changed = np.count_nonzero(np.where(finite, y * undo != x, y != np.eye(*x.shape[-2:])))
    parts = np.maximum(np.abs(y.real), np.abs(y.imag)).max(axis=(-2, -1))
    astray = np.count_nonzero((parts != 0) & (parts != 1) & ~((parts >= 0.5) & (parts < 1)))
    return {"changed": Residual(float(changed), 0.0), "range": Residual(float(astray), 0.0)}


def _scales(g: np.random.Generator) -> Arrays:
    """A batch in which every member has a scale of its own, one is zero and one is not finite."""
    x = g.standard_normal((6, 5, 4)) * np.array([1e-30, 1e-3, 1.0, 7.0, 1e30, 0.0])[:, None, None]
    x[2, 1, 1] = np.nan
    return (x,)


declare(
    random_bits,
    residuals=_bits_residuals,
    flops=lambda arrays, options: 60.0 * arrays[0].size,
    cases=[
        Case("first counters", lambda g: (np.arange(7),), {"seed": 0, "stream": 4}),
        Case("wide seed", lambda g: (np.arange(90, 99),), {"seed": 2**64 - 3, "stream": 7}),
        Case("strided", lambda g: (np.arange(12),), {"seed": 5, "stream": 1}, layout="strided"),
        Case(
            "group", lambda g: (g.integers(0, 2**31, (3, 2)),), {"seed": 9, "stream": 9, "group": 5}
        ),
    ],
)

declare(
    balance,
    residuals=_balance_residuals,
    flops=lambda arrays, options: 2.0 * arrays[0].size,
    cases=[
        Case("batch of scales", _scales),
        Case("complex", lambda g: (g.standard_normal((9, 3)) * (300 - 40j),)),
        Case("transposed", lambda g: (g.standard_normal((8, 5)),), layout="transposed"),
        Case("strided", lambda g: (g.standard_normal((3, 8, 5)),), layout="strided"),
    ],
)
