"""Passes over the rows of a least-squares problem: everything else is as small as the number of columns.

Single precision is summed in double where the library has it: a Gram matrix in single precision would lose half the
digits.
"""

from __future__ import annotations

from typing import Any

from .._core.dispatch import op
from .._core.dtypes import dtype_name, is_complex
from .._core.linalg import adjoint
from .._core.namespace import device_kind, namespace

# Numbers of a block of rows whose temporaries stay in cache; on a device, of few launches.
BLOCK, DEVICE_BLOCK = 2**16, 2**26
_DOUBLE = {"float32": "float64", "complex64": "complex128"}


def widened(x: Any) -> Any:
    """``x`` in the precision of sums: double, where the library has it."""
    wide = _DOUBLE.get(dtype_name(x))
    if wide is None:
        return x
    xp = namespace(x)
    if wide not in xp.__array_namespace_info__().dtypes():
        return x
    return xp.astype(x, getattr(xp, wide))


def squares(x: Any) -> Any:
    """Squared norm of each column of ``x`` (..., n, k), shape (..., k)."""
    xp = namespace(x)
    if is_complex(x):
        return xp.sum(xp.real(x) ** 2 + xp.imag(x) ** 2, axis=-2)
    return xp.sum(x * x, axis=-2)


def column_squares(a: Any) -> Any:
    """The same of a tall ``a`` (n, d), some rows at a time, so that no copy of all is made."""
    numbers = BLOCK if device_kind(a) == "cpu" else DEVICE_BLOCK
    n, size = a.shape[0], max(1, numbers // max(a.shape[-1], 1))
    parts = [squares(a[i : min(i + size, n), :]) for i in range(0, n, size)]
    return sum(parts[1:], parts[0])


@op()
def normal_equations(a: Any, b: Any, /) -> tuple[Any, Any, Any]:
    """``(A^H A, A^H B, squared norms of the columns of B)`` for A (..., n, d) and B (..., n, k), in one pass."""
    a, b = widened(a), widened(b)
    left = adjoint(a)
    return left @ a, left @ b, squares(b)


@op()
def residual_gradient(a: Any, b: Any, x: Any, /) -> tuple[Any, Any]:
    """``(A^H R, squared norms of the columns of R)`` with ``R = B - A X``, in one pass over A.

    ``x`` (..., d, k) comes in the precision of the sums.
    """
    a = widened(a)
    r = widened(b) - a @ widened(x)
    return adjoint(a) @ r, squares(r)


@op()
def whitened_gram(a: Any, p: Any, /) -> Any:
    """``Y^H Y`` of ``Y = A P`` for P (..., d, d), in the precision of the sums; backends hold blocks of Y."""
    y = widened(a) @ widened(p)
    return adjoint(y) @ y
