"""Randomized range finder and singular value decomposition; leverage scores."""

from __future__ import annotations

from typing import Any, Generic, NamedTuple

from .._core import check
from .._core.dispatch import kernel
from .._core.dtypes import eps, is_complex
from .._core.errors import OptionError, UnsupportedError
from .._core.linalg import adjoint, frobenius, nan_unless, thin_svd
from .._core.namespace import device, is_lazy, is_traced, namespace
from .._core.typing import ArrayT
from .cholesky_qr import MOST_SEED, balanced, gaussian, groups_of, oversampled, returned, thin_qr
from .operators import sjlt
from .products import adjoint_product, product

# Columns that the adaptive range finder adds at a time.
BLOCK = 16
METHODS = ("exact", "sketched")


class SVDResult(NamedTuple, Generic[ArrayT]):
    """``a`` is near ``(u * s) @ vh``: ``u`` (..., n, k), ``s`` (..., k) descending, ``vh`` (..., k, d)."""

    u: ArrayT
    s: ArrayT
    vh: ArrayT


@kernel()
def randomized_range_finder(
    a: ArrayT,
    /,
    *,
    k: int | None = None,
    oversample: int = 10,
    power: int = 1,
    tol: float | None = None,
    seed: int = 0,
    backend: str | None = None,
) -> ArrayT:
    r"""Orthonormal columns Q whose span holds the leading left singular vectors of A: ``A`` is near ``Q Q^H A``.

    Parameters
    ----------
    a : array (..., n, d)
        Real or complex floating; float32 and below are computed in float64 where the library has it.
    k : int, optional
        Directions wanted; with ``tol`` the most there may be (default all).
    oversample : int
        Directions more than ``k``.
    power : int
        Products with ``A A^H`` beyond the first with A; each divides the loss through slow decay.
    tol : float, optional
        Stop at the first block of 16 columns for which :math:`\|A - QQ^H A\|_F \le` ``tol`` :math:`\|A\|_F`; at least
        eps. The rest of A is kept and measured, not taken from a difference of squares. One matrix with values only.
    seed : int
        Of the normal numbers.
    backend : str, optional
        Run on this backend; "array-api" forces the reference.

    Returns
    -------
    array (..., n, k + oversample), at most min(n, d) columns
        With ``tol`` as many columns as it took.

    Notes
    -----
    flops: 2 (1 + 2 power) n d (k + oversample).  memory: (n + d) (k + oversample), and a copy of a with
    ``tol``. Derivatives are of the steps that ran, where all products have full rank.

    References
    ----------
    N. Halko, P. G. Martinsson, J. A. Tropp, "Finding structure with randomness", SIAM Review 53 (2011).

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> a = np.outer(np.arange(1.0, 6), np.ones(4))
    >>> q = orthokern.randomized_range_finder(a, k=1, oversample=0)
    >>> bool(np.allclose(q @ (q.T @ a), a))
    True
    """
    name = "randomized_range_finder"
    check.matrix(a, kernel=name, name="a")
    options = _checked(a, k, oversample, power, tol, seed, name)
    work, undo = balanced(a)
    return returned(nan_unless(namespace(a).isfinite(undo), _range(work, *options)), a)  # type: ignore[no-any-return]


@kernel()
def randomized_svd(
    a: ArrayT,
    /,
    *,
    k: int | None = None,
    oversample: int = 10,
    power: int = 2,
    tol: float | None = None,
    seed: int = 0,
    backend: str | None = None,
) -> SVDResult[ArrayT]:
    r"""The k largest singular values and their vectors, from products with a few random directions.

    Of each left vector the entry of largest modulus is positive.

    Parameters
    ----------
    a : array (..., n, d)
        Real or complex floating; float32 and below are computed in float64 where the library has it.
    k : int, optional
        Singular values wanted; with ``tol`` the most there may be (default all).
    oversample, power, tol, seed
        As for :func:`randomized_range_finder`; with ``tol`` the error of the result is at most that of the range.
    backend : str, optional
        Run on this backend; "array-api" forces the reference.

    Returns
    -------
    SVDResult
        ``u`` (..., n, k), ``s`` (..., k), ``vh`` (..., k, d).

    Notes
    -----
    flops: 4 (1 + power) n d (k + oversample).  memory: (n + d) (k + oversample).  Singular values are never too large
    (up to rounding). Derivatives are of the steps that ran, where all products have full rank and the values differ.

    References
    ----------
    N. Halko, P. G. Martinsson, J. A. Tropp, "Finding structure with randomness", SIAM Review 53 (2011).

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> u, s, vh = orthokern.randomized_svd(np.diag([3.0, 2.0, 1.0]), k=2)
    >>> np.round(s, 12).tolist()
    [3.0, 2.0]
    """
    name = "randomized_svd"
    check.matrix(a, kernel=name, name="a")
    most, width, power, tol, seed = _checked(a, k, oversample, power, tol, seed, name)
    wide = a.shape[-2] < a.shape[-1]
    work, undo = balanced(a)
    u, s, vh = _svd(adjoint(work) if wide else work, (most, width, power, tol, seed))
    if tol is None:
        u, s, vh = u[..., :, :most], s[..., :most], vh[..., :most, :]
    if wide:
        u, vh = adjoint(vh), adjoint(u)
    u, vh = _signed(u, vh)
    known = namespace(a).isfinite(undo)
    factors = nan_unless(known, u), s * undo[..., 0], nan_unless(known, vh)
    xp = namespace(a)
    s = xp.astype(factors[1], (xp.real(a) if is_complex(a) else a).dtype, copy=False)
    return SVDResult(returned(factors[0], a), s, returned(factors[2], a))


Options = tuple[int, int, int, float | None, int]


def _checked(
    a: Any, k: Any, oversample: Any, power: Any, tol: Any, seed: Any, kernel: str
) -> Options:
    size = min(a.shape[-2:])
    if is_lazy(a):
        message = f"{kernel}: expected an array with values, got a Dask array; call a.compute() or map it over blocks"
        raise UnsupportedError(message)
    if k is None and tol is None:
        message = f"{kernel}: expected k, the number of directions, or tol; got neither"
        raise OptionError(message)
    most = size if k is None else check.count(k, kernel=kernel, name="k", least=0, most=size)
    more = check.count(oversample, kernel=kernel, name="oversample", least=0)
    power = check.count(power, kernel=kernel, name="power", least=0)
    seed = check.count(seed, kernel=kernel, name="seed", least=0, most=MOST_SEED)
    if tol is not None:
        tol = check.interval(tol, kernel=kernel, name="tol", low=eps(a))
        if is_traced(a) or a.ndim > 2:
            message = f"{kernel}: expected one matrix with values for tol, which sets the shape; pass k instead"
            raise UnsupportedError(message)
    return most, oversampled(most, more, size), power, tol, seed


def _range(a: Any, most: int, width: int, power: int, tol: float | None, seed: int) -> Any:
    if tol is not None and 0 not in a.shape:
        return _grown(a, most, power, tol, seed)
    return _powered(a, gaussian(a.shape[-1], width, like=a, seed=seed), power, seed)


def _powered(a: Any, omega: Any, power: int, seed: int) -> Any:
    """Basis of the range of ``(A A^H)^power A Omega``, orthonormal after each product."""
    q, _ = thin_qr(product(a, omega), seed=seed)
    for _ in range(power):
        q, _ = thin_qr(adjoint_product(a, q), seed=seed)
        q, _ = thin_qr(product(a, q), seed=seed)
    return q


def _grown(a: Any, most: int, power: int, tol: float, seed: int) -> Any:
    """Blocks of a basis until the rest of A is small."""
    xp, rest = namespace(a), a
    whole = float(frobenius(a)[0, 0])
    q = a[:, :0]
    while q.shape[-1] < most and float(frobenius(rest)[0, 0]) > tol * whole:
        size = min(BLOCK, most - q.shape[-1])
        omega = gaussian(a.shape[-1], size, like=a, seed=seed, group=q.shape[-1])
        block = _powered(rest, omega, power, seed)
        # Twice, because the rest has rounding errors in the span of q.
        for _ in range(2):
            block, _ = thin_qr(block - q @ (adjoint(q) @ block), seed=seed)
        q, rest = xp.concat([q, block], axis=-1), rest - block @ (adjoint(block) @ rest)
    return q


def _svd(a: Any, options: Options) -> tuple[Any, Any, Any]:
    """Of a tall ``a``: the short side of ``Q^H A`` by a QR, so that the decomposition is of a small square."""
    q = _range(a, *options)
    right, r = thin_qr(adjoint_product(a, q), seed=options[-1])
    if 0 in r.shape:
        xp = namespace(a)
        real = xp.real(a) if is_complex(a) else a
        values = xp.zeros((*a.shape[:-2], q.shape[-1]), dtype=real.dtype, device=device(a))
        return q, values, adjoint(right)
    u, s, vh = thin_svd(adjoint(r))
    return q @ u, s, vh @ adjoint(right)


def _signed(u: Any, vh: Any) -> tuple[Any, Any]:
    if 0 in u.shape:
        return u, vh
    xp = namespace(u)
    place = xp.argmax(xp.abs(u), axis=-2, keepdims=True)
    lead = xp.take_along_axis(u, place, axis=-2)
    size = xp.abs(lead)
    phase = xp.where(size > 0, lead, xp.ones_like(lead)) / xp.where(
        size > 0, size, xp.ones_like(size)
    )
    back = xp.conj(phase) if is_complex(u) else phase
    return u * back, vh * xp.matrix_transpose(phase)


@kernel()
def leverage_scores(
    a: ArrayT, /, *, method: str = "exact", seed: int = 0, backend: str | None = None
) -> ArrayT:
    r"""Squared norms of the rows of an orthonormal basis of the range of A; they add up to its rank.

    Parameters
    ----------
    a : array (..., n, d)
        Real or complex floating; float32 and below are computed in float64 where the library has it.
    method : {"exact", "sketched"}
        "sketched" estimates the scores from a sketch of A and 8 log2(n) random combinations, to a factor of about two.
    seed : int
        Of the sketch.
    backend : str, optional
        Run on this backend; "array-api" forces the reference.

    Returns
    -------
    array (..., n)
        Real, not negative.

    Notes
    -----
    flops: 6 n d^2 exact, 2 n d (8 + min(d, 8 log2 n)) sketched.  memory: a copy of a.  Derivatives are those of the
    scores, or of their estimates, at full rank.

    References
    ----------
    P. Drineas et al., "Fast approximation of matrix coherence and statistical leverage", JMLR 13 (2012).

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> np.round(orthokern.leverage_scores(np.array([[1.0, 0], [0, 1], [0, 1]])), 12).tolist()
    [1.0, 0.5, 0.5]
    """
    check.matrix(a, kernel="leverage_scores", name="a")
    check.choice(method, METHODS, kernel="leverage_scores", name="method")
    seed = check.count(seed, kernel="leverage_scores", name="seed", least=0, most=MOST_SEED)
    if is_lazy(a):
        message = "leverage_scores: expected an array with values, got a Dask array; call a.compute() first"
        raise UnsupportedError(message)
    xp = namespace(a)
    if 0 in a.shape:
        real = xp.real(a) if is_complex(a) else a
        return xp.zeros(a.shape[:-1], dtype=real.dtype, device=device(a))  # type: ignore[no-any-return]
    work, undo = balanced(a)
    cutoff = max(a.shape[-2:]) * eps(a)
    scores = _exact(work, cutoff, seed) if method == "exact" else _sketched(work, cutoff, seed)
    scores = nan_unless(namespace(a).isfinite(undo[..., 0]), scores)
    return xp.astype(scores, (xp.real(a) if is_complex(a) else a).dtype, copy=False)  # type: ignore[no-any-return]


def _row_norms(x: Any) -> Any:
    return namespace(x).sum(namespace(x).abs(x) ** 2, axis=-1)


def _exact(a: Any, cutoff: float, seed: int) -> Any:
    q, r = thin_qr(a, seed=seed)
    u, s, _ = thin_svd(r)
    xp = namespace(a)
    kept = xp.astype((s > cutoff * s[..., :1]) & (s > 0), u.dtype)
    return _row_norms(q @ (u * kept[..., None, :]))


def _sketched(a: Any, cutoff: float, seed: int) -> Any:
    xp, (n, d) = namespace(a), a.shape[-2:]
    rows = 4 * d
    sketch = sjlt(rows, n, seed=seed) @ a if n > 2 * rows else a
    _, s, vh = thin_svd(sketch)
    kept = (s > cutoff * s[..., :1]) & (s > 0)
    inverse = xp.where(kept, 1 / xp.where(kept, s, xp.ones_like(s)), xp.zeros_like(s))
    white = adjoint(vh) * xp.astype(inverse, a.dtype)[..., None, :]
    columns = groups_of(n)
    if columns < white.shape[-1]:
        white = white @ (gaussian(white.shape[-1], columns, like=a, seed=seed) * columns**-0.5)
    return _row_norms(a @ white)
