r"""Entropic transport between clouds of points, whose cost ``|x_i - y_j|^p`` is computed where it is needed.

Plain sweeps with over-relaxation and continuation in epsilon; what is held of the cost is a block of rows.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from .._core.autodiff import constant
from .._core.dispatch import op
from .._core.errors import UnsupportedError
from .._core.loop import iterate
from .._core.namespace import namespace
from .._core.progress import tell
from .newton import quadratic_potentials
from .sinkhorn import (
    CONVERGED,
    EPSILON_STEP,
    FIRST_EPSILON,
    FIXED,
    MAX_ITER,
    RUNNING,
    STAGE_ERROR,
    STALLED,
    kept,
    logarithm,
    packed_stats,
    refuse_abstract,
)

# Costs that the reference forms at most.
MOST_COSTS = 2**24
# Numbers in the temporaries of a block.
BLOCK = 2**21
# Sweeps between two looks at the rate of convergence; the largest over-relaxation 1 + theta.
WINDOW, MOST_RELAXATION = 10, 0.9
# Plain sweeps of a window that leave more than this part of the error have stalled.
STALLING = 1 - 1e-4


class Side(NamedTuple):
    """Points (..., n, d), their masses (..., n), the logarithms of these."""

    points: Any
    masses: Any
    log_masses: Any


class Clouds(NamedTuple):
    """Two clouds, and the cost ``scale |x - y|^p``."""

    rows: Side
    columns: Side
    scale: Any
    p: float

    def turned(self) -> Clouds:
        """The same with rows and columns exchanged."""
        return self._replace(rows=self.columns, columns=self.rows)


@op()
def entropic_potentials_points(
    x: Any,
    y: Any,
    a: Any,
    b: Any,
    epsilon: Any,
    scale: Any,
    /,
    *,
    p: float,
    tol: float | None,
    max_iter: int,
) -> tuple[Any, Any, Any]:
    """Potentials ``(alpha, beta, stats)`` of entropic transport at the cost ``scale |x_i - y_j|_2^p``.

    ``x`` (..., m, d), ``y`` (..., n, d), masses ``a`` (..., m) and ``b`` (..., n) that sum to 1; ``epsilon`` and
    ``scale`` (..., 1, 1), the latter such that the cost lies in [0, 1]. Reference and figures are those of
    ``entropic_potentials``. Memory: O(m + n) and a block of rows of the cost.
    """
    clouds = Clouds(Side(x, a, logarithm(a)), Side(y, b, logarithm(b)), scale, p)
    if tol is None:
        f, g, stats = _fixed(clouds, epsilon, max_iter)
    else:
        refuse_abstract(x, y, a, b, epsilon, scale)
        f, g, stats = _to_tolerance(clouds, epsilon, tol, max_iter)
    xp, strength = namespace(x), epsilon[..., 0]
    alpha, beta = f + strength * clouds.rows.log_masses, g + strength * clouds.columns.log_masses
    return (
        xp.where(a > 0, alpha, xp.zeros_like(alpha)),
        xp.where(b > 0, beta, xp.zeros_like(beta)),
        stats,
    )


def distances(x: Any, y: Any, p: float) -> Any:
    """Euclidean distances to the power ``p``, (..., m, n), from differences: exact where points are near."""
    xp = namespace(x)
    square = xp.zeros_like(x[..., :, :1] + xp.matrix_transpose(y[..., :, :1]))
    for k in range(x.shape[-1]):
        gap = x[..., :, k][..., :, None] - y[..., :, k][..., None, :]
        square = square + gap * gap
    if p == 2:
        return square
    # The root has no derivative at zero, where two points meet.
    apart = square > 0
    power = xp.where(apart, square, xp.ones_like(square)) ** (p / 2)
    return xp.where(apart, power, xp.zeros_like(power))


def _cost(c: Clouds, first: int, last: int) -> Any:
    """Rows ``first`` to ``last`` of the cost."""
    return distances(c.rows.points[..., first:last, :], c.columns.points, c.p) * c.scale


def _rows_from(c: Clouds, g: Any, e: Any) -> Any:
    """``-e log sum_j b_j exp((g_j - C_ij) / e)``, block after block."""
    xp = namespace(g)
    terms = g / e[..., 0] + c.columns.log_masses
    terms = xp.where(c.columns.masses > 0, terms, xp.full_like(terms, -float("inf")))
    m, n = c.rows.masses.shape[-1], terms.shape[-1]
    size = max(1, BLOCK // max(1, math.prod(terms.shape[:-1]) * n))
    parts = []
    for first in range(0, m, size):
        block = terms[..., None, :] - _cost(c, first, min(first + size, m)) / e
        top = constant(xp.max(block, axis=-1, keepdims=True))
        parts.append(top[..., 0] + xp.log(xp.sum(xp.exp(block - top), axis=-1)))
    return -e[..., 0] * xp.concat(parts, axis=-1)


def _departure(side: Side, found: Any, optimal: Any, e: Any) -> Any:
    """L1 error of the marginal at the potential ``found``, where ``optimal`` would have none."""
    xp = namespace(found)
    return xp.sum(side.masses * xp.abs(xp.expm1((found - optimal) / e[..., 0])), axis=-1)


def _fixed(c: Clouds, epsilon: Any, steps: int) -> tuple[Any, Any, Any]:
    xp = namespace(c.scale)
    f, g = xp.zeros_like(c.rows.masses), xp.zeros_like(c.columns.masses)
    for _ in range(steps):
        f = _rows_from(c, g, epsilon)
        g = _rows_from(c.turned(), f, epsilon)
    error = _error(c, constant(f), constant(g), constant(epsilon))
    one = xp.ones_like(error)
    return f, g, packed_stats(float(steps) * one, error, FIXED * one)


def _error(c: Clouds, f: Any, g: Any, e: Any) -> Any:
    rows = _departure(c.rows, f, _rows_from(c, g, e), e)
    return rows + _departure(c.columns, g, _rows_from(c.turned(), f, e), e)


class _State(NamedTuple):
    """Potentials, the epsilon of the stage (..., 1, 1), and figures of each problem.

    These are the relaxation, the error, that of the columns alone, the one at the last look, sweeps of this stage,
    sweeps in all, status.
    """

    f: Any
    g: Any
    e: Any
    theta: Any
    error: Any
    column_error: Any
    seen: Any
    age: Any
    steps: Any
    status: Any


def _to_tolerance(c: Clouds, epsilon: Any, tol: float, max_iter: int) -> tuple[Any, Any, Any]:
    xp = namespace(epsilon)
    e = xp.maximum(epsilon, xp.full_like(epsilon, FIRST_EPSILON))
    none = xp.zeros_like(e[..., 0, 0])
    endless = xp.full_like(none, float("inf"))
    f, g = xp.zeros_like(c.rows.masses), xp.zeros_like(c.columns.masses)
    state = _State(
        f, g, e, none, endless, endless, endless, none, none, xp.full_like(none, RUNNING)
    )

    def step(s: Any) -> _State:
        new = _advanced(c, epsilon, tol, _State(*s))
        tell(new.steps, new.error)
        return new

    found, _ = iterate(
        step,
        state,
        done=lambda s: xp.all(s[-1] != RUNNING),
        max_steps=max_iter,
    )
    return _ended(c, epsilon, _State(*found))


def _ended(c: Clouds, epsilon: Any, s: _State) -> tuple[Any, Any, Any]:
    """The result of a loop; where it has not converged, after one more sweep and with the error of that."""
    xp = namespace(epsilon)
    converged = s.status == CONVERGED
    if bool(xp.all(converged)):
        return s.f, s.g, packed_stats(s.steps, s.error, s.status)
    f = _rows_from(c, s.g, epsilon)
    g = _rows_from(c.turned(), f, epsilon)
    error = _error(c, f, g, epsilon)
    status = xp.where(s.status == RUNNING, xp.full_like(error, MAX_ITER), s.status)
    f, g, error, status = (
        kept(converged, x, y) for x, y in ((s.f, f), (s.g, g), (s.error, error), (s.status, status))
    )
    return f, g, packed_stats(s.steps, error, status)


def _advanced(c: Clouds, epsilon: Any, tol: float, s: _State) -> _State:
    """One relaxed sweep; its potentials are kept back where those before it were good enough."""
    xp = namespace(epsilon)
    best = _rows_from(c, s.g, s.e)
    error = s.column_error + _departure(c.rows, s.f, best, s.e)
    last = (s.e == epsilon)[..., 0, 0]
    settled = error <= xp.where(last, xp.full_like(error, tol), xp.full_like(error, STAGE_ERROR))
    over = 1 + s.theta[..., None]
    f = s.f + over * (best - s.f)
    best = _rows_from(c.turned(), f, s.e)
    g = s.g + over * (best - s.g)
    column_error = _departure(c.columns, g, best, s.e)
    theta, seen, stalled = _looked(s, error)
    status = xp.where(stalled & last, xp.full_like(error, STALLED), s.status)
    status = xp.where(settled & last, xp.full_like(error, CONVERGED), status)
    onward = (settled | stalled) & ~last
    endless, none = xp.full_like(error, float("inf")), xp.zeros_like(error)
    e = xp.where(onward[..., None, None], xp.maximum(epsilon, EPSILON_STEP * s.e), s.e)
    new = _State(
        f,
        g,
        e,
        xp.where(onward, none, theta),
        error,
        xp.where(onward, endless, column_error),
        xp.where(onward, endless, seen),
        xp.where(onward, none, s.age + 1),
        s.steps + 1,
        status,
    )
    running = s.status == RUNNING
    moving = running & ~settled
    masks = [moving, moving, *[running] * 8]
    return _State(*(kept(mask, x, y) for mask, x, y in zip(masks, new, s, strict=True)))


def _looked(s: _State, error: Any) -> tuple[Any, Any, Any]:
    """Relaxation, error, and whether it stalled, by a look at the rate once in WINDOW sweeps of a stage."""
    xp = namespace(error)
    look = (s.age % WINDOW == WINDOW - 1) & xp.isfinite(error)
    known = look & xp.isfinite(s.seen)
    one = xp.ones_like(error)
    ratio = xp.where(known, error, one) / xp.where(known, s.seen, 2 * one)
    rate = xp.clip(ratio, 1e-300 if error.dtype == xp.float64 else 1e-30, None) ** (1 / WINDOW)
    plain = (rate + s.theta) ** 2 / (rate * (1 + s.theta) ** 2)
    plain = xp.where(rate > s.theta, plain, 0 * one)
    better = 2 / (1 + xp.sqrt(xp.clip(1 - plain, 0.0, None))) - 1
    better = xp.clip(better, None, MOST_RELAXATION)
    better = xp.where((plain > 0) & (plain < 1), better, s.theta)
    better = xp.where(rate >= 1, 0 * one, better)
    # Plain sweeps never raise the error: where they do not lower it, it is rounding.
    stalled = known & (s.theta == 0) & (error >= STALLING * s.seen)
    return xp.where(known, better, s.theta), xp.where(look, error, s.seen), stalled


@op()
def quadratic_potentials_points(
    x: Any,
    y: Any,
    a: Any,
    b: Any,
    gamma: Any,
    scale: Any,
    /,
    *,
    p: float,
    tol: float,
    max_iter: int,
) -> tuple[Any, Any, Any]:
    """Potentials ``(alpha, beta, stats)`` of quadratic transport at the cost ``scale |x_i - y_j|_2^p``.

    Arrays as those of :func:`entropic_potentials_points`. The reference forms the costs, and refuses where these are
    too many for that.
    """
    count = x.shape[-2] * y.shape[-2]
    if count > MOST_COSTS:
        message = (
            f"quadratic transport between clouds: expected at most {MOST_COSTS} pairs without Numba, got {count}; "
            "install orthokern[numba], which forms no matrix"
        )
        raise UnsupportedError(message)
    none = namespace(a).zeros_like(a)
    clouds = Clouds(Side(x, a, none), Side(y, b, none), scale, p)
    limits = {"tol": tol, "max_iter": max_iter}
    found: tuple[Any, Any, Any] = quadratic_potentials.body(
        a, b, _cost(clouds, 0, x.shape[-2]), gamma, **limits
    )
    return found
