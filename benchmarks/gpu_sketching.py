"""Least squares, sketches and randomized factorizations on a GPU beside what each library has for them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from gpu_polar import gaussian, orthogonality
from gpu_timing import Call, Task, wide

import orthokern
from orthokern._core.namespace import namespace

DTYPES = ("float64", "float32")
# Rows of a sketch and entries in each of its columns.
ROWS, ENTRIES = 512, 8
SHAPES = ((2**18, 128), (65536, 512), (16384, 1024))
Shape = tuple[int, int]


def regression(n: int, d: int, decades: float) -> tuple[np.ndarray, np.ndarray]:
    """Columns mixed to a condition number of about ``10^decades``, and a right-hand side with a residual of 1."""
    g = np.random.default_rng(0)
    mixing = np.linalg.qr(g.standard_normal((d, d)))[0] * np.logspace(0, -decades, d)
    a = g.standard_normal((n, d)) @ (mixing @ np.linalg.qr(g.standard_normal((d, d)))[0])
    return a, a @ g.standard_normal(d) + g.standard_normal(n)


def _gradient(a: Any, b: Any, result: Any) -> Any:
    """|A^T r| over |A| (|A| |x| + |r|) in double precision: of the size of eps if x is backward stable."""
    x = result if not isinstance(result, tuple) else result[0]
    matrix, rhs = wide(a), wide(b)
    solution = wide(x).reshape(-1)
    residual = rhs - matrix @ solution
    norm = namespace(matrix).linalg.vector_norm
    size = norm(matrix)
    return norm(matrix.T @ residual) / (size * (size * norm(solution) + norm(residual)))


def _solvers(library: str, a: Any, b: Any) -> dict[str, Call]:
    peers: dict[str, Callable[[], dict[str, Call]]] = {
        "torch": lambda: {
            "torch.linalg.lstsq": lambda: _torch().linalg.lstsq(a, b[:, None]).solution
        },
        "cupy": lambda: {
            "cupy.linalg.lstsq": lambda: _module("cupy").linalg.lstsq(a, b, rcond=None)[0]
        },
        "jax": lambda: {"jax.numpy.linalg.lstsq": lambda: _module("jax.numpy").linalg.lstsq(a, b)},
    }
    return {"orthokern.lstsq": lambda: orthokern.lstsq(a, b), **peers[library]()}


def _module(name: str) -> Any:
    return importlib.import_module(name)


def _torch() -> Any:
    return _module("torch")


def _departure(a: Any, out: Any) -> Any:
    """Relative departure of the Frobenius norm."""
    space = namespace(a)
    norm = space.linalg.vector_norm
    return space.abs(norm(wide(out)) / norm(wide(a)) - 1)


def _transforms(library: str, a: Any) -> dict[str, Call]:
    """Beside it the cosine transform of CuPy; the others have none, so a product with the matrix, which is there."""
    found: dict[str, Call] = {"orthokern.fwht": lambda: orthokern.fwht(a, normalized=True)}
    if library == "cupy":
        dct = _module("cupyx.scipy.fft").dct
        found["cupyx.scipy.fft.dct"] = lambda: dct(a, axis=0, norm="ortho")
        return found
    identity = namespace(a).eye(a.shape[0], dtype=a.dtype, device=a.device)
    matrix = orthokern.fwht(identity, normalized=True)
    found["product with the matrix"] = lambda: matrix @ a
    return found


def _sketches(library: str, a: Any) -> dict[str, Call]:
    """Beside the SJLT from its seed the same as a sparse matrix that is there."""
    n = a.shape[0]
    sparse = orthokern.sjlt(ROWS, n, nnz=ENTRIES, seed=0)
    hadamard = orthokern.srht(ROWS, n, seed=0)
    return {
        "orthokern.sjlt": lambda: sparse.apply(a),
        "orthokern.srht": lambda: hadamard.apply(a),
        **_of_matrix(library, sparse, a),
    }


def _of_matrix(library: str, sketch: Any, a: Any) -> dict[str, Call]:
    rows, columns, values = sketch.to_sparse()
    values = np.asarray(values)
    if library == "torch":
        places = _torch().tensor(np.stack([rows, columns]))
        numbers = _torch().tensor(values).to(a.dtype)
        matrix = _torch().sparse_coo_tensor(places, numbers, sketch.shape).to(a.device)
        csr = matrix.coalesce().to_sparse_csr()
        return {"torch sparse CSR product": lambda: csr @ a}
    if library == "cupy":
        cupy, sparse = _module("cupy"), _module("cupyx.scipy.sparse")
        at = (cupy.asarray(rows), cupy.asarray(columns))
        held = sparse.coo_matrix((cupy.asarray(values, a.dtype), at), shape=sketch.shape).tocsr()
        return {"cupyx CSR product": lambda: held @ a}
    sparse, jnp = _module("jax.experimental.sparse"), _module("jax.numpy")
    entries = (jnp.asarray(values, a.dtype), jnp.asarray(np.stack([rows, columns], 1)))
    bcoo, times = sparse.BCOO(entries, shape=sketch.shape), _module("jax").jit(lambda m, x: m @ x)
    return {"jax BCOO product, compiled": lambda: times(bcoo, a)}


def _factorizations(library: str, a: Any) -> dict[str, Call]:
    peers: dict[str, Call] = {
        "torch": lambda: _torch().linalg.qr(a),
        "cupy": lambda: _module("cupy").linalg.qr(a),
        "jax": lambda: tuple(_module("jax.numpy").linalg.qr(a)),
    }
    names = {
        "torch": "torch.linalg.qr",
        "cupy": "cupy.linalg.qr",
        "jax": "jax.numpy.linalg.qr",
    }
    return {
        "orthokern.rand_cholqr": lambda: orthokern.rand_cholqr(a)[:2],
        names[library]: peers[library],
    }


def _low_rank(a: Any, result: Any) -> Any:
    """Distance to the product of the factors over the norm of the matrix."""
    u, s, vh = result[:3]
    norm = namespace(a).linalg.vector_norm
    return norm(wide(a) - (wide(u) * wide(s)) @ wide(vh)) / norm(wide(a))


def _decayed(n: int, d: int) -> tuple[np.ndarray]:
    g = np.random.default_rng(0)
    return (g.standard_normal((n, d)) / np.arange(1.0, d + 1) @ g.standard_normal((d, d)) / d,)


def _svds(library: str, a: Any) -> dict[str, Call]:
    found: dict[str, Call] = {
        "orthokern.randomized_svd": lambda: orthokern.randomized_svd(a, k=20, power=2)[:3]
    }
    if library == "torch":

        def peer() -> Any:
            u, s, v = _torch().svd_lowrank(a, q=30, niter=2)
            return u[:, :20], s[:20], v[:, :20].T

        found["torch.svd_lowrank"] = peer
    else:
        svd = _module("cupy" if library == "cupy" else "jax.numpy").linalg.svd

        def whole() -> Any:
            u, s, vh = svd(a, full_matrices=False)
            return u[:, :20], s[:20], vh[:20]

        found[f"{library} svd, cut"] = whole
    return found


def _regression(n: int, d: int, decades: float, dtype: str) -> Task:
    name = f"lstsq, {n}x{d}, condition 1e{decades:.0f}, {dtype}"
    return Task(name, dtype, partial(regression, n, d, decades), _solvers, _gradient)


def _sketching(tall: Shape, transform: Shape, matrix: Shape, dtype: str) -> list[Task]:
    n, d = tall
    transforms = [
        Task(f"fwht, {m}x{k}, {dtype}", dtype, partial(gaussian, m, k), _transforms, _departure)
        for m, k in (transform, (transform[0], 1))
    ]
    columns = partial(gaussian, n, d)
    sketch = f"sketch to {ROWS} rows, {n}x{d}, {dtype}"
    values = f"20 singular values, {matrix[0]}x{matrix[1]}, {dtype}"
    return [
        Task(sketch, dtype, columns, _sketches, _departure),
        Task(f"QR, {n}x{d}, {dtype}", dtype, columns, _factorizations, orthogonality),
        *transforms,
        Task(values, dtype, partial(_decayed, *matrix), _svds, _low_rank),
    ]


def tasks(*, dry: bool) -> list[Task]:
    """What is measured, in the order of its weight."""
    first, *others = [(400, 16)] if dry else SHAPES
    sizes = ((600, 8), (64, 4), (100, 20)) if dry else (SHAPES[0], (16384, 256), (8192, 2048))
    found = [_regression(*first, decades, DTYPES[0]) for decades in (2.0, 10.0)]
    found += _sketching(*sizes, DTYPES[0])
    found += [_regression(*shape, d, DTYPES[0]) for shape in others for d in (2.0, 10.0)]
    found += [_regression(*shape, 2.0, DTYPES[1]) for shape in (first, *others)]
    return found + _sketching(*sizes, DTYPES[1])
