"""Polar factorizations on a GPU beside what users of each library call today."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from gpu_timing import Call, Task, parts, wide
from peers import MUON_COEFFICIENTS, MUON_EPS, MUON_STEPS

import orthokern
from orthokern._core.namespace import namespace

DTYPES = ("float32", "float64", "bfloat16")
SIZES = (2048, 4096, 1024, 8192, 512)
STACKS = ((64, 1024, 1024), (4096, 16, 16))
LOOSE = 0.1
# The singular value decomposition of a matrix beyond this size takes longer than all the rest.
LARGEST_SVD = 2048


def gaussian(*shape: int) -> tuple[np.ndarray]:
    """A stack of matrices of normal numbers."""
    return (np.random.default_rng(0).standard_normal(shape),)


def orthogonality(_: Any, result: Any) -> Any:
    """Largest entry of U^T U - I."""
    u = wide(parts(result)[0])
    space = namespace(u)
    product = space.matrix_transpose(u) @ u
    return space.max(space.abs(product - space.eye(u.shape[-1], dtype=u.dtype, device=u.device)))


def _of_singular_vectors(call: Call) -> Call:
    """The unitary factor by a singular value decomposition, as users form it."""

    def factor() -> Any:
        left, _, right = call()
        return left @ right

    return factor


def _newton_schulz(x: Any) -> Any:
    """Muon's five steps with plain products, which every library has."""
    a, b, c = MUON_COEFFICIENTS
    y = x / ((x * x).sum() ** 0.5 + MUON_EPS)
    for _ in range(MUON_STEPS):
        gram = y @ y.T
        y = a * y + (b * gram + c * (gram @ gram)) @ y
    return y


def _of_torch(dtype: str, x: Any) -> dict[str, Call]:
    torch = importlib.import_module("torch")
    found: dict[str, Call] = {}
    if dtype != "bfloat16" and x.shape[-1] <= LARGEST_SVD:
        svd = partial(torch.linalg.svd, x, full_matrices=False)
        found["torch.linalg.svd"] = _of_singular_vectors(svd)
    if x.ndim == 2:
        found["Newton-Schulz, plain products"] = partial(_newton_schulz, x)
        if dtype != "float64":
            muon = importlib.import_module("torch.optim._muon")
            routine = muon._zeropower_via_newtonschulz  # noqa: SLF001 - private in torch
            found["torch.optim.Muon"] = partial(routine, x, MUON_COEFFICIENTS, MUON_STEPS, MUON_EPS)
    return found


def _of_cupy(dtype: str, x: Any) -> dict[str, Call]:
    cupy = importlib.import_module("cupy")
    found: dict[str, Call] = {}
    if x.shape[-1] <= LARGEST_SVD:
        svd = partial(cupy.linalg.svd, x, full_matrices=False)
        found["cupy.linalg.svd"] = _of_singular_vectors(svd)
    if x.ndim == 2:
        found["Newton-Schulz, plain products"] = partial(_newton_schulz, x)
    return found


def _of_jax(dtype: str, x: Any) -> dict[str, Call]:
    jax = importlib.import_module("jax")
    polar = importlib.import_module("jax.scipy.linalg").polar
    found: dict[str, Call] = {}
    if x.ndim == 2 and dtype != "bfloat16":
        qdwh = jax.jit(lambda x: polar(x, method="qdwh"))
        found["jax.scipy.linalg.polar (qdwh), compiled"] = partial(qdwh, x)
    if x.ndim == 2:
        found["Newton-Schulz, plain products, compiled"] = partial(jax.jit(_newton_schulz), x)
    return found


_PEERS: dict[str, Callable[[str, Any], dict[str, Call]]] = {
    "torch": _of_torch,
    "cupy": _of_cupy,
    "jax": _of_jax,
}


def _calls(dtype: str, library: str, x: Any) -> dict[str, Call]:
    ours: dict[str, Call] = {
        "orthokern.polar": lambda: orthokern.polar(x)[:2],
        f"orthokern.orthogonalize, tol={LOOSE}": lambda: orthokern.orthogonalize(x, tol=LOOSE),
    }
    return {**ours, **_PEERS[library](dtype, x)}


def _task(shape: tuple[int, ...], dtype: str) -> Task:
    name = f"polar, {'x'.join(map(str, shape))} {dtype}"
    flops = float(np.prod(shape[:-2])) * 22.0 * shape[-1] ** 3
    return Task(
        name, dtype, partial(gaussian, *shape), partial(_calls, dtype), orthogonality, flops
    )


def tasks(*, dry: bool) -> list[Task]:
    """In the order of their weight: what matters most is measured first."""
    sizes, stacks = ((32,), ((4, 8, 8),)) if dry else (SIZES, STACKS)
    matrices = [_task((n, n), dtype) for n in sizes for dtype in DTYPES]
    small = [_task(stack, dtype) for dtype in DTYPES[:2] for stack in stacks]
    return [*matrices[:2], *small, *matrices[2:]]
