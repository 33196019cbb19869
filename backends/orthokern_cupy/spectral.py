"""The polar ops on CuPy arrays: which route a matrix takes, stacks, and what rank deficiency means.

The ops get matrices in single or double precision, which is also what every product here runs in: lower precision is
raised before an op sees it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from orthokern.spectral.plan import (
    CLOSING_NEWTON,
    CLOSING_QUINTIC,
    NEAR,
    STATS_WIDTH,
    Schedule,
    Stat,
    Step,
    StepKind,
)

from . import measured
from .estimates import power_norm
from .library import (
    adjoint,
    affine,
    careful_gram,
    epsilon,
    frobenius,
    hermitian_part,
    host,
    lengths,
    real,
    reduced,
    safe,
)
from .steps import CAREFUL, corrected, gram_form, identity_like, normalized, run

# Up to this size the Jacobi SVD of cuSOLVER, which does a whole stack in one launch, is the quickest way.
JACOBI_SIZE = 32
# Larger matrices of a stack are done one by one: each of them fills a device.
STACK_SIZE = 256
MOST_CLOSING_STEPS = 6
# Below so many eps a tolerance asks for full accuracy.
FULL = 4.0


def unitary_factor(
    x: Any, *, completion: str, rcond: float | None = None, cp: Any
) -> tuple[Any, Any]:
    """Unitary polar factor of each matrix to full accuracy.

    Parameters
    ----------
    x : cupy.ndarray (..., m, n), m >= n
        Finite, each member scaled to a largest entry in [0.5, 1) or zero. Not written to.
    completion : {"unitary", "partial"}
        Orthonormal columns at every rank, or only the directions with ``sigma > rcond * sigma_max``.
    rcond : float, optional
        Default max(m, n) eps.
    cp : module
        CuPy.

    Returns
    -------
    u : cupy.ndarray (..., m, n)
    stats : cupy.ndarray (..., 20)
        Figures in the order of ``orthokern.spectral.plan.Stat``, then the codes of the steps that ran.

    Notes
    -----
    The host waits for the device two or three times and once for each step appended (see measured.py); not at all up
    to 32 x 32. Flops: 10 n^3 to 22 n^3 square, 5 m n^2 beside that tall; memory: five matrices. Errors:
    ``||U^H U - I||_F <= 10 sqrt(n) eps`` and ``||A - U H||_F <= max(60, 20 sqrt(n)) eps ||A||_F``, checked by probes.
    A singular member, or one whose result fails a check, is done by the SVD and one cubic step. Higham, *Functions of
    Matrices* (2008), ch. 8; Nakatsukasa and Higham, SISC 35 (2013).
    """
    cut = max(x.shape[-2:]) * epsilon(x) if rcond is None else rcond
    return _shaped(x, lambda y: _full(y, completion, cut, cp), cp)


def polar_factors(
    x: Any, *, completion: str, rcond: float | None = None, cp: Any
) -> tuple[Any, Any, Any]:
    """``(u, h, stats)``: ``unitary_factor`` and ``hermitian_factor`` of each matrix (..., m, n), m >= n."""
    u, stats = unitary_factor(x, completion=completion, rcond=rcond, cp=cp)
    return u, hermitian_factor(u, x, cp=cp), stats


def hermitian_factor(u: Any, x: Any, *, cp: Any) -> Any:
    """``(U^H X + X^H U) / 2`` of each pair, Hermitian bit for bit: one product and one pass; no host sync."""
    return hermitian_part(cp.matmul(adjoint(u, cp), x), cp)


def scheduled_factor(x: Any, *, schedule: Schedule, cp: Any) -> tuple[Any, Any]:
    """Run a static schedule on each matrix of ``x`` (..., m, n), m >= n; ``(u, stats)`` as ``unitary_factor``.

    With ``closing_tol > 0`` the result is measured and steps are appended until its singular values are that close to
    1; a schedule with ``any_route`` is replaced by the cheapest measured plan to that tolerance. Host syncs: none for
    the steps as they stand, one for each look at what they left, two or three for a measured plan.
    """
    if not schedule.any_route or not schedule.closing_tol:
        return _executed(x, schedule, cp)
    return _shaped(x, lambda y: _to_tolerance(y, schedule, cp), cp)


def _shaped(x: Any, function: Any, cp: Any) -> tuple[Any, Any]:
    """``function`` of a matrix or a stack with one batch dimension; of each matrix of a stack of large ones."""
    m, n = x.shape[-2:]
    if x.ndim == 2:
        return function(x)  # type: ignore[no-any-return]
    stack = x.reshape(-1, m, n)
    if stack.shape[0] == 1 or n > STACK_SIZE:
        u, stats = (cp.stack(parts) for parts in zip(*map(function, stack), strict=True))
    else:
        u, stats = function(stack)
    return u.reshape(x.shape), stats.reshape(*x.shape[:-2], STATS_WIDTH)


def _inverse_exists(x: Any) -> float:
    """Relative singular value above which an inverse is worth its name; completion needs no decision on the rank."""
    return float(x.shape[-1] ** 0.5 * epsilon(x))


def _full(x: Any, completion: str, cut: float, cp: Any) -> tuple[Any, Any]:
    m, n = x.shape[-2:]
    if n == 1:
        return _columns(x, completion, cp)
    if m <= JACOBI_SIZE:
        return _by_svd(x, completion, cut, cp)
    cutoff = cut if completion == "partial" else _inverse_exists(x)
    found = measured.factor(x, cutoff, None, cp)
    return _mended(x, found, lambda y: _by_svd(y, completion, cut, cp), cp)


def _to_tolerance(x: Any, schedule: Schedule, cp: Any) -> tuple[Any, Any]:
    """The cheapest measured plan; for a singular matrix what the completion asks for."""
    tol, cut = schedule.closing_tol, max(x.shape[-2:]) * epsilon(x)
    if x.shape[-2] <= JACOBI_SIZE or x.shape[-1] == 1:
        return _full(x, schedule.completion, cut, cp)
    # The half-width whose squares stay within tol (2 - tol) of 1, which is what convergence asks for.
    width = None if tol < FULL * epsilon(x) else math.sqrt(1 + tol * (2 - tol)) - 1
    found = measured.factor(x, _inverse_exists(x), width, cp)
    if schedule.completion == "partial":
        return _mended(x, found, lambda y: _executed(y, schedule, cp), cp)
    return _mended(x, found, lambda y: _by_svd(y, "unitary", 0.0, cp), cp)


def _mended(x: Any, found: measured.Found | None, otherwise: Any, cp: Any) -> tuple[Any, Any]:
    """What was found, with the members that did not pass done ``otherwise``."""
    if found is None or not found.passed.any():
        return otherwise(x)  # type: ignore[no-any-return]
    rows = found.figures.astype(real(x)).reshape(*x.shape[:-2], STATS_WIDTH)
    u, stats = found.u, cp.asarray(rows)
    if not found.passed.all():
        members = cp.asarray(np.flatnonzero(~found.passed))
        u[members], stats[members] = otherwise(x[members])
    return u, stats


def _columns(x: Any, completion: str, cp: Any) -> tuple[Any, Any]:
    """``x / ||x||`` of each column; of a zero column the first unit vector, or zero."""
    norm = lengths(x, cp)
    u = x / safe(norm, cp)
    # Once more: the first division may leave 2 eps.
    u = u / safe(lengths(u, cp), cp)
    if completion == "unitary":
        first = cp.eye(x.shape[-2], 1, dtype=x.dtype)
        u = u + first * (norm == 0)
    stats = cp.zeros((*x.shape[:-2], STATS_WIDTH), dtype=real(x))
    stats[..., int(Stat.RESIDUAL)], stats[..., int(Stat.LOWER_BOUND)] = epsilon(x), 1
    return u, stats


def _by_svd(x: Any, completion: str, cut: float, cp: Any) -> tuple[Any, Any]:
    """SVD of each matrix, closed by a cubic step, which removes its own loss of orthogonality; no host sync.

    The residual is what the step was given, which shows an SVD that did not converge.
    """
    p, s, qh = _thin_svd(x, cp)
    target = identity_like(x, cp)
    if completion == "partial":
        kept = (s > cut * cp.max(s, axis=-1, keepdims=True)).astype(x.dtype)
        p = p * kept[..., None, :]
        target = cp.matmul(adjoint(qh, cp), qh * kept[..., :, None])
    u = cp.matmul(p, qh)
    defect = careful_gram(u, cp) - target
    first = frobenius(defect, cp)
    closed = corrected(u, defect, StepKind.CUBIC, cp)
    stats = cp.zeros((*x.shape[:-2], STATS_WIDTH), dtype=real(x))
    stats[..., int(Stat.ITERATIONS)], stats[..., len(Stat)] = 1, int(StepKind.CUBIC)
    stats[..., int(Stat.RESIDUAL)] = 0.75 * first * first + epsilon(x)
    stats[..., int(Stat.LOWER_BOUND)] = s[..., -1] / safe(s[..., 0], cp)
    return closed, stats


def _thin_svd(x: Any, cp: Any) -> Any:
    """One small matrix goes the way of a stack, which is Jacobi's."""
    if x.ndim == 2 and x.shape[-2] <= JACOBI_SIZE:
        return tuple(part[0] for part in cp.linalg.svd(x[None], full_matrices=False))
    return cp.linalg.svd(x, full_matrices=False)


# Schedules as they stand


def _executed(x: Any, schedule: Schedule, cp: Any) -> tuple[Any, Any]:
    """The steps, in the form of the array-API body, and the closing that they ask for."""
    newton = any(step.kind is StepKind.NEWTON for step in schedule.steps)
    q, core = cp.linalg.qr(x) if newton and x.shape[-2] > x.shape[-1] else (None, x)
    start = normalized(core, schedule.normalization, cp)
    on_gram = schedule.restarts is not None
    u = gram_form(start, schedule, cp) if on_gram else run(start, schedule.steps, cp, table=CAREFUL)
    if newton and schedule.completion == "partial":
        # Newton's steps complete what has no direction.
        u = u * (reduced("largest", x, (-2, -1), cp) > 0)
    u, residual, extra = _closed(u, schedule, cp, newton=newton)
    u = u.copy() if u is x else u
    stats = _stats(residual, (*schedule.steps, *extra), len(extra), cp)
    return (u if q is None else cp.matmul(q, u)), stats


def _closed(
    u: Any, schedule: Schedule, cp: Any, *, newton: bool
) -> tuple[Any, Any, tuple[Step, ...]]:
    """Append steps until the singular values are within ``closing_tol`` of 1; the residual stays on the device.

    A partial factor keeps its small singular values: nothing is added, and the residual is what the square of its
    largest one exceeds 1 by.
    """
    tol = schedule.closing_tol
    if tol == 0:
        return u, cp.full(u.shape[:-2], math.inf, dtype=real(u)), ()
    if schedule.completion == "partial":
        top = power_norm(u, cp)
        return u, cp.maximum(top * top - 1, cp.zeros_like(top)), ()
    enough = tol * (2 - tol) + epsilon(u) * u.shape[-1] ** 0.5
    taken: list[Step] = []
    while True:
        g = careful_gram(u, cp)
        residual = frobenius(affine(g, -1.0, 1.0, cp), cp)
        seen = host([residual], cp)
        if not (seen > enough).any() or len(taken) == MOST_CLOSING_STEPS:
            return u, residual, tuple(taken)
        far = newton and bool((seen > NEAR).any())
        taken.append(CLOSING_NEWTON if far else CLOSING_QUINTIC)
        u = CAREFUL[taken[-1].kind](u, taken[-1].coefficients, cp, g)


def _stats(residual: Any, steps: tuple[Step, ...], extra: int, cp: Any) -> Any:
    row = np.zeros(STATS_WIDTH)
    codes = [int(step.kind) for step in steps][: STATS_WIDTH - len(Stat)]
    row[len(Stat) : len(Stat) + len(codes)] = codes
    row[Stat.ITERATIONS], row[Stat.EXTRA_STEPS] = len(steps), extra
    stats = cp.zeros((*residual.shape, STATS_WIDTH), dtype=residual.dtype)
    stats[...] = cp.asarray(row.astype(real(residual)))
    stats[..., int(Stat.RESIDUAL)] = residual
    return stats
