"""Which solver is tried, and whether its solution is accepted."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .._core.dtypes import eps
from .._core.linalg import nan_unless
from .._core.namespace import is_traced, namespace
from .normal_equations import normal_equations
from .refine import figures, is_reached, minimum_norm, refined, refined_times, unrefined
from .results import LstsqMethod, Stat
from .sources import Dense, Source
from .starts import (
    Request,
    Start,
    pgram_start,
    qr_start,
    sketched_start,
    start_of_sums,
    svd_start,
)

# The least reciprocal condition number of unit columns that a Gram matrix can hold, in sqrt(eps).
GRAM_RCOND = 0.67
# Cutoffs above this one are somebody's choice.
CHOSEN_RCOND = 1e-8
# Eps below which columns of any scale may count as dependent: more than a matrix in memory has rows.
GRAM_CUTOFF = 2.0**24
# Refinements where no value can be looked at.
TRACED_STEPS = {LstsqMethod.GRAM: 2, LstsqMethod.PGRAM: 3, LstsqMethod.QR: 2, LstsqMethod.SVD: 2}
# From so many columns on the first rows, so many for each column, are looked at alone where there are many more.
PROBED_COLUMNS, PROBED_ROWS, MORE = 128, 4, 8
# "auto" tries the Gram matrix from this many rows for each column on, the whitened one from that many.
GRAM_ROWS, PGRAM_ROWS = 2, 8
STARTS: dict[LstsqMethod, Callable[[Source, Request], Start]] = {
    LstsqMethod.PGRAM: pgram_start,
    LstsqMethod.QR: qr_start,
    LstsqMethod.SVD: svd_start,
    LstsqMethod.SKETCH: sketched_start,
}


class Solution(NamedTuple):
    """``x`` (..., d, k), the whitener ``p``, the figures (..., k, len(Stat)); whether to keep them (...)."""

    x: Any
    p: Any
    stats: Any
    accepted: Any


def solved(source: Source, start: Start, request: Request, method: LstsqMethod) -> Solution:
    """Refine ``start`` as its method asks for."""
    xp = namespace(start.x)
    whole = has_full_rank(start, request) if method == LstsqMethod.GRAM else start.rcond > 0
    if method == LstsqMethod.GRAM and not is_traced(whole) and not bool(xp.any(whole)):
        found = unrefined(start)
    elif method == LstsqMethod.SKETCH:
        found = refined_times(source, start, request, 0)
    elif is_traced(start.x):
        found = refined_times(source, start, request, TRACED_STEPS[method])
    else:
        found = refined(source, start, request)
    accepted = xp.all(is_reached(start, found, request), axis=-1) & whole
    if method == LstsqMethod.PGRAM and request.rcond is not None and request.rcond > CHOSEN_RCOND:
        # A sketch knows only about which directions are below a cutoff that is no rounding error.
        accepted = accepted & (start.rank == start.x.shape[-2])
    x = minimum_norm(found.x, start, request.columns)
    if method == LstsqMethod.GRAM:
        # Nothing was factorized where the Gram matrix is not definite.
        x = nan_unless((start.rcond > 0)[..., None, None], x)
    return Solution(x, start.p, figures(start, found, request, method), accepted)


def methods_for(name: str, n: int, d: int, *, traced: bool = False) -> list[LstsqMethod]:
    """The solvers to try, in order."""
    if name != "auto":
        return [LstsqMethod[name.upper()]]
    if traced:
        return [LstsqMethod.PGRAM if n >= PGRAM_ROWS * d else LstsqMethod.QR]
    rows = {LstsqMethod.GRAM: GRAM_ROWS, LstsqMethod.PGRAM: PGRAM_ROWS, LstsqMethod.QR: 0}
    return [method for method, least in rows.items() if n >= least * d]


def first_of(
    source: Source, request: Request, methods: list[LstsqMethod], sums: Any = None
) -> Solution:
    """The first solution of one matrix that is accepted, else the best one; ``sums`` are its normal equations."""
    best = None
    for method in methods:
        found = by_method(source, request, method, sums)
        if bool(found.accepted):
            return found
        if best is None or _worst(found) < _worst(best):
            best = found
    assert best is not None
    return best


def _worst(solution: Solution) -> float:
    error = solution.stats[..., Stat.BACKWARD_ERROR]
    xp = namespace(error)
    return float(xp.max(xp.where(xp.isnan(error), xp.full_like(error, float("inf")), error)))


def by_method(source: Source, request: Request, method: LstsqMethod, sums: Any = None) -> Solution:
    """The solution of every matrix by one solver."""
    if method == LstsqMethod.GRAM:
        sums = source.normal_equations() if sums is None else sums
        start = start_of_sums(*sums, ridge=request.ridge)
    else:
        start = STARTS[method](source, request)
    return solved(source, start, request, method)


def sums_in_parts(a: Any, b: Any) -> tuple[Any, Any, Any] | None:
    """The normal equations; None where those of the first rows say already that the Gram matrix will not do.

    With few columns, or not many rows, they are summed at once.
    """
    n, d = a.shape[-2:]
    m = PROBED_ROWS * d
    if a.ndim > 2 or d < PROBED_COLUMNS or n < MORE * m:
        return normal_equations(a, b)  # type: ignore[no-any-return]
    head = normal_equations(a[:m, :], b[:m, :])
    if not bool(start_of_sums(*head, ridge=None).rcond > least_rcond(head[0]) / 10):
        return None
    rest = normal_equations(a[m:, :], b[m:, :])
    return tuple(one + other for one, other in zip(head, rest, strict=True))


def has_full_rank(start: Start, request: Request) -> Any:
    """Whether a Gram matrix leaves no doubt that nothing is to be truncated, and can hold the condition number.

    Estimates in the 1-norm are off by at most the number of columns.
    """
    xp, d = namespace(start.x), start.x.shape[-2]
    whole = start.rcond > least_rcond(start.x)
    if request.rcond is None and request.equilibrate:
        return whole
    cutoff = GRAM_CUTOFF * eps(start.x) if request.rcond is None else request.rcond
    spread = start.rcond
    if not request.equilibrate:
        spread = spread * xp.min(start.scale, axis=-1) / xp.max(start.scale, axis=-1)
    return whole & (spread > d * cutoff)


def least_rcond(like: Any) -> float:
    """The least reciprocal condition number of unit columns whose Gram matrix is of use in this precision."""
    return GRAM_RCOND * math.sqrt(eps(like))


def of_members(a: Any, b: Any, request: Request, methods: list[LstsqMethod], sums: Any) -> Solution:
    """All matrices by the first solver at once; those that it fails, one by one by the others."""
    xp = namespace(a)
    found = by_method(Dense(a, b), request, methods[0], sums)
    if is_traced(found.x) or len(methods) == 1 or bool(xp.all(found.accepted)):
        return found
    if a.ndim == 2:
        rest = first_of(Dense(a, b), request, methods[1:])
        return rest if bool(rest.accepted) or _worst(rest) < _worst(found) else found
    batch = a.shape[:-2]
    members = []
    for index in np.ndindex(*batch):
        member = Solution(*(v[(*index, ...)] for v in found))
        if not bool(member.accepted):
            own = request._replace(
                ridge=_of(request.ridge, index), columns=_of(request.columns, index)
            )
            member = of_members(a[(*index, ...)], b[(*index, ...)], own, methods, None)
        members.append(member)
    parts = [xp.stack(part) for part in zip(*members, strict=True)]
    return Solution(*(xp.reshape(v, (*batch, *v.shape[1:])) for v in parts))


def _of(rows: Any, index: tuple[int, ...]) -> Any:
    return None if rows is None else rows[(*index, ...)]
