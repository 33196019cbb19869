"""QR factorization of tall matrices, by Cholesky on processors: a sketch makes the Gram matrix well conditioned."""

from __future__ import annotations

import functools
import math
from typing import Any, Generic, NamedTuple

from .._core import check
from .._core.dispatch import kernel, op
from .._core.dtypes import compute_precision, dtype_name, eps, exponent_limit, is_complex
from .._core.errors import UnsupportedError
from .._core.linalg import adjoint, decomposable, nan_unless
from .._core.loop import repeat
from .._core.namespace import device, is_lazy, namespace
from .._core.scaling import balance
from .._core.typing import ArrayT
from .normal_equations import widened
from .operators import sjlt

MOST_SEED = 2**64 - 1
# Part of the range of exponents in which squares are held.
RANGE = 0.45


class CholQRInfo(NamedTuple, Generic[ArrayT]):
    """``rank`` (...): diagonal entries of R above max(n, d) eps of the largest; 0 for members with NaN or infinity."""

    rank: ArrayT


class CholQRResult(NamedTuple, Generic[ArrayT]):
    """``a = q @ r``, or ``a[:, pivots] = q @ r``; ``pivots`` is None without pivoting."""

    q: ArrayT
    r: ArrayT
    pivots: ArrayT | None
    info: CholQRInfo[ArrayT]


@kernel()
def rand_cholqr(
    a: ArrayT, /, *, pivot: bool = False, seed: int = 0, backend: str | None = None
) -> CholQRResult[ArrayT]:
    r"""Thin QR factorization ``A = Q R`` with a diagonal of R that is not negative.

    On processors with Numba: R0 of a sketch of A, the Cholesky factor of the Gram matrix of :math:`A R_0^{-1}`, which
    is well conditioned whatever A is, and once more where Q is not orthonormal yet; on GPUs with CuPy Cholesky with a
    shift, repeated likewise; Householder's method where that fails (rank deficiency) or would not pay. Other libraries
    run their own QR. The factors are unique at full rank: ``seed`` changes roundings alone.

    Parameters
    ----------
    a : array (..., n, d)
        Real or complex floating; float32 and below are computed in float64 where the library has it.
    pivot : bool
        Order the columns by the norms of what is left of a sketch of them, largest first.
    seed : int
        Of the sketch.
    backend : str, optional
        Run on this backend; "array-api" forces the reference.

    Returns
    -------
    CholQRResult
        ``q`` (..., n, min(n, d)), ``r`` (..., min(n, d), d), ``pivots`` (..., d) or None, ``info.rank``.

    Notes
    -----
    flops: 5 n d^2 on processors with Numba, 3 n d^2 for each of 2 to 4 passes on GPUs, 4 n d^2 by Householder.  memory:
    two copies of a.
    Derivatives are those of the factors, for n >= d and full rank; wide matrices refuse. Dependent columns have none:
    an error of the library's solver, or numbers that are not finite.

    References
    ----------
    Y. Fan, Y. Guo, T. Lin, "A novel randomized XR-based preconditioned CholeskyQR algorithm", arXiv:2111.11148;
    O. Balabanov, "Randomized Cholesky QR factorizations", arXiv:2210.09953; T. Fukaya, R. Kannan, Y. Nakatsukasa,
    Y. Yamamoto, Y. Yanagisawa, "Shifted Cholesky QR for computing the QR factorization of ill-conditioned matrices",
    arXiv:1809.11085.

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> q, r, *_ = orthokern.rand_cholqr(np.array([[3.0, 1.0], [4.0, 2.0]]))
    >>> np.round(r, 12).tolist()
    [[5.0, 2.2], [0.0, 0.4]]
    """
    check.matrix(a, kernel="rand_cholqr", name="a")
    check.flag(pivot, kernel="rand_cholqr", name="pivot")
    seed = check.count(seed, kernel="rand_cholqr", name="seed", least=0, most=MOST_SEED)
    work, pivots = widened(compute_precision(a)), None
    if pivot and 0 not in a.shape:
        pivots = _pivots(balanced(a)[0], seed)
        work = namespace(a).take_along_axis(work, pivots[..., None, :], axis=-1)
    q, r = _factors(work, seed)
    info = CholQRInfo(_rank(r, max(a.shape[-2:]) * eps(a)))
    return CholQRResult(returned(q, a), returned(r, a), pivots, info)


def _factors(work: Any, seed: int) -> tuple[Any, Any]:
    """Of ``work`` as it is, where a backend takes it and no square has left the range; else of a scaled copy."""
    if thin_qr.is_served(work) and 0 not in work.shape:
        q, r = thin_qr(work, seed=seed)
        if _in_range(r):
            return q, r
    work, undo = balanced(work)
    q, r = thin_qr(work, seed=seed)
    return nan_unless(namespace(work).isfinite(undo), q), r * undo


def _in_range(r: Any) -> bool:
    """Whether the norms of the columns, which are those of what was factorized, have squares that are held."""
    xp = namespace(r)
    top = xp.max(xp.abs(r), axis=-2)
    high = 2.0 ** (RANGE * exponent_limit(top))
    return bool(xp.all((top < high) & (top > 1 / high)))


def returned(x: Any, like: Any) -> Any:
    """``x`` in the precision of ``like``; real parts stay real."""
    xp = namespace(x)
    if is_complex(like) and not is_complex(x):
        return xp.astype(
            x, xp.float32 if dtype_name(like) == "complex64" else xp.float64, copy=False
        )
    return xp.astype(x, like.dtype, copy=False)


def balanced(a: Any) -> tuple[Any, Any]:
    """``a`` in double precision, scaled by a power of two, and the power that undoes it (NaN for lost members)."""
    xp, work = namespace(a), widened(compute_precision(a))
    if 0 in a.shape:
        real = xp.real(work) if is_complex(work) else work
        return work, xp.ones((*a.shape[:-2], 1, 1), dtype=real.dtype, device=device(a))
    return balance(work)  # type: ignore[no-any-return]


def _rank(r: Any, tolerance: float) -> Any:
    xp = namespace(r)
    if 0 in r.shape[-2:]:
        return xp.zeros(r.shape[:-2], dtype=xp.int32, device=device(r))
    pivots = xp.abs(xp.linalg.diagonal(r))
    kept = (pivots > tolerance * xp.max(pivots, axis=-1, keepdims=True)) & (pivots > 0)
    return xp.sum(xp.astype(kept, xp.int32), axis=-1)


def _pivots(a: Any, seed: int) -> Any:
    """Order of the columns: each time the one of which most is left when those before it are projected out."""
    xp, d = namespace(a), a.shape[-1]
    if is_lazy(a):
        message = "rand_cholqr: expected an array with values for pivot=True, got a Dask array; call a.compute() first"
        raise UnsupportedError(message)
    rows = 2 * d + 8
    rest = sjlt(rows, a.shape[-2], seed=seed) @ a if a.shape[-2] > 2 * rows else a
    columns = xp.arange(d, device=device(a))
    order = xp.zeros((*a.shape[:-2], d), dtype=columns.dtype, device=device(a))
    step = functools.partial(_pivot_step, xp, columns)
    real = xp.real(rest) if is_complex(rest) else rest
    left = xp.ones((*a.shape[:-2], d), dtype=real.dtype, device=device(a))
    count = xp.zeros((), dtype=columns.dtype, device=device(a))
    return repeat(step, (rest, left, order, count), count=d)[2]


def _pivot_step(xp: Any, columns: Any, state: Any) -> Any:
    rest, left, order, count = state
    # Columns that are chosen come last, also where nothing but zeros is left.
    norms = xp.sum(xp.abs(rest) ** 2, axis=-2) * left + left - 1
    best = xp.argmax(norms, axis=-1, keepdims=True)
    column = xp.take_along_axis(rest, best[..., None, :], axis=-1)
    size = xp.linalg.vector_norm(column, axis=-2, keepdims=True)
    unit = column / xp.where(size > 0, size, xp.ones_like(size))
    chosen = columns == best
    order = xp.where(columns == count, best, order)
    left = xp.where(chosen, xp.zeros_like(left), left)
    return rest - unit @ (adjoint(unit) @ rest), left, order, count + 1


def _qr_tangent(arrays: Any, tangents: Any, out: Any, *, seed: int) -> Any:
    (da,), (q, r) = tangents, out
    if q.shape[-1] != r.shape[-1]:
        message = (
            f"thin_qr: expected n >= d for a derivative, got shape {tuple(da.shape)}; "
            "factorize the adjoint, or its first n columns"
        )
        raise UnsupportedError(message)
    xp = namespace(da)
    moved = adjoint(xp.linalg.solve(adjoint(r), adjoint(da)))
    m = adjoint(q) @ moved
    lower = xp.tril(m, k=-1)
    turn = lower - adjoint(lower)
    if is_complex(m):
        turn = turn + (xp.tril(xp.triu(m)) - adjoint(xp.tril(xp.triu(m)))) / 2
    return moved + q @ (turn - m), xp.triu((m - turn) @ r)


@op(jvp=_qr_tangent)
def thin_qr(a: Any, /, *, seed: int) -> tuple[Any, Any]:
    """``(q, r)`` of each matrix (..., n, d) with a diagonal of r that is real and not negative.

    A backend may use a sketch with ``seed``. By Householder's method.
    """
    xp = namespace(a)
    if 0 in a.shape:
        n, d = a.shape[-2:]
        k = min(n, d)
        like = {"dtype": a.dtype, "device": device(a)}
        return xp.zeros((*a.shape[:-2], n, k), **like), xp.zeros((*a.shape[:-2], k, d), **like)
    if is_lazy(a) and a.shape[-2] < a.shape[-1]:
        message = f"thin_qr: expected n >= d for a Dask array, got shape {tuple(a.shape)}; call a.compute() first"
        raise UnsupportedError(message)
    q, r = xp.linalg.qr(decomposable(a), mode="reduced")
    diagonal = (
        xp.linalg.diagonal(r) if not is_lazy(r) else r.map_blocks(_block_diagonal, drop_axis=0)
    )
    size = xp.abs(diagonal)
    # Divided, and not compared, because of complex numbers.
    one = xp.ones_like(diagonal)
    phase = xp.where(size > 0, diagonal, one) / xp.where(size > 0, size, xp.ones_like(size))
    return q * phase[..., None, :], xp.conj(phase)[..., :, None] * r if is_complex(a) else phase[
        ..., :, None
    ] * r


def _block_diagonal(block: Any) -> Any:
    return block.diagonal()


def gaussian(n: int, k: int, *, like: Any, seed: int, group: int = 0) -> Any:
    """A matrix (n, k) of standard normal numbers in the dtype of ``like``."""
    from .._core.random import normal

    xp = namespace(like)
    flat = normal(n * k, like=like, seed=seed, group=group)
    return xp.astype(xp.reshape(flat, (n, k)), like.dtype, copy=False)


def oversampled(k: int, oversample: int, size: int) -> int:
    """Columns of a sketch for ``k`` directions out of ``size``."""
    return min(k + oversample, size)


def groups_of(n: int) -> int:
    """Columns that show norms of n rows to a factor of two."""
    return 8 * math.ceil(math.log2(max(n, 2)))
