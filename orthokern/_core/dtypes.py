"""Dtypes by name, so that one table serves every library."""

from __future__ import annotations

from typing import Any

from .namespace import compiling, namespace

EPS = {
    "float16": 2.0**-10,
    "bfloat16": 2.0**-7,
    "float32": 2.0**-23,
    "float64": 2.0**-52,
    "complex64": 2.0**-23,
    "complex128": 2.0**-52,
}
LOW_PRECISION = frozenset({"float16", "bfloat16"})
COMPLEX = frozenset({"complex64", "complex128"})
_REAL = {"complex64": "float32", "complex128": "float64"}
# Exponents k for which both 2**k and 2**-k are normal numbers.
_EXPONENTS = {"float32": 125, "complex64": 125, "float64": 1021, "complex128": 1021}


# NumPy spells a name anew each time, which takes as long as a small operation.
_NAMES: dict[Any, str] = {}


def dtype_name(x: Any) -> str:
    """Name of the dtype of ``x`` without its library: ``float32``, ``complex128``, ..."""
    dtype = x.dtype
    if compiling():
        return _spelled(dtype)
    key = (type(x), dtype)
    name = _NAMES.get(key)
    if name is None:
        name = _NAMES[key] = _spelled(dtype)
    return name


def _spelled(dtype: Any) -> str:
    return str(getattr(dtype, "name", None) or str(dtype).rpartition(".")[2])


def eps(x: Any) -> float:
    """Distance from 1 to the next number in the precision of ``x``."""
    return EPS[dtype_name(x)]


def is_complex(x: Any) -> bool:
    """Whether ``x`` has a complex dtype."""
    return dtype_name(x) in COMPLEX


def real_dtype(x: Any) -> Any:
    """The dtype of the real parts of ``x``, of its library."""
    name = dtype_name(x)
    return getattr(namespace(x), _REAL.get(name, name))


def is_low_precision(x: Any) -> bool:
    """Whether ``x`` is float16 or bfloat16: stored as it is, computed with in float32."""
    return dtype_name(x) in LOW_PRECISION


def is_computed_in(x: Any) -> bool:
    """Whether arithmetic runs in the dtype of ``x`` itself: floating, and no low precision."""
    return dtype_name(x) in _EXPONENTS


def exponent_limit(x: Any) -> int:
    """Largest k such that 2**k and 2**-k are both normal in the precision of ``x``."""
    return _EXPONENTS[dtype_name(x)]


def compute_precision(x: Any) -> Any:
    """``x`` in the dtype that decompositions run in: float32 for low precision, else unchanged."""
    xp = namespace(x)
    return xp.astype(x, xp.float32) if is_low_precision(x) else x
