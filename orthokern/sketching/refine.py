"""Refinement of least-squares solutions against the matrix itself, with a backward error that is measured."""

from __future__ import annotations

from typing import Any, NamedTuple

from .._core.dtypes import eps, exponent_limit, is_complex
from .._core.linalg import adjoint, nan_unless
from .._core.namespace import namespace
from .normal_equations import squares
from .results import LstsqMethod, LstsqStatus, Stat
from .sources import Source
from .starts import Request, Start
from .whitening import damped_norms


class Refined(NamedTuple):
    """The best solution (..., d, k) that was met, its backward error and its residual norm (..., k); steps taken."""

    x: Any
    error: Any
    residual: Any
    steps: int


def backward_error(
    start: Start, ridge: Any, x: Any, gradient: Any, squares_of_r: Any
) -> tuple[Any, Any]:
    """``(error, squared residual norms)``: Karlson and Waldén's estimate, relative to ``||A||_F`` of unit columns.

    ``gradient`` is ``A^H r - ridge x``. Zero where B is zero.
    """
    xp = namespace(x)
    total = squares_of_r
    if ridge is not None:
        total = total + squares(x * xp.sqrt(ridge)[..., :, None])
    b = start.squares_of_b
    size = xp.sum(squares(start.f), axis=-1)[..., None]
    theta = xp.where(b > 0, size / xp.where(b > 0, b, xp.ones_like(b)), xp.zeros_like(b))
    weight = 1 + theta * squares(start.scale[..., :, None] * x)
    norms = damped_norms(start.f, theta * total / weight, gradient / start.scale[..., :, None])
    return norms * xp.sqrt(theta / (weight * xp.where(size > 0, size, xp.ones_like(size)))), total


def measured(source: Source, start: Start, request: Request, x: Any) -> tuple[Any, Any, Any]:
    """``(gradient, backward error, squared residual norms)`` at ``x``."""
    gradient, total = source.residual_gradient(x)
    if request.ridge is not None:
        gradient = gradient - request.ridge[..., :, None] * x
    return gradient, *backward_error(start, request.ridge, x, gradient, total)


def refined(source: Source, start: Start, request: Request) -> Refined:
    """Refine until the backward error is at most ``tol``, at least once, at most ``max_refine`` times.

    Where ``tol`` is a unit of rounding, until it is well below or stays the same: one step more costs little. A
    right-hand side that has come there stays as it is, whatever the others need.
    """
    goal = request.tol / FINE if request.tol <= eps(start.x) else request.tol
    xp = namespace(start.x)
    x = best = _step(source, start, request, start.x)
    lowest = xp.full_like(start.squares_of_b, float("inf"))
    squared, settled = lowest, (lowest < 0) | ~(start.rcond > 0)[..., None]
    steps = 0
    for steps in range(1, request.max_refine + 1):
        gradient, error, total = measured(source, start, request, x)
        better, gained = (error < lowest) & ~settled, error < lowest / 2
        best = xp.where(better[..., None, :], x, best)
        lowest, squared = xp.where(better, error, lowest), xp.where(better, total, squared)
        # What is not a number never gets better.
        there = (lowest <= goal) | ((lowest <= request.tol) & ~gained)
        settled = settled | xp.isnan(error) | there
        if steps == request.max_refine or bool(xp.all(settled)):
            break
        x = x + start.p @ (adjoint(start.p) @ gradient)
    return Refined(best, lowest, xp.sqrt(squared), steps)


def _step(source: Source, start: Start, request: Request, x: Any) -> Any:
    gradient, _ = source.residual_gradient(x)
    if request.ridge is not None:
        gradient = gradient - request.ridge[..., :, None] * x
    return x + start.p @ (adjoint(start.p) @ gradient)


def stepped(source: Source, start: Start, request: Request, steps: int) -> Any:
    """The solution after ``steps`` refinements, of which no error is known."""
    x = start.x
    for _ in range(steps):
        x = _step(source, start, request, x)
    return x


def refined_times(source: Source, start: Start, request: Request, steps: int) -> Refined:
    """Refine exactly ``steps`` times: no value decides anything."""
    x = stepped(source, start, request, steps)
    _, error, total = measured(source, start, request, x)
    return Refined(x, error, namespace(x).sqrt(total), steps)


def unrefined(start: Start) -> Refined:
    """``start`` as it is, of which nothing is known."""
    unknown = namespace(start.x).full_like(start.squares_of_b, float("inf"))
    return Refined(start.x, unknown, unknown, 0)


def minimum_norm(x: Any, start: Start, columns: Any) -> Any:
    """``x`` without its part in the null space, in coordinates that ``columns`` multiply; None multiplies nothing."""
    if start.null is None:
        return x
    factor = 1.0 if columns is None else columns[..., :, None]
    whole = x * factor
    for _ in range(2):
        whole = whole - start.null @ (adjoint(start.null) @ whole)
    return whole / factor


# Parts of a unit of rounding that a backward error should be below.
FINE = 3.0
# Backward errors up to so many times the tolerance are taken.
ENOUGH = 4.0


def one_pass(g: Any, c: Any, start: Start, ridge: Any) -> Refined:
    """``start`` judged by the normal equations alone: the residual is a difference of large numbers."""
    xp = namespace(g)
    x = start.x
    product = g @ x
    gradient = c - product if ridge is None else c - product - ridge[..., :, None] * x
    cross = (
        xp.sum(xp.real(xp.conj(x) * (product - 2 * c)), axis=-2)
        if is_complex(x)
        else xp.sum(x * (product - 2 * c), axis=-2)
    )
    total = start.squares_of_b + cross
    total = xp.where(total > 0, total, xp.zeros_like(total))
    error, total = backward_error(start, ridge, x, gradient, total)
    return Refined(x, error, xp.sqrt(total), 0)


def figures(start: Start, found: Refined, request: Request, method: LstsqMethod) -> Any:
    """What is to be said of the solutions, shape (..., k, len(Stat))."""
    xp = namespace(found.error)
    scaled_size = xp.sqrt(squares(start.scale[..., :, None] * found.x))
    # Singular values of A with unit columns: their root of the sum of squares, and the smallest.
    size = xp.sqrt(xp.sum(squares(start.f), axis=-1))[..., None]
    known = start.rcond[..., None] > 0
    condition = 1 / xp.where(known, start.rcond[..., None], xp.ones_like(size))
    condition = xp.where(known, condition, xp.full_like(condition, float("inf")))
    worst = condition * xp.sqrt(xp.maximum(start.rank, xp.ones_like(start.rank)))[..., None]
    length = size * scaled_size
    share = found.residual / xp.where(length > 0, length, xp.ones_like(length))
    bound = xp.where(found.error > 0, found.error * worst * (1 + worst * share), found.error)
    columns = {
        Stat.BACKWARD_ERROR: found.error,
        Stat.RESIDUAL: found.residual,
        Stat.SQUARES: found.residual**2,
        Stat.ITERATIONS: found.steps,
        Stat.METHOD: method.value,
        Stat.STATUS: _status(start, found, request, method),
        Stat.RANK: start.rank[..., None],
        Stat.CONDITION: condition,
        Stat.PASSES: start.passes + found.steps + 1,
        Stat.SKETCH_ROWS: start.sketch_rows,
        Stat.ERROR_BOUND: bound,
    }
    zeros = xp.zeros_like(found.error)
    return xp.stack([columns[stat] + zeros for stat in Stat], axis=-1)


_OUTCOMES = (LstsqStatus.CONVERGED, LstsqStatus.NOT_BACKWARD_STABLE)


def is_reached(start: Start, found: Refined, request: Request) -> Any:
    """Whether the backward errors are small enough: as small as the truncation is, where ``rcond`` truncates."""
    xp = namespace(found.error)
    allowed = xp.full_like(found.error, request.tol)
    if request.rcond is not None:
        truncated = (start.rank < start.x.shape[-2])[..., None]
        chosen = xp.full_like(found.error, max(request.tol, request.rcond))
        allowed = xp.where(truncated, chosen, allowed)
    return found.error <= ENOUGH * allowed


def _status(start: Start, found: Refined, request: Request, method: LstsqMethod) -> Any:
    if method == LstsqMethod.SKETCH:
        return LstsqStatus.SKETCHED.value
    xp = namespace(found.error)
    codes = [xp.full_like(found.error, code.value) for code in _OUTCOMES]
    return xp.where(is_reached(start, found, request), *codes)


def unscaled_figures(stats: Any, undo_b: Any, finite: Any) -> Any:
    """``stats`` of a problem whose right-hand sides were divided by ``undo_b``; members may not be ``finite``."""
    xp = namespace(stats)
    columns = {stat: stats[..., int(stat)] for stat in Stat}
    norm = columns[Stat.RESIDUAL] = columns[Stat.RESIDUAL] * undo_b
    # Squares that would leave the range stay at its end.
    most = xp.full_like(norm, 2.0 ** ((exponent_limit(norm) + 1) / 2))
    columns[Stat.SQUARES] = xp.minimum(norm, most) ** 2
    for stat in (Stat.RESIDUAL, Stat.SQUARES, Stat.BACKWARD_ERROR, Stat.ERROR_BOUND):
        columns[stat] = nan_unless(finite, columns[stat])
    status = xp.full_like(undo_b, LstsqStatus.NOT_FINITE.value)
    columns[Stat.STATUS] = xp.where(finite, columns[Stat.STATUS], status)
    return xp.stack([columns[stat] for stat in Stat], axis=-1)
