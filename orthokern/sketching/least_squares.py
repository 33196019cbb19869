"""The op behind ``lstsq``: scaling by powers of two, and the one derivative rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .._core.autodiff import constant
from .._core.dispatch import op
from .._core.dtypes import eps, exponent_limit, is_complex
from .._core.errors import UnsupportedError
from .._core.linalg import adjoint, nan_unless
from .._core.namespace import is_traced, namespace
from .._core.scaling import balancing_powers
from .normal_equations import column_squares, normal_equations, widened
from .refine import unscaled_figures
from .results import LstsqMethod, Stat
from .rough import rough_gram, rough_solution
from .small import gram_solution, is_small
from .solution import (
    Solution,
    methods_for,
    of_members,
    sums_in_parts,
)
from .spir import spir_of_arrays
from .starts import Request, diagonal
from .wide import wide_solution

# Part of the exponents' range that squared norms may use.
RANGE = 0.88
# Units of rounding below this one are those of double precision.
DOUBLE = 1e-12
# Of a derivative: a whitener may leave a hundredth of the error each time.
REFINEMENTS = 4
# Methods for which a backend may have one compiled call.
QUICK = ("auto", "gram")


class Scaled(NamedTuple):
    """Arrays scaled by powers of two, what takes the solution back, and which members are finite."""

    a: Any
    b: Any
    columns: Any
    undo_b: Any
    finite: Any


def scaled(a: Any, b: Any, *, by_column: bool) -> Scaled:
    """Every column of A (or A as a whole) and of B with a largest entry near 1; what is not finite becomes zero."""
    xp = namespace(a)
    finite_a = xp.all(xp.isfinite(a), axis=(-2, -1))[..., None]
    finite_b = xp.all(xp.isfinite(b), axis=-2)
    a = xp.where(finite_a[..., None], a, xp.zeros_like(a))
    b = xp.where(finite_b[..., None, :], b, xp.zeros_like(b))
    top_a, top_b = (xp.max(_sizes(x), axis=-2) for x in (a, b))
    if not by_column:
        top_a = xp.max(top_a, axis=-1, keepdims=True) + xp.zeros_like(top_a)
    columns, _ = balancing_powers(top_a)
    powers_b, undo_b = balancing_powers(top_b)
    return Scaled(
        a * columns[..., None, :], b * powers_b[..., None, :], columns, undo_b, finite_a & finite_b
    )


def _sizes(x: Any) -> Any:
    xp = namespace(x)
    return xp.maximum(xp.abs(xp.real(x)), xp.abs(xp.imag(x))) if is_complex(x) else xp.abs(x)


def is_in_range(*squared_norms: Any) -> bool:
    """Whether no square has left the range of its dtype; zeros may be squares that have."""
    xp = namespace(squared_norms[0])
    high = 2.0 ** (RANGE * exponent_limit(squared_norms[0]))
    return all(bool(xp.all((v > 1 / high) & (v < high))) for v in squared_norms)


def _sizes_known(a: Any, b: Any, sums: tuple[Any, Any, Any] | None) -> bool:
    """Whether the columns are in range, by the sums where they were formed."""
    if sums is not None:
        return is_in_range(diagonal(sums[0]), sums[2])
    with np.errstate(over="ignore", invalid="ignore"):
        return a.ndim == 2 and is_in_range(column_squares(a), column_squares(b))


def _least_squares_tangent(arrays: Any, tangents: Any, out: Any, **options: Any) -> Any:
    """``(A^H A + damp^2) dx = dA^H r + A^H (db - dA x) - ...`` by the whitener, which is held constant, and refined."""
    xp = namespace(arrays[0])
    x, whitener, stats = out
    a, b, da, db, x_wide = (widened(v) for v in (*arrays, *tangents, x))
    dx = _tangent(a, b, da, db, x_wide, constant(whitener), options["damp"])
    whole = constant(_has_full_rank(stats, a, options["damp"]))
    refuse_deficient(whole)
    # A factor and no mask, because the transpose of a mask is zero where it hides.
    ones = xp.ones_like(stats[..., Stat.RANK])
    dx = dx * nan_unless(whole, constant(ones))[..., None, :]
    return xp.astype(dx, x.dtype, copy=False), xp.zeros_like(whitener), xp.zeros_like(stats)


def _has_full_rank(stats: Any, a: Any, damp: float) -> Any:
    n, d = a.shape[-2:]
    return stats[..., int(Stat.RANK)] >= (d if damp else min(n, d))


def refuse_derivatives(stats: Any, a: Any, damp: float) -> None:
    """Refuse a matrix without full rank whose solution is to be differentiated."""
    refuse_deficient(_has_full_rank(stats, a, damp))


def refuse_deficient(whole: Any) -> None:
    """Refuse concrete matrices that are not ``whole``."""
    if not is_traced(whole) and not bool(namespace(whole).all(whole)):
        message = (
            "lstsq: expected a matrix of full rank for derivatives, because the solution of minimal norm jumps where "
            "the rank changes; pass damp > 0, or an array that carries no derivative"
        )
        raise UnsupportedError(message)


def _tangent(a: Any, b: Any, da: Any, db: Any, x: Any, p: Any, damp: float) -> Any:
    def solved(right: Any, product: Callable[[Any], Any]) -> Any:
        """The refinements carry the derivative with respect to A that the whitener does not."""
        w = p @ (adjoint(p) @ right)
        for _ in range(REFINEMENTS):
            w = w + p @ (adjoint(p) @ (right - product(w)))
        return w

    missing = db - da @ x
    if a.shape[-2] >= a.shape[-1] or damp:
        right = adjoint(da) @ (b - a @ x) + adjoint(a) @ missing
        return solved(right, lambda w: adjoint(a) @ (a @ w) + damp**2 * w)
    y = solved(b, lambda w: a @ (adjoint(a) @ w))
    along = adjoint(da) @ y
    dy = solved(missing - a @ along, lambda w: a @ (adjoint(a) @ w))
    return along + adjoint(a) @ dy


@op(jvp=_least_squares_tangent, fused=True)
def least_squares(
    a: Any,
    b: Any,
    /,
    *,
    method: str,
    rcond: float | None,
    tol: float | None,
    damp: float,
    max_refine: int,
    equilibrate: bool,
    sketch_rows: int | None,
    seed: int,
) -> tuple[Any, Any, Any]:
    """``(X, P, stats)``: the least-squares solution of A (..., n, d) and B (..., n, k), of minimal norm.

    ``P P^H`` is the inverse of ``A^H A + damp^2`` (of ``A A^H`` for n < d without damp). ``stats`` (..., k, len(Stat)).
    """
    target = _tolerance(a) if tol is None else tol
    request = Request(None, rcond, target, max_refine, equilibrate, sketch_rows, seed)
    traced = is_traced(a) or is_traced(b)
    n, d = a.shape[-2:]
    plain = equilibrate and (rcond is None or rcond <= eps(a))
    if method in QUICK and plain and (n >= d or not damp) and not traced and is_small(a):
        quick = gram_solution(a, b, damp=damp, tol=target, max_refine=max_refine)
        if _is_kept(quick[2], method):
            return quick  # type: ignore[no-any-return]
    if n < d and not damp:
        whole = scaled(a, b, by_column=False)
        return restored(wide_solution(whole.a, whole.b, request, method), whole, a)
    methods = methods_for(method, n, d, traced=traced)
    sums: tuple[Any, Any, Any] | None = None
    balanced: Scaled | None = None
    # The reference would warn of squares out of range; it looks at the entries first.
    looked_at = normal_equations.is_served(a) and not traced
    if methods[0] == LstsqMethod.GRAM and looked_at:
        if rough_gram.is_served(a):
            quick = rough_solution(a, b, request._replace(ridge=_ridge(a, damp, None)))
            if quick is not None:
                return restored(quick, None, a)
        sums = sums_in_parts(a, b)
        methods = methods if sums is not None or len(methods) == 1 else methods[1:]
    if not looked_at or not _sizes_known(a, b, sums):
        balanced, sums = scaled(a, b, by_column=equilibrate), None
        a, b = balanced.a, balanced.b
    columns = None if balanced is None else widened(balanced.columns)
    request = request._replace(ridge=_ridge(a, damp, columns), columns=columns)
    if method == "spir":
        return restored(spir_of_arrays(a, b, request), balanced, a)
    return restored(of_members(a, b, request, methods, sums), balanced, a)


def _is_kept(stats: Any, method: str) -> bool:
    """Whether all of a quick answer is good, and found as asked for."""
    good = stats[..., Stat.STATUS] == 0
    if method == "gram":
        good = good & (stats[..., Stat.METHOD] == LstsqMethod.GRAM)
    return bool(namespace(stats).all(good))


def _tolerance(a: Any) -> float:
    """A backward error of which nothing is seen in the precision of ``a``."""
    own = eps(a)
    return own if own < DOUBLE else max(eps(widened(a[..., :0, :0])), own * 1e-3)


def _ridge(a: Any, damp: float, columns: Any) -> Any:
    if not damp:
        return None
    if columns is None:
        row = a[..., 0, :]
        columns = namespace(a).ones_like(widened(namespace(a).real(row) if is_complex(a) else row))
    return (damp * columns) ** 2


def restored(found: Solution, balanced: Scaled | None, a: Any) -> tuple[Any, Any, Any]:
    """The solution for the arrays as they were given, in the dtype of ``a``."""
    xp = namespace(a)
    x, p, stats = found.x, found.p, found.stats
    if balanced is not None:
        columns, undo = (widened(v) for v in (balanced.columns, balanced.undo_b))
        rows = columns[..., :, None] if p.shape[-1] == a.shape[-1] else columns[..., :1, None]
        x, p = x * columns[..., :, None] * undo[..., None, :], p * rows
        x = nan_unless(balanced.finite[..., None, :], x)
        stats = unscaled_figures(stats, undo, balanced.finite)
    return xp.astype(x, a.dtype, copy=False), p, stats
