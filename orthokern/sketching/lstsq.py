"""Least squares as accurate as LAPACK and faster: the public kernel."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._core import check
from .._core.autodiff import constant, is_plain
from .._core.dispatch import kernel
from .._core.dtypes import compute_precision, dtype_name, eps, is_low_precision, real_dtype
from .._core.errors import DTypeError, OptionError, ShapeError, UnsupportedError
from .._core.linalg import nan_unless
from .._core.namespace import device, is_lazy, namespace, same_library
from .._core.typing import ArrayT
from .blockwise import request_of, solved_source
from .least_squares import least_squares, refuse_derivatives
from .packing import figures_of_nothing, packed
from .results import LstsqResult
from .sources import Lazy, Sparse
from .spir import Operator, spir_of_operator

METHODS = ("auto", "gram", "pgram", "spir", "qr", "svd", "sketch")
# Methods for matrices with no more columns than rows.
TALL_ONLY = frozenset({"pgram", "spir", "sketch"})


@kernel()
def lstsq(
    a: ArrayT,
    b: ArrayT,
    /,
    *,
    method: str = "auto",
    rcond: float | None = None,
    tol: float | None = None,
    damp: float = 0.0,
    weights: ArrayT | None = None,
    sketch_size: int | None = None,
    seed: int = 0,
    max_refine: int = 8,
    equilibrate: bool = True,
    check_finite: bool = False,
    backend: str | None = None,
) -> LstsqResult[ArrayT]:
    r"""Least-squares solution of minimal norm: :math:`\min_x \|b - A x\|^2 + \text{damp}^2 \|x\|^2`.

    A Gram matrix and refinement against A itself, where the condition number allows it; else the same of A whitened by
    a sketch; else Householder QR. What comes out is as backward stable as with LAPACK, whichever way led there, and
    its backward error is measured: ``info.backward_error``.

    Parameters
    ----------
    a : array (..., n, d)
        Real or complex floating. float32 is summed in float64 where the library has it; float16 and bfloat16 are
        computed in float32.
    b : array (..., n) or (..., n, k)
        Right-hand sides: one vector for each matrix if it has one dimension less than ``a``.
    method : {"auto", "gram", "pgram", "qr", "svd", "sketch"}
        "auto" tries "gram" (from n = 2 d on), "pgram" (from n = 8 d on) and "qr" in this order, and keeps the first
        solution whose backward error is small enough. "sketch" solves a sketch and refines nothing.
    rcond : float, optional
        Singular values of A (with columns of norm 1) up to ``rcond`` times the largest count as zero. Default
        max(n, d) eps; a sketch takes nothing below 30 eps.
    tol : float, optional
        Backward error to reach. None means full accuracy.
    damp : float
        Weight of ``||x||``: as if ``damp I`` stood below A, and zeros below b.
    weights : array (..., n), optional
        Not negative: factors of the squared residuals of the rows.
    sketch_size : int, optional
        Rows of the sketch; default 2 d + min(2 d, 128).
    seed : int
        Of the sketch.
    max_refine : int
        Refinements of one solver, at most.
    equilibrate : bool
        Decide on ranks for columns of norm 1, so that the units of the columns do not matter; False decides as NumPy
        does.
    check_finite : bool
        True refuses NaN and infinity (eager only); else they stay with the matrices and right-hand sides they belong
        to.
    backend : str, optional
        Run on this backend; "array-api" forces the reference.

    Returns
    -------
    LstsqResult
        ``x`` (..., d) or (..., d, k), ``residuals`` (squared norms; with ``damp`` those of the longer problem, with
        ``weights`` weighted), ``rank``, ``singular_values`` (of A, for ``method="svd"``, else None), and ``info``
        (:class:`LstsqInfo`).

    Notes
    -----
    Flops: n d^2 and 4 n d for each refinement (2 n d^2 more where A had to be whitened); memory d^2, besides one
    block of rows with Numba. The solution of minimal norm is that of LAPACK: in the coordinates of ``x``.
    Under ``jit``, ``vmap`` and ``torch.compile`` a fixed number of refinements runs (2 for "gram", 3 for "pgram") and
    "auto" means "pgram" or, below n = 8 d, "qr"; "gram" is right there up to condition numbers of 1e7.
    Derivatives, of first and second order, are those of the solution, not of the steps. A matrix without full rank
    has none, unless ``damp`` is positive.

    References
    ----------
    E. N. Epperly, M. Meier, Y. Nakatsukasa, "Fast randomized least-squares solvers can be just as accurate and stable
    as classical direct solvers", arXiv:2406.03468. H. Avron, P. Maymounkov, S. Toledo, "Blendenpik", SISC 32 (2010).

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> a = np.array([[1.0, 1.0], [1.0, 2.0], [1.0, 3.0], [1.0, 4.0]])
    >>> x, residuals, rank, *_ = orthokern.lstsq(a, np.array([6.0, 5.0, 7.0, 10.0]))
    >>> np.round(x, 12).tolist(), round(float(residuals), 12), int(rank)
    ([3.5, 1.4], 4.2, 2)
    """
    given: Any = a
    options = {
        "method": check.choice(method, METHODS, kernel="lstsq", name="method"),
        "rcond": _at_least_zero(rcond, "rcond"),
        "tol": _at_least_zero(tol, "tol"),
        "damp": check.at_least(damp, 0.0, kernel="lstsq", name="damp"),
        "max_refine": check.count(max_refine, kernel="lstsq", name="max_refine"),
        "equilibrate": check.flag(equilibrate, kernel="lstsq", name="equilibrate"),
        "sketch_rows": _rows(sketch_size, given),
        "seed": check.count(seed, kernel="lstsq", name="seed", least=0, most=2**64 - 1),
    }
    if hasattr(given, "rmatvec"):
        return _of_operator(given, b, options, weights)
    if hasattr(given, "tocsr"):
        return _of_sparse(given, b, options, weights)
    check.matrix(given, kernel="lstsq", name="a")
    columns = right_hand_sides(given, b)
    if check.flag(check_finite, kernel="lstsq", name="check_finite"):
        check.finite_values(given, kernel="lstsq", name="a")
        check.finite_values(b, kernel="lstsq", name="b")
    _refuse_wide(given, method, damp)
    left, right = _broadcast(given, columns)
    if is_low_precision(given):
        left, right = compute_precision(left), compute_precision(right)
    if weights is not None:
        left, right = _weighted(left, right, weights)
    vector = b.ndim == given.ndim - 1
    if is_lazy(left):
        return _of_lazy(left, right, given, options, vector)
    x, stats = _of_arrays(left, right, options)
    if x.dtype != given.dtype:
        x = namespace(x).astype(x, given.dtype)
    values = None
    if method == "svd":
        values = _singular_values(left)
    return packed(x, stats, left, kernel="lstsq", vector=vector, values=values)


def _of_arrays(a: Any, b: Any, options: dict[str, Any]) -> tuple[Any, Any]:
    """``(x, stats)``, also where there is nothing to solve."""
    xp = namespace(a)
    k = b.shape[-1]
    if 0 in a.shape:
        x = xp.zeros((*a.shape[:-2], a.shape[-1], k), dtype=a.dtype, device=device(a))
        return x, figures_of_nothing(b)
    if k == 0:
        b = xp.zeros((*b.shape[:-1], 1), dtype=b.dtype, device=device(b))
    x, _, stats = least_squares(a, b, **options)
    if not is_plain(x):
        # Some engines would ask for the derivative when it is too late to say so.
        refuse_derivatives(constant(stats), a, options["damp"])
    return x[..., :k], constant(stats)


def _singular_values(a: Any) -> Any:
    xp = namespace(a)
    if 0 in a.shape:
        shape = (*a.shape[:-2], min(a.shape[-2:]))
        return xp.zeros(shape, dtype=real_dtype(a), device=device(a))
    finite = xp.all(xp.isfinite(a), axis=(-2, -1), keepdims=True)
    found = xp.linalg.svdvals(xp.where(finite, a, xp.zeros_like(a)))
    return nan_unless(finite[..., 0], found)


def _of_lazy(a: Any, b: Any, given: Any, options: dict[str, Any], vector: bool) -> LstsqResult[Any]:
    """Sums where the blocks of rows are; the solution is a lazy array of one block."""
    if a.ndim > 2 or 0 in a.shape or 0 in b.shape:
        message = (
            f"lstsq: expected a single matrix with entries of a lazy array, got shape {tuple(given.shape)}; map the "
            "kernel over the blocks"
        )
        raise UnsupportedError(message)
    source = Lazy(a, b)
    x, stats = solved_source(source, tolerance=eps(a), **options)
    xp, values = namespace(a), None
    if options["method"] == "svd":
        values = xp.astype(xp.asarray(_singular_values(source.dense()[0])), real_dtype(a))
    x, stats = xp.astype(xp.asarray(x), given.dtype), xp.asarray(stats)
    return packed(x, stats, a, kernel="lstsq", vector=vector, values=values)


def _of_operator(a: Any, b: Any, options: dict[str, Any], weights: Any) -> LstsqResult[Any]:
    """A linear operator: conjugate gradients, preconditioned by a sketch that takes d products."""
    n, d = a.shape
    if options["method"] not in ("auto", "spir") or weights is not None or not n >= d >= 1:
        message = (
            f"lstsq: expected a linear operator of shape (n, d), n >= d >= 1, method 'auto' or 'spir' and no weights, "
            f"got shape {(n, d)} and method {options['method']!r}; pass a matrix for anything else"
        )
        raise UnsupportedError(message)
    columns = _of_matrix_alone(a, b)
    g = np.ones(d)
    tol = max(eps(columns), float(np.finfo(b.dtype).eps) * 1e-3)
    request = request_of(options, tol if options["tol"] is None else options["tol"], None, g)
    found = spir_of_operator(Operator(a, columns), request)
    return packed(found.x.astype(b.dtype), found.stats, b, kernel="lstsq", vector=b.ndim == 1)


def _of_matrix_alone(a: Any, b: Any) -> Any:
    """``b`` as columns in double precision, for an ``a`` that is no array."""
    check.array(b, kernel="lstsq", name="b")
    shape = tuple(a.shape)
    if a.dtype.kind not in "fc" or b.dtype != a.dtype or b.shape[:1] != shape[:1] or b.ndim > 2:
        message = (
            f"lstsq: expected b of shape ({shape[0]},) or ({shape[0]}, k) and of the floating dtype of a, "
            f"got {b.dtype} {tuple(b.shape)} and {a.dtype} {shape}"
        )
        raise ShapeError(message)
    return np.asarray(b if b.ndim == 2 else b[:, None], dtype=np.result_type(a.dtype, np.float64))


def _of_sparse(a: Any, b: Any, options: dict[str, Any], weights: Any) -> LstsqResult[Any]:
    """A sparse matrix of SciPy: the solvers that need sums alone, and a dense copy where rows are few."""
    if weights is not None:
        message = (
            "lstsq: expected no weights beside a sparse matrix; multiply the rows by their roots"
        )
        raise UnsupportedError(message)
    columns, shape = _of_matrix_alone(a, b), tuple(a.shape)
    wide = columns.dtype
    tolerance = float(np.finfo(a.dtype).eps)
    if 0 in shape or columns.shape[1] == 0:
        x, stats = _of_arrays(a.astype(wide).toarray(), columns, options)
    else:
        x, stats = solved_source(Sparse(a.astype(wide), columns), tolerance=tolerance, **options)
    return packed(x.astype(b.dtype), stats, b, kernel="lstsq", vector=b.ndim == 1)


def _at_least_zero(value: float | None, name: str) -> float | None:
    return None if value is None else check.at_least(value, 0.0, kernel="lstsq", name=name)


def _rows(size: int | None, a: Any) -> int | None:
    if size is None:
        return None
    return check.count(size, kernel="lstsq", name="sketch_size", least=max(8, a.shape[-1]))


def _refuse_wide(a: Any, method: str, damp: float) -> None:
    n, d = a.shape[-2:]
    if method in TALL_ONLY and n < d and not damp:
        message = (
            f"lstsq: expected at least as many rows as columns for method={method!r}, got shape {tuple(a.shape)}; "
            "pass method='auto'"
        )
        raise OptionError(message)


def right_hand_sides(a: Any, b: Any) -> Any:
    """``b`` as (..., n, k), of the library and dtype of ``a``."""
    check.array(b, kernel="lstsq", name="b")
    same_library(a, b)
    if a.dtype != b.dtype:
        check.floating(b, kernel="lstsq", name="b")
        message = (
            f"lstsq: expected b in the dtype of a, got {dtype_name(a)} and {dtype_name(b)}; cast one to the dtype of "
            "the other"
        )
        raise DTypeError(message)
    columns = b[..., None] if b.ndim == a.ndim - 1 else b
    if columns.ndim < 2 or columns.shape[-2] != a.shape[-2]:
        message = (
            f"lstsq: expected b of shape (..., {a.shape[-2]}) or (..., {a.shape[-2]}, k) for a of shape "
            f"{tuple(a.shape)}, got {tuple(b.shape)}"
        )
        raise ShapeError(message)
    return columns


def _broadcast(a: Any, b: Any) -> tuple[Any, Any]:
    """Both with the same batch dimensions."""
    if tuple(a.shape[:-2]) == tuple(b.shape[:-2]):
        return a, b
    xp = namespace(a)
    batch = check.common_shape((a.shape[:-2], b.shape[:-2]), kernel="lstsq", names="a and b")
    return (
        xp.broadcast_to(a, (*batch, *a.shape[-2:])),
        xp.broadcast_to(b, (*batch, *b.shape[-2:])),
    )


def _weighted(a: Any, b: Any, weights: Any) -> tuple[Any, Any]:
    """Rows times the roots of their weights; the derivative with respect to a weight of zero counts as zero."""
    check.real(weights, kernel="lstsq", name="weights")
    xp = same_library(a, weights)
    batch, given = tuple(a.shape[:-2]), tuple(weights.shape)
    tail = (*batch, a.shape[-2])[len(batch) + 1 - len(given) :]
    if (
        not given
        or len(given) > len(batch) + 1
        or given[-1] != a.shape[-2]
        or any(size not in (1, whole) for size, whole in zip(given, tail, strict=True))
    ):
        message = f"lstsq: expected weights of shape (..., {a.shape[-2]}) for a of shape {tuple(a.shape)}, got {given}"
        raise ShapeError(message)
    check.all_at_least(weights, 0.0, kernel="lstsq", name="weights")
    positive = weights > 0
    root = xp.sqrt(xp.where(positive, weights, xp.ones_like(weights)))
    root = xp.astype(xp.where(positive, root, xp.zeros_like(root)), real_dtype(a), copy=False)
    return a * root[..., :, None], b * root[..., :, None]
