"""Matrices that the cases of this family are made of."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..._core.registry import real_data

Arrays = tuple[np.ndarray, ...]
GRADIENTS = ("layer1_early", "layer1_middle", "layer1_late")


def with_spectrum(
    g: np.random.Generator, m: int, n: int, spectrum: np.ndarray, *, dtype: type = np.float64
) -> np.ndarray:
    """A random m x n matrix with the given singular values."""
    k = len(spectrum)

    def unitary(size: int) -> np.ndarray:
        z = g.standard_normal((size, k))
        return np.linalg.qr(z + 1j * g.standard_normal((size, k)) if dtype is np.complex128 else z)[
            0
        ]

    product: np.ndarray = (unitary(m) * spectrum) @ unitary(n).conj().T
    return product


def graded(
    g: np.random.Generator, m: int, n: int, kappa: float, *, dtype: type = np.float64
) -> np.ndarray:
    """Singular values spaced evenly on a log scale from 1 to 1/kappa."""
    return with_spectrum(g, m, n, np.logspace(0, -np.log10(kappa), min(m, n)), dtype=dtype)


def hilbert(n: int) -> np.ndarray:
    """The Hilbert matrix 1/(i + j + 1)."""
    return 1.0 / (np.arange(n)[:, None] + np.arange(n) + 1.0)


def batch(g: np.random.Generator, count: int, m: int, n: int) -> np.ndarray:
    """Members of condition 1, 10, ..., 1e6, and over again."""
    return np.stack([graded(g, m, n, 10.0 ** (i % 7)) for i in range(count)])


def adjoint(x: np.ndarray) -> np.ndarray:
    """Conjugate transpose of each matrix."""
    turned: np.ndarray = np.conj(np.swapaxes(x, -1, -2))
    return turned


def norm(x: np.ndarray) -> np.ndarray:
    """Frobenius norm of each matrix."""
    norms: np.ndarray = np.linalg.norm(x, axis=(-2, -1))
    return norms


def matrix(
    make: Callable[[np.random.Generator], np.ndarray],
) -> Callable[[np.random.Generator], Arrays]:
    """One matrix as the list of arrays that a case is made of."""
    return lambda g: (make(g),)


def shipped(name: str, *keys: str) -> Callable[[np.random.Generator], Arrays]:
    """A shipped matrix, or several stacked."""

    def make(g: np.random.Generator) -> Arrays:
        stack = np.stack([np.asarray(real_data(name)[key], dtype=np.float64) for key in keys])
        return (stack if len(keys) > 1 else stack[0],)

    return make
