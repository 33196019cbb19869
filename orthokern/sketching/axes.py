"""Arrays seen as stacks of columns along any of their axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._core import check
from .._core.autodiff import full_precision
from .._core.dtypes import compute_precision
from .._core.errors import ShapeError
from .._core.namespace import namespace


def along(
    x: Any, axis: int, function: Callable[[Any], Any], *, kernel: str, name: str = "x"
) -> Any:
    """``function`` of ``x`` seen as (..., n, d) with n along ``axis``, and the result as ``x`` lies.

    A vector is one column. float16 and bfloat16 are computed in float32.
    """
    check.floating(x, kernel=kernel, name=name)
    if x.ndim == 0:
        message = f"{kernel}: expected a vector or more dimensions for {name}, got a single number"
        raise ShapeError(message)
    where = -2 if x.ndim == 1 else check.axis(axis, x, kernel=kernel, name=name)
    xp = namespace(x)
    rows = x[:, None] if x.ndim == 1 else x if where == -2 else xp.moveaxis(x, where, -2)
    with full_precision(x):
        out = xp.astype(function(compute_precision(rows)), x.dtype, copy=False)
    return out[:, 0] if x.ndim == 1 else out if where == -2 else xp.moveaxis(out, -2, where)
