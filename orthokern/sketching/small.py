"""Small least-squares problems, which a backend solves in one call."""

from __future__ import annotations

from typing import Any

from .._core.dispatch import op
from .._core.dtypes import is_complex
from .._core.linalg import nan_unless
from .._core.namespace import device, namespace
from .normal_equations import widened
from .results import LstsqMethod, LstsqStatus, Stat
from .solution import Solution, by_method
from .sources import Dense
from .starts import Request
from .wide import wide_solution

# Sizes n d of matrices that are small.
SMALL = 2**17


@op()
def gram_solution(
    a: Any, b: Any, /, *, damp: float, tol: float, max_refine: int
) -> tuple[Any, Any, Any]:
    """``(X, P, stats)`` by the Gram matrix of the columns, or of the rows where they are fewer and ``damp`` is zero.

    Whatever the backward error; NaN where the Gram matrix is not definite. A backend may go on with what it fails, and
    then says so in the column METHOD of ``stats`` (..., k, len(Stat)), which is 0 in the column STATUS where a solution
    is to be kept.
    """
    ridge = None
    if damp:
        xp, row = namespace(a), widened(a)[..., 0, :]
        ridge = xp.full_like(xp.real(row) if is_complex(row) else row, damp**2)
    request = Request(ridge, None, tol, max_refine, True, None, 0)
    if a.shape[-2] < a.shape[-1] and not damp:
        return _judged(wide_solution(a, b, request, "gram"))
    found = by_method(Dense(a, b), request, LstsqMethod.GRAM)
    return found.x, found.p, found.stats


def _judged(found: Solution) -> tuple[Any, Any, Any]:
    """With a status that says which solutions are not to be kept."""
    xp, stats = namespace(found.x), found.stats
    bad = xp.full_like(stats, LstsqStatus.NOT_BACKWARD_STABLE.value)
    column = xp.arange(len(Stat), device=device(stats)) == Stat.STATUS.value
    stats = xp.where(column & ~found.accepted[..., None, None], bad, stats)
    definite = xp.isfinite(stats[..., Stat.CONDITION.value])
    return nan_unless(definite[..., None, :], found.x), found.p, stats


def is_small(a: Any) -> bool:
    """Whether one call of a backend is the quickest way."""
    size = a.shape[-2] * a.shape[-1]
    return 0 < size <= SMALL and gram_solution.is_served(a) and not is_complex(a)
