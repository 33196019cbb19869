"""Balancing by powers of two: the only scale factors that cost no accuracy."""

from __future__ import annotations

from typing import Any

from .dispatch import op
from .dtypes import dtype_name, exponent_limit, is_complex
from .linalg import identity_like, nan_unless
from .namespace import library, namespace


def largest_entry(x: Any) -> Any:
    """Largest modulus of a real or imaginary part in each matrix, shape (..., 1, 1)."""
    xp = namespace(x)
    parts = (xp.real(x), xp.imag(x)) if is_complex(x) else (x,)
    bounds = [xp.max(xp.abs(part), axis=(-2, -1), keepdims=True) for part in parts]
    return bounds[0] if len(bounds) == 1 else xp.maximum(*bounds)


def _exponent(xp: Any, bound: Any) -> Any:
    """The integer e with bound in [2**(e-1), 2**e)."""
    if hasattr(xp, "frexp"):
        return xp.frexp(bound)[1]
    exponent = xp.floor(xp.log2(bound)) + 1
    # Next to a power of two the logarithm may round to the wrong side of it.
    two = xp.full_like(bound, 2.0)
    exponent = exponent - xp.astype(bound < xp.pow(two, exponent - 1), bound.dtype)
    exponent = exponent + xp.astype(bound >= xp.pow(two, exponent), bound.dtype)
    return xp.astype(exponent, xp.int32)


# Bits of the fraction, and what is added to the exponent, in the formats of IEEE 754.
_FORMATS = {"float32": (23, 127), "float64": (52, 1023)}


def _two_to_the(xp: Any, exponent: Any, like: Any) -> Any:
    if library(like) == "jax":
        # Its ldexp is a power, which is off by some units in the last place on GPUs.
        fraction, bias = _FORMATS[dtype_name(like)]
        integer = xp.int64 if fraction > 32 else xp.int32
        return ((xp.astype(exponent, integer) + bias) << fraction).view(like.dtype)
    if hasattr(xp, "ldexp"):
        return xp.ldexp(xp.ones_like(like), exponent)
    return xp.pow(xp.full_like(like, 2.0), xp.astype(exponent, like.dtype))


def balancing_powers(bound: Any) -> tuple[Any, Any]:
    """Power of two that brings ``bound`` into [0.5, 1), and its reciprocal; both normal numbers.

    Zero and non-finite bounds give 1. At the very ends of the exponent range the power is capped, so that a
    subnormal bound is lifted only as far as a normal factor can lift it.
    """
    xp = namespace(bound)
    usable = xp.isfinite(bound) & (bound > 0)
    exponent = _exponent(xp, xp.where(usable, bound, xp.ones_like(bound)))
    limit = exponent_limit(bound)
    exponent = xp.where(usable, xp.clip(exponent, -limit, limit), xp.zeros_like(exponent))
    return _two_to_the(xp, -exponent, bound), _two_to_the(xp, exponent, bound)


def _balance_tangent(arrays: Any, tangents: Any, out: Any) -> Any:
    """The power of two is locally constant; a non-finite member depends on nothing."""
    (dx,), (_, undo) = tangents, out
    xp = namespace(dx)
    finite = xp.isfinite(undo)
    factor = xp.where(finite, 1 / xp.where(finite, undo, xp.ones_like(undo)), xp.zeros_like(undo))
    return dx * factor, xp.zeros_like(undo)


@op(jvp=_balance_tangent)
def balance(x: Any, /) -> tuple[Any, Any]:
    """Each matrix of ``x`` scaled by a power of two to a largest entry in [0.5, 1).

    Returns ``(y, undo)``: ``y * undo`` is ``x`` bit for bit (but for entries that become subnormal, 1e-308 of the
    largest in float64), ``undo`` has shape (..., 1, 1) and a real dtype.
    A member with NaN or infinity becomes the identity in ``y`` and NaN in ``undo``.
    """
    xp = namespace(x)
    bound = largest_entry(x)
    # Asked of the entries: a maximum of many numbers need not see NaN (XLA on processors).
    finite = xp.all(xp.isfinite(x), axis=(-2, -1), keepdims=True)
    scale, undo = balancing_powers(bound)
    y = xp.where(finite, x, identity_like(x)) * scale
    return y, nan_unless(finite, undo)
