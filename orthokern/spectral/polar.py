"""Polar factorization ``A = U H`` and the orthogonalizers built on it.

Public kernels on top; the choice of a schedule below. The ops are in factor.py, the schedules' planner in
plan.py.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Generic, NamedTuple

from .._core import check
from .._core.autodiff import constant
from .._core.dispatch import kernel
from .._core.dtypes import compute_precision, dtype_name, eps, real_dtype
from .._core.linalg import adjoint, departure, identity_like
from .._core.namespace import device, device_kind, is_traced, namespace
from .._core.results import mask_members, warn_unconverged
from .._core.scaling import balance
from .._core.typing import ArrayT
from .coefficients import polynomials
from .factor import (
    NORMALIZATIONS,
    hermitian_factor,
    polar_factors,
    scheduled_factor,
    unitary_factor,
)
from .plan import STATS_WIDTH, Stat
from .request import Coefficients, Request, requested, schedule_for

SIDES = ("right", "left")
# Where "auto" factorizes by measuring; accelerators run a static plan of products unless a backend measures there, and
# look at what comes out.
MEASURED = ("cpu", "traced")

# What the kernels below run.
OPS = ("balance", "unitary_factor", "scheduled_factor", "hermitian_factor")


class Method(IntEnum):
    """Codes of ``info.method``."""

    AUTO = 0
    SVD = 1
    NEWTON = 2
    DWH = 3
    NEWTON_SCHULZ = 4
    POLAR_EXPRESS = 5
    GRAM = 6


class PolarInfo(NamedTuple, Generic[ArrayT]):
    """What ran: arrays in the batch shape, so that it passes through jit.

    iterations, extra_steps
        Steps taken in all, and those that the closing check appended.
    residual
        Bound, or estimate with a margin, of ``||U^H U - I||_2`` (of the shorter side); where a schedule leaves a
        partial factor, what the square of its largest singular value exceeds 1 by.
    converged
        Whether the residual meets the accuracy asked for; False for members with NaN or infinity.
    lower_bound
        Estimate of sigma_min / sigma_max that the plan was made for; 0 where none was needed.
    schedule
        Codes (``StepKind``) of the steps in the order they ran, 0 after the last; shape (..., 16).
    method
        Code (``Method``), 0-d.
    """

    iterations: ArrayT
    residual: ArrayT
    converged: ArrayT
    extra_steps: ArrayT
    lower_bound: ArrayT
    schedule: ArrayT
    method: ArrayT


class PolarResult(NamedTuple, Generic[ArrayT]):
    """``x = u @ h`` (side "right") or ``x = h @ u`` (side "left"); unpack as ``u, h, *_ = polar(x)``."""

    u: ArrayT
    h: ArrayT
    info: PolarInfo[ArrayT]


@kernel(ops=OPS)
def polar(
    x: ArrayT,
    /,
    *,
    side: str = "right",
    compute_h: bool = True,
    method: str = "auto",
    tol: float | None = None,
    lower_bound: float | None = None,
    steps: int | None = None,
    coefficients: Coefficients | None = None,
    completion: str = "unitary",
    rcond: float | None = None,
    check_finite: bool = False,
    backend: str | None = None,
) -> PolarResult[ArrayT]:
    r"""Polar factorization ``A = U H`` of a matrix or a stack of matrices.

    With the thin singular value decomposition :math:`A = P S Q^H`, the unitary factor is :math:`U = P Q^H` and
    the Hermitian factor :math:`H = Q S Q^H` (``side="right"``, ``x = u @ h``) or :math:`H = P S P^H`
    (``side="left"``, ``x = h @ u``). ``U`` is the matrix with orthonormal columns (rows, if m < n) nearest to A.

    Parameters
    ----------
    x : array (..., m, n)
        Real or complex floating. float16 and bfloat16 are computed in float32 and returned as they came.
    side : {"right", "left"}
        On which side of ``u`` the Hermitian factor stands.
    compute_h : bool
        False leaves ``h`` an empty array.
    method : {"auto", "svd", "newton", "dwh", "newton_schulz", "polar_express", "gram"}
        "auto" measures the spectrum and runs the cheapest plan, or the SVD where that is cheaper; see the
        table in the documentation for the others.
    tol : float, optional
        Half-width of the interval around 1 that may hold the singular values of ``u``. None means full
        accuracy; 1e-2 and 0.1 are what optimizers use.
    lower_bound : float, optional
        A known lower bound of sigma_min / sigma_max; it makes the plan shorter, and static under tracing.
    steps, coefficients
        Number of polynomial steps, and their coefficients: a preset ("jordan", "you", "classic", "aol4") or a
        sequence of (a, b, c). Exactly these steps run.
    completion : {"unitary", "partial"}
        What a rank-deficient ``x`` gives: orthonormal columns always, or the canonical factor, which is zero
        on the null space (a zero matrix gives zero).
    rcond : float, optional
        Singular values up to ``rcond`` times the largest count as zero. Default max(m, n) eps.
    check_finite : bool
        True refuses NaN and infinity (eager only); else they stay with the matrices they belong to.
    backend : str, optional
        Run on this backend; "array-api" forces the reference.

    Returns
    -------
    PolarResult
        ``u`` (..., m, n), ``h`` (..., n, n) or (..., m, m), and ``info`` (:class:`PolarInfo`).

    Notes
    -----
    Accuracy (float64 and float32, condition number up to 1/(10 n eps)): :math:`\|U^H U - I\|_F \le 10\sqrt n`
    eps and :math:`\|A - U H\|_F \le \max(60, 20 \sqrt n)` eps :math:`\|A\|_F`; ``h`` is Hermitian bit for bit.
    Flops: about 20 n^3 for square input to full accuracy, 5 m n^2 for tall; memory: four matrices.
    Derivatives: closed form, of first and second order, finite at repeated singular values; with
    ``tol >= 1e-6`` or explicit steps they are those of the steps that ran.

    References
    ----------
    N. J. Higham, *Functions of Matrices* (SIAM 2008), ch. 8. Y. Nakatsukasa, Z. Bai, F. Gygi, "Optimizing
    Halley's iteration for computing the matrix polar decomposition", SIMAX 31 (2010). N. Amsel et al., "The
    Polar Express", arXiv:2505.16932.

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> a = np.array([[1.0, 2.0], [3.0, 4.0]])
    >>> u, h, *_ = orthokern.polar(a)
    >>> np.round(u, 6)
    array([[-0.514496,  0.857493],
           [ 0.857493,  0.514496]])
    >>> bool(np.allclose(u @ h, a))
    True
    """
    check.matrix(x, kernel="polar")
    check.choice(side, SIDES, kernel="polar", name="side")
    check.flag(compute_h, kernel="polar", name="compute_h")
    check.flag(check_finite, kernel="polar", name="check_finite")
    request = requested(
        "polar",
        method=method,
        tol=tol,
        lower_bound=lower_bound,
        steps=steps,
        coefficients=coefficients,
        completion=completion,
        rcond=rcond,
    )
    if check_finite:
        check.finite_values(x, kernel="polar")
    u, h, stats, finite = _factorize(x, request, side if compute_h else None)
    return PolarResult(u, h, _info(request, u, stats, finite))


@kernel(ops=OPS)
def orthogonalize(
    x: ArrayT,
    /,
    *,
    method: str = "auto",
    tol: float | None = None,
    lower_bound: float | None = None,
    steps: int | None = None,
    coefficients: Coefficients | None = None,
    completion: str = "partial",
    rcond: float | None = None,
    check_finite: bool = False,
    backend: str | None = None,
) -> ArrayT:
    r"""Unitary polar factor alone: the matrix with orthonormal columns nearest to ``x``.

    What optimizers want: ``completion="partial"`` by default, so that a zero gradient gives exactly zero.
    Parameters are those of :func:`polar`. Flops: 5 to 10 n^3 at ``tol=0.1``, 20 n^3 at full accuracy.

    Parameters
    ----------
    x : array (..., m, n)
        Real or complex floating, low precision included.

    Returns
    -------
    array (..., m, n)
        In the dtype of ``x``.

    References
    ----------
    N. Amsel et al., "The Polar Express", arXiv:2505.16932.

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> orthokern.orthogonalize(np.diag([3.0, -0.5, 0.0])).tolist()
    [[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    check.matrix(x, kernel="orthogonalize")
    check.flag(check_finite, kernel="orthogonalize", name="check_finite")
    request = requested(
        "orthogonalize",
        method=method,
        tol=tol,
        lower_bound=lower_bound,
        steps=steps,
        coefficients=coefficients,
        completion=completion,
        rcond=rcond,
    )
    if check_finite:
        check.finite_values(x, kernel="orthogonalize")
    u: ArrayT
    u, _, stats, finite = _factorize(x, request, None)
    if not request.exact:
        _info(request, u, stats, finite)
    return u


@kernel(ops=OPS)
def newton_schulz(
    x: ArrayT,
    /,
    *,
    steps: int = 5,
    coefficients: Coefficients = "jordan",
    normalization: str = "frobenius",
    backend: str | None = None,
) -> ArrayT:
    r"""Fixed polynomial iteration ``X <- X (a I + b G + c G^2)``, ``G = X^H X``: Muon's orthogonalizer.

    Exactly ``steps`` steps run, on the shorter side. The preset "jordan" with 5 steps is what
    ``torch.optim.Muon`` computes: singular values end in about [0.7, 1.2] if they began above 0.005 of the
    Frobenius norm, and are not brought to 1; use :func:`orthogonalize` for a factor to a tolerance.

    Parameters
    ----------
    x : array (..., m, n)
        Real or complex floating; low precision is computed in float32.
    steps : int
        Number of steps. Beyond the length of ``coefficients`` the last entry repeats.
    coefficients
        A preset ("jordan", "you", "classic", "aol4") or a sequence of (a, b, c) or (a, b).
    normalization : {"frobenius", "schatten4", "spectral", "aol"}
        Norm that ``x`` is divided by first. "aol" scales the columns (of a tall matrix) one by one, so that the result
        approximates another matrix than the polar factor.
    backend : str, optional
        Run on this backend; "array-api" forces the reference.

    Returns
    -------
    array (..., m, n)
        In the dtype of ``x``; a zero matrix gives exactly zero. Flops: steps (4 m n^2 + 2 n^3), m >= n.

    References
    ----------
    K. Jordan et al., "Muon: an optimizer for hidden layers" (2024).

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> u = orthokern.newton_schulz(np.diag([4.0, 3.0]), steps=8, coefficients="classic")
    >>> np.round(u, 6).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    check.matrix(x, kernel="newton_schulz")
    check.choice(
        normalization,
        NORMALIZATIONS,
        kernel="newton_schulz",
        name="normalization",
    )
    count = check.count(steps, kernel="newton_schulz", name="steps")
    request = Request(
        "newton_schulz",
        "newton_schulz",
        steps=count,
        coefficients=polynomials(coefficients, kernel="newton_schulz"),
        normalization=normalization,
    )
    u: ArrayT = _factorize(x, request, None)[0]
    return u


def _factorize(x: Any, request: Request, side: str | None) -> tuple[Any, Any, Any, Any]:
    """``(u, h, stats, finite)``: the factors in the dtype of ``x``, ``h`` on ``side`` (None: an empty array)."""
    if 0 in x.shape:
        return _empty(x, side)
    xp = namespace(x)
    y, undo = balance(compute_precision(x))
    finite = xp.isfinite(undo)
    u, h, stats = _factors(y, request, side)
    u = xp.astype(mask_members(u, finite), x.dtype, copy=False)
    return u, xp.astype(h * undo, x.dtype, copy=False), constant(stats), finite[..., 0, 0]


def _factors(y: Any, request: Request, side: str | None) -> tuple[Any, Any, Any]:
    """``(u, h, stats)`` of balanced ``y`` of any shape; ``h`` is empty if ``side`` is None."""
    m, n = y.shape[-2:]
    wide = m < n
    tall = adjoint(y) if wide else y
    measures = device_kind(y) in MEASURED or unitary_factor.is_served(y)
    schedule = schedule_for(request, dtype_name(y), measures=measures)
    if schedule is None and side == ("left" if wide else "right"):
        u, h, stats = polar_factors(tall, **_full(request))
        return adjoint(u) if wide else u, h, stats
    if schedule is None:
        u, stats = unitary_factor(tall, **_full(request))
    else:
        u, stats = scheduled_factor(tall, schedule=schedule)
        in_doubt = not measures and schedule_for(request, dtype_name(y), measures=True) is None
        if in_doubt and not is_traced(u) and not _has_orthonormal_columns(u):
            u, stats = unitary_factor(tall, **_full(request))
    u = adjoint(u) if wide else u
    if side is None:
        h = namespace(y).zeros((*y.shape[:-2], 0, 0), dtype=y.dtype, device=device(y))
    else:
        h = hermitian_factor(u, y) if side == "right" else hermitian_factor(adjoint(u), adjoint(y))
    return u, h, stats


def _has_orthonormal_columns(u: Any) -> bool:
    """Whether concrete ``u`` (..., m, n) with m >= n has them to rounding, in every member of a stack."""
    whole = compute_precision(u)
    gram = adjoint(whole) @ whole
    enough = 10 * max(u.shape[-1], 1) ** 0.5 * eps(whole)
    return bool(namespace(u).all(departure(whole, identity_like(gram)) <= enough))


def _full(request: Request) -> dict[str, Any]:
    """Options of a factorization to full accuracy."""
    method = "svd" if request.method == "svd" else "auto"
    return {"completion": request.completion, "rcond": request.rcond, "method": method}


def _empty(x: Any, side: str | None) -> tuple[Any, Any, Any, Any]:
    """The factors of matrices without entries: an empty one, and zeros."""
    xp = namespace(x)
    n = {None: 0, "left": x.shape[-2], "right": x.shape[-1]}[side]
    h = xp.zeros((*x.shape[:-2], n, n), dtype=x.dtype, device=device(x))
    dtype = real_dtype(compute_precision(x))
    stats = xp.zeros((*x.shape[:-2], STATS_WIDTH), dtype=dtype, device=device(x))
    return xp.zeros_like(x), h, stats, stats[..., 0] == 0


def _info(request: Request, u: Any, stats: Any, finite: Any) -> PolarInfo[Any]:
    """The figures of a factorization; eager code warns if it fell short of what was asked for."""
    xp = namespace(u)
    whole = compute_precision(u)
    residual = stats[..., Stat.RESIDUAL]
    if request.exact and 0 not in u.shape:
        thin = adjoint(whole) if u.shape[-2] < u.shape[-1] else whole
        residual = constant(departure(thin, identity_like(adjoint(thin) @ thin)))
    tol = request.tol or 0.0
    # A partial factor is measured above 1 only, where the square of 1 + tol is the limit; else that of 1 - tol is.
    allowed = tol * (2 + tol if request.completion == "partial" else 2 - tol)
    enough = 10 * max(min(u.shape[-2:]), 1) ** 0.5 * eps(whole) + allowed
    converged = (residual <= enough) & finite
    if not request.exact:
        hint = "pass method='svd', or a smaller lower_bound"
        warn_unconverged(request.kernel, converged, finite, residual, hint=hint)
    return PolarInfo(
        iterations=xp.astype(stats[..., Stat.ITERATIONS], xp.int32),
        residual=residual,
        converged=converged,
        extra_steps=xp.astype(stats[..., Stat.EXTRA_STEPS], xp.int32),
        lower_bound=stats[..., Stat.LOWER_BOUND],
        schedule=xp.astype(stats[..., len(Stat) :], xp.int32),
        method=xp.asarray(int(Method[request.method.upper()]), dtype=xp.int32, device=device(u)),
    )
