"""What turns potentials into lower bounds and plans into upper ones: both are made feasible.

Linear transport between masses ``a`` and ``b`` at cost ``C``: for potentials with ``alpha_i + beta_j <= C_ij`` and a
plan ``T`` with these marginals ``<alpha, a> + <beta, b> <= optimum <= <T, C>``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._core import check
from .._core.dispatch import kernel
from .._core.dtypes import compute_precision, dtype_name
from .._core.errors import ShapeError, ValuesError
from .._core.linalg import nan_unless, running_sum
from .._core.namespace import device, is_lazy, is_traced, namespace, same_library
from .._core.typing import ArrayT

# Relative difference of two masses that counts as rounding.
MASS_TOLERANCE = {"float64": 1e-6, "float32": 1e-4, "float16": 2e-2, "bfloat16": 0.1}


@kernel()
def c_transform(
    potential: ArrayT, cost: ArrayT, /, *, axis: int = -1, backend: str | None = None
) -> ArrayT:
    r"""Largest potential of the other side that is feasible: :math:`\beta_j = \min_i\,(C_{ij} - \alpha_i)`.

    ``axis`` is the one of ``cost`` that ``potential`` belongs to, over which the minimum is taken: with -2 potentials
    of the rows give those of the columns, with -1 those of the columns give those of the rows. Applied to any
    ``alpha`` it makes :math:`\langle\alpha, a\rangle + \langle\beta, b\rangle` a lower bound of linear transport.

    Parameters
    ----------
    potential : array (..., n)
        Real floating; n is the size of ``axis``. Minus infinity takes an entry out of the minimum.
    cost : array (..., m, n)
        Real floating; plus infinity forbids a pair. NaN and minus infinity are refused (eager only).
    axis : int
        -1 or -2.
    backend : str, optional
        Run on this backend; "array-api" forces the reference.

    Returns
    -------
    array (..., m)
        In the dtype of ``cost``, plus infinity where everything is forbidden; a problem whose potential holds NaN
        gives NaN. Flops: 2 m n. The derivative is that of the entry at the minimum.

    References
    ----------
    G. Peyré, M. Cuturi, *Computational Optimal Transport*, arXiv:1803.00567, section 5.1.

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> cost = np.array([[0.0, 1.0], [1.0, 0.0], [3.0, 2.0]])
    >>> beta = orthokern.c_transform(np.array([0.0, 0.5, 1.0]), cost, axis=-2)
    >>> beta.tolist(), orthokern.c_transform(beta, cost).tolist()
    ([0.0, -0.5], [0.0, 0.5, 2.5])
    """
    cost_matrix(cost, "c_transform")
    check.real(potential, kernel="c_transform", name="potential")
    place = check.axis(axis, cost, kernel="c_transform", name="cost")
    xp = same_library(cost, potential)
    if place < -2 or potential.shape[-1:] != (cost.shape[place],):
        message = (
            f"c_transform: expected potential (..., {cost.shape[place]}) for axis={axis} of a cost with shape "
            f"{tuple(cost.shape)}, got shape {tuple(potential.shape)}; the last two axes of cost are -2 and -1"
        )
        raise ShapeError(message)
    values = compute_precision(cost)
    given = xp.astype(potential, values.dtype, copy=False)
    slack = values - (given[..., None] if place == -2 else given[..., None, :])
    if cost.shape[place] == 0:
        shape = (*slack.shape[:-2], slack.shape[-3 - place])
        nothing: ArrayT = xp.full(shape, float("inf"), dtype=cost.dtype, device=device(cost))
        return nothing
    known = ~xp.any(xp.isnan(given), axis=-1, keepdims=True)
    return xp.astype(nan_unless(known, xp.min(slack, axis=place)), cost.dtype, copy=False)  # type: ignore[no-any-return]


@kernel()
def round_to_marginals(
    plan: ArrayT,
    a: ArrayT,
    b: ArrayT,
    /,
    *,
    sparse: bool = False,
    backend: str | None = None,
) -> ArrayT:
    r"""A plan with exactly these marginals, no farther from the given one than twice the error of its marginals.

    Rows that carry too much are scaled down, then columns; what is missing afterwards, :math:`e_a` in the rows and
    :math:`e_b` in the columns, is filled in by :math:`e_a e_b^T / \|e_a\|_1`, or with ``sparse`` by the rule of the
    northwest corner, which adds at most m + n - 1 entries. The :math:`\ell_1` distance is at most
    :math:`2\,(\|T 1 - a\|_1 + \|T^T 1 - b\|_1)`.

    Parameters
    ----------
    plan : array (..., m, n)
        Real floating, no entry negative.
    a : array (..., m)
        Masses of the rows, finite and not negative.
    b : array (..., n)
        Masses of the columns, of the same sum up to rounding; they are scaled to it.
    sparse : bool
        Fill with few entries.
    backend : str, optional
        Run on this backend; "array-api" forces the reference.

    Returns
    -------
    array (..., m, n)
        In the dtype of ``plan``. Flops: 6 m n, 9 m n with ``sparse``.

    Notes
    -----
    The marginals of the result are right to a few eps of the mass. A plan with NaN gives NaN.

    References
    ----------
    J. Altschuler, J. Weed, P. Rigollet, "Near-linear time approximation algorithms for optimal transport via
    Sinkhorn iteration", arXiv:1705.09634.

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> plan = np.array([[0.5, 0.5], [0.0, 0.0]])
    >>> orthokern.round_to_marginals(plan, np.array([0.5, 0.5]), np.array([0.5, 0.5])).tolist()
    [[0.25, 0.25], [0.25, 0.25]]
    """
    check.matrix(plan, kernel="round_to_marginals", name="plan")
    check.real(plan, kernel="round_to_marginals", name="plan")
    check.flag(sparse, kernel="round_to_marginals", name="sparse")
    given: Any = plan
    xp = same_library(given, a, b)
    _refuse_values("round_to_marginals", "plan", given, "not negative", given < 0)
    rows = masses(a, given, given.shape[-2], name="a", kernel="round_to_marginals")
    columns = masses(b, given, given.shape[-1], name="b", kernel="round_to_marginals")
    shapes = [given.shape[:-2], rows.shape[:-1], columns.shape[:-1]]
    check.common_shape(shapes, kernel="round_to_marginals", names="plan, a and b")
    columns = columns * mass_ratio(rows, columns, dtype_name(a), "round_to_marginals")
    t = compute_precision(given)
    known = xp.all(xp.isfinite(t), axis=(-2, -1), keepdims=True)
    t = rounded(t, rows, columns, sparse=sparse)
    return xp.astype(nan_unless(known, t), plan.dtype, copy=False)  # type: ignore[no-any-return]


def rounded(t: Any, rows: Any, columns: Any, *, sparse: bool) -> Any:
    """``t`` with the marginals ``rows`` and ``columns``, of equal sum."""
    return _filled(_trimmed(t, rows, columns), rows, columns, _northwest if sparse else _product)


def _trimmed(t: Any, rows: Any, columns: Any) -> Any:
    """``t`` with no row, and then no column, above its mass."""
    xp = namespace(t)
    t = t * lowered(xp.sum(t, axis=-1, keepdims=True), rows[..., None])
    return t * lowered(xp.sum(t, axis=-2, keepdims=True), columns[..., None, :])


def _filled(t: Any, rows: Any, columns: Any, fill: Callable[[Any, Any], Any]) -> Any:
    """``t`` and what its rows and columns lack."""
    xp = namespace(t)
    lacking = xp.clip(rows - xp.sum(t, axis=-1), 0.0, None)
    wanting = xp.clip(columns - xp.sum(t, axis=-2), 0.0, None)
    return t + fill(lacking, wanting)


def cost_matrix(cost: Any, kernel: str) -> None:
    """Costs that are real and neither NaN nor minus infinity."""
    check.matrix(cost, kernel=kernel, name="cost")
    check.real(cost, kernel=kernel, name="cost")
    if 0 not in cost.shape:
        # NaN is the least of what it is among.
        bad = ~(namespace(cost).min(cost) > -float("inf"))
        _refuse_values(kernel, "cost", cost, "neither NaN nor minus infinity", bad)


def _refuse_values(kernel: str, name: str, x: Any, wanted: str, bad: Any) -> None:
    """Refuse concrete values among which ``bad`` marks some."""
    if not (is_traced(x) or is_lazy(x)) and bool(namespace(x).any(bad)):
        message = f"{kernel}: expected every entry of {name} to be {wanted}; correct {name} before the call"
        raise ValuesError(message)


def masses(values: Any, like: Any, size: int, *, name: str, kernel: str) -> Any:
    """The ``size`` masses of one side, in the dtype that ``like`` is computed in."""
    check.real(values, kernel=kernel, name=name)
    if values.shape[-1:] != (size,):
        side = "row" if name == "a" else "column"
        message = f"{kernel}: expected {name} (..., {size}), got shape {tuple(values.shape)}; give each {side} its mass"
        raise ShapeError(message)
    check.all_at_least(values, 0.0, kernel=kernel, name=name)
    return namespace(values).astype(values, compute_precision(like).dtype, copy=False)


def mass_ratio(a: Any, b: Any, dtype: str, kernel: str) -> Any:
    """What ``b`` is multiplied by to have the sum of ``a``; refused where that is more than rounding."""
    xp = namespace(a)
    wanted, found = (xp.sum(x, axis=-1, keepdims=True) for x in (a, b))
    unequal = xp.abs(wanted - found) > MASS_TOLERANCE[dtype] * xp.maximum(wanted, found)
    if not (is_traced(a) or is_lazy(a)) and bool(xp.any(unequal)):
        message = (
            f"{kernel}: expected a and b of equal sum; scale one of them to the sum of the other"
        )
        raise ValuesError(message)
    return wanted / xp.where(found > 0, found, xp.ones_like(found))


def lowered(found: Any, wanted: Any) -> Any:
    """Factors of at most 1 that bring sums down to what they should be."""
    xp = namespace(found)
    too_much = found > wanted
    return xp.where(too_much, wanted / xp.where(too_much, found, xp.ones_like(found)), 1.0)


def _product(lacking: Any, wanting: Any) -> Any:
    """The two residual masses as a matrix of rank one."""
    xp = namespace(lacking)
    mass = xp.sum(lacking, axis=-1, keepdims=True)
    share = wanting / xp.where(mass > 0, mass, xp.ones_like(mass))
    return lacking[..., :, None] * share[..., None, :]


def _northwest(lacking: Any, wanting: Any) -> Any:
    """The overlap of the intervals that the two residual masses cut a line into, in order."""
    xp = namespace(lacking)
    ends = running_sum(lacking)[..., :, None]
    stops = running_sum(wanting)[..., None, :]
    starts, heads = ends - lacking[..., :, None], stops - wanting[..., None, :]
    return xp.clip(xp.minimum(ends, stops) - xp.maximum(starts, heads), 0.0, None)
