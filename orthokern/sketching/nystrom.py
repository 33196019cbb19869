"""Nystrom approximation of positive semidefinite matrices, and conjugate gradients preconditioned by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, NamedTuple

from .._core import check
from .._core.dispatch import kernel
from .._core.dtypes import compute_precision, eps, is_complex, real_dtype
from .._core.errors import ShapeError, UnsupportedError, ValuesError
from .._core.linalg import adjoint, frobenius, hermitian_part, nan_unless, thin_svd
from .._core.loop import iterate
from .._core.namespace import device, is_lazy, is_traced, namespace
from .._core.results import warn_unconverged
from .._core.typing import ArrayT
from .cholesky_qr import MOST_SEED, balanced, gaussian, oversampled, returned, thin_qr
from .normal_equations import widened

Product = Callable[[Any], Any]
# A most negative eigenvalue of the small matrix beyond this share of the largest says that K is not semidefinite.
NEGATIVE = 1e3


class NystromResult(NamedTuple, Generic[ArrayT]):
    """K is near ``(vectors * values) @ vectors^H``: ``values`` (..., k) descending, >= 0, ``vectors`` (..., n, k)."""

    values: ArrayT
    vectors: ArrayT


class PCGInfo(NamedTuple, Generic[ArrayT]):
    """``iterations`` (0-d), ``residual`` (..., m): that of each column over the norm of b, ``converged`` (..., m)."""

    iterations: ArrayT
    residual: ArrayT
    converged: ArrayT


class PCGResult(NamedTuple, Generic[ArrayT]):
    """``x`` in the shape of b."""

    x: ArrayT
    info: PCGInfo[ArrayT]


@kernel()
def nystrom(
    a: ArrayT, /, *, k: int, oversample: int = 10, seed: int = 0, backend: str | None = None
) -> NystromResult[ArrayT]:
    r"""Eigenvalues and vectors of a rank-k approximation of a positive semidefinite K, from one product ``K Omega``.

    Parameters
    ----------
    a : array (..., n, n)
        Hermitian positive semidefinite; float32 and below are computed in float64 where the library has it. One that
        is plainly not semidefinite is refused where its values are known.
    k : int
        Rank, at most n.
    oversample : int
        Columns of Omega more than ``k``.
    seed : int
        Of Omega.
    backend : str, optional
        Run on this backend; "array-api" forces the reference.

    Returns
    -------
    NystromResult
        ``values`` (..., k), ``vectors`` (..., n, k).

    Notes
    -----
    flops: 2 n^2 (k + oversample).  memory: 3 n (k + oversample). The approximation is never above K, up to rounding.
    Derivatives are those of the steps, where k + oversample eigenvalues are positive and differ.

    References
    ----------
    J. A. Tropp et al., "Fixed-rank approximation of a positive-semidefinite matrix from streaming data", NIPS 2017.

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> values, vectors = orthokern.nystrom(np.diag([3.0, 2.0, 0.0]), k=2)
    >>> np.round(values, 12).tolist()
    [3.0, 2.0]
    """
    check.square(a, kernel="nystrom", name="a")
    n = a.shape[-1]
    k = check.count(k, kernel="nystrom", name="k", least=0, most=n)
    width = oversampled(k, check.count(oversample, kernel="nystrom", name="oversample", least=0), n)
    seed = check.count(seed, kernel="nystrom", name="seed", least=0, most=MOST_SEED)
    _expect_values(a, "nystrom")
    xp, (work, undo) = namespace(a), balanced(a)
    if 0 in a.shape or k == 0:
        values = xp.zeros((*a.shape[:-2], k), dtype=real_dtype(a), device=device(a))
        return NystromResult(values, returned(work[..., :, :k], a))
    values, vectors = _nystrom(lambda x: work @ x, work, width, seed, eps(a))
    values = xp.astype(values[..., :k] * undo[..., 0], real_dtype(a), copy=False)
    return NystromResult(
        values, returned(nan_unless(namespace(a).isfinite(undo), vectors[..., :, :k]), a)
    )


def _expect_values(x: Any, name: str) -> None:
    if is_lazy(x):
        message = f"{name}: expected an array with values, got a Dask array; call compute() first"
        raise UnsupportedError(message)


def _nystrom(product: Product, like: Any, width: int, seed: int, unit: float) -> tuple[Any, Any]:
    """``(values, vectors)`` with ``width`` columns, of a K known by its products, to ``unit``."""
    xp, n = namespace(like), like.shape[-2]
    omega, _ = thin_qr(gaussian(n, width, like=like, seed=seed), seed=seed)
    y = product(omega)
    shift = n**0.5 * unit * frobenius(y)
    y = y + xp.astype(shift, y.dtype) * omega
    w, v = xp.linalg.eigh(hermitian_part(adjoint(omega) @ y))
    _refuse_negative(w, shift[..., 0])
    # Below the shift there is nothing but rounding; a matrix of zeros has no shift.
    floor = xp.maximum(w, shift[..., 0])
    root = xp.where(floor > 0, 1 / xp.sqrt(xp.where(floor > 0, floor, xp.ones_like(floor))), floor)
    q, r = thin_qr(y @ (v * xp.astype(root, v.dtype)[..., None, :]), seed=seed)
    u, s, _ = thin_svd(r)
    rest = s * s - shift[..., 0]
    return xp.where(rest > 0, rest, xp.zeros_like(rest)), q @ u


def _refuse_negative(w: Any, shift: Any) -> None:
    if is_traced(w):
        return
    if bool(namespace(w).any(w[..., :1] < -NEGATIVE * shift)):
        message = "nystrom: expected a positive semidefinite a, got one with negative directions; add a multiple of I"
        raise ValuesError(message)


@kernel()
def nystrom_pcg(
    a: ArrayT | Product,
    b: ArrayT,
    /,
    *,
    mu: float,
    k: int,
    tol: float = 1e-8,
    max_iter: int = 500,
    seed: int = 0,
    backend: str | None = None,
) -> PCGResult[ArrayT]:
    r"""Solve :math:`(K + \mu I) x = b` by conjugate gradients with a Nystrom preconditioner.

    Parameters
    ----------
    a : array (..., n, n) or callable
        K, Hermitian positive semidefinite; or its product with arrays (..., n, m) of the library of ``b``.
    b : array (..., n) or (..., n, m)
        For a callable of one dimension or two. float32 and below are computed in float64 where the library has it.
    mu : float
        Positive.
    k : int
        Rank of the preconditioner, at most n; 0 for none.
    tol : float
        Stop at this residual over the norm of each column of b; eps times ``(||K|| + mu) / mu`` can be reached.
    max_iter : int
        Most steps; a warning says when they were not enough.
    seed : int
        Of the preconditioner.
    backend : str, optional
        Run on this backend; "array-api" forces the reference.

    Returns
    -------
    PCGResult
        ``x`` and ``info`` (:class:`PCGInfo`).

    Notes
    -----
    flops: 2 n^2 (k + steps m).  memory: n (2 k + 5 m). Derivatives are those of the steps, which in PyTorch are
    kept one by one; under ``jax.jit`` they are a loop, which has no reverse mode.

    References
    ----------
    Z. Frangella, J. A. Tropp, M. Udell, "Randomized Nystrom preconditioning", SIMAX 44 (2023).

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> x, info = orthokern.nystrom_pcg(np.diag([3.0, 1.0]), np.array([4.0, 4.0]), mu=1.0, k=1)
    >>> np.round(x, 12).tolist()
    [1.0, 2.0]
    """
    name = "nystrom_pcg"
    mu = check.at_least(mu, 0.0, kernel=name, name="mu", strict=True)
    tol = check.interval(tol, kernel=name, name="tol")
    max_iter = check.count(max_iter, kernel=name, name="max_iter")
    seed = check.count(seed, kernel=name, name="seed", least=0, most=MOST_SEED)
    check.floating(b, kernel=name, name="b")
    _expect_values(b, name)
    product, alone = _product(a, b)
    wide = widened(compute_precision(b))
    right = wide[..., None] if alone else wide
    k = check.count(k, kernel=name, name="k", least=0, most=right.shape[-2])
    if 0 in b.shape:
        return PCGResult(b, _info(right, 0, namespace(b).sum(right, axis=-2), tol))
    x, steps, residual = _solve(
        product, right, mu, _preconditioner(product, right, k, mu, seed, _unit(a, b)), tol, max_iter
    )
    info = _info(right, steps, residual, tol)
    finite = namespace(b).isfinite(info.residual)
    warn_unconverged(name, info.converged, finite, info.residual, hint="raise k, tol or max_iter")
    return PCGResult(returned(x[..., 0] if alone else x, b), info)


def _info(b: Any, steps: Any, residual: Any, tol: float) -> PCGInfo[Any]:
    xp = namespace(b)
    residual = xp.abs(residual)
    return PCGInfo(xp.asarray(steps, device=device(b)), residual, residual <= tol)


def _product(a: Any, b: Any) -> tuple[Product, bool]:
    if callable(a) and not hasattr(a, "shape"):
        return a, b.ndim == 1
    matrix: Any = a
    check.square(matrix, kernel="nystrom_pcg", name="a")
    _expect_values(matrix, "nystrom_pcg")
    alone = b.ndim == matrix.ndim - 1
    if (b.shape[-1] if alone else b.shape[-2:][0]) != matrix.shape[-1]:
        message = f"nystrom_pcg: expected {matrix.shape[-1]} rows in b, got shape {tuple(b.shape)}; see a and b"
        raise ShapeError(message)
    work = widened(compute_precision(matrix))
    return (lambda x: work @ x), alone


def _unit(a: Any, b: Any) -> float:
    """Precision in which K is known."""
    return eps(a if hasattr(a, "shape") else b)


def _preconditioner(product: Product, b: Any, k: int, mu: float, seed: int, unit: float) -> Product:
    if k == 0:
        return lambda r: r
    xp = namespace(b)
    values, vectors = _nystrom(product, b, k, seed, unit)
    share = (values[..., -1:] + mu) / (values + mu) - 1
    share = xp.astype(share, b.dtype)[..., :, None]
    return lambda r: r + vectors @ (share * (adjoint(vectors) @ r))


def _dots(x: Any, y: Any) -> Any:
    xp = namespace(x)
    return xp.sum((xp.conj(x) if is_complex(x) else x) * y, axis=-2, keepdims=True)


def _solve(
    product: Product, b: Any, mu: float, inverse: Product, tol: float, max_iter: int
) -> tuple[Any, Any, Any]:
    """Each column has steps of its own; one that is solved moves no more."""
    xp = namespace(b)
    size = xp.linalg.vector_norm(b, axis=-2, keepdims=True)
    # b of unit norm: no product of its squares leaves the range.
    unit = xp.where(size > 0, size, xp.ones_like(size))
    b = b / unit

    def over(r: Any) -> Any:
        return xp.linalg.vector_norm(r, axis=-2, keepdims=True) > tol

    def quotient(x: Any, y: Any, r: Any) -> Any:
        good = over(r) & (xp.abs(y) > 0)
        return xp.where(good, x / xp.where(good, y, xp.ones_like(y)), xp.zeros_like(x))

    def step(state: Any) -> Any:
        x, r, p, rho = state
        kp = product(p) + mu * p
        alpha = quotient(rho, _dots(p, kp), r)
        x, r = x + alpha * p, r - alpha * kp
        z = inverse(r)
        new = _dots(r, z)
        return x, r, z + quotient(new, rho, r) * p, new

    z = inverse(b)
    start = (xp.zeros_like(z), b + xp.zeros_like(z), z, _dots(b, z))
    state, steps = iterate(step, start, done=lambda s: ~xp.any(over(s[1])), max_steps=max_iter)
    x = state[0]
    residual = xp.linalg.vector_norm(b - product(x) - mu * x, axis=-2)
    return x * unit, steps, residual
