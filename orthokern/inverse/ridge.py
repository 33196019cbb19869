"""Ridge regression: one weight for each coefficient, and the whole path of a single weight from one decomposition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, NamedTuple

from .._core import check
from .._core.autodiff import constant
from .._core.dispatch import kernel, op
from .._core.dtypes import compute_precision, real_dtype
from .._core.errors import ShapeError
from .._core.linalg import adjoint, gram, identity_like, thin_svd
from .._core.namespace import device, is_array, namespace, same_library
from .._core.typing import ArrayT
from .eigenpairs import refuse_lazy
from .elimination import squares

REFINEMENTS = 3


class RidgePath(NamedTuple, Generic[ArrayT]):
    r"""Solutions for L weights, and how well each predicts.

    x
        Coefficients (..., L, d) or (..., L, d, k).
    gcv, loo
        Generalized cross-validation :math:`n \|r\|^2 / (n - \mathrm{dof})^2` and the mean squared error of leaving out
        one row, :math:`\frac1n \sum_i |r_i / (1 - h_i)|^2`; (..., L) or (..., L, k).
    dof
        Degrees of freedom :math:`\sum_i h_i`; (..., L).
    """

    x: ArrayT
    gcv: ArrayT
    loo: ArrayT
    dof: ArrayT


def _shifted_solver(a: Any, weights: Any) -> Callable[[Any], Any]:
    """Solver of ``(A^H A + diag(weights)) x = g`` for columns ``g``.

    The inverse inside is held constant and the solution refined with plain products, so that the result can be
    differentiated again. With fewer rows than columns it is that of the rows.
    """
    xp = namespace(a)
    rows, columns = a.shape[-2:]
    shift = xp.astype(weights, a.dtype)[..., :, None]
    if rows >= columns:
        inverse = constant(xp.linalg.inv(gram(a) + identity_like(gram(a)) * shift))

        def rough(g: Any) -> Any:
            return inverse @ g
    else:
        spread = constant(adjoint(a) / shift)
        core = constant(a) @ spread
        inner = constant(xp.linalg.inv(core + identity_like(core)))

        def rough(g: Any) -> Any:
            g = g / constant(shift)
            return g - spread @ (inner @ (constant(a) @ g))

    def solve(g: Any) -> Any:
        x = rough(g)
        for _ in range(REFINEMENTS):
            x = x + rough(g - adjoint(a) @ (a @ x) - shift * x)
        return x

    return solve


def _ridge_tangent(arrays: Any, tangents: Any, out: Any) -> Any:
    """``H dx = A^H (db - dA x) + dA^H (b - A x) - dw x``, ``H = A^H A + diag(w)``."""
    (a, b, weights), (da, db, dweights), x = arrays, tangents, out
    g = adjoint(a) @ (db - da @ x) + adjoint(da) @ (b - a @ x)
    g = g - namespace(a).astype(dweights, a.dtype)[..., :, None] * x
    return _shifted_solver(a, weights)(g)


@op(jvp=_ridge_tangent)
def ridge_solution(a: Any, b: Any, weights: Any, /) -> Any:
    """Minimizer (..., d, k) of ``||A X - B||^2 + sum_i w_i |x_i|^2`` by QR of ``[A; diag(sqrt(w))]``.

    With fewer rows than columns by QR of ``[(A diag(w)^{-1/2})^H; I]``, whose order is that of the rows.
    """
    refuse_lazy(a)
    xp = namespace(a)
    rows, columns = a.shape[-2:]
    root = xp.astype(xp.sqrt(weights), a.dtype)
    if rows >= columns:
        eye = identity_like(gram(a)) + xp.zeros_like(gram(a))
        q, r = xp.linalg.qr(xp.concat([a, root[..., :, None] * eye], axis=-2))
        return xp.linalg.solve(r, adjoint(q[..., :rows, :]) @ b)
    wide = a / root[..., None, :]
    outer = wide @ adjoint(wide)
    eye = identity_like(outer) + xp.zeros_like(outer)
    q, r = xp.linalg.qr(xp.concat([adjoint(wide), eye], axis=-2))
    return (q[..., :columns, :] @ xp.linalg.solve(adjoint(r), b)) / root[..., :, None]


@kernel()
def ridge_solve(a: ArrayT, b: ArrayT, weights: Any, /, *, backend: str | None = None) -> ArrayT:
    r"""Ridge regression with a weight for each coefficient: minimizes :math:`\|A x - b\|^2 + \sum_i w_i |x_i|^2`.

    Parameters
    ----------
    a : array (..., n, d)
        Real or complex; low precision is computed in float32.
    b : array (..., n) or (..., n, k)
        One right-hand side, where it has one dimension less than ``a``, or k of them.
    weights : float or array (..., d)
        Positive. One number serves all coefficients.
    backend : str, optional
        Run on this backend; "array-api" forces the reference.

    Returns
    -------
    array (..., d) or (..., d, k)
        Flops: 2 (n + d) d^2, or 2 (n + d) n^2 where n < d; memory: one matrix of that shape.

    Notes
    -----
    Backward stable: no product of ``a`` with itself is formed. Differentiable of first and second order in all three
    arrays under PyTorch and JAX.

    References
    ----------
    A. E. Hoerl, R. W. Kennard, "Ridge regression: biased estimation for nonorthogonal problems", Technometrics 12
    (1970).

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> a, b = np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([1.0, 2.0])
    >>> np.round(orthokern.ridge_solve(a, b, np.array([1.0, 4.0])), 6).tolist()
    [0.5, 0.5]
    """
    u, v, alone = _system(a, b, "ridge_solve")
    w = _positive(weights, u)
    xp = namespace(u)
    heads = [tuple(u.shape[:-2]), tuple(w.shape[:-1]), tuple(v.shape[:-2])]
    batch = check.common_shape(heads, kernel="ridge_solve", names="a, weights and b")
    own = check.common_shape(heads[:2], kernel="ridge_solve", names="a and weights")
    u = xp.broadcast_to(u, (*own, *u.shape[-2:]))
    # A stack of matrices, which no library takes for a stack of vectors.
    x = ridge_solution(u, xp.broadcast_to(v, (*batch, *v.shape[-2:])), w)
    x = x[..., 0] if alone else x
    return xp.astype(x, xp.result_type(a, b), copy=False)  # type: ignore[no-any-return]


@kernel()
def ridge_path(
    a: ArrayT, b: ArrayT, weights: Any, /, *, backend: str | None = None
) -> RidgePath[ArrayT]:
    r"""Ridge regression for many single weights from one singular value decomposition, with GCV and leave-one-out.

    Parameters
    ----------
    a : array (..., n, d)
        Real or complex; low precision is computed in float32.
    b : array (..., n) or (..., n, k)
        Right-hand sides as in :func:`ridge_solve`.
    weights : array (L,)
        Positive: the weight :math:`w` of :math:`\|A x - b\|^2 + w \|x\|^2`.
    backend : str, optional
        Run on this backend; "array-api" forces the reference.

    Returns
    -------
    RidgePath
        Flops: about 6 n d^2 (n >= d) and 2 L d (n + d) k; memory: L copies of the solution and of the residual.

    References
    ----------
    G. H. Golub, M. Heath, G. Wahba, "Generalized cross-validation as a method for choosing a good ridge parameter",
    Technometrics 21 (1979).

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> a, b = np.eye(3)[:, :2], np.array([1.0, 2.0, 0.5])
    >>> path = orthokern.ridge_path(a, b, np.array([1.0, 3.0]))
    >>> path.x.tolist(), path.dof.tolist()
    ([[0.5, 1.0], [0.25, 0.5]], [1.0, 0.5])
    """
    u, v, alone = _system(a, b, "ridge_path")
    w = _list_of_weights(weights, u)
    xp = namespace(u)
    x, gcv, loo, dof = ridge_curve(u, v, w)
    dtype = xp.result_type(a, b)
    if alone:
        x, gcv, loo = x[..., 0], gcv[..., 0], loo[..., 0]
    return RidgePath(xp.astype(x, dtype, copy=False), gcv, loo, dof)


@op()
def ridge_curve(a: Any, b: Any, weights: Any, /) -> tuple[Any, Any, Any, Any]:
    """``(x, gcv, loo, dof)`` of ridge regression at each of ``weights`` (L,), by one SVD."""
    refuse_lazy(a)
    xp = namespace(a)
    n = a.shape[-2]
    p, s, qh = thin_svd(a)
    total = squares(s)[..., None, :] + weights[..., :, None]
    kept, lost = squares(s)[..., None, :] / total, weights[..., :, None] / total
    inner = adjoint(p) @ b
    # Axes: weights, singular values, right-hand sides.
    shrunk = xp.astype(s[..., None, :] / total, a.dtype)[..., None]
    x = adjoint(qh)[..., None, :, :] @ (shrunk * inner[..., None, :, :])
    residual = p[..., None, :, :] @ (xp.astype(lost, a.dtype)[..., None] * inner[..., None, :, :])
    # Shares that are lost are summed, and not taken from 1.
    free = lost @ xp.matrix_transpose(squares(p))
    rest = n - s.shape[-1]
    if rest:
        # What lies outside of the range of A is left whole.
        residual = residual + (b - p @ inner)[..., None, :, :]
        free = free + (1 - xp.sum(squares(p), axis=-1))[..., None, :]
    gcv = n * xp.sum(squares(residual), axis=-2) / ((xp.sum(lost, axis=-1) + rest) ** 2)[..., None]
    loo = xp.mean(squares(residual / xp.astype(free, a.dtype)[..., None]), axis=-2)
    return x, gcv, loo, xp.sum(kept, axis=-1)


def _system(a: Any, b: Any, name: str) -> tuple[Any, Any, bool]:
    """Both arrays in one dtype, ``b`` as columns, and whether it was a single one."""
    check.matrix(a, kernel=name, name="a")
    check.floating(b, kernel=name, name="b")
    xp = same_library(a, b)
    check.not_empty(a, kernel=name, name="a")
    alone = b.ndim == a.ndim - 1
    if b.ndim < a.ndim - 1 or b.shape[-1 if alone else -2] != a.shape[-2]:
        message = (
            f"{name}: expected b (..., {a.shape[-2]}) or (..., {a.shape[-2]}, k) for a {tuple(a.shape)}, "
            f"got shape {tuple(b.shape)}"
        )
        raise ShapeError(message)
    u, v = compute_precision(a), compute_precision(b)
    dtype = xp.result_type(u, v)
    u, v = xp.astype(u, dtype, copy=False), xp.astype(v, dtype, copy=False)
    v = v[..., None] if alone else v
    check.common_shape([tuple(part.shape[:-2]) for part in (u, v)], kernel=name, names="a and b")
    return u, v, alone


def _positive(weights: Any, u: Any) -> Any:
    """Weights (..., d) in the real dtype of ``u``."""
    xp = namespace(u)
    dtype, d = real_dtype(u), u.shape[-1]
    if not is_array(weights):
        number = check.at_least(weights, 0.0, kernel="ridge_solve", name="weights", strict=True)
        return xp.full((d,), number, dtype=dtype, device=device(u))
    check.real(weights, kernel="ridge_solve", name="weights")
    same_library(weights, u)
    check.all_at_least(weights, 0.0, kernel="ridge_solve", name="weights", strict=True)
    weights = xp.astype(weights, dtype, copy=False)
    if weights.ndim == 0:
        return xp.broadcast_to(weights, (d,))
    if weights.shape[-1] != d:
        message = f"ridge_solve: expected weights (..., {d}) or one number, got shape {tuple(weights.shape)}"
        raise ShapeError(message)
    return weights


def _list_of_weights(weights: Any, u: Any) -> Any:
    check.real(weights, kernel="ridge_path", name="weights")
    xp = same_library(weights, u)
    if weights.ndim != 1:
        message = f"ridge_path: expected a list of weights (L,), got shape {tuple(weights.shape)}"
        raise ShapeError(message)
    check.all_at_least(weights, 0.0, kernel="ridge_path", name="weights", strict=True)
    return xp.astype(weights, real_dtype(u), copy=False)
