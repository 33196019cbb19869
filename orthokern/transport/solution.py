"""From a checked problem to its solution, its bounds and the evidence for them, in the caller's units."""

from __future__ import annotations

from typing import Any

from .._core.autodiff import constant
from .._core.dispatch import op
from .._core.namespace import namespace
from .bounds import Bounds, Evidence, Problem, assess, full_potentials, reach
from .canonical import canonical
from .codes import Figure, Stat
from .kinds import Effort, Entropic, Kind, Sparse
from .recovery import recovered


def solved(
    problem: Problem, kind: Kind, effort: Effort, recover: str
) -> tuple[Any, Any, Any, Bounds, Evidence]:
    """``(plan, alpha, beta, bounds, evidence)`` in the caller's units."""
    if not isinstance(kind, Entropic):
        return _assembled(problem, kind, effort, recover)
    plan, alpha, beta, figures, stats = entropic_solution(*problem, kind.epsilon, **effort.limits)
    known = _read(problem, effort, figures, stats, reach(alpha, beta))
    return plan, alpha, beta, *known


def _assembled(
    problem: Problem, kind: Kind, effort: Effort, recover: str
) -> tuple[Any, Any, Any, Bounds, Evidence]:
    """The canonical problem, solved by the engine of its kind, and back."""
    units = canonical(*problem, negligible=(effort.tol or 0.0) / 4 if kind.prunes else 0.0)
    inner = kind.scaled(units.some_mass, units.unit)
    effort = inner.attainable(effort)
    solution = inner.solve(units, effort)
    shares, status = recovered(inner, units, solution, effort, recover)
    plan = units.mass * shares
    alpha, beta = full_potentials(problem, kind, units, solution.alpha, solution.beta)
    xp = namespace(plan)
    counts = xp.count_nonzero(plan, axis=-2)
    most = kind.k if isinstance(kind, Sparse) else plan.shape[-2]
    evidence = Evidence(
        tol=effort.tol,
        stats=solution.stats,
        status=status,
        mass=units.mass[..., 0, 0],
        unit=units.unit[..., 0, 0],
        shift=units.shift[..., 0, 0],
        reach=reach(alpha, beta),
        fullest=xp.max(counts, axis=-1),
        ties=xp.sum(xp.astype(counts > most, plan.dtype), axis=-1),
        pruned=_left_out(problem.a, units.rows) + _left_out(problem.b, units.columns),
    )
    return plan, alpha, beta, assess(problem, kind, plan, alpha, beta), evidence


def _left_out(masses: Any, kept: Any) -> Any:
    xp = namespace(masses)
    return constant(xp.sum(xp.where(kept, xp.zeros_like(masses), masses), axis=-1))


@op(fused=True)
def entropic_solution(
    a: Any, b: Any, cost: Any, epsilon: Any, /, *, tol: float | None, max_iter: int
) -> tuple[Any, Any, Any, Any, Any]:
    """``(plan, alpha, beta, figures, stats)`` of entropic transport in the caller's units, counting reference.

    Masses ``a`` (..., m) and ``b`` (..., n) of equal sum, ``cost`` (..., m, n), ``epsilon`` (..., 1, 1) > 0; figures
    (..., len(Figure)) and stats (..., len(Stat)). Beside the sweeps of ``entropic_potentials`` some passes over the
    costs, which take as long as these where few sweeps do: hence an op, whose other way makes them in one loop.
    """
    problem, effort = Problem(a, b, cost), Effort("auto", tol, max_iter)
    plan, alpha, beta, bounds, seen = _assembled(problem, Entropic(epsilon), effort, "relaxed")
    xp = namespace(cost)
    stopped_at = xp.full_like(seen.unit, seen.tol or 0.0)
    parts = [*bounds, seen.unit, seen.shift, xp.astype(seen.fullest, cost.dtype), stopped_at]
    return plan, alpha, beta, xp.stack(parts, axis=-1), seen.stats


def _read(
    problem: Problem, effort: Effort, figures: Any, stats: Any, largest: Any
) -> tuple[Bounds, Evidence]:
    """The figures of ``entropic_solution``, which leaves out bins without mass alone."""
    xp = namespace(figures)
    mass = xp.sum(constant(problem.a), axis=-1)
    nothing = xp.zeros_like(mass)
    evidence = Evidence(
        tol=None if effort.tol is None else figures[..., Figure.TOLERANCE],
        stats=stats,
        status=stats[..., Stat.STATUS],
        mass=mass,
        unit=figures[..., Figure.UNIT],
        shift=figures[..., Figure.SHIFT],
        reach=largest,
        fullest=figures[..., Figure.FULLEST],
        ties=nothing,
        pruned=nothing,
    )
    return Bounds(*(figures[..., column] for column in range(Figure.UNIT))), evidence
