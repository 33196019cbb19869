"""Optimal transport on the line, in closed form by sorting, and its average over random directions."""

from __future__ import annotations

from typing import Any

from .._core import check
from .._core.dispatch import kernel
from .._core.dtypes import compute_precision, eps
from .._core.errors import ShapeError, UnsupportedError, ValuesError
from .._core.linalg import adjoint
from .._core.namespace import device, is_lazy, is_traced, namespace, same_library
from .._core.random import normal
from .._core.typing import ArrayT

REDUCTIONS = ("mean", "energy")
# Share by which two masses may differ and still count as one, in double and in single precision.
MASS_SLACK = (1e-6, 1e-4)
# Products of sizes up to here are exact in the integers of every library.
MOST_QUANTILES = 2**31 - 1


@kernel()
def wasserstein_1d(
    x: ArrayT,
    y: Any,
    a: Any = None,
    b: Any = None,
    /,
    *,
    p: float = 1.0,
    root: bool = True,
    backend: str | None = None,
) -> ArrayT:
    r"""Wasserstein distance of two sets of points on the line: :math:`\int |F^{-1}(q) - G^{-1}(q)|^p\, dq`, rooted.

    On the line the plan that keeps the order is optimal for every ``p >= 1``. Both quantile functions are step
    functions; the integral is a sum over the intervals between their merged steps.

    Parameters
    ----------
    x, y : array (..., n) and (..., m)
        Points; batch dimensions broadcast. Low precision is computed in float32.
    a, b : array (..., n) and (..., m), optional
        Weights, not negative, of equal mass (to 1e-6, in float32 1e-4; within that ``b`` is rescaled).
        Default: each point has 1/n, 1/m.
    p : float
        Power of the distance, at least 1.
    root : bool
        False returns :math:`W_p^p`.
    backend : str, optional
        Run on this backend; "array-api" forces the reference.

    Returns
    -------
    array (...)
        In the dtype of ``x``, float32 for low precision. Flops: those of two sorts, (n + m) log(n + m), and with
        weights of a third; memory of the size of the input.

    Notes
    -----
    Differentiable in points and weights where no two points, and no two steps of the quantile functions, coincide.
    Where the distance is zero the root has the derivative zero here. NaN stays with its batch member. Dask has no
    gather by an array: with weights map the kernel over the blocks.

    References
    ----------
    F. Santambrogio, *Optimal Transport for Applied Mathematicians* (Birkhauser 2015), ch. 2.

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> x, y = np.array([0.0, 2.0]), np.array([1.0, 3.0, 4.0])
    >>> float(orthokern.wasserstein_1d(x, y, np.array([0.25, 0.75]), np.array([0.5, 0.25, 0.25])))
    1.25
    >>> float(orthokern.wasserstein_1d(np.array([0.0, 1.0, 3.0]), np.array([5.0, 6.0, 8.0]), p=2))
    5.0
    """
    power = check.at_least(p, 1.0, kernel="wasserstein_1d", name="p")
    check.flag(root, kernel="wasserstein_1d", name="root")
    for points, name in ((x, "x"), (y, "y")):
        _vectors(points, name)
    same_library(x, y)
    _batch(x.shape[:-1], y.shape[:-1], "wasserstein_1d")
    u, v = (compute_precision(points) for points in (x, y))
    if a is None and b is None:
        cost = _cost_of_sorted(_sorted(u), _sorted(v), power)
    else:
        cost = _weighted_cost(u, v, _weights(a, x, "a"), _weights(b, y, "b"), power)
    return _rooted(cost, power) if root else cost  # type: ignore[no-any-return]


@kernel()
def sliced_wasserstein(
    x: ArrayT,
    y: Any,
    /,
    *,
    n_projections: int = 50,
    p: float = 2.0,
    projections: Any = None,
    seed: int = 0,
    reduce: str = "mean",
    backend: str | None = None,
) -> ArrayT:
    r"""Sliced Wasserstein distance: :math:`\bigl(\sum_l w_l W_p^p(\theta_l^T X, \theta_l^T Y)\bigr)^{1/p}`.

    The directions are uniform on the sphere and made by Philox, so that a seed means the same ones on every library
    and device. ``reduce="mean"`` weighs them alike. ``reduce="energy"`` weighs them by the softmax of the costs
    :math:`W_p^p` themselves, so that directions that tell the sets apart count more.

    Parameters
    ----------
    x, y : array (..., n, d) and (..., m, d)
        Sets of n and m points; batch dimensions broadcast. Low precision is computed in float32.
    n_projections : int
        Number of directions; not looked at with ``projections``.
    p : float
        Power of the distance, at least 1.
    projections : array (L, d) or (..., L, d), optional
        Directions as rows, used as they are (not normalized).
    seed : int
        Which directions, at least 0.
    reduce : {"mean", "energy"}
        Weights of the directions.
    backend : str, optional
        Run on this backend; "array-api" forces the reference.

    Returns
    -------
    array (...)
        In the dtype of ``x``, float32 for low precision. Flops: 2 L (n + m) d, and L sorts of n and of m numbers;
        memory L (n + m).

    Notes
    -----
    The Monte Carlo error falls like :math:`L^{-1/2}`. Differentiable as :func:`wasserstein_1d`; the weights of
    "energy" are differentiated as well.

    References
    ----------
    N. Bonneel, J. Rabin, G. Peyre, H. Pfister, "Sliced and Radon Wasserstein barycenters of measures", J. Math.
    Imaging Vis. 51 (2015); K. Nguyen, N. Ho, "Energy-based sliced Wasserstein distance", arXiv:2304.13586.

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> x = np.random.default_rng(0).standard_normal((100, 3))
    >>> far = orthokern.sliced_wasserstein(x, x + np.array([3.0, 0.0, 0.0]), n_projections=2000)
    >>> bool(abs(far - 3.0 / 3**0.5) < 0.05)
    True
    """
    power = check.at_least(p, 1.0, kernel="sliced_wasserstein", name="p")
    check.choice(reduce, REDUCTIONS, kernel="sliced_wasserstein", name="reduce")
    _clouds(x, y)
    u, v = compute_precision(x), compute_precision(y)
    if projections is None:
        count = check.count(n_projections, kernel="sliced_wasserstein", name="n_projections")
        theta = directions(count, x.shape[-1], like=u, seed=seed)
    else:
        theta = _given_directions(projections, u)
    # A direction per row: each sort runs over neighbouring numbers.
    first, second = (_sorted(theta @ adjoint(points)) for points in (u, v))
    costs = _cost_of_sorted(first, second, power)
    return _rooted(_reduced(costs, reduce), power)  # type: ignore[no-any-return]


def directions(count: int, d: int, *, like: Any, seed: int) -> Any:
    """``count`` random unit vectors (count, d) in the dtype of ``like``: the first numbers of a normal stream."""
    xp = namespace(like)
    if d == 0:
        return xp.zeros((count, 0), dtype=like.dtype, device=device(like))
    theta = xp.reshape(normal(count * d, like=like, seed=seed), (count, d))
    return theta / xp.linalg.vector_norm(theta, axis=-1, keepdims=True)


def _vectors(x: Any, name: str) -> None:
    """Refuse what is no stack of vectors (..., n) of real numbers."""
    check.real(x, kernel="wasserstein_1d", name=name)
    if x.ndim < 1 or x.shape[-1] == 0:
        message = f"wasserstein_1d: expected at least one point (..., n) in {name}, got shape {tuple(x.shape)}"
        raise ShapeError(message)


def _clouds(x: Any, y: Any) -> None:
    for points, name in ((x, "x"), (y, "y")):
        check.matrix(points, kernel="sliced_wasserstein", name=name)
        check.real(points, kernel="sliced_wasserstein", name=name)
        if points.shape[-2] == 0:
            shape = tuple(points.shape)
            message = f"sliced_wasserstein: expected at least one point (..., n, d) in {name}, got shape {shape}"
            raise ShapeError(message)
    same_library(x, y)
    if x.shape[-1] != y.shape[-1]:
        message = f"sliced_wasserstein: expected points of one dimension d, got {x.shape[-1]} and {y.shape[-1]}"
        raise ShapeError(message)
    _batch(x.shape[:-2], y.shape[:-2], "sliced_wasserstein")


def _given_directions(projections: Any, x: Any) -> Any:
    check.matrix(projections, kernel="sliced_wasserstein", name="projections")
    check.real(projections, kernel="sliced_wasserstein", name="projections")
    same_library(projections, x)
    if projections.shape[-1] != x.shape[-1] or projections.shape[-2] == 0:
        message = (
            f"sliced_wasserstein: expected projections (L, {x.shape[-1]}) with a direction in each row, "
            f"got shape {tuple(projections.shape)}"
        )
        raise ShapeError(message)
    return namespace(x).astype(projections, x.dtype, copy=False)


def _batch(first: Any, second: Any, kernel_name: str) -> None:
    """Refuse batch shapes that do not broadcast."""
    pairs = zip(reversed(first), reversed(second), strict=False)
    if any(s != t and 1 not in (s, t) for s, t in pairs):
        message = f"{kernel_name}: expected batch shapes that broadcast, got {tuple(first)} and {tuple(second)}"
        raise ShapeError(message)


def _sorted(x: Any) -> Any:
    # Equal numbers have no order to keep, and to keep it costs NumPy ten times the time.
    return namespace(x).sort(x, axis=-1, stable=False)


def _powered(z: Any, p: float) -> Any:
    """``|z|^p``."""
    if p == 2:
        return z * z
    size = namespace(z).abs(z)
    return size if p == 1 else size**p


def _rooted(cost: Any, p: float) -> Any:
    """``cost^(1/p)`` with the derivative zero where the cost is zero."""
    if p == 1:
        return cost
    xp = namespace(cost)
    away = cost != 0
    return xp.where(away, xp.where(away, cost, xp.ones_like(cost)) ** (1 / p), cost)


def _reduced(costs: Any, reduce: str) -> Any:
    xp = namespace(costs)
    if reduce == "mean":
        return xp.mean(costs, axis=-1)
    share = xp.exp(costs - xp.max(costs, axis=-1, keepdims=True))
    return xp.sum(share * costs, axis=-1) / xp.sum(share, axis=-1)


def _common_divisor(n: int, m: int) -> int:
    """By Euclid: what compiles for any size knows no other way."""
    while m:
        n, m = m, n % m
    return n


def _cost_of_sorted(x: Any, y: Any, p: float) -> Any:
    """:math:`W_p^p` of sorted points (..., n) and (..., m) of equal weights."""
    xp = namespace(x)
    n, m = x.shape[-1], y.shape[-1]
    if n == m:
        return xp.mean(_powered(x - y, p), axis=-1)
    unit = _common_divisor(n, m)
    if n // unit * m > MOST_QUANTILES:
        return _quantile_cost(x, y, _equal_weights(x), _equal_weights(y), p)
    # The steps of both quantile functions in units of 1 / lcm(n, m): exact, and the same for every member.
    n, m = n // unit, m // unit
    place = device(x)
    steps = [xp.arange(1, size + 1, device=place) for size in (n * unit, m * unit)]
    grid = xp.sort(xp.concat([steps[0] * m, steps[1] * n]))
    width = xp.astype(grid[1:] - grid[:-1], x.dtype) / (n * m * unit)
    # The interval before the first step of all belongs to the first points.
    late = grid[1:] - 1
    moved = xp.take(x, late // m, axis=-1) - xp.take(y, late // n, axis=-1)
    first = _powered(x[..., 0] - y[..., 0], p) * (min(n, m) / (n * m * unit))
    return first + xp.sum(width * _powered(moved, p), axis=-1)


def _equal_weights(x: Any) -> Any:
    return namespace(x).ones_like(x) / x.shape[-1]


def _weights(weights: Any, points: Any, name: str) -> Any:
    """Weights as an array of the shape of their points, in the dtype that is computed in."""
    x = compute_precision(points)
    if weights is None:
        return _equal_weights(x)
    check.real(weights, kernel="wasserstein_1d", name=name)
    xp = same_library(weights, points)
    if weights.ndim < 1 or weights.shape[-1] != points.shape[-1]:
        message = (
            f"wasserstein_1d: expected a weight in {name} for each of {points.shape[-1]} points, "
            f"got shape {tuple(weights.shape)}"
        )
        raise ShapeError(message)
    _batch(weights.shape[:-1], points.shape[:-1], "wasserstein_1d")
    check.all_at_least(weights, 0.0, kernel="wasserstein_1d", name=name)
    return xp.astype(weights, x.dtype, copy=False)


def _weighted_cost(x: Any, y: Any, a: Any, b: Any, p: float) -> Any:
    """:math:`W_p^p` of points with weights, neither of them sorted."""
    if is_lazy(x):
        message = (
            "wasserstein_1d: expected no weights with Dask arrays, which cannot be gathered by the order of others; "
            "map the kernel over the blocks, or leave the weights out"
        )
        raise UnsupportedError(message)
    _refuse_unequal(a, b)
    return _quantile_cost(*_ordered(x, y, a, b), p)


def _ordered(x: Any, y: Any, a: Any, b: Any) -> tuple[Any, Any, Any, Any]:
    """Points in increasing order, and their weights along with them."""
    xp = namespace(x)
    pairs = []
    for points, weights in ((x, a), (y, b)):
        points, weights = xp.broadcast_arrays(points, weights)  # noqa: PLW2901 - of one shape from here
        order = xp.argsort(points, axis=-1, stable=False)
        pairs.append([xp.take_along_axis(part, order, axis=-1) for part in (points, weights)])
    (x, a), (y, b) = pairs
    return x, y, a, b


def _refuse_unequal(a: Any, b: Any) -> None:
    """Refuse weights of different mass, where values are known."""
    if is_traced(a) or is_traced(b):
        return
    xp = namespace(a)
    first, second = xp.sum(a, axis=-1), xp.sum(b, axis=-1)
    slack = MASS_SLACK[max(eps(a), eps(b)) > 1e-10]
    if not bool(xp.all(xp.abs(first - second) <= slack * first)):
        gap = float(xp.max(xp.abs(first - second)))
        message = (
            f"wasserstein_1d: expected weights a and b of equal mass, got masses that differ by {gap:.3g}; "
            "divide each by its sum (points without weights have the mass 1)"
        )
        raise ValuesError(message)


def _quantile_cost(x: Any, y: Any, a: Any, b: Any, p: float) -> Any:
    """The integral over the merged steps of both quantile functions; points are sorted, weights follow them."""
    xp = namespace(x)
    batch = xp.broadcast_arrays(x[..., :1], y[..., :1])[0].shape[:-1]
    x, a = (xp.broadcast_to(part, (*batch, part.shape[-1])) for part in (x, a))
    y, b = (xp.broadcast_to(part, (*batch, part.shape[-1])) for part in (y, b))
    steps = xp.concat(_cumulative(a, b), axis=-1)
    n, m = a.shape[-1], b.shape[-1]
    order = xp.argsort(steps, axis=-1, stable=False)
    grid = xp.take_along_axis(steps, order, axis=-1)
    width = grid - xp.concat([xp.zeros_like(grid[..., :1]), grid[..., :-1]], axis=-1)
    # How many steps of x, and of y, lie before each interval.
    of_x = xp.astype(order < n, order.dtype)
    passed = xp.cumulative_sum(of_x, axis=-1) - of_x
    rest = xp.arange(n + m, dtype=order.dtype, device=device(x)) - passed
    at_x, at_y = xp.clip(passed, 0, n - 1), xp.clip(rest, 0, m - 1)
    moved = xp.take_along_axis(x, at_x, axis=-1) - xp.take_along_axis(y, at_y, axis=-1)
    return xp.sum(width * _powered(moved, p), axis=-1)


def _cumulative(a: Any, b: Any) -> list[Any]:
    """Cumulative weights, those of ``b`` scaled so that both end at the same number."""
    xp = namespace(a)
    first, second = xp.cumulative_sum(a, axis=-1), xp.cumulative_sum(b, axis=-1)
    mass = second[..., -1:]
    return [first, second / xp.where(mass > 0, mass, xp.ones_like(mass)) * first[..., -1:]]
