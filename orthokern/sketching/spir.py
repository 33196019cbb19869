"""Iterative solution for matrices known by their products alone: sketch, precondition, two runs of conjugate gradients.

The second run ends by the backward error. With one run the solution would not be backward stable.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .._core.dtypes import eps, is_complex
from .._core.linalg import adjoint
from .._core.namespace import namespace
from .normal_equations import residual_gradient, squares
from .refine import ENOUGH, Refined, figures, measured, minimum_norm
from .results import LstsqMethod
from .solution import Solution
from .sources import Dense, Source
from .starts import Request, Start, sketched_start

# Rows of the sketch for each column; steps of a run, at most; how often the second one looks at its error.
SKETCH_ROWS, MOST_STEPS, EVERY = 4, 100, 5
# Runs, at most: two are enough up to condition numbers of 1e10.
RUNS = 4
# Columns of the identity that an operator is applied to at a time.
COLUMNS = 64

Product = Callable[[Any], Any]


class Operator:
    """A linear operator (``matvec``, ``rmatvec``, ``shape``, ``dtype``) and NumPy right-hand sides (n, k)."""

    def __init__(self, a: Any, b: Any) -> None:
        self.a, self.b = a, b
        self.shape = tuple(a.shape)

    def times(self, x: Any) -> Any:
        """``A X``."""
        return _by_columns(self.a, "matmat", "matvec", x)

    def adjoint_times(self, y: Any) -> Any:
        """``A^H Y``."""
        return _by_columns(self.a, "rmatmat", "rmatvec", y)

    def normal_equations(self) -> tuple[Any, Any, Any]:
        """Not for an operator: d products, and a matrix of n d numbers."""
        raise NotImplementedError

    def residual_gradient(self, x: Any) -> tuple[Any, Any]:
        """Two products."""
        r = self.b - self.times(x)
        return self.adjoint_times(r), squares(r)

    def whitened_gram(self, p: Any) -> Any:
        """Not for an operator."""
        raise NotImplementedError

    def sketched(self, sketch: Any) -> tuple[Any, Any, Any]:
        """One product for each column, of which some are held at a time."""
        d, parts = self.shape[1], []
        for i in range(0, d, COLUMNS):
            unit = np.zeros((d, min(COLUMNS, d - i)), dtype=self.b.dtype)
            unit[i : i + unit.shape[1]] = np.eye(unit.shape[1])
            parts.append(sketch.apply(self.times(unit)))
        return np.concatenate(parts, axis=1), sketch.apply(self.b), squares(self.b)

    def dense(self) -> tuple[Any, Any]:
        """Not for an operator."""
        raise NotImplementedError


def _by_columns(a: Any, whole: str, single: str, x: Any) -> Any:
    if hasattr(a, whole):
        return np.asarray(getattr(a, whole)(x))
    product = getattr(a, single)
    return np.stack([np.asarray(product(column)).ravel() for column in x.T], axis=1)


def spir_of_arrays(a: Any, b: Any, request: Request) -> Solution:
    """The solution of one pair of arrays; a step reads A once."""
    zeros = namespace(b).zeros_like(b)
    return spir_solution(Dense(a, b), lambda v: -residual_gradient(a, zeros, v)[0], request)


def spir_of_operator(source: Operator, request: Request) -> Solution:
    """The solution of an operator; a step takes two products."""
    return spir_solution(source, lambda v: source.adjoint_times(source.times(v)), request)


def spir_solution(source: Source, product: Product, request: Request) -> Solution:
    """By ``product``, which is ``A^H A v``, and the sums of ``source``."""
    if request.sketch_rows is None:
        request = request._replace(sketch_rows=max(8, SKETCH_ROWS * source.shape[1]))
    start = sketched_start(source, request)

    def whitened(y: Any) -> Any:
        v = start.p @ y
        w = product(v)
        return adjoint(start.p) @ (w if request.ridge is None else w + request.ridge[:, None] * v)

    found, x, steps = _run(source, start, request, whitened, start.x, None)
    xp = namespace(x)
    accepted = xp.all(found.error <= ENOUGH * request.tol, axis=-1)
    for _ in range(1, RUNS):
        found, x, more = _run(source, start, request, whitened, x, found)
        steps += more
        accepted = xp.all(found.error <= ENOUGH * request.tol, axis=-1)
        if bool(accepted):
            break
    found = found._replace(x=minimum_norm(found.x, start, request.columns), steps=steps)
    stats = figures(start, found, request, LstsqMethod.SPIR)
    return Solution(found.x, start.p, stats, accepted)


def _run(
    source: Source,
    start: Start,
    request: Request,
    whitened: Product,
    x: Any,
    best: Refined | None,
) -> tuple[Refined, Any, int]:
    """Conjugate gradients from ``x``: the best solution seen, the last one, and the steps.

    The first run (``best`` is None) ends when its steps are small, the other when the backward error is.
    """
    xp = namespace(x)
    gradient, error, total = measured(source, start, request, x)
    seen = Refined(x, error, xp.sqrt(total), 0)
    best = seen if best is None else _better(best, seen)
    is_first = best is seen
    small = _small_step(start, x, total)
    r = p = adjoint(start.p) @ gradient
    y, rr = xp.zeros_like(r), squares(r)
    ending = False
    steps = 0
    for steps in range(1, MOST_STEPS + 1):
        mp = whitened(p)
        curvature = squares_between(p, mp)
        alpha = xp.where(curvature > 0, rr / xp.where(curvature > 0, curvature, 1.0), 0.0)
        y, r = y + alpha * p, r - alpha * mp
        new = squares(r)
        moved = xp.abs(alpha) * xp.sqrt(squares(p))
        if bool(xp.all(new == 0)) or (is_first and bool(xp.all(moved <= small))):
            break
        if not is_first and steps % EVERY == 0:
            best = _better(best, _seen(source, start, request, x + start.p @ y))
            if ending or bool(xp.all(best.error <= request.tol)):
                break
            ending = bool(xp.all(best.error <= ENOUGH * request.tol))
        p = r + xp.where(rr > 0, new / xp.where(rr > 0, rr, 1.0), 0.0) * p
        rr = new
    x = x + start.p @ y
    return (best if is_first else _better(best, _seen(source, start, request, x))), x, steps


def squares_between(u: Any, v: Any) -> Any:
    """Real parts of the inner products of columns."""
    xp = namespace(u)
    if is_complex(u):
        return xp.sum(xp.real(u) * xp.real(v) + xp.imag(u) * xp.imag(v), axis=-2)
    return xp.sum(u * v, axis=-2)


def _seen(source: Source, start: Start, request: Request, x: Any) -> Refined:
    _, error, total = measured(source, start, request, x)
    return Refined(x, error, namespace(x).sqrt(total), 0)


def _better(one: Refined, other: Refined) -> Refined:
    xp = namespace(one.x)
    closer = other.error < one.error
    return Refined(
        xp.where(closer[None, :], other.x, one.x),
        xp.where(closer, other.error, one.error),
        xp.where(closer, other.residual, one.residual),
        0,
    )


def _small_step(start: Start, x: Any, squares_of_r: Any) -> Any:
    """A step that rounding errors would undo."""
    xp = namespace(x)
    size = xp.sqrt(xp.sum(squares(start.f)))
    length = xp.sqrt(squares(start.scale[:, None] * x))
    return 10 * eps(x) * (size * length + 0.04 / start.rcond * xp.sqrt(squares_of_r))
