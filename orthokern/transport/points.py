"""Transport between clouds of points whose matrix of costs is never formed.

The engines compute costs where they need them; everything else looks at a block of rows at a time.
"""

from __future__ import annotations

from typing import Any, Generic, NamedTuple

from .._core import check
from .._core.dtypes import compute_precision
from .._core.errors import ShapeError, UnsupportedError, ValuesError
from .._core.linalg import running_sum
from .._core.namespace import device, is_traced, namespace, same_library
from .._core.typing import ArrayT
from .bounds import Bounds, Evidence, centred, reach, weighed
from .canonical import INFINITY, heavy, positive_or_one
from .clouds import distances
from .codes import Stat
from .kinds import Effort, Kind
from .results import SparsePlan

# Costs that are held together.
BLOCK = 2**21


class Points(NamedTuple, Generic[ArrayT]):
    r"""In place of a cost: :math:`C_{ij} = \|x_i - y_j\|_2^p` for points x (m, d) and y (n, d), never stored."""

    x: ArrayT
    y: ArrayT
    p: float = 2.0


class Clouds(NamedTuple):
    """The bins that take part: masses of equal sum and the points that they lie at, in the caller's units."""

    x: Any
    y: Any
    a: Any
    b: Any
    p: float


def largest_cost(x: Any, y: Any, p: float) -> Any:
    """A bound of the costs, a small factor above their largest at most; 1 where all are zero. Shape (1, 1)."""
    xp = namespace(x)
    centre = xp.mean(x, axis=0)
    radii = [xp.sqrt(xp.max(xp.sum((z - centre) ** 2, axis=1))) for z in (x, y)]
    return xp.reshape(positive_or_one((radii[0] + radii[1]) ** p), (1, 1))


def checked_points(cost: Points[Any], kernel: str) -> Points[Any]:
    """Points as they are computed with."""
    x, y, p = cost
    for value, name in ((x, "x"), (y, "y")):
        check.not_empty(check.real(value, kernel=kernel, name=name), kernel=kernel, name=name)
        if is_traced(value):
            message = f"{kernel}: Points decides by values, which a trace does not have; pass a matrix of costs"
            raise UnsupportedError(message)
        if not bool(namespace(value).all(namespace(value).isfinite(value))):
            message = f"{kernel}: expected finite coordinates in {name} of Points; correct {name} before the call"
            raise ValuesError(message)
    same_library(x, y)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        message = (
            f"{kernel}: expected points x (m, d) and y (n, d) in one space, got shapes {tuple(x.shape)} and "
            f"{tuple(y.shape)}; stacks of problems take matrices of costs"
        )
        raise ShapeError(message)
    power = check.at_least(p, 1.0, kernel=kernel, name="p")
    return Points(compute_precision(x), compute_precision(y), power)


def solve_points(
    a: Any, b: Any, cost: Points[Any], kind: Kind, effort: Effort
) -> tuple[Any, Any, Any, Bounds, Evidence]:
    """``(plan, alpha, beta, bounds, evidence)`` in the caller's units; the plan is its entries, None if it is dense."""
    xp = namespace(a)
    negligible = (effort.tol or 0.0) / 4 if kind.prunes else 0.0
    kept = heavy(a, negligible), heavy(b, negligible)
    rows, columns = (xp.nonzero(mask)[0] for mask in kept)
    x, y = xp.take(cost.x, rows, axis=0), xp.take(cost.y, columns, axis=0)
    clouds = Clouds(x, y, xp.take(a, rows), xp.take(b, columns), cost.p)
    mass, unit = xp.reshape(xp.sum(clouds.a), (1, 1)), largest_cost(x, y, cost.p)
    inner = kind.scaled(mass, unit)
    shares = [masses / xp.sum(masses) for masses in (clouds.a, clouds.b)]
    effort = inner.attainable(effort)
    scale, (some, others) = 1 / unit, shares
    *potentials, stats = inner.solve_points(x, y, some, others, scale, cost.p, effort)
    blocks = _Blocks(clouds, kind, inner, mass, unit, *potentials)
    seen = _summed([blocks.look(rows) for rows in blocks.parts()])
    raised = [unit[0] * v + kind.lift(mass)[0] / 2 for v in potentials]
    alpha, beta = _extended(cost, clouds, kind, raised, kept)
    lost = xp.sum(a) - xp.sum(clouds.a) + xp.sum(b) - xp.sum(clouds.b)
    error = xp.sum(xp.abs(clouds.a - seen.rows)) + xp.sum(xp.abs(clouds.b - seen.columns)) + lost
    dual = weighed(alpha, a) + weighed(beta, b) - seen.conjugate
    value = seen.linear + seen.penalty
    bounds = Bounds(value, seen.linear, dual, error, blocks.value_near(seen))
    evidence = Evidence(
        tol=effort.tol,
        stats=stats,
        status=stats[..., Stat.STATUS],
        mass=mass[0, 0],
        unit=unit[0, 0],
        shift=xp.zeros_like(value),
        reach=reach(alpha, beta),
        fullest=xp.max(seen.counts),
        ties=xp.zeros_like(value),
        pruned=lost,
    )
    plan = _entries(seen, rows, columns, (a.shape[0], b.shape[0])) if kind.sparse else None
    return plan, *centred(a, b, alpha, beta), bounds, evidence


class _Seen(NamedTuple):
    """Sums over a block of rows, or over all; ``counts`` are entries in each column, the last three the entries."""

    linear: Any
    penalty: Any
    conjugate: Any
    columns: Any
    counts: Any
    rows: Any
    at_row: Any
    at_column: Any
    values: Any


def _summed(parts: list[_Seen]) -> _Seen:
    """The whole: the first fields add up, the others follow one another."""
    xp = namespace(parts[0].rows)
    added = _Seen._fields.index("rows")
    fields = list(zip(*parts, strict=True))
    return _Seen(*map(sum, fields[:added]), *(xp.concat(f) for f in fields[added:]))


class _Blocks(NamedTuple):
    """A solution in blocks of rows: the regularizer in the caller's units and inside, potentials inside."""

    clouds: Clouds
    kind: Kind
    inner: Kind
    mass: Any
    unit: Any
    alpha: Any
    beta: Any

    def parts(self) -> list[slice]:
        """Rows whose costs are held together."""
        m, size = self.alpha.shape[0], max(1, BLOCK // self.beta.shape[0])
        return [slice(first, min(first + size, m)) for first in range(0, m, size)]

    def look(self, rows: slice) -> _Seen:
        """All that is summed, and the entries of a sparse plan."""
        plan, costs, slack = self._plan(rows)
        xp = namespace(plan)
        at = xp.nonzero(plan if self.kind.sparse else plan[:0, :])
        return _Seen(
            linear=xp.sum(xp.vecdot(plan, costs)),
            penalty=self.kind.penalty(plan),
            conjugate=self.kind.conjugate(self.unit * slack + self.kind.lift(self.mass)),
            columns=xp.sum(plan, axis=0),
            counts=xp.count_nonzero(plan, axis=0),
            rows=xp.sum(plan, axis=1),
            at_row=at[0] + rows.start,
            at_column=at[1],
            values=plan[at[0], at[1]],
        )

    def _plan(self, rows: slice) -> tuple[Any, Any, Any]:
        """``(plan, costs, slack)``, the slack in the units inside."""
        costs = distances(self.clouds.x[rows, :], self.clouds.y, self.clouds.p)
        slack = self.alpha[rows, None] + self.beta[None, :] - costs / self.unit
        return self.mass * self.inner.plan(slack), costs, slack

    def value_near(self, seen: _Seen) -> Any:
        """Value of a plan with exact marginals: this one scaled down until no bin has too much, and filled up."""
        xp = namespace(seen.rows)
        a, b = self.clouds.a, self.clouds.b
        excess = xp.maximum(xp.max(seen.rows / a), xp.max(seen.columns / b))
        share = 1 / xp.maximum(excess, xp.ones_like(excess))
        lacking, wanting = a - share * seen.rows, b - share * seen.columns
        wanting = wanting / positive_or_one(xp.sum(wanting))
        total = xp.zeros_like(excess)
        for rows in self.parts():
            plan, costs, _ = self._plan(rows)
            near = share * plan + lacking[rows, None] * wanting[None, :]
            total = total + xp.sum(xp.vecdot(near, costs)) + self.kind.penalty(near)
        return total


def _entries(seen: _Seen, rows: Any, columns: Any, shape: tuple[int, int]) -> SparsePlan[Any]:
    """The entries, at the places of the whole problem."""
    xp = namespace(seen.values)
    return SparsePlan(
        xp.take(rows, seen.at_row), xp.take(columns, seen.at_column), seen.values, shape
    )


def _extended(
    cost: Points[Any], clouds: Clouds, kind: Kind, potentials: list[Any], kept: tuple[Any, Any]
) -> tuple[Any, Any]:
    """Potentials of all bins: those that were left out get the largest ones that add nothing to the dual."""
    alpha = _spread(potentials[0], kept[0])
    beta = _spread(potentials[1], kept[1])
    xp = namespace(alpha)
    out = [xp.nonzero(~mask)[0] for mask in kept]
    if not kind.prunes or not (out[0].shape[0] or out[1].shape[0]):
        return alpha, beta
    x, y, p = cost
    rows = _closest(xp.take(x, out[0], axis=0), clouds.y, potentials[1], p)
    alpha = xp.where(kept[0], alpha, _spread(rows, ~kept[0]))
    columns = _closest(xp.take(y, out[1], axis=0), x, alpha, p)
    return alpha, xp.where(kept[1], beta, _spread(columns, ~kept[1]))


def _spread(values: Any, mask: Any) -> Any:
    """``values`` at the places of ``mask``, minus infinity elsewhere."""
    xp = namespace(values)
    nothing = xp.full((1,), -INFINITY, dtype=values.dtype, device=device(values))
    place = running_sum(xp.astype(mask, xp.int64)) - 1
    last = xp.full_like(place, values.shape[0])
    return xp.take(xp.concat([values, nothing]), xp.where(mask, place, last))


def _closest(x: Any, y: Any, potential: Any, p: float) -> Any:
    """``min_j (|x_i - y_j|^p - potential_j)``."""
    xp = namespace(x)
    size = max(1, BLOCK // y.shape[0])
    parts = [
        xp.min(distances(x[first : first + size, :], y, p) - potential[None, :], axis=1)
        for first in range(0, x.shape[0], size)
    ]
    return xp.concat(parts) if parts else potential[:0]
