"""What a call of the solver asks for, checked: the problem, its kind, and the effort of the engine."""

from __future__ import annotations

from typing import Any

from .._core import check
from .._core.autodiff import constant
from .._core.dtypes import compute_precision, dtype_name, eps
from .._core.errors import OptionError, ShapeError, UnsupportedError
from .._core.namespace import is_array, is_lazy, namespace, same_library
from .bounds import Problem
from .certificate import cost_matrix, mass_ratio, masses
from .kinds import Effort, Entropic, Kind, Linear, Quadratic, Sparse
from .points import Points, checked_points
from .regularizers import (
    RECOVERIES,
    REFERENCES,
    Entropy,
    Partial,
    SparsityConstrained,
    SquaredL2,
    Unbalanced,
    Unregularized,
)

# Least tolerance, in eps.
FINEST = 50.0
# Steps of the first-order engine where the caller names none.
ACCELERATED_STEPS = 1000

Regularizer = Unregularized | Entropy | SquaredL2 | SparsityConstrained


def checked_problem(
    a: Any, b: Any, cost: Any, strength: Any, kernel: str, *, balanced: bool = True
) -> Problem:
    """The checked problem, in the precision it is computed in, in one batch shape; ``b`` has the sum of ``a``.

    An array of strengths is a batch like any other.
    """
    cost_matrix(cost, kernel)
    _refuse_lazy(cost, kernel)
    sizes = tuple(cost.shape[-2:])
    rows, columns = checked_masses(a, b, cost, sizes, kernel, balanced=balanced)
    shapes = [rows.shape[:-1], columns.shape[:-1], cost.shape[:-2]]
    shapes += [strength.shape] if is_array(strength) else []
    batch = check.common_shape(shapes, kernel=kernel, names="a, b, cost and strength")
    xp = namespace(cost)
    return Problem(
        xp.broadcast_to(rows, (*batch, rows.shape[-1])),
        xp.broadcast_to(columns, (*batch, columns.shape[-1])),
        xp.broadcast_to(compute_precision(cost), (*batch, *cost.shape[-2:])),
    )


def checked_clouds(a: Any, b: Any, cost: Points[Any], kernel: str) -> tuple[Any, Any, Points[Any]]:
    """The masses of one problem between clouds, of equal sum, and the points."""
    points = checked_points(cost, kernel)
    _refuse_lazy(points.x, kernel)
    sizes = (points.x.shape[0], points.y.shape[0])
    rows, columns = checked_masses(a, b, points.x, sizes, kernel)
    if rows.ndim > 1 or columns.ndim > 1 or not bool(namespace(rows).any(rows > 0)):
        message = (
            f"{kernel}: expected the masses a (m,) and b (n,) of one problem, not all zero, with Points, got shapes "
            f"{tuple(rows.shape)} and {tuple(columns.shape)}; other problems take a matrix of costs"
        )
        raise ShapeError(message)
    return rows, columns, points


def _refuse_lazy(cost: Any, kernel: str) -> None:
    if is_lazy(cost):
        message = f"{kernel}: expected arrays in memory, got Dask, which cannot look at values; pass cost.compute()"
        raise UnsupportedError(message)


def checked_masses(
    a: Any, b: Any, like: Any, sizes: tuple[int, int], kernel: str, *, balanced: bool = True
) -> tuple[Any, Any]:
    """Masses of rows and columns; ``balanced`` ones of the columns are scaled to the sum of the others."""
    check.array(a, kernel=kernel, name="a")
    check.array(b, kernel=kernel, name="b")
    same_library(like, a, b)
    rows = masses(a, like, sizes[0], name="a", kernel=kernel)
    columns = masses(b, like, sizes[1], name="b", kernel=kernel)
    shapes = [rows.shape[:-1], columns.shape[:-1]]
    check.common_shape(shapes, kernel=kernel, names="a and b")
    if not balanced:
        return rows, columns
    return rows, columns * constant(mass_ratio(rows, columns, dtype_name(a), kernel))


def kind_of(regularizer: Any, cost: Any, kernel: str) -> Kind:
    """What solves this regularizer; its strength is checked and given the shape (..., 1, 1)."""

    def strength(name: str) -> Any:
        value = getattr(regularizer, name)
        checked = check.per_matrix(value, cost, kernel=kernel, name=name, strict=True)
        return namespace(cost).broadcast_to(checked, (*cost.shape[:-2], 1, 1))

    if isinstance(regularizer, Unregularized):
        return Linear()
    if isinstance(regularizer, SquaredL2):
        return Quadratic(strength("gamma"))
    if isinstance(regularizer, Entropy):
        check.choice(regularizer.reference, REFERENCES, kernel=kernel, name="reference")
        return Entropic(strength("epsilon"))
    if isinstance(regularizer, SparsityConstrained):
        check.choice(regularizer.recover, RECOVERIES, kernel=kernel, name="recover")
        k = check.count(regularizer.k, kernel=kernel, name="k")
        gamma = strength("gamma")
        if k >= cost.shape[-2]:
            return Quadratic(gamma)
        return Sparse(gamma, k, convex=regularizer.recover == "relaxed")
    message = (
        f"{kernel}: expected regularizer to be Unregularized, Entropy, SquaredL2 or SparsityConstrained, got "
        f"{regularizer!r}; for example regularizer=orthokern.SquaredL2(1.0)"
    )
    raise OptionError(message)


def checked_marginals(marginals: Any, kind: Kind, cost: Any, kernel: str) -> Any:
    """Refuse what the regularizer has no engine for."""
    fits = (
        marginals is None
        or (isinstance(marginals, Unbalanced) and isinstance(kind, Entropic))
        or (isinstance(marginals, Partial) and isinstance(kind, Linear))
    )
    if not fits or (marginals is not None and isinstance(cost, Points)):
        message = (
            f"{kernel}: expected marginals to be None, Unbalanced with Entropy, or Partial with Unregularized, and a "
            f"matrix of costs, got {marginals!r} with {kind.regularizer}"
        )
        raise OptionError(message)
    return marginals


def effort_of(kind: Kind, like: Any, method: Any, tol: Any, max_iter: Any, kernel: str) -> Effort:
    """The checked options of the engine."""
    check.choice(method, kind.methods, kernel=kernel, name=f"method for {kind.regularizer}")
    steps = None if max_iter is None else check.count(max_iter, kernel=kernel, name="max_iter")
    if tol is None:
        if method not in kind.fixed:
            message = (
                f"{kernel}: expected tol to be a number, because {method!r} for {kind.regularizer} has no mode of a "
                "fixed number of steps; SquaredL2 and Entropy have one"
            )
            raise OptionError(message)
        if steps is None:
            message = f"{kernel}: expected the number of steps with tol=None; pass max_iter"
            raise OptionError(message)
        return Effort(method, None, steps)
    wanted = check.at_least(tol, 0.0, kernel=kernel, name="tol", strict=True)
    if steps is None:
        steps = ACCELERATED_STEPS if method == "accelerated" else kind.most_steps
    return Effort(method, max(wanted, FINEST * eps(like)), steps)
