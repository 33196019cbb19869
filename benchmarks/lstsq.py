"""Least squares beside its peers: time in turns, and the backward error of every solution.

::

    python benchmarks/lstsq.py            # everything, into benchmarks/results
    python benchmarks/lstsq.py --quick    # small sizes, few rounds: does it run?
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse
from comparison import Peer, Report, Task, run, script
from scipy.sparse.linalg import lsmr, lsqr

import orthokern

Problem = tuple[Any, np.ndarray]
# Sizes, condition number and target of dense problems.
Shape = tuple[int, int, float, float | None]
SHAPES: tuple[Shape, ...] = (
    (65536, 64, 1e3, 6.0),
    (65536, 128, 1e6, 6.0),
    (65536, 256, 1e2, 4.0),
    (65536, 512, 1e2, None),
    (16384, 1024, 1e2, 3.5),
    (16384, 1024, 1e3, 3.5),
    (16384, 1024, 1e6, 3.5),
    (262144, 128, 1e10, 4.5),
    (65536, 512, 1e10, 1.8),
)
QUICK_SHAPES: tuple[Shape, ...] = ((2000, 40, 1e2, None), (2000, 150, 1e10, None))
SMALL = ((50, 5), (20, 20), (30, 40), (200, 20), (1000, 10), (2000, 8), (4000, 32))


def dense(n: int, d: int, kappa: float) -> Problem:
    """Gaussian A with its singular values graded from 1 to 1 / kappa; b of a known x and noise."""
    g = np.random.default_rng(n + d)
    a = g.standard_normal((n, d))
    if kappa > 1:
        v, _ = np.linalg.qr(g.standard_normal((d, d)))
        a = (a * np.geomspace(1, 1 / kappa, d)) @ v
    return a, a @ np.ones(d) + 0.1 * g.standard_normal(n)


def sparse(n: int, d: int, density: float, kappa: float) -> Problem:
    """Random sparse A with graded columns that are mixed with their neighbours."""
    g = np.random.default_rng(n + d)
    a = scipy.sparse.random(n, d, density, format="csr", random_state=g)
    mix = scipy.sparse.diags([np.ones(d), np.ones(d - 1)], [0, 1])
    a = (a @ scipy.sparse.diags(np.geomspace(1, 1 / kappa, d)) @ mix).tocsr()
    return a, a @ np.ones(d) + 0.1 * g.standard_normal(n)


def _numpy(a: Any, b: Any) -> Any:
    return np.linalg.lstsq(a, b, rcond=None)


def _gelsy(a: Any, b: Any) -> Any:
    return scipy.linalg.lstsq(a, b, lapack_driver="gelsy", check_finite=False)


def _lsqr(a: Any, b: Any) -> Any:
    return lsqr(a, b, atol=1e-14, btol=1e-14)


def _lsmr(a: Any, b: Any) -> Any:
    return lsmr(a, b, atol=1e-14, btol=1e-14, maxiter=2 * a.shape[1])


def _way(found: Any) -> str:
    return orthokern.LstsqMethod(int(found.info.method)).name.lower()


def backward_error(a: Any, b: np.ndarray, found: Any) -> float:
    """Karlson and Waldén's estimate relative to ``||A||_F``, by the singular values of A."""
    x = found[0]
    r = b - a @ x
    square = a.toarray() if scipy.sparse.issparse(a) else a
    _, s, vh = np.linalg.svd(np.linalg.qr(square, mode="r") if len(square) > len(x) else square)
    length = max(float(np.linalg.norm(x)), np.finfo(float).tiny)
    omega = float(np.linalg.norm(r)) / length
    inside = (vh @ (a.T @ r))[: len(s)]
    return float(np.linalg.norm(inside / np.sqrt(s**2 + omega**2)) / length / np.linalg.norm(s))


def tasks(quick: bool) -> list[Task]:
    """Tall problems, small ones, a sparse one."""

    def task(name: str, make: Any, *peers: Peer) -> Task:
        return Task(name, make, orthokern.lstsq, peers, backward_error, _way)

    def small(n: int, d: int) -> Peer:
        if n * d >= 4000:
            return Peer("numpy.linalg.lstsq", _numpy, 1.0)
        return Peer("numpy.linalg.lstsq + 50 us", _numpy, 1.0, 50e-6)

    tall = [
        task(
            f"{n} x {d}, condition {kappa:.0e}",
            partial(dense, n, d, kappa),
            Peer("numpy.linalg.lstsq", _numpy, target),
            Peer("scipy gelsy", _gelsy, 1.0),
        )
        for n, d, kappa, target in (QUICK_SHAPES if quick else SHAPES)
    ]
    few = [
        task(f"small, {n} x {d}", partial(dense, n, d, 1.0), small(n, d))
        for n, d in (SMALL[:1] if quick else SMALL)
    ]
    n, d = (4000, 40) if quick else (200_000, 400)
    peers = Peer("scipy lsqr, 2 d steps", _lsqr, 20.0), Peer("scipy lsmr, 2 d steps", _lsmr, 20.0)
    zeros = task(f"sparse, {n} x {d}, 1 %, condition 1e5", partial(sparse, n, d, 0.01, 1e5), *peers)
    return [*tall, *few, zeros]


REPORT = Report(
    "lstsq",
    "Least squares beside its peers",
    "backward error relative to the Frobenius norm of A, of both",
    tasks,
)


main = partial(run, REPORT)

if __name__ == "__main__":
    script(main)
