"""Products of matrices by tiles of registers beside BLAS: time in turns, and the error of both.

::

    python benchmarks/products.py            # everything, into benchmarks/results
    python benchmarks/products.py --quick    # small sizes, few rounds: does it run?
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

import numpy as np
from comparison import Peer, Report, Task, run, script
from orthokern_numba import panels, products
from scipy.linalg.blas import dtrsm

Sizes = Sequence[tuple[int, int]]


def _gaussian(dtype: str, *shapes: tuple[int, int]) -> tuple[np.ndarray, ...]:
    g = np.random.default_rng(0)
    return tuple(g.standard_normal(shape).astype(dtype) for shape in shapes)


def _gram(x: np.ndarray) -> np.ndarray:
    total, g = products.TiledGram(x.shape[1], x.dtype), np.empty((x.shape[1],) * 2, x.dtype)
    total.add(x)
    total.write(g)
    return g


def _off(found: np.ndarray, expected: np.ndarray, v: np.ndarray) -> float:
    """Relative error of a product, seen by one vector; ``expected`` is the product times that vector."""
    return float(np.linalg.norm(found @ v - expected) / np.linalg.norm(expected))


def _probe(n: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(n).astype(np.longdouble)


def _gram_error(x: np.ndarray, found: np.ndarray) -> float:
    v = _probe(x.shape[1])
    return _off(found, x.T @ (x @ v), v)


def _error(x: np.ndarray, y: np.ndarray, found: np.ndarray) -> float:
    v = _probe(y.shape[1])
    return _off(found, x @ (y @ v), v)


def _adjoint_error(x: np.ndarray, y: np.ndarray, found: np.ndarray) -> float:
    return _error(x.T, y, found)


def gram_matrices(sizes: Sizes, dtype: str) -> list[Task]:
    """``X^T X``, of which NumPy's product knows that it is symmetric."""
    return [
        Task(
            f"X^T X, {n} x {d}, {dtype}",
            partial(_gaussian, dtype, (n, d)),
            _gram,
            (Peer("numpy x.T @ x", lambda x: x.T @ x),),
            _gram_error,
        )
        for n, d in sizes
    ]


def general(sizes: Sequence[tuple[int, int, int]], dtype: str) -> list[Task]:
    """``X Y`` and ``X^T Y``."""
    straight = [
        Task(
            f"X Y, {n} x {d} x {k}, {dtype}",
            partial(_gaussian, dtype, (n, d), (d, k)),
            products.multiplied,
            (Peer("numpy x @ y", np.matmul),),
            _error,
        )
        for n, d, k in sizes
    ]
    turned = [
        Task(
            f"X^T Y, {d} x {n} x {k}, {dtype}",
            partial(_gaussian, dtype, (n, d), (n, k)),
            products.adjoint_multiplied,
            (Peer("numpy x.T @ y", lambda x, y: x.T @ y),),
            _adjoint_error,
        )
        for n, d, k in sizes
    ]
    return [*straight, *turned]


def _triangle(n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = _gaussian("float64", (n, d), (2 * d, d))
    return x, np.asfortranarray(np.linalg.qr(y)[1])


def _divided(x: np.ndarray, r: np.ndarray) -> np.ndarray:
    out = np.empty_like(x)
    panels.divide(x, products.divisor_of(r), out)
    return out


def _residual(x: np.ndarray, r: np.ndarray, found: np.ndarray) -> float:
    return float(np.linalg.norm(found @ r - x) / np.linalg.norm(x))


def divisions(sizes: Sizes) -> list[Task]:
    """``X R^{-1}`` by substitution; the error is the residual."""
    return [
        Task(
            f"X R^-1, {n} x {d}, float64",
            partial(_triangle, n, d),
            _divided,
            (Peer("scipy dtrsm", lambda x, r: dtrsm(1.0, r, x.T, trans_a=1).T),),
            _residual,
        )
        for n, d in sizes
    ]


def tasks(quick: bool) -> list[Task]:
    """What is measured; nothing where the tiles would not be used."""
    if not products.tiles_pay(np.dtype("float64")):
        sys.stderr.write("tiles are not used here: no AVX-512, or more than one thread of BLAS\n")
        return []
    if quick:
        return [*gram_matrices([(500, 40)], "float64"), *general([(90, 80, 70)], "float64")]
    return [
        *(task for dtype in ("float64", "float32") for task in _of(dtype)),
        *divisions([(65536, 64), (32768, 256), (16384, 1024)]),
    ]


def _of(dtype: str) -> list[Task]:
    tall = [(65536, 64), (65536, 128), (32768, 256), (16384, 1024)]
    return [
        *gram_matrices(tall, dtype),
        *general([(512, 512, 512), (1024, 1024, 1024), (8192, 1024, 60)], dtype),
    ]


REPORT = Report(
    "products",
    "Products by tiles of registers beside BLAS",
    "of the product, relative, on one random vector; of divisions the relative residual",
    tasks,
)


main = partial(run, REPORT)

if __name__ == "__main__":
    script(main)
