"""The column functions of sparse transport on the device: launches."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import columns_kernels as kernels
from .launching import Launcher, contiguous

# Up to this length a warp takes a row, above it a block.
WARP_LENGTH = 1024
_WORDS = {"float32": (np.uint32, 2**31), "float64": (np.uint64, 2**63)}


def team_size(length: int) -> int:
    """Threads that work on a row of this length."""
    return kernels.WARP * (1 if length <= WARP_LENGTH else kernels.MOST_WARPS)


def _rows(x: Any) -> Any:
    return contiguous(x).reshape(-1, x.shape[-1])


def _one_each(launch: Launcher, weight: Any, v: Any) -> Any:
    """``weight`` (..., 1), which broadcasts against the rows of ``v``, as one number for each of them."""
    shape = (*v.shape[:-1], 1)
    if weight.shape == shape:
        return contiguous(weight).reshape(-1)
    spread = launch.empty(shape, v.dtype)
    spread[...] = weight
    return spread.reshape(-1)


def simplex_projection(launch: Launcher, v: Any, z: Any, *, k: int) -> Any:
    """Projection of the ``k`` largest entries of each row of ``v`` (..., n) on the simplex of sum ``z`` (..., 1)."""
    out = launch.empty(v.shape, v.dtype)
    if out.size:
        word, sign = _WORDS[str(v.dtype)]
        rows = _rows(v)
        given = _one_each(launch, z, v), np.uint64(sign), np.int64(k)
        kernel = kernels.projection_kernel(str(v.dtype))
        team = team_size(rows.shape[1])
        launch(kernel, rows.shape[0], team, rows, rows.view(word), *given, _rows(out))
    return out


def ksupport_prox(launch: Launcher, v: Any, lam: Any, *, k: int) -> tuple[Any, Any]:
    """``(t, w)``: the proximal map of each row of ``v`` (..., n) and its level (..., 1); ``lam`` (..., 1)."""
    t, w = launch.empty(v.shape, v.dtype), launch.empty((*v.shape[:-1], 1), v.dtype)
    if t.size:
        word, sign = _WORDS[str(v.dtype)]
        rows = _rows(v)
        given = _one_each(launch, lam, v), np.uint64(sign), np.int64(k)
        kernel, team = kernels.prox_kernel(str(v.dtype)), team_size(rows.shape[1])
        out = _rows(t), w.reshape(-1)
        launch(kernel, rows.shape[0], team, rows, rows.view(word), *given, *out)
    return t, w
