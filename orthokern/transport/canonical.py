"""The one form in which every engine sees a transport problem, and the way back to the caller's units.

A canonical problem has masses that sum to 1 and costs from 0 to 1. Bins without mass, and those so light that all of
them together do not matter, are out of it: their costs are infinite and their masses zero.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .._core.autodiff import constant
from .._core.linalg import running_sum
from .._core.namespace import is_traced, namespace
from .codes import FIXED

INFINITY = float("inf")


class Canonical(NamedTuple):
    """A problem in the units of the engines: a (..., m), b (..., n), cost (..., m, n).

    ``mass``, ``unit`` and ``shift`` (..., 1, 1) are what masses and costs were divided by, and what was subtracted
    from the costs before. ``rows`` (..., m) and ``columns`` (..., n) mark the bins that take part. A problem without
    any mass is replaced by one that every engine finds solved; its ``mass`` is zero.
    """

    a: Any
    b: Any
    cost: Any
    mass: Any
    unit: Any
    shift: Any
    rows: Any
    columns: Any

    @property
    def some_mass(self) -> Any:
        """The mass, 1 where there is none."""
        return positive_or_one(self.mass)


def canonical(a: Any, b: Any, cost: Any, *, negligible: float) -> Canonical:
    """The canonical form; up to ``negligible`` of the mass is dropped on each side, in the lightest bins.

    Units and masks are constants of differentiation: a change of the problem changes it in these units.
    """
    xp = namespace(cost)
    mass = xp.sum(constant(a), axis=-1, keepdims=True)
    void = mass == 0
    rows, columns = heavy(constant(a), negligible) | void, heavy(constant(b), negligible) | void
    highest = _extreme(xp.max, cost)
    if _all_hold(rows, columns, highest < INFINITY):
        open_costs = cost
    else:
        closed = ~(rows[..., :, None] & columns[..., None, :]) | (cost == INFINITY)
        open_costs = xp.where(closed, xp.full_like(cost, INFINITY), cost)
        highest = _extreme(xp.max, xp.where(closed, xp.full_like(cost, -INFINITY), cost))
    shift = _finite_or_zero(_extreme(xp.min, open_costs))
    unit = positive_or_one(highest - shift)
    scaled = (open_costs - shift) / unit
    return Canonical(
        a=_shares(a, rows, void),
        b=_shares(b, columns, void),
        cost=scaled if _all_hold(~void) else _emptied(scaled, void),
        mass=mass[..., None],
        unit=unit,
        shift=shift,
        rows=rows,
        columns=columns,
    )


def _extreme(of: Any, cost: Any) -> Any:
    """The least or the largest entry of each matrix, (..., 1, 1); a constant."""
    return of(constant(cost), axis=(-2, -1), keepdims=True)


def _all_hold(*conditions: Any) -> bool:
    """Whether all are known to hold: then no masks are needed."""
    xp = namespace(conditions[0])
    return not any(map(is_traced, conditions)) and all(bool(xp.all(x)) for x in conditions)


def _emptied(scaled: Any, void: Any) -> Any:
    xp = namespace(scaled)
    return xp.where(void[..., None], xp.zeros_like(scaled), scaled)


def fixed_stats(error: Any, steps: int) -> Any:
    """Figures of an engine that ran ``steps`` steps and tested nothing."""
    xp = namespace(error)
    columns = (xp.full_like(error, float(steps)), error, xp.full_like(error, FIXED))
    return constant(xp.stack(columns, axis=-1))


def positive_or_one(x: Any) -> Any:
    """``x`` where it is positive, 1 elsewhere."""
    xp = namespace(x)
    return xp.where(x > 0, x, xp.ones_like(x))


def heavy(masses: Any, negligible: float) -> Any:
    """Bins that are not among the lightest ones which together hold no more than ``negligible`` of the mass."""
    xp = namespace(masses)
    if negligible == 0.0:
        return masses > 0
    ordered = xp.sort(masses, axis=-1)
    below = running_sum(ordered)
    kept = (below > negligible * below[..., -1:]) & (ordered > 0)
    least = xp.min(xp.where(kept, ordered, xp.full_like(ordered, INFINITY)), axis=-1, keepdims=True)
    return masses >= least


def _shares(masses: Any, kept: Any, void: Any) -> Any:
    """The masses of the bins that are kept, divided by their sum; equal ones where there is no mass."""
    xp = namespace(masses)
    inside = xp.where(kept & ~void, masses, xp.zeros_like(masses))
    shares = inside / positive_or_one(xp.sum(constant(inside), axis=-1, keepdims=True))
    return xp.where(void, xp.full_like(shares, 1.0 / masses.shape[-1]), shares)


def _finite_or_zero(x: Any) -> Any:
    xp = namespace(x)
    return xp.where(xp.isfinite(x), x, xp.zeros_like(x))
