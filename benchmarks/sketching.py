"""Sketches and randomized factorizations beside their peers.

::

    python benchmarks/sketching.py            # everything, into benchmarks/results
    python benchmarks/sketching.py --quick    # small sizes, few rounds: does it run?
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import scipy.fft
import scipy.linalg
from comparison import Peer, Report, Task, run, script

import orthokern


def gaussian(n: int, d: int) -> tuple[np.ndarray]:
    """A matrix of normal numbers."""
    return (np.random.default_rng(0).standard_normal((n, d)),)


def graded(n: int, d: int, s: np.ndarray) -> tuple[np.ndarray]:
    """A matrix of the singular values ``s``."""
    g = np.random.default_rng(0)
    u, v = (np.linalg.qr(g.standard_normal((m, len(s))))[0] for m in (n, d))
    return (np.ascontiguousarray((u * s) @ v.T),)


def _norm_error(a: np.ndarray, out: np.ndarray) -> float:
    """A transform keeps norms: relative departure of the worst column, of the transform over its own size."""
    sizes = np.linalg.norm(out, axis=0) / np.linalg.norm(a, axis=0)
    return float(np.abs(sizes / sizes.mean() - 1).max())


def transforms(sizes: Sequence[tuple[int, int]]) -> list[Task]:
    """Walsh-Hadamard transforms beside the cosine transform."""
    return [
        Task(
            f"fwht, {n} x {d}",
            partial(gaussian, n, d),
            partial(orthokern.fwht, normalized=True),
            (
                Peer(
                    "scipy.fft.dct",
                    partial(scipy.fft.dct, axis=0, norm="ortho"),
                    3.0 if d >= 16 else 1.0,
                ),
            ),
            _norm_error,
        )
        for n, d in sizes
    ]


def _spread(a: np.ndarray, out: np.ndarray) -> float:
    """A sketch keeps norms on average: relative departure of the Frobenius norm."""
    return float(abs(np.linalg.norm(out) / np.linalg.norm(a) - 1))


def sketches(n: int, d: int, s: int) -> list[Task]:
    """Sketches of one matrix, S as a sparse or dense matrix that is there beside S from its seed."""
    operators = {
        "sjlt": orthokern.sjlt(s, n, nnz=8, seed=0),
        "countsketch": orthokern.countsketch(s, n, seed=0),
        "srht": orthokern.srht(s, n, seed=0),
    }
    rows, columns, values = operators["sjlt"].to_sparse()
    csr = scipy.sparse.csr_array((values, (rows, columns)), shape=operators["sjlt"].shape)
    normal = np.random.default_rng(0).standard_normal((s, n)) / s**0.5
    peers = {
        "sjlt": Peer("scipy CSR times A, S prebuilt", lambda a: csr @ a, 4.0),
        "countsketch": Peer(
            "scipy clarkson_woodruff_transform",
            lambda a: scipy.linalg.clarkson_woodruff_transform(a, s, seed=0),
            1.5,
        ),
        "srht": Peer("dense Gaussian times A, S prebuilt", lambda a: normal @ a, 5.0),
    }
    return [
        Task(
            f"{name}, {s} rows of {n} x {d}",
            partial(gaussian, n, d),
            operator.apply,
            (peers[name],),
            _spread,
        )
        for name, operator in operators.items()
    ]


def _orthogonality(a: np.ndarray, found: Any) -> float:
    q = found[0]
    return float(np.linalg.norm(q.T @ q - np.eye(q.shape[1]), 2))


def factorizations(sizes: Sequence[tuple[int, int]]) -> list[Task]:
    """QR of ill conditioned matrices; the error is the departure of Q from orthonormal columns."""
    return [
        Task(
            f"rand_cholqr, {n} x {d}, condition 1e12",
            partial(graded, n, d, np.logspace(0, -12, d)),
            orthokern.rand_cholqr,
            (Peer("numpy.linalg.qr", np.linalg.qr, 5.0),),
            _orthogonality,
        )
        for n, d in sizes
    ]


def _excess(k: int, a: np.ndarray, found: Any) -> float:
    """Error over that of the best approximation, less one."""
    u, s, vh = found
    best = np.linalg.norm(1 / np.arange(1.0, a.shape[1] + 1)[k:])
    return float(np.linalg.norm(a - (u * s) @ vh) / best - 1)


def singular_values(sizes: Sequence[tuple[int, int, int]]) -> list[Task]:
    """Singular values 1, 1/2, 1/3, ...; nothing without scikit-learn."""
    if importlib.util.find_spec("sklearn") is None:
        return []
    from sklearn.utils.extmath import randomized_svd as peer

    return [
        Task(
            f"randomized_svd, {n} x {d}, k = {k}",
            partial(graded, n, d, 1 / np.arange(1.0, d + 1)),
            partial(orthokern.randomized_svd, k=k, power=2),
            (
                Peer(
                    "scikit-learn randomized_svd",
                    partial(peer, n_components=k, n_oversamples=10, n_iter=2, random_state=0),
                ),
            ),
            partial(_excess, k),
        )
        for n, d, k in sizes
    ]


def tasks(quick: bool) -> list[Task]:
    """What is measured."""
    if quick:
        return [
            *transforms([(256, 16), (256, 1)]),
            *sketches(1000, 16, 64),
            *factorizations([(2000, 20)]),
            *singular_values([(300, 100, 5)]),
        ]
    return [
        *transforms([(16384, 64), (65536, 256), (2**18, 64), (2**18, 1)]),
        *sketches(65536, 64, 512),
        *factorizations([(16384, 64), (65536, 128), (32768, 256)]),
        *singular_values([(8192, 512, 20), (2000, 2000, 50)]),
    ]


REPORT = Report(
    "sketching",
    "Sketches and randomized factorizations beside their peers",
    "of fwht the worst column's departure in norm, of sketches that of the Frobenius norm, of rand_cholqr "
    "the distance of Q^T Q from I, of randomized_svd the error over the best one, less 1",
    tasks,
)


main = partial(run, REPORT)

if __name__ == "__main__":
    script(main)
