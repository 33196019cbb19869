"""Gram matrices in single precision, for many columns that are well conditioned: refinement makes up for them.

Half the time of a Gram matrix in double precision; each refinement leaves about ``1e-8 kappa^2`` of the error.
"""

from __future__ import annotations

from typing import Any

from .._core.dispatch import op
from .._core.dtypes import dtype_name
from .._core.linalg import adjoint
from .._core.namespace import device, namespace
from .normal_equations import residual_gradient
from .refine import ENOUGH, Refined, figures, refined, stepped
from .results import LstsqMethod
from .solution import Solution, has_full_rank
from .sources import Dense
from .starts import Request, Start, diagonal, start_of_sums

# From so many columns on the Gram matrix takes longer than the passes that make up for it.
COLUMNS, RIGHT_SIDES = 384, 4
# Reciprocal condition number in the 1-norm, times the number of columns, that can be made up for.
RCOND = 1e-2
# So many rows for each column are looked at first, and may be worse conditioned by so much.
PROBED_ROWS, MORE, WORSE = 2, 8, 4.0
# Squared norms that single precision holds with all digits.
LEAST = 1e-30
# Refinements that are always needed, besides the first one.
BLIND = 2
_SINGLE = {"float64": "float32", "complex128": "complex64"}


@op()
def rough_gram(a: Any, /) -> Any:
    """``A^H A`` of A (..., n, d), summed in single precision; in the dtype of ``a``."""
    xp, name = namespace(a), dtype_name(a)
    single = xp.astype(a, getattr(xp, _SINGLE.get(name, name)))
    return xp.astype(adjoint(single) @ single, a.dtype)


def _is_held(g: Any) -> bool:
    """Whether no square of a norm is near the ends of single precision."""
    total = diagonal(g)
    return bool(namespace(g).all((total > LEAST) & (total < 1 / LEAST)))


def _condition(g: Any) -> Any:
    """Estimated reciprocal condition number of the columns divided by their norms."""
    zeros = namespace(g).zeros_like(g[:, :1])
    return start_of_sums(g, zeros, diagonal(g)[:1], ridge=None).rcond


def _refined(source: Dense, start: Start, request: Request) -> Refined:
    """The first steps without a look at the error, which takes longer than they do."""
    blind = max(0, min(BLIND, request.max_refine - 1))
    x = stepped(source, start, request, blind)
    rest = request._replace(max_refine=request.max_refine - blind)
    found = refined(source, start._replace(x=x), rest)
    return found._replace(steps=blind + found.steps)


def _pays(a: Any, b: Any, request: Request) -> bool:
    """Whether sizes allow it, and the first rows leave hope."""
    n, d = a.shape[-2:]
    if (
        a.ndim > 2
        or d < COLUMNS
        or b.shape[-1] > RIGHT_SIDES
        or dtype_name(a) not in _SINGLE
        or not request.equilibrate
        or n < PROBED_ROWS * MORE * d
    ):
        return False
    head = rough_gram(a[: PROBED_ROWS * d, :])
    return _is_held(head) and bool(_condition(head) > RCOND / (WORSE * d))


def _start(a: Any, b: Any, request: Request) -> Start | None:
    """By the whole Gram matrix; None where squares leave the range, or the condition number is too large."""
    xp, d, g = namespace(a), a.shape[-1], rough_gram(a)
    zeros = xp.zeros((d, b.shape[-1]), dtype=b.dtype, device=device(b))
    c, squares_of_b = residual_gradient(a, b, zeros)
    if not _is_held(g) or not bool(xp.all(xp.isfinite(squares_of_b))):
        return None
    start = start_of_sums(g, c, squares_of_b, ridge=request.ridge)
    whole = (start.rcond > RCOND / d) & has_full_rank(start, request)
    return start if bool(whole) else None


def rough_solution(a: Any, b: Any, request: Request) -> Solution | None:
    """The solution of one matrix by a Gram matrix in single precision; None where it does not pay or is not enough."""
    start = _start(a, b, request) if _pays(a, b, request) else None
    if start is None:
        return None
    found = _refined(Dense(a, b), start, request)
    accepted = namespace(a).all(found.error <= ENOUGH * request.tol, axis=-1)
    if not bool(accepted):
        return None
    stats = figures(start, found, request, LstsqMethod.GRAM)
    return Solution(found.x, start.p, stats, accepted)
