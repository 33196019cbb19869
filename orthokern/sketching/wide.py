"""Problems with fewer rows than unknowns: the solution of minimal norm lies in the span of the rows."""

from __future__ import annotations

from typing import Any, NamedTuple

from .._core.dtypes import eps
from .._core.linalg import adjoint, thin_svd
from .._core.namespace import is_traced, namespace
from .normal_equations import normal_equations, squares, widened
from .refine import ENOUGH, Refined, figures
from .results import LstsqMethod
from .solution import Solution, has_full_rank
from .starts import Request, Start, start_of_sums
from .whitening import triangular_whitener, truncated

# Refinements where no value can be looked at.
TRACED_STEPS = 2


class Span(NamedTuple):
    """``basis`` (..., d, n): orthonormal columns that span the rows of A; ``A basis = F^H`` and ``P^H F^H = I``."""

    basis: Any
    p: Any
    f: Any
    rank: Any
    rcond: Any


def wide_solution(a: Any, b: Any, request: Request, method: str) -> Solution:
    """The solution of minimal norm of A (..., n, d), n < d, and B (..., n, k); A is not scaled by columns."""
    a, b = widened(a), widened(b)
    traced = is_traced(a) or is_traced(b)
    names = {"auto": ["qr"] if traced else ["gram", "qr"]}.get(method, [method])

    def found_by(name: str) -> Solution:
        return _refined(a, b, SPANS[name](a, request), request, LstsqMethod[name.upper()])

    found = found_by(names[0])
    for name in names[1:]:
        if traced or bool(namespace(a).all(found.accepted)):
            break
        found = found_by(name)
    return found


def _gram_span(a: Any, request: Request) -> Span:
    rows = adjoint(a)
    g, none, _ = normal_equations(rows, rows[..., :0])
    start = start_of_sums(g, none, squares(none), ridge=None)
    f = start.f * start.scale[..., None, :]
    xp = namespace(a)
    # Nothing here tells columns from rows: the rows of A are what is scaled.
    whole = has_full_rank(start, request._replace(equilibrate=request.rcond is None))
    rcond = xp.where(whole, start.rcond, xp.zeros_like(start.rcond))
    return Span(rows @ start.p, start.p, f, start.rank, rcond)


def _cutoff(a: Any, request: Request) -> float:
    return eps(a) * max(a.shape[-2:]) if request.rcond is None else request.rcond


def _qr_span(a: Any, request: Request) -> Span:
    q, r = namespace(a).linalg.qr(adjoint(a))
    p, f, rank, rcond = triangular_whitener(r, cutoff=_cutoff(a, request))
    return Span(q @ (r @ p), p, f, rank, rcond)


def _svd_span(a: Any, request: Request) -> Span:
    u, s, vh = thin_svd(a)
    p, f, rank, rcond = truncated(s, adjoint(u), _cutoff(a, request))
    xp = namespace(a)
    kept = xp.astype(s > _cutoff(a, request) * s[..., :1], s.dtype)
    return Span(adjoint(vh) * kept[..., None, :], p, f, rank, rcond)


SPANS = {"gram": _gram_span, "qr": _qr_span, "svd": _svd_span}


def _refined(a: Any, b: Any, span: Span, request: Request, method: LstsqMethod) -> Solution:
    """Refine until what is left of the residual in the range of A is small beside ``||A|| ||x|| + ||b||``."""
    xp = namespace(a)
    size = xp.sqrt(xp.sum(squares(span.f), axis=-1))[..., None]
    norm_b = xp.sqrt(squares(b))
    x = span.basis @ (adjoint(span.p) @ b)
    best, lowest = x, xp.full_like(norm_b, float("inf"))
    residual, settled, steps = lowest, lowest < 0, 0
    traced = is_traced(x)
    while True:
        r = b - a @ x
        along = adjoint(span.p) @ r
        scale = size * xp.sqrt(squares(x)) + norm_b
        error = xp.sqrt(squares(adjoint(span.f) @ along)) / xp.where(
            scale > 0, scale, xp.ones_like(scale)
        )
        better = ((error < lowest) & ~settled) | traced
        best = xp.where(better[..., None, :], x, best)
        lowest = xp.where(better, error, lowest)
        residual = xp.where(better, xp.sqrt(squares(r)), residual)
        settled = settled | xp.isnan(error) | ((lowest <= request.tol) & (steps > 0))
        last = steps == (TRACED_STEPS if traced else request.max_refine)
        if last or (not traced and bool(xp.all(settled))):
            break
        x = x + span.basis @ along
        steps += 1
    ones = xp.ones_like(xp.sum(squares(a), axis=-1))[..., None] + xp.zeros_like(squares(a))
    start = Start(best, span.p, span.f, ones, None, span.rank, span.rcond, norm_b**2, 1)
    stats = figures(start, Refined(best, lowest, residual, steps), request, method)
    accepted = xp.all(lowest <= ENOUGH * request.tol, axis=-1) & (span.rcond > 0)
    return Solution(best, span.p, stats, accepted)
