"""Numba CUDA implementations of orthokern's ops for GPUs. Registration only: Numba and CuPy load on first use.

Arrays are CuPy's, and so are the results: the kernels run on its current stream, in the order of its own work.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from orthokern.backend import Backend

_REAL = ("float32", "float64")
_LARGEST = 32
# A histogram counts in 32 bits.
_MOST_ENTRIES = 2**31 - 1
_EXTRA = "pip install 'orthokern[cuda13]' (or cuda12)"


def _available() -> str | None:
    """The reason why no kernel can run here, or None; CuPy says whether there is a device."""
    for module, name in (("numba_cuda", "numba-cuda"), ("cupy", "cupy")):
        if find_spec(module) is None:
            return f"{name} is not installed; {_EXTRA}"
    try:
        import cupy  # pyright: ignore[reportMissingImports]
    except ImportError as reason:
        return f"cupy cannot be imported: {reason}"
    return None if cupy.cuda.is_available() else "no CUDA device"


backend = Backend("numba_cuda", serves={("cupy", "cuda")}, available=_available)


def _not_real(x: Any) -> str | None:
    return None if str(x.dtype) in _REAL else f"serves float32 and float64, not {x.dtype}"


def _not_small(x: Any, *, method: str = "auto", **static: Any) -> str | None:
    """Why the polar kernels decline ``x``."""
    if method == "svd":
        return "method='svd' is the array-API body"
    m, n = x.shape[-2:]
    if m != n or not 1 <= n <= _LARGEST:
        return f"serves square matrices up to {_LARGEST} x {_LARGEST}, not {m} x {n}"
    return _not_real(x)


def _no_entries(x: Any, **static: Any) -> str | None:
    entries = x.shape[-2] * x.shape[-1]
    if not 1 <= entries <= _MOST_ENTRIES:
        return f"serves matrices of 1 to {_MOST_ENTRIES} entries, not {entries}"
    return _not_real(x)


def _not_one_guard_each(x: Any, guard: Any, **static: Any) -> str | None:
    if guard.shape != (*x.shape[:-2], 1, 1):
        return "serves one guard for each matrix"
    return _no_entries(x)


def _not_broadcastable(x: Any, limit: Any) -> str | None:
    tail = x.shape[x.ndim - limit.ndim :] if limit.ndim <= x.ndim else ()
    if limit.ndim > x.ndim or any(a not in (1, b) for a, b in zip(limit.shape, tail, strict=True)):
        return "serves limits that broadcast to the shape of x"
    if limit.dtype != x.dtype:
        return "serves limits in the dtype of x"
    return _not_real(x)


def _not_weights(v: Any, weight: Any, *, k: int) -> str | None:
    batch = (*v.shape[:-1], 1)
    broadcasts = weight.ndim == v.ndim and all(
        size in (1, whole) for size, whole in zip(weight.shape, batch, strict=True)
    )
    if not broadcasts or weight.dtype != v.dtype:
        return "serves weights that broadcast against the rows, in their dtype"
    return _not_real(v)


def _not_one_problem_each(cost: Any, *others: tuple[Any, tuple[int, ...]]) -> str | None:
    """Why a sweep declines costs (..., m, n) beside arrays of the shape (..., *tail), for each a tail."""
    for array, tail in others:
        if array.shape != (*cost.shape[:-2], *tail) or array.dtype != cost.dtype:
            return "serves potentials and parameters of the batch and dtype of the costs"
    if 0 in cost.shape[-2:]:
        return f"serves costs of 1 x 1 or more, not {cost.shape[-2]} x {cost.shape[-1]}"
    return _not_real(cost)


def _not_entropic(beta: Any, cost: Any, epsilon: Any) -> str | None:
    return _not_one_problem_each(cost, (beta, cost.shape[-1:]), (epsilon, (1, 1)))


@backend.implements("unitary_factor", when=_not_small)
def _unitary_factor(
    x: Any, *, completion: str, rcond: float | None = None, method: str = "auto"
) -> Any:
    from .launching import on_device
    from .polar import unitary_factor

    with on_device(x) as launch:
        return unitary_factor(launch, x, completion=completion, rcond=rcond)


@backend.implements("polar_factors", when=_not_small)
def _polar_factors(
    x: Any, *, completion: str, rcond: float | None = None, method: str = "auto"
) -> Any:
    from .launching import on_device
    from .polar import polar_factors

    with on_device(x) as launch:
        return polar_factors(launch, x, completion=completion, rcond=rcond)


@backend.implements("random_bits")
def _random_bits(index: Any, *, seed: int, stream: int, group: int = 0) -> Any:
    from .launching import on_device
    from .random import random_bits

    with on_device(index) as launch:
        return random_bits(launch, index, seed=seed, stream=stream, group=group)


@backend.implements("magnitude_quantile", when=_no_entries)
def _magnitude_quantile(x: Any, *, quantile: float) -> Any:
    from .elementwise import magnitude_quantile
    from .launching import on_device

    with on_device(x) as launch:
        return magnitude_quantile(launch, x, quantile=quantile)


@backend.implements("shrink", when=_not_broadcastable)
def _shrink(x: Any, limit: Any) -> Any:
    from .elementwise import shrink
    from .launching import on_device

    with on_device(x) as launch:
        return shrink(launch, x, limit)


@backend.implements("cosh_rms", when=_not_one_guard_each)
def _cosh_rms(x: Any, guard: Any, *, gamma: float) -> Any:
    from .elementwise import cosh_rms
    from .launching import on_device

    with on_device(x) as launch:
        return cosh_rms(launch, x, guard, gamma=gamma)


@backend.implements("simplex_projection", when=_not_weights)
def _simplex_projection(v: Any, z: Any, *, k: int) -> Any:
    from .columns import simplex_projection
    from .launching import on_device

    with on_device(v) as launch:
        return simplex_projection(launch, v, z, k=k)


@backend.implements("ksupport_prox", when=_not_weights)
def _ksupport_prox(v: Any, lam: Any, *, k: int) -> Any:
    from .columns import ksupport_prox
    from .launching import on_device

    with on_device(v) as launch:
        return ksupport_prox(launch, v, lam, k=k)


@backend.implements("entropic_sweep", when=_not_entropic)
def _entropic_sweep(beta: Any, cost: Any, epsilon: Any) -> Any:
    from .launching import on_device
    from .sweep import entropic_sweep

    with on_device(cost) as launch:
        return entropic_sweep(launch, beta, cost, epsilon)


def _not_floating(x: Any, **static: Any) -> str | None:
    served = (*_REAL, "complex64", "complex128")
    return None if str(x.dtype) in served else f"serves {', '.join(served)}, not {x.dtype}"


@backend.implements("hadamard", when=_not_floating)
def _hadamard(x: Any, *, scale: float = 1.0) -> Any:
    from .hadamard import hadamard
    from .launching import on_device

    with on_device(x) as launch:
        return hadamard(launch, x, scale=scale)


@backend.implements("scattered_rows", when=_not_floating)
def _scattered_rows(
    a: Any, *, rows: int, nnz: int, seed: int, start: int = 0, stream: int = 1, group: int = 0
) -> Any:
    from .hashing import scattered_rows
    from .launching import on_device

    hashed = {"seed": seed, "start": start, "stream": stream, "group": group}
    with on_device(a) as launch:
        return scattered_rows(launch, a, rows=rows, nnz=nnz, **hashed)


@backend.implements("gathered_rows", when=_not_floating)
def _gathered_rows(
    y: Any, *, stop: int, nnz: int, seed: int, start: int = 0, stream: int = 1, group: int = 0
) -> Any:
    from .hashing import gathered_rows
    from .launching import on_device

    hashed = {"seed": seed, "start": start, "stream": stream, "group": group}
    with on_device(y) as launch:
        return gathered_rows(launch, y, stop=stop, nnz=nnz, **hashed)
