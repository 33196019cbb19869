r"""Column functions of sparse transport: projections on the simplex, the k-support norm and its proximal map.

In a plan of optimal transport with a quadratic regularizer every column is one of these functions of the slack of
its potentials. They are positively homogeneous, which is how every body stays in range, and piecewise linear: the
derivative of each is that of the piece.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._core import check
from .._core.autodiff import constant
from .._core.dispatch import kernel, op
from .._core.dtypes import compute_precision, eps
from .._core.linalg import nan_unless, running_sum
from .._core.loop import iterate
from .._core.namespace import device, namespace
from .._core.scaling import balancing_powers
from .._core.typing import ArrayT

# Newton steps that take back the rounding errors of a threshold that long sums have found.
POLISHING = 5
# Every so many steps towards the level of a proximal map halve the bracket, whatever Newton says.
HALVING = 4
MOST_STEPS = 32


@kernel(ops=("simplex_projection",))
def project_simplex(
    v: ArrayT, z: Any = 1.0, /, *, axis: int = -1, backend: str | None = None
) -> ArrayT:
    r"""Nearest point of the simplex: :math:`\arg\min \|y - v\|` over :math:`y \ge 0`, :math:`\sum_i y_i = z`.

    :math:`y_i = \max(v_i - \theta, 0)` with one number :math:`\theta` for each vector. A common shift of ``v``
    changes nothing, and costs no accuracy. An entry of minus infinity is one that has to stay zero.

    Parameters
    ----------
    v : array (..., n)
        Real floating; low precision is computed in float32.
    z : float or array
        Sum of the result, not negative; an array broadcasts against the shape of ``v`` without ``axis``.
    axis : int
        Axis of the vectors.
    backend : str, optional
        Run on this backend; "array-api" forces the reference.

    Returns
    -------
    array (..., n)
        In the shape and dtype of ``v``. Flops: a sort and 12 n; on a processor with Numba a few passes, no sort.

    Notes
    -----
    The error is a few eps of ``z``, at every scale of ``v``. A vector that contains NaN or plus infinity, or nothing
    but minus infinity, gives NaN. The derivative is :math:`I - 1 1^T / |S|` on the support S.

    References
    ----------
    J. Duchi et al., "Efficient projections onto the l1-ball for learning in high dimensions" (ICML 2008);
    L. Condat, "Fast projection onto the simplex and the l1 ball", Math. Program. 158 (2016).

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> orthokern.project_simplex(np.array([0.5, 1.0, -3.0])).tolist()
    [0.25, 0.75, 0.0]
    """
    return _projected(v, z, None, axis, "project_simplex")


@kernel(ops=("simplex_projection",))
def project_sparse_simplex(
    v: ArrayT,
    z: Any = 1.0,
    /,
    *,
    k: int | None = None,
    axis: int = -1,
    backend: str | None = None,
) -> ArrayT:
    r"""A nearest point of the simplex with at most ``k`` entries that are not zero.

    The set is not convex, but a nearest point is known: the projection of the ``k`` largest entries. Of equal entries
    the one with the lowest index is taken, on every library.

    Parameters
    ----------
    v : array (..., n)
        Real floating; low precision is computed in float32.
    z : float or array
        Sum of the result, not negative; an array broadcasts against the shape of ``v`` without ``axis``.
    k : int, optional
        Largest number of entries that are not zero; without it, or from n on, this is :func:`project_simplex`.
    axis : int
        Axis of the vectors.
    backend : str, optional
        Run on this backend; "array-api" forces the reference.

    Returns
    -------
    array (..., n)
        In the shape and dtype of ``v``. Flops: a sort and 15 n; on a processor with Numba a selection and passes.

    References
    ----------
    A. Kyrillidis et al., "Sparse projections onto the simplex", arXiv:1206.1529; "Sparsity-Constrained Optimal
    Transport", arXiv:2209.15466.

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> orthokern.project_sparse_simplex(np.array([0.5, 1.0, 0.75, 1.0]), k=2).tolist()
    [0.0, 0.5, 0.0, 0.5]
    """
    most = None if k is None else check.count(k, kernel="project_sparse_simplex", name="k")
    return _projected(v, z, most, axis, "project_sparse_simplex")


def _projected(v: ArrayT, z: Any, k: int | None, axis: int, kernel: str) -> ArrayT:
    def project(rows: Any, sums: Any) -> Any:
        return simplex_projection(rows, sums, k=_bounded(k, rows))

    return _by_vector(project, v, z, axis, kernel=kernel, name="z")


def _bounded(k: int | None, rows: Any) -> int:
    return int(rows.shape[-1]) if k is None else min(k, int(rows.shape[-1]))


def _by_vector(
    function: Callable[[Any, Any], Any],
    v: ArrayT,
    weight: Any,
    axis: int,
    *,
    kernel: str,
    name: str,
) -> ArrayT:
    """``function`` of the vectors along ``axis`` and of their weights; it sees that axis as the last one."""
    check.real(v, kernel=kernel, name="v")
    place = check.axis(axis, v, kernel=kernel, name="v")
    xp = namespace(v)
    rows = compute_precision(v if place == -1 else xp.moveaxis(v, place, -1))
    weights = check.per_vector(weight, rows, kernel=kernel, name=name)
    found = function(rows, weights) if 0 not in v.shape else xp.zeros_like(rows)
    back = found if place == -1 else xp.moveaxis(found, -1, place)
    return xp.astype(back, v.dtype, copy=False)  # type: ignore[no-any-return]


def _simplex_tangent(arrays: Any, tangents: Any, out: Any, *, k: int) -> Any:
    """The support stays, and the threshold keeps the sum."""
    dv, dz = tangents
    xp = namespace(dv)
    support = xp.astype(out > 0, dv.dtype)
    size = xp.sum(support, axis=-1, keepdims=True)
    missing = dz - xp.sum(support * dv, axis=-1, keepdims=True)
    return support * (dv + missing / xp.where(size > 0, size, xp.ones_like(size)))


@op(jvp=_simplex_tangent)
def simplex_projection(v: Any, z: Any, /, *, k: int) -> Any:
    """Projection of the ``k`` largest entries of each row of ``v`` (..., n), zero elsewhere, 1 <= k <= n.

    ``z`` (..., 1) has the rank of ``v`` and holds the sums, >= 0. By sorting.
    """
    xp = namespace(v)
    known = _is_known(v)
    v = xp.where(known, v, xp.zeros_like(v))
    ordered = xp.sort(v, axis=-1, descending=True, stable=False)[..., :k]
    top, least = ordered[..., :1], ordered[..., -1:]
    u = _below_the_top(v, top, z)
    if k < v.shape[-1]:
        u = xp.where(_largest(v, least, k), u, -xp.ones_like(u))
    theta = _unit_threshold(_below_the_top(ordered, top, z))
    return nan_unless(known, _to_sum_one(u, theta) * z)


def _is_known(v: Any) -> Any:
    """Rows whose largest entry is a finite number."""
    xp = namespace(v)
    unknown = xp.any(xp.isnan(v) | (v == float("inf")), axis=-1, keepdims=True)
    return ~unknown & xp.any(v > -float("inf"), axis=-1, keepdims=True)


def _below_the_top(v: Any, top: Any, z: Any) -> Any:
    """``max((v - top) / z, -1)``: what lies lower is zero in the projection, and would overflow."""
    xp = namespace(v)
    # In halves, because the difference of the largest numbers of opposite sign is none.
    gap, half = top / 2 - v / 2, z / 2
    unit = xp.where(half > 0, half, xp.ones_like(half))
    # Not a quotient of equals, which compilers do not always make 1.
    near = gap < half
    share = xp.where(near, gap, xp.zeros_like(gap)) / unit
    return -xp.where(near, share, xp.ones_like(share))


def _largest(v: Any, least: Any, k: int) -> Any:
    """Mask of the ``k`` largest entries, of which ``least`` is the last; of equal ones the first come first."""
    xp = namespace(v)
    above, equal = v > least, v == least
    room = k - xp.sum(xp.astype(above, v.dtype), axis=-1, keepdims=True)
    rank = running_sum(xp.astype(equal, v.dtype))
    return above | (equal & (rank <= room))


def _unit_threshold(ordered: Any) -> Any:
    """The ``theta`` with ``sum max(u - theta, 0) = 1`` for descending ``u``: the largest of the candidates."""
    xp = namespace(ordered)
    counts = xp.arange(1, ordered.shape[-1] + 1, dtype=ordered.dtype, device=device(ordered))
    candidates = (running_sum(ordered) - 1) / counts
    return xp.max(candidates, axis=-1, keepdims=True)


def _to_sum_one(u: Any, theta: Any) -> Any:
    """``max(u - theta, 0)`` with ``theta`` carried to more digits than a number of this dtype has."""
    xp = namespace(u)
    # The differences of near numbers are exact; so a threshold for them is the rest of that for ``u``.
    # What lies 1 below the top is zero, also where rounding puts theta below that.
    y = xp.where(u > -1, u - theta, -xp.ones_like(u))
    rest = xp.zeros_like(theta)
    for _ in range(POLISHING):
        rest = rest + _excess(xp.clip(y - rest, 0.0, None))
    return xp.clip(y - rest, 0.0, None)


def _excess(y: Any) -> Any:
    """What each positive entry has too much for the sum 1."""
    xp = namespace(y)
    size = xp.sum(xp.astype(y > 0, y.dtype), axis=-1, keepdims=True)
    return (xp.sum(y, axis=-1, keepdims=True) - 1) / xp.where(size > 0, size, xp.ones_like(size))


@kernel()
def ksupport_norm_squared(
    t: ArrayT, /, *, k: int | None = None, axis: int = -1, backend: str | None = None
) -> ArrayT:
    r"""Square of the k-support norm, whose unit ball is the convex hull of the k-sparse vectors of Euclidean norm 1.

    .. math::
        \|t\|^2 = \sum_{i \le h} |t|_{(i)}^2 + \frac{1}{k - h} \Bigl( \sum_{i > h} |t|_{(i)} \Bigr)^2

    for the one :math:`h < k` at which every entry of the first sum exceeds :math:`\tau = \frac{1}{k-h} \sum_{i > h}
    |t|_{(i)}` and none of the second does. ``k = 1`` is the square of the sum of moduli, ``k >= n`` that of the
    Euclidean norm.

    Parameters
    ----------
    t : array (..., n)
        Real floating; low precision is computed in float32.
    k : int, optional
        At least 1; without it the Euclidean norm.
    axis : int
        Axis of the vectors.
    backend : str, optional
        Run on this backend; "array-api" forces the reference.

    Returns
    -------
    array (...)
        In the shape of ``t`` without ``axis`` and in its dtype, float32 for low precision. Flops: a sort and 8 n.

    References
    ----------
    A. Argyriou, R. Foygel, N. Srebro, "Sparse prediction with the k-support norm", arXiv:1204.5043.

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> [float(orthokern.ksupport_norm_squared(np.array([3.0, 2.0, 1.0]), k=k)) for k in (1, 2, 3)]
    [36.0, 18.0, 14.0]
    """
    check.real(t, kernel="ksupport_norm_squared", name="t")
    place = check.axis(axis, t, kernel="ksupport_norm_squared", name="t")
    most = None if k is None else check.count(k, kernel="ksupport_norm_squared", name="k")
    xp = namespace(t)
    sizes = compute_precision(xp.abs(t if place == -1 else xp.moveaxis(t, place, -1)))
    limit = _bounded(most, sizes)
    if limit == sizes.shape[-1]:
        return xp.sum(sizes * sizes, axis=-1)  # type: ignore[no-any-return]
    ordered = xp.sort(sizes, axis=-1, stable=False)
    # Only the largest can belong to the head.
    rest, largest = ordered[..., :-limit], ordered[..., -limit:]
    head = largest > _level_of_the_tail(constant(rest), constant(largest))
    nothing = xp.zeros_like(largest)
    tail = xp.sum(rest, axis=-1) + xp.sum(xp.where(head, nothing, largest), axis=-1)
    room = limit - xp.sum(xp.astype(head, sizes.dtype), axis=-1)
    squares = xp.sum(xp.where(head, largest * largest, nothing), axis=-1)
    # Where rounding puts all of a tail of equal entries above their mean, what is left of it is nothing.
    return squares + tail * (tail / xp.clip(room, 1.0, None))  # type: ignore[no-any-return]


def _level_of_the_tail(rest: Any, largest: Any) -> Any:
    """The mean ``tau`` that no entry of the tail exceeds: the least of ``sum of the tail / (k - h)`` over h < k.

    ``largest`` are the k largest entries in ascending order, ``rest`` the others.
    """
    xp = namespace(largest)
    tails = xp.sum(rest, axis=-1, keepdims=True) + running_sum(largest)
    rooms = xp.arange(1, largest.shape[-1] + 1, dtype=largest.dtype, device=device(largest))
    return xp.min(tails / rooms, axis=-1, keepdims=True)


@kernel(ops=("ksupport_prox",))
def prox_ksupport(
    v: ArrayT,
    lam: Any,
    /,
    *,
    k: int | None = None,
    axis: int = -1,
    backend: str | None = None,
) -> ArrayT:
    r"""Proximal map of the squared k-support norm on vectors that are not negative.

    .. math::
        \arg\min_{t \ge 0} \; \tfrac12 \|t - v\|_2^2 + \tfrac{\lambda}{2} \|t\|_{k\text{-sup}}^2

    With :math:`p = \max(v, 0)`: where at most ``k`` entries of p are positive, :math:`t = p / (1 + \lambda)`; else
    :math:`t_i = \min(\max(p_i - \lambda w, 0),\ p_i / (1 + \lambda))` for the level :math:`w > 0` at which
    :math:`\sum_i \min(\max(p_i / w - \lambda, 0), 1) = k`. Both this map and the identity minus it are nonexpansive.

    Parameters
    ----------
    v : array (..., n)
        Real floating; low precision is computed in float32.
    lam : float or array
        Weight, not negative; an array broadcasts against the shape of ``v`` without ``axis``.
    k : int, optional
        At least 1; without it, or from n on, the norm is the Euclidean one.
    axis : int
        Axis of the vectors.
    backend : str, optional
        Run on this backend; "array-api" forces the reference.

    Returns
    -------
    array (..., n)
        In the shape and dtype of ``v``. Flops: about 10 n for each of 3 to 8 Newton steps; nothing is sorted.

    Notes
    -----
    The error is a few eps of the largest entry. A vector that contains NaN or plus infinity gives NaN. Derivatives
    with respect to ``v`` and ``lam`` are those of the piece; the second ones with respect to ``v`` are zero.

    References
    ----------
    A. Argyriou, R. Foygel, N. Srebro, "Sparse prediction with the k-support norm", arXiv:1204.5043;
    "Sparsity-Constrained Optimal Transport", arXiv:2209.15466.

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> orthokern.prox_ksupport(np.array([3.0, 2.0, 1.0]), 0.5, k=2).tolist()
    [2.0, 1.25, 0.25]
    """
    most = None if k is None else check.count(k, kernel="prox_ksupport", name="k")

    def prox(rows: Any, weights: Any) -> Any:
        return ksupport_prox(rows, weights, k=_bounded(most, rows))[0]

    return _by_vector(prox, v, lam, axis, kernel="prox_ksupport", name="lam")


def _prox_tangent(arrays: Any, tangents: Any, out: Any, *, k: int) -> Any:
    """Scaled entries stay scaled, shifted ones shifted; the level moves so that the shares still add up to k."""
    (v, lam), (dv, dlam), (_, w) = arrays, tangents, out
    xp = namespace(v)
    p = xp.clip(v, 0.0, None)
    scaled = xp.astype((p > 0) & (p >= (1 + lam) * w), v.dtype)
    shifted = xp.astype((p > lam * w) & (p < (1 + lam) * w), v.dtype)
    size = xp.sum(shifted, axis=-1, keepdims=True)
    slope = k - xp.sum(scaled, axis=-1, keepdims=True) + lam * size
    pull = xp.sum(shifted * dv, axis=-1, keepdims=True) - w * size * dlam
    dw = pull / xp.where(slope > 0, slope, xp.ones_like(slope))
    shrunk = (dv - p * dlam / (1 + lam)) / (1 + lam)
    return scaled * shrunk + shifted * (dv - w * dlam - lam * dw), dw


@op(jvp=_prox_tangent)
def ksupport_prox(v: Any, lam: Any, /, *, k: int) -> tuple[Any, Any]:
    """``(t, w)``: the proximal map of each row of ``v`` (..., n), 1 <= k <= n, and its level ``w`` (..., 1).

    ``lam`` (..., 1) has the rank of ``v``. The level is zero where at most ``k`` entries are positive.
    """
    xp = namespace(v)
    p = xp.clip(v, 0.0, None)
    known = ~xp.any(xp.isnan(v) | (v == float("inf")), axis=-1, keepdims=True)
    p = xp.where(known, p, xp.zeros_like(p))
    scale, undo = balancing_powers(xp.max(p, axis=-1, keepdims=True))
    p = p * scale
    w = _level(p, lam, k) if k < p.shape[-1] else xp.zeros_like(scale) * lam
    t = xp.minimum(xp.clip(p - lam * w, 0.0, None), p / (1 + lam))
    return nan_unless(known, t * undo), nan_unless(known, w * undo)


def _level(p: Any, lam: Any, k: int) -> Any:
    """Root ``w`` of ``sum_i clip(p_i / w - lam, 0, 1) = k``; 0 where at most ``k`` of the ``p_i`` are positive."""
    xp = namespace(p)
    ordered = xp.sort(p, axis=-1, stable=False)
    rest, largest = ordered[..., :-k], ordered[..., -k:]
    last, next_ = largest[..., :1], rest[..., -1:]
    # At ``low`` the k largest have a full share; at ``high`` the others have none, or the root for lam = 0 lies there.
    low, high = last / (1 + lam), _level_of_the_tail(rest, largest)
    high = xp.where(lam * high > next_, next_ / xp.where(lam > 0, lam, xp.ones_like(lam)), high)
    settled = (next_ <= 0) | (low >= high)
    w = xp.where(next_ <= 0, xp.zeros_like(high), xp.where(settled, low, high))
    state = (w, low * (1 - 4 * eps(p)), high * (1 + 4 * eps(p)), settled, xp.zeros_like(w))
    (w, *_), _ = iterate(
        lambda s: _level_step(p, lam, k, s),
        state,
        done=lambda s: xp.all(s[3]),
        max_steps=MOST_STEPS,
    )
    return w


def _level_step(p: Any, lam: Any, k: int, state: tuple[Any, ...]) -> tuple[Any, ...]:
    """One Newton step on the piece that ``w`` lies in, kept inside the bracket ``(low, high)``."""
    w, low, high, settled, steps = state
    xp = namespace(p)
    scaled, shifted = p >= (1 + lam) * w, (p > lam * w) & (p < (1 + lam) * w)
    size, number = (
        xp.sum(xp.astype(mask, p.dtype), axis=-1, keepdims=True) for mask in (shifted, scaled)
    )
    weight = xp.sum(xp.where(shifted, p, xp.zeros_like(p)), axis=-1, keepdims=True)
    slope = k - number + lam * size
    low = xp.where(weight > slope * w, w, low)
    high = xp.where(weight < slope * w, w, high)
    newton = weight / xp.where(slope > 0, slope, xp.ones_like(slope))
    near = (slope > 0) & (xp.abs(newton - w) <= 2 * eps(p) * w)
    astray = (slope <= 0) | (newton <= low) | (newton >= high) | (steps % HALVING == HALVING - 1)
    found = xp.where(astray & ~near, xp.sqrt(low) * xp.sqrt(high), newton)
    found = xp.where(settled | (weight == slope * w), w, found)
    return found, low, high, settled | (xp.abs(found - w) <= 2 * eps(p) * w), steps + 1
