"""Sketch-and-solve with a certificate: how far each entry of the solution may be from the least-squares one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Generic, NamedTuple

from .._core import check
from .._core.dispatch import kernel
from .._core.dtypes import compute_precision, real_dtype
from .._core.dtypes import eps as unit_of
from .._core.errors import OptionError, ShapeError
from .._core.linalg import adjoint, nan_unless
from .._core.namespace import namespace
from .._core.typing import ArrayT
from .embedding import suggest_sketch_size
from .lstsq import right_hand_sides
from .normal_equations import squares, widened
from .operators import (
    SketchOperator,
    countsketch,
    gaussian_sketch,
    rademacher_sketch,
    sjlt,
    srht,
)
from .starts import SKETCH_FLOOR, unit_scales
from .whitening import triangular_whitener

DENSE: dict[str, Callable[..., SketchOperator]] = {
    "gaussian": gaussian_sketch,
    "rademacher": rademacher_sketch,
    "srht": srht,
}
SPARSE: dict[str, Callable[..., SketchOperator]] = {"countsketch": countsketch, "sjlt": sjlt}
# Rows of the sketch for each column.
ROWS = 16


class SketchedInfo(NamedTuple, Generic[ArrayT]):
    """``residual``: estimate of ``||b - A x*||`` at the least-squares solution x*; (..., k), or (...) for one vector.

    ``rank`` (...) of the sketch, ``sketch_rows``, and ``inflation``: what the squared residual of ``x`` is expected to
    be, in units of the smallest one.
    """

    residual: ArrayT
    rank: ArrayT
    sketch_rows: ArrayT
    inflation: ArrayT


class SketchedResult(NamedTuple, Generic[ArrayT]):
    """``x``, standard deviations of the errors of its entries, bounds of all of them at once, ``info``."""

    x: ArrayT
    error_sd: ArrayT
    error_bound: ArrayT
    info: SketchedInfo[ArrayT]


@kernel()
def sketched_lstsq(
    a: ArrayT,
    b: ArrayT,
    /,
    *,
    sketch: str = "srht",
    sketch_size: int | None = None,
    eps: float | None = None,
    delta: float = 0.05,
    seed: int = 0,
    force: bool = False,
    backend: str | None = None,
) -> SketchedResult[ArrayT]:
    r"""Least squares of a sketch, :math:`\min_x \|S A x - S b\|`, with bounds for the error of each entry of ``x``.

    With :math:`S A = Q R`, the difference to the least-squares solution x* has, given S A, mean zero and the covariance
    :math:`\frac{\|b - A x_*\|^2}{s} (R^H R)^{-1}`: exactly and normally distributed for a Gaussian S, nearly so for
    every dense one. A sparse S concentrates the error in a few entries where A has rows of large leverage, and
    is refused.

    Parameters
    ----------
    a : array (..., n, d)
        Real or complex floating, n >= d, of full rank.
    b : array (..., n) or (..., n, k)
        Right-hand sides: one vector for each matrix if it has one dimension less than ``a``.
    sketch : {"srht", "gaussian", "rademacher"}
        Kind of S; "sjlt" and "countsketch" with ``force`` alone.
    sketch_size : int, optional
        Rows of S, more than d; default 16 d, or n if that is less.
    eps : float, optional
        Instead of a size: the size for which every entry is expected within ``eps / sqrt(d)`` times
        ``||A^+|| ||b - A x*||``.
    delta : float
        Probability with which some bound may fail.
    seed : int
        Of the sketch.
    force : bool
        Take a sparse sketch, of which the bounds may be wrong.
    backend : str, optional
        Run on this backend; "array-api" forces the reference.

    Returns
    -------
    SketchedResult
        ``x``, ``error_sd`` and ``error_bound`` (..., d) or (..., d, k), ``info`` (:class:`SketchedInfo`). The bounds
        are NaN where the sketch of A has no full rank.

    Notes
    -----
    Flops: n d log n for "srht" and 2 s d^2; A is read once. The bound is ``sqrt(2 log(2 d / delta))`` standard
    deviations. :func:`lstsq` gives x* itself, at the price of n d^2.

    References
    ----------
    Z. Song, M. Ye, J. Yin, L. Zhang, "A nearly-optimal bound for fast regression with l_inf guarantee",
    arXiv:2302.00248; E. Price, Z. Song, D. Woodruff, "Fast regression with an l_inf guarantee" (ICALP 2017).

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> t = np.linspace(0.0, 1.0, 2000)
    >>> a = np.stack([np.ones_like(t), t], axis=1)
    >>> x, sd, bound, info = orthokern.sketched_lstsq(a, 1 + 2 * t + 0.1 * np.cos(999 * t), sketch_size=200)
    >>> bool(np.all(np.abs(x - [1.0, 2.0]) < bound))
    True
    """
    given: Any = a
    check.matrix(given, kernel="sketched_lstsq", name="a")
    columns = right_hand_sides(given, b)
    check.interval(delta, kernel="sketched_lstsq", name="delta")
    n, d = (int(size) for size in given.shape[-2:])
    if not n >= d >= 1:
        message = (
            f"sketched_lstsq: expected 1 <= d <= n, got a of shape {tuple(given.shape)}; use lstsq"
        )
        raise ShapeError(message)
    s = _size(sketch, sketch_size, eps, delta, n, d)
    operator = _kind(sketch, force)(s, n, seed=seed)
    left, right = (widened(operator.apply(compute_precision(v))) for v in (given, columns))
    vector = b.ndim == given.ndim - 1
    return _certified(left, right, given, operator.shape[0], delta, vector)


def _kind(name: str, force: bool) -> Callable[..., SketchOperator]:
    check.flag(force, kernel="sketched_lstsq", name="force")
    if name in SPARSE and not force:
        message = (
            f"sketched_lstsq: expected a dense sketch ({', '.join(DENSE)}), got {name!r}, whose errors gather in "
            "single entries where the bounds do not hold; pass force=True to take it all the same"
        )
        raise OptionError(message)
    check.choice(name, (*DENSE, *SPARSE), kernel="sketched_lstsq", name="sketch")
    return {**DENSE, **SPARSE}[name]


def _size(kind: str, size: int | None, eps: float | None, delta: float, n: int, d: int) -> int:
    if size is not None and eps is not None:
        message = "sketched_lstsq: expected sketch_size or eps, got both; leave one out"
        raise OptionError(message)
    if size is not None:
        return check.count(size, kernel="sketched_lstsq", name="sketch_size", least=d + 1)
    if eps is not None:
        check.interval(eps, kernel="sketched_lstsq", name="eps")
        wanted = suggest_sketch_size(kind, d, eps=eps, delta=delta, purpose="linf")
    else:
        wanted = ROWS * d
    return max(min(wanted, n), d + 1)


def _certified(
    sa: Any, sb: Any, like: Any, s: int, delta: float, vector: bool
) -> SketchedResult[Any]:
    xp = namespace(sa)
    d = sa.shape[-1]
    scale = unit_scales(sa)
    q, r = xp.linalg.qr(sa / scale[..., None, :])
    white, _, rank, _ = triangular_whitener(r, cutoff=SKETCH_FLOOR * unit_of(sa))
    p = white / scale[..., :, None]
    x = p @ (adjoint(r @ white) @ (adjoint(q) @ sb))
    residual = xp.sqrt(squares(sb - sa @ x) * (s / (s - d)))
    rows = xp.sqrt(xp.sum(xp.abs(p) ** 2, axis=-1))
    sd = rows[..., :, None] * residual[..., None, :] / math.sqrt(s)
    sd = nan_unless((rank == d)[..., None, None], sd)
    bound = sd * math.sqrt(2 * math.log(2 * d / delta))
    dtype = real_dtype(compute_precision(like))
    values = (x, sd, bound)
    parts = [v[..., 0] if vector else v for v in values]
    known = residual[..., 0] if vector else residual
    whole = xp.ones_like(rank)
    info = SketchedInfo(
        xp.astype(known, dtype, copy=False),
        xp.astype(rank, xp.int32),
        xp.astype(s * whole, xp.int32),
        xp.astype((1 + d / (s - d)) * whole, dtype, copy=False),
    )
    return SketchedResult(
        xp.astype(parts[0], like.dtype, copy=False),
        xp.astype(parts[1], dtype, copy=False),
        xp.astype(parts[2], dtype, copy=False),
        info,
    )
