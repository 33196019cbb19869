"""Products of a large matrix with a thin one, of which a factorization by random directions is made."""

from __future__ import annotations

from typing import Any

from .._core.dispatch import op
from .._core.linalg import adjoint


def _product_tangent(arrays: Any, tangents: Any, out: Any) -> Any:
    (a, b), (da, db) = arrays, tangents
    return da @ b + a @ db


def _adjoint_tangent(arrays: Any, tangents: Any, out: Any) -> Any:
    (a, b), (da, db) = arrays, tangents
    return adjoint(da) @ b + adjoint(a) @ db


@op(jvp=_product_tangent)
def product(a: Any, b: Any, /) -> Any:
    """``A B`` for A (..., n, d) and B (..., d, k)."""
    return a @ b


@op(jvp=_adjoint_tangent)
def adjoint_product(a: Any, b: Any, /) -> Any:
    """``A^H B`` for A (..., n, d) and B (..., n, k)."""
    return adjoint(a) @ b
