"""Bounds of singular values, and probes of errors, by products with a few vectors; all stay on the device."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from .library import adjoint, frobenius, lengths, real, safe

# Vectors at once, and the steps for norms, for inverses and for what is small and of both signs.
VECTORS = 8
# Devices add up the terms of a product one after the other; sums of so many keep errors at the root of their number.
PART = 256
UPPER_STEPS, LOWER_STEPS, DEPARTURE_STEPS = 8, 4, 16


def spread(n: int, like: Any, cp: Any) -> Any:
    """(n, k) start without structure: no matrix of the kinds that people write down is orthogonal to all of it."""
    number = real(like)
    rows = cp.arange(1, n + 1, dtype=number)[:, None]
    columns = cp.arange(min(n, VECTORS), dtype=number)
    phase = rows * rows * number(0.7548776662466927) + rows * columns * number(0.5698402909980532)
    return cp.cos(phase).astype(like.dtype)


def gaussian(n: int, like: Any, cp: Any) -> Any:
    """(n, k) fixed random numbers: ``||K V||_F`` estimates ``||K||_F sqrt(k)`` for every K."""
    return cp.asarray(_numbers(n, like.dtype.char))


@functools.lru_cache(maxsize=64)
def _numbers(n: int, char: str) -> np.ndarray:
    # Kept on the host: an array on a device belongs to a stream.
    return np.random.default_rng(1729).standard_normal((n, VECTORS)).astype(char)


def _unit(v: Any, cp: Any) -> Any:
    return v / safe(lengths(v, cp), cp)


def gain(apply: Callable[[Any], Any], v: Any, steps: int, cp: Any) -> Any:
    """Estimate from below of the norm of a Hermitian map, shape (...): power steps on a few vectors at once."""
    for _ in range(steps):
        v = apply(_unit(v, cp))
    return cp.max(lengths(v, cp), axis=(-2, -1))


def power_norm(x: Any, cp: Any, steps: int = UPPER_STEPS) -> Any:
    """Estimate from below of the largest singular value, shape (...)."""
    v = spread(x.shape[-1], x, cp)
    for _ in range(steps):
        v = cp.matmul(adjoint(x, cp), cp.matmul(x, _unit(v, cp)))
    return cp.max(lengths(cp.matmul(x, _unit(v, cp)), cp), axis=(-2, -1))


def norm_bound(x: Any, cp: Any) -> Any:
    """The least of ``||x||_F`` and ``sqrt(||x||_1 ||x||_inf)``, shape (...)."""
    sizes = cp.abs(x)
    columns = cp.max(cp.sum(sizes, axis=-2), axis=-1)
    rows = cp.max(cp.sum(sizes, axis=-1), axis=-1)
    return cp.minimum(frobenius(x, cp), cp.sqrt(columns * rows))


def skewness(x: Any, u: Any, cp: Any) -> Any:
    """Estimate of the backward error ``||U^H X - X^H U||_F / 2``, shape (...)."""
    v = gaussian(x.shape[-1], x, cp)
    skew = cp.matmul(adjoint(u, cp), cp.matmul(x, v)) - cp.matmul(adjoint(x, cp), cp.matmul(u, v))
    return frobenius(skew, cp) * real(x)(0.5 / VECTORS**0.5)


def product(x: Any, v: Any, cp: Any) -> Any:
    """``X V`` with its sums in parts: in one go those of a probe with n terms err by more than what it looks for."""
    starts = range(PART, x.shape[-1], PART)
    total = cp.matmul(x[..., :PART], v[..., :PART, :])
    for i in starts:
        total = total + cp.matmul(x[..., i : i + PART], v[..., i : i + PART, :])
    return total


def departure(u: Any, cp: Any) -> Any:
    """Estimate of ``||U^H U - I||_F``, shape (...)."""
    v = gaussian(u.shape[-1], u, cp)
    missed = product(adjoint(u, cp), product(u, v, cp), cp) - v
    return frobenius(missed, cp) * real(u)(VECTORS**-0.5)
