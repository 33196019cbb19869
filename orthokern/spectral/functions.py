"""Functions of singular values: clipping, norms, and the linear oracle of the spectral ball.

All are composed of polar factors of the matrix and of its Hermitian factor, and inherit their derivatives, which
exist where singular values repeat.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, NamedTuple

from .._core import check
from .._core.dispatch import kernel, op
from .._core.dtypes import compute_precision, eps, real_dtype
from .._core.linalg import adjoint, frobenius, gram, hermitian_part, identity_like
from .._core.namespace import device, namespace
from .._core.scaling import balance
from .._core.typing import ArrayT
from .factor import norm_bound, polar_factors, power_norm, unitary_factor
from .polar import orthogonalize

OPS = ("balance", "unitary_factor")


class NormBounds(NamedTuple, Generic[ArrayT]):
    """``lower <= ||x||_2 <= upper``, each in the batch shape."""

    lower: ArrayT
    upper: ArrayT


@kernel()
def spectral_norm_bounds(
    x: ArrayT, /, *, steps: int = 12, backend: str | None = None
) -> NormBounds[ArrayT]:
    r"""Bounds of the largest singular value that hold in exact arithmetic, at the cost of products with vectors.

    ``lower`` is the largest :math:`\|A v\| / \|v\|` of 8 vectors after ``steps`` power steps from a fixed start,
    ``upper`` the least of :math:`\|A\|_F` and :math:`\sqrt{\|A\|_1 \|A\|_\infty}`.

    Parameters
    ----------
    x : array (..., m, n)
        Real or complex floating.
    steps : int
        Power steps on ``x^H x``.
    backend : str, optional
        Run on this backend; "array-api" forces the reference.

    Returns
    -------
    NormBounds
        Arrays (...) in the real dtype of ``x``, float32 for low precision. Flops: 32 m n steps, of 8 vectors.

    References
    ----------
    N. J. Higham, *Accuracy and Stability of Numerical Algorithms* (SIAM 2002), ch. 6 and 15.

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> lower, upper = orthokern.spectral_norm_bounds(np.array([[3.0, 0.0], [4.0, 5.0]]))
    >>> round(float(lower), 6), round(float(upper), 6)
    (6.708204, 7.071068)
    """
    check.matrix(x, kernel="spectral_norm_bounds")
    count = check.count(steps, kernel="spectral_norm_bounds", name="steps")
    if 0 in x.shape:
        nothing = namespace(x).zeros(
            x.shape[:-2], dtype=real_dtype(compute_precision(x)), device=device(x)
        )
        return NormBounds(nothing, nothing)
    y, undo = balance(compute_precision(x))
    lower, upper = power_norm(y, count), norm_bound(y)
    return NormBounds((lower * undo)[..., 0, 0], (upper * undo)[..., 0, 0])


@kernel(ops=OPS)
def spectral_clip(
    x: ArrayT,
    c: Any,
    /,
    *,
    lower: float = 0.0,
    check_finite: bool = False,
    backend: str | None = None,
) -> ArrayT:
    r"""Singular values clipped to ``[lower, c]``: :math:`P \min(\max(S, \text{lower}), c)\, Q^H`.

    With ``lower=0`` this is the nearest matrix of spectral norm at most ``c``, the projection on the spectral
    ball. It is computed as :math:`A - U (H - c I)_+` from the polar factors :math:`A = U H`, so that a matrix
    inside the ball comes back bit for bit.

    Parameters
    ----------
    x : array (..., m, n)
        Real or complex floating; low precision is computed in float32.
    c : float or array
        Upper limit, positive; an array broadcasts against the batch shape of ``x``.
    lower : float
        Lower limit, at most ``c``; where ``x`` is rank-deficient the directions that it raises are arbitrary.
    check_finite : bool
        True refuses NaN and infinity (eager only); else they stay with the matrices they belong to.
    backend : str, optional
        Run on this backend; "array-api" forces the reference.

    Returns
    -------
    array (..., m, n)
        In the dtype of ``x``. Flops: two polar factorizations, the second of size min(m, n).

    Notes
    -----
    Differentiable where no singular value equals a limit, also where they repeat. The error is a few eps of the
    norm of ``x``.

    References
    ----------
    "Enhancing LLM Training via Spectral Clipping", arXiv:2603.14315.

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> np.round(orthokern.spectral_clip(np.array([[3.0, 0.0], [4.0, 5.0]]), 2.0), 6)
    array([[ 1.788854, -0.894427],
           [ 0.894427,  1.788854]])
    """
    check.matrix(x, kernel="spectral_clip")
    check.flag(check_finite, kernel="spectral_clip", name="check_finite")
    lower = check.at_least(lower, 0.0, kernel="spectral_clip", name="lower")
    limit = check.per_matrix(c, x, kernel="spectral_clip", name="c", least=lower, strict=lower == 0)
    if check_finite:
        check.finite_values(x, kernel="spectral_clip")
    return _by_member(x, lambda y, undo: _clipped(y, undo, limit, lower))


@kernel(ops=OPS)
def soft_spectral_clip(
    x: ArrayT,
    c: Any,
    /,
    *,
    steps: int | None = None,
    check_finite: bool = False,
    backend: str | None = None,
) -> ArrayT:
    r"""Singular values pressed below ``c`` smoothly: :math:`s \mapsto s / \sqrt{1 + (s/c)^2}`.

    Equal to :math:`(I + A A^H / c^2)^{-1/2} A`, and computed as ``c`` times the upper block of the polar factor of
    ``[A / c; I]``, whose condition number :math:`\sqrt{1 + (s_1/c)^2}` stays small where a fixed number of
    Newton-Schulz steps fails (10 steps are off by 47 % at ``s_1 / c = 100``).

    Parameters
    ----------
    x : array (..., m, n)
        Real or complex floating; low precision is computed in float32.
    c : float or array
        Limit, positive; an array broadcasts against the batch shape of ``x``.
    steps : int, optional
        Run this many coupled Newton-Schulz steps on ``I + A A^H / c^2``, as the published code does, and promise
        no accuracy. Default: full accuracy.
    check_finite : bool
        True refuses NaN and infinity (eager only); else they stay with the matrices they belong to.
    backend : str, optional
        Run on this backend; "array-api" forces the reference.

    Returns
    -------
    array (..., m, n)
        In the dtype of ``x``. Flops: a polar factorization of (m + n) x n, m >= n; with ``steps`` 6 n^3 each.

    References
    ----------
    "Enhancing LLM Training via Spectral Clipping", arXiv:2603.14315.

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> np.round(orthokern.soft_spectral_clip(np.array([[3.0, 0.0], [4.0, 5.0]]), 2.0), 6)
    array([[ 1.428571, -0.571429],
           [ 0.952381,  1.619048]])
    """
    check.matrix(x, kernel="soft_spectral_clip")
    check.flag(check_finite, kernel="soft_spectral_clip", name="check_finite")
    if steps is not None:
        steps = check.count(steps, kernel="soft_spectral_clip", name="steps")
    limit = check.per_matrix(c, x, kernel="soft_spectral_clip", name="c", strict=True)
    if check_finite:
        check.finite_values(x, kernel="soft_spectral_clip")
    if steps is None:
        return _by_member(x, lambda y, undo: pressed(y, limit / undo))
    return _by_member(x, lambda y, undo: _pressed_by_steps(y, limit / undo, steps))


@kernel(ops=OPS)
def lmo_spectral_ball(
    g: ArrayT, radius: Any = 1.0, /, *, tol: float | None = None, backend: str | None = None
) -> ArrayT:
    r"""Minimizer of :math:`\operatorname{Re}\operatorname{tr}(G^H X)` over the ball :math:`\|X\|_2 \le` radius.

    It is ``-radius`` times the polar factor of ``g``, with zero on the null space. A Frank-Wolfe step goes there;
    one step of Muon is one step of it.

    Parameters
    ----------
    g : array (..., m, n)
        Gradient, real or complex floating.
    radius : float or array
        Positive; an array broadcasts against the batch shape of ``g``.
    tol : float, optional
        As in :func:`orthogonalize`.
    backend : str, optional
        Run on this backend; "array-api" forces the reference.

    Returns
    -------
    array (..., m, n)
        In the dtype of ``g``. Flops: those of :func:`orthogonalize`.

    References
    ----------
    M. Jaggi, "Revisiting Frank-Wolfe", ICML 2013; "Enhancing LLM Training via Spectral Clipping", arXiv:2603.14315.

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> orthokern.lmo_spectral_ball(np.diag([2.0, -1.0, 0.0]), 3.0).tolist()
    [[-3.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 0.0]]
    """
    check.matrix(g, kernel="lmo_spectral_ball", name="g")
    limit = check.per_matrix(radius, g, kernel="lmo_spectral_ball", name="radius", strict=True)
    xp = namespace(g)
    factor = orthogonalize(g, tol=tol)
    scaled = -compute_precision(factor) * xp.astype(limit, compute_precision(g).dtype)
    return xp.astype(scaled + 0.0, g.dtype)  # type: ignore[no-any-return]


@op(fused=True)
def clipped(x: Any, top: Any, /, *bottom: Any) -> Any:
    """Tall ``x`` with its singular values clipped to at most ``top`` and at least ``bottom``, both (..., 1, 1).

    ``X - U (H - c I)_+ + U (l I - H)_+``. What lies within the limits enters by ``X`` alone, which is why without
    ``bottom`` neither the value nor the derivative suffers where ``X`` is rank-deficient.
    """
    u, h, _ = polar_factors(x, completion="unitary")
    eye = identity_like(h)
    z = x - u @ _positive_part(h - top * eye)
    for limit in bottom:
        z = z + u @ _positive_part(limit * eye - h)
    return z


@op(fused=True)
def pressed(x: Any, c: Any, /) -> Any:
    """Tall ``x`` with its singular values pressed below ``c`` (..., 1, 1).

    By the polar factor of [X; c I], whose blocks are ``X M / c`` and ``M = (I + X^H X / c^2)^{-1/2}``.
    """
    xp = namespace(x)
    bound = norm_bound(x)
    bound = xp.where(bound > 0, bound, xp.ones_like(bound))
    # Beyond these limits only rounding errors would differ.
    near = xp.clip(c, eps(x) * bound, bound / eps(x))
    one = xp.ones_like(near)
    eye = identity_like(gram(x)) + xp.zeros_like(gram(x))
    stack = xp.concat([x * xp.minimum(1 / near, one), eye * xp.minimum(near, one)], axis=-2)
    u, _ = unitary_factor(stack, completion="unitary")
    m = x.shape[-2]
    # The error of a block is a few eps: each route is taken where it multiplies by the smaller number.
    return xp.where(bound <= near, x @ u[..., m:, :], u[..., :m, :] * xp.minimum(c, near))


def _positive_part(s: Any) -> Any:
    """``(S + |S|) / 2`` of Hermitian ``S``, with ``|S| = S polar(S)``."""
    sign, _ = unitary_factor(s, completion="unitary")
    return hermitian_part(s + s @ sign) / 2


def _clipped(y: Any, undo: Any, limit: Any, lower: float) -> Any:
    """Balanced tall ``y`` clipped; one whose norm is proven to be below the limit comes back as it is."""
    xp = namespace(y)
    bound = norm_bound(y)
    # A limit far above the norm would cost digits.
    top = xp.minimum(limit / undo, 2 * bound)
    if lower > 0:
        return clipped(y, xp.maximum(top, lower / undo), lower / undo)
    return xp.where(bound <= top, y, clipped(y, top))


def _pressed_by_steps(y: Any, c: Any, steps: int) -> Any:
    """Coupled Newton-Schulz iteration for ``(I + Y^H Y / c^2)^{-1/2}``, then its product with ``Y``."""
    xp = namespace(y)
    g = gram(y / c)
    eye = identity_like(g)
    rows = xp.max(xp.sum(xp.abs(g), axis=-1, keepdims=True), axis=-2, keepdims=True)
    alpha = 1 + xp.minimum(rows, frobenius(g))
    root, inverse = (eye + g) / alpha, eye
    for _ in range(steps):
        step = (3 * eye - inverse @ root) / 2
        root, inverse = root @ step, step @ inverse
    return y @ inverse / xp.sqrt(alpha)


def _by_member(x: ArrayT, function: Callable[[Any, Any], Any]) -> ArrayT:
    """``function(y, undo)`` on balanced tall matrices, scaled back; NaN where a member is not finite."""
    xp = namespace(x)
    if 0 in x.shape:
        empty: ArrayT = xp.zeros_like(x)
        return empty
    wide = x.shape[-2] < x.shape[-1]
    y, undo = balance(compute_precision(x))
    scale = xp.where(xp.isfinite(undo), undo, xp.ones_like(undo))
    z = function(adjoint(y) if wide else y, scale)
    result: ArrayT = xp.astype((adjoint(z) if wide else z) * undo, x.dtype, copy=False)
    return result
