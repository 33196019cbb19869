"""Times of the randomized factorizations against NumPy and scikit-learn.

OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/randomized.py

Prints the best processor time of a few interleaved runs, what each result departs from the matrix, and the ratio.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import orthokern

REPEATS = 3


def graded(n: int, d: int, s: np.ndarray) -> np.ndarray:
    """A matrix of the singular values ``s``."""
    g = np.random.default_rng(0)
    u, v = (np.linalg.qr(g.standard_normal((m, len(s))))[0] for m in (n, d))
    return np.ascontiguousarray((u * s) @ v.T)


def best(*calls: Callable[[], Any]) -> list[float]:
    """Shortest processor time of each, which others on the machine disturb less than the clock; they take turns."""
    times = [float("inf")] * len(calls)
    for call in calls:
        call()
    for _ in range(REPEATS):
        for i, call in enumerate(calls):
            start = time.process_time()
            call()
            times[i] = min(times[i], time.process_time() - start)
    return times


def qr(n: int, d: int) -> None:
    """Condition number 1e12."""
    a = graded(n, d, np.logspace(0, -12, d))
    ours, theirs = best(lambda: orthokern.rand_cholqr(a), lambda: np.linalg.qr(a))
    q, r, *_ = orthokern.rand_cholqr(a)
    departure = np.linalg.norm(q.T @ q - np.eye(d), 2)
    error = np.linalg.norm(a - q @ r) / np.linalg.norm(a)
    print(
        f"rand_cholqr {n}x{d}: {ours:.3f} s, numpy {theirs:.3f} s, ratio {theirs / ours:.2f}, "
        f"orthogonality {departure:.1e}, error {error:.1e}"
    )


def svd(n: int, d: int, k: int) -> None:
    """Singular values 1, 1/2, 1/3, ..."""
    from sklearn.utils.extmath import randomized_svd as peer

    s = 1 / np.arange(1.0, d + 1)
    a = graded(n, d, s)
    options = {"n_oversamples": 10, "n_iter": 2, "random_state": 0}
    ours, theirs = best(
        lambda: orthokern.randomized_svd(a, k=k, power=2), lambda: peer(a, k, **options)
    )
    error, other = (
        np.linalg.norm(a - (u * found) @ vh) / np.linalg.norm(s[k:])
        for u, found, vh in (orthokern.randomized_svd(a, k=k, power=2), peer(a, k, **options))
    )
    print(
        f"randomized_svd {n}x{d}, k={k}: {ours:.3f} s, scikit-learn {theirs:.3f} s, ratio {theirs / ours:.2f}, "
        f"error over the best {error:.5f} and {other:.5f}"
    )


if __name__ == "__main__":
    qr(65536, 128)
    qr(32768, 256)
    if importlib.util.find_spec("sklearn"):
        svd(8192, 512, 20)
        svd(2000, 2000, 50)
    else:
        print("randomized_svd: scikit-learn is not installed, nothing compared")
