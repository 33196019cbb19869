"""Solvers for problems that are no pair of arrays in memory: blocks of rows, lazy arrays, sparse matrices."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._core.dtypes import eps, is_complex
from .._core.namespace import namespace
from .._core.scaling import balancing_powers
from .least_squares import is_in_range, least_squares
from .refine import unscaled_figures
from .results import LstsqMethod, Stat
from .solution import PGRAM_ROWS, first_of, methods_for
from .sources import Blocks, Lazy, Scales, Sparse
from .starts import Request, diagonal


def solved_source(
    source: Blocks | Lazy | Sparse, *, tolerance: float, **options: Any
) -> tuple[Any, Any]:
    """``(x, stats)`` of one problem; what is not finite makes all of it NaN. Options are those of ``least_squares``."""
    # Squares that leave the range are found below.
    with np.errstate(over="ignore", invalid="ignore"):
        sums = source.normal_equations()
    xp = namespace(sums[0])
    columns: Any = None
    undo: Any = None
    if not is_in_range(diagonal(sums[0]), sums[2]):
        top_a, top_b = source.maxima()
        if not bool(xp.all(xp.isfinite(top_a))) or not bool(xp.all(xp.isfinite(top_b))):
            return _nothing_known(sums)
        columns, _ = balancing_powers(top_a)
        powers, undo = balancing_powers(top_b)
        source.scales = Scales(columns, powers)
        sums = source.normal_equations()
    n, d = source.shape
    if n < d and not options["damp"]:
        source.scales = Scales()
        x, _, stats = least_squares(*source.dense(), **options)
        return x, stats
    tol = max(eps(sums[0]), tolerance * 1e-3) if options["tol"] is None else options["tol"]
    request = request_of(options, tol, columns, sums[0][0, :])
    found = first_of(source, request, _methods(options["method"], n, d), sums)
    if columns is None:
        return found.x, found.stats
    finite = undo > 0
    x = found.x * columns[:, None] * undo[None, :]
    return x, unscaled_figures(found.stats, undo, finite)


def request_of(options: dict[str, Any], tol: float, columns: Any, row: Any) -> Request:
    """The options as solvers take them; ``row`` (d,) is an array of the kind that they compute with."""
    ridge = None
    if options["damp"]:
        xp = namespace(row)
        real = xp.real(row) if is_complex(row) else row
        units = xp.ones_like(real) if columns is None else columns
        ridge = (options["damp"] * units) ** 2
    names = ("rcond", "max_refine", "equilibrate", "sketch_rows", "seed")
    return Request(ridge=ridge, tol=tol, columns=columns, **{n: options[n] for n in names})


def _methods(name: str, n: int, d: int) -> list[LstsqMethod]:
    """Of many rows there is never an array of all."""
    methods = methods_for(name, n, d)
    few = n < PGRAM_ROWS * d or len(methods) == 1
    return [m for m in methods if few or m != LstsqMethod.QR]


def _nothing_known(sums: tuple[Any, Any, Any]) -> tuple[Any, Any]:
    _, c, squares_of_b = sums
    xp = namespace(c)
    nan = xp.full_like(c, float("nan"))
    zeros = xp.zeros_like(squares_of_b)
    stats = xp.stack([zeros for _ in Stat], axis=-1)
    return nan, unscaled_figures(stats, xp.ones_like(zeros), zeros > 0)
