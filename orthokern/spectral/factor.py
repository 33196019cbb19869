"""The ops of the polar family: whole factorizations, on (..., m, n) with m >= n, balanced by a power of two.

The bodies are the reference: the singular value decomposition for ``unitary_factor``, and an executor of
static schedules in plain products for ``scheduled_factor``. The two share no arithmetic, so that comparing
them finds the errors of either.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._core.autodiff import constant
from .._core.dispatch import op
from .._core.dtypes import eps
from .._core.linalg import (
    adjoint,
    careful_gram,
    decomposable,
    departure,
    frobenius,
    gram,
    hermitian_part,
    identity_like,
    nan_unless,
    thin_svd,
)
from .._core.namespace import device, is_lazy, is_traced, namespace
from .._core.scaling import largest_entry
from .plan import (
    CLOSING_NEWTON,
    CLOSING_QUINTIC,
    NEAR,
    STATS_WIDTH,
    Schedule,
    Stat,
    Step,
    StepKind,
)

MOST_CLOSING_STEPS = 6
# Above this weight the Cholesky form of a Halley step loses about c * eps; the QR form does not.
CHOLESKY_LIMIT = 200.0
POWER_STEPS, POWER_VECTORS = 8, 8
FIGURES = len(Stat)
# From this tolerance on an iteration stops early, and its derivative is that of the steps it took.
UNFINISHED = 1e-6
POWER_MARGIN = 1.1


def _stats(x: Any, residual: Any, steps: tuple[Step, ...], *, extra: int = 0) -> Any:
    """The row of figures that goes with each factor of ``steps``, the last ``extra`` of them appended."""
    xp = namespace(x)
    codes = [float(int(step.kind)) for step in steps[: STATS_WIDTH - FIGURES]]
    # In the order of plan.Stat, the residual's place left open.
    row = [float(len(steps)), 0.0, float(extra), 0.0, *codes]
    row += [0.0] * (STATS_WIDTH - len(row))
    residual = constant(residual)[..., None]
    fixed = xp.asarray(row, dtype=residual.dtype, device=device(residual))
    open_place = [column == int(Stat.RESIDUAL) for column in range(STATS_WIDTH)]
    measured = xp.asarray(open_place, device=device(residual))
    return xp.where(measured, residual, fixed)


def _lyapunov_inverse(h: Any, cutoff: float) -> tuple[Callable[[Any], Any], Any]:
    """Solver of ``H Y + Y H = K`` and the pseudo-inverse of ``H``, both held constant."""
    xp = namespace(h)
    s, q = xp.linalg.eigh(constant(h))
    s, q = constant(s), constant(q)
    top = xp.max(xp.abs(s), axis=-1, keepdims=True)
    sums = s[..., :, None] + s[..., None, :]
    kept = sums > cutoff * top[..., None]
    weights = xp.where(kept, 1 / xp.where(kept, sums, xp.ones_like(sums)), xp.zeros_like(sums))
    kept_values = s > cutoff * top
    inverse = xp.where(kept_values, 1 / xp.where(kept_values, s, xp.ones_like(s)), xp.zeros_like(s))
    weights, inverse = xp.astype(weights, h.dtype), xp.astype(inverse, h.dtype)
    qh = adjoint(q)
    return lambda k: q @ ((qh @ k @ q) * weights) @ qh, (q * inverse[..., None, :]) @ qh


def _unitary_tangent(
    arrays: Any,
    tangents: Any,
    out: Any,
    *,
    completion: str,
    rcond: float | None = None,
    method: str = "auto",
) -> Any:
    """``dU = U Y + (dX - U U^H dX) H^{-1}`` with ``H Y + Y H = U^H dX - dX^H U``.

    The eigendecomposition is held constant and the solution refined twice with plain products, which makes
    the rule differentiable again, also at repeated singular values.
    """
    (x,), (dx,), (u, stats) = arrays, tangents, out
    m, n = x.shape[-2:]
    h = hermitian_part(adjoint(u) @ x)
    solve, pseudo_inverse = _lyapunov_inverse(h, max(m, n) * eps(x) if rcond is None else rcond)
    inner = adjoint(u) @ dx
    k = inner - adjoint(inner)
    y = solve(k)
    for _ in range(2):
        y = y + solve(k - h @ y - y @ h)
    du = u @ y
    if m > n or completion == "partial":
        outer = dx - u @ inner
        tail = outer @ pseudo_inverse
        for _ in range(2):
            tail = tail + (outer - tail @ h) @ pseudo_inverse
        du = du + tail
    return du, namespace(x).zeros_like(stats)


@op(jvp=_unitary_tangent)
def unitary_factor(
    x: Any, /, *, completion: str, rcond: float | None = None, method: str = "auto"
) -> Any:
    """Unitary polar factor of tall ``x`` to full accuracy; returns ``(u, stats)``.

    Singular value decomposition closed by one cubic step, which removes its own loss of orthogonality.
    ``completion="unitary"`` gives orthonormal columns always, ``"partial"`` leaves out the directions with
    singular values up to ``rcond`` (default max(m, n) eps) times the largest.
    """
    xp = namespace(x)
    p, s, qh = thin_svd(x)
    target = identity_like(qh)
    if completion == "partial":
        cutoff = max(x.shape[-2:]) * eps(x) if rcond is None else rcond
        kept = xp.astype(s > cutoff * xp.max(s, axis=-1, keepdims=True), x.dtype)
        p = p * kept[..., None, :]
        target = adjoint(qh) @ (qh * kept[..., :, None])
    u = p @ qh
    g = careful_gram(u)
    first = frobenius(g - target)[..., 0, 0]
    # As a correction, so that only what is small suffers from the rounding errors of a product.
    closed = u - 0.5 * (u @ (g - target))
    residual = 0.75 * first * first + eps(x)
    return closed, _stats(closed, residual, (Step(StepKind.CUBIC, (1.5, -0.5)),))


def _hermitian_tangent(arrays: Any, tangents: Any, out: Any) -> Any:
    (u, x), (du, dx) = arrays, tangents
    return hermitian_part(adjoint(du) @ x + adjoint(u) @ dx)


@op(jvp=_hermitian_tangent)
def hermitian_factor(u: Any, x: Any, /) -> Any:
    """``(U^H X + X^H U) / 2``, exactly Hermitian."""
    return hermitian_part(adjoint(u) @ x)


@op(fused=True)
def polar_factors(
    x: Any, /, *, completion: str, rcond: float | None = None, method: str = "auto"
) -> Any:
    """Both polar factors of tall ``x`` to full accuracy; returns ``(u, h, stats)``."""
    u, stats = unitary_factor(x, completion=completion, rcond=rcond, method=method)
    return u, hermitian_factor(u, x), stats


def power_norm(x: Any, steps: int = POWER_STEPS) -> Any:
    """Estimate of the largest singular value from below, shape (..., 1, 1): power steps on a few vectors each."""
    xp = namespace(x)
    n = x.shape[-1]
    dtype, where = largest_entry(x).dtype, device(x)
    rows = xp.arange(1, n + 1, dtype=dtype, device=where)[:, None]
    columns = xp.arange(min(n, POWER_VECTORS), dtype=dtype, device=where)
    # A fixed start with irrational spacing: no structured matrix is orthogonal to all of it.
    start = xp.cos(rows * rows * 0.7548776662466927 + rows * columns * 0.5698402909980532)
    v = xp.astype(start, x.dtype)
    for _ in range(steps):
        v = adjoint(x) @ (x @ _unit(v))
    return xp.max(_lengths(x @ _unit(v)), axis=-1, keepdims=True)


def norm_bound(x: Any) -> Any:
    """The least of ``||x||_F`` and ``sqrt(||x||_1 ||x||_inf)``, shape (..., 1, 1)."""
    xp = namespace(x)
    magnitude = xp.abs(x)
    columns = xp.max(xp.sum(magnitude, axis=-2, keepdims=True), axis=-1, keepdims=True)
    row_sums = xp.max(xp.sum(magnitude, axis=-1, keepdims=True), axis=-2, keepdims=True)
    return xp.minimum(frobenius(x), xp.sqrt(columns * row_sums))


def _spectral_bound(x: Any) -> Any:
    """Upper estimate of the largest singular value: a margin over the power steps, at most a rigorous norm."""
    return namespace(x).minimum(POWER_MARGIN * power_norm(x), norm_bound(x))


def positive(scale: Any) -> Any:
    """``scale`` with 1 in place of 0, so that a zero matrix stays a zero matrix."""
    xp = namespace(scale)
    return xp.where(scale > 0, scale, xp.ones_like(scale))


def _lengths(v: Any) -> Any:
    """2-norm of each column, shape (..., 1, k)."""
    xp = namespace(v)
    magnitude = xp.abs(v)
    return xp.sqrt(xp.sum(magnitude * magnitude, axis=-2, keepdims=True))


def _unit(v: Any) -> Any:
    return v / namespace(v).astype(positive(_lengths(v)), v.dtype)


NORMS: dict[str, Callable[[Any], Any]] = {
    "frobenius": frobenius,
    "schatten4": lambda x: namespace(x).sqrt(frobenius(gram(x))),
    "spectral": _spectral_bound,
    "aol": lambda x: namespace(x).sqrt(
        namespace(x).sum(namespace(x).abs(gram(x)), axis=-2, keepdims=True)
    ),
}
NORMALIZATIONS = tuple(NORMS)


def _normalized(x: Any, normalization: str) -> Any:
    if normalization == "none":
        return x
    xp = namespace(x)
    bound = positive(NORMS[normalization](x))
    return x / xp.astype(bound, x.dtype)


def inverse_adjoint(x: Any, *, singular: str = "lifted") -> Any:
    """``X^{-H}`` by QR; a vanishing pivot is "lifted" to eps, within the backward error, or makes the result "nan"."""
    xp = namespace(x)
    q, r = xp.linalg.qr(x)
    eye = identity_like(r)
    magnitude = xp.abs(xp.sum(r * eye, axis=-1))
    floor = eps(x) * xp.max(magnitude, axis=-1, keepdims=True) + eps(x) ** 2
    vanishes = magnitude < floor
    lift = xp.where(vanishes, floor, xp.zeros_like(magnitude))
    lift = lift if singular == "lifted" else nan_unless(~vanishes, lift)
    r = r + xp.astype(lift, r.dtype)[..., None] * eye
    return q @ adjoint(xp.linalg.solve(r, eye + xp.zeros_like(r)))


def _newton(x: Any, a: float, b: float) -> Any:
    return a * x + b * inverse_adjoint(x)


def _halley(x: Any, a: float, b: float, c: float, scale: float = 1.0) -> Any:
    """``(b/c) X + (a - b/c) X (I + c X^H X)^{-1}``, by a linear solve or, for large c, by QR of [sqrt(c) X; I]."""
    xp = namespace(x)
    weight = a - b / c
    if c <= CHOLESKY_LIMIT:
        shifted = identity_like(gram(x)) + c * gram(x)
        solved = adjoint(xp.linalg.solve(shifted, adjoint(x)))
    else:
        root = c**0.5
        eye = identity_like(gram(x)) + xp.zeros_like(gram(x))
        q, _ = xp.linalg.qr(xp.concat([root * x, eye], axis=-2))
        m = x.shape[-2]
        solved = (q[..., :m, :] @ adjoint(q[..., m:, :])) / root
    return scale * ((b / c) * x + weight * solved)


def _horner(g: Any, coefficients: tuple[float, ...]) -> Any:
    """``c0 I + c1 G + c2 G^2 + ...``."""
    eye = identity_like(g)
    factor = coefficients[-1] * eye
    for coefficient in reversed(coefficients[:-1]):
        factor = coefficient * eye + g @ factor
    return factor


def _polynomial(x: Any, *coefficients: float) -> Any:
    """``X (c0 I + c1 G + c2 G^2 + ...)`` with ``G = X^H X``."""
    return x @ _horner(gram(x), coefficients)


STEPS: dict[StepKind, Callable[..., Any]] = {
    StepKind.NEWTON: _newton,
    StepKind.HALLEY: _halley,
    StepKind.CUBIC: _polynomial,
    StepKind.QUINTIC: _polynomial,
}


def _applied(x: Any, step: Step) -> Any:
    return STEPS[step.kind](x, *step.coefficients)


def _gram_form(x: Any, schedule: Schedule) -> Any:
    """Newton-Schulz on the n x n Gram matrix alone, with fresh Gram matrices at the restarts."""
    g = gram(x)
    total = identity_like(g)
    for i, step in enumerate(schedule.steps):
        if i > 0 and i in (schedule.restarts or ()):
            x = x @ total
            g = gram(x)
            total = identity_like(g)
        factor = _horner(g, step.coefficients)
        total = total @ factor
        g = hermitian_part(factor @ g @ factor)
    return x @ total


def _closing_quintic(x: Any) -> Any:
    """The closing step as ``X`` and a small correction in ``G - I``: in ``G^2`` itself what is small would be lost."""
    _, b, c = CLOSING_QUINTIC.coefficients
    h = gram(x)
    h = h - identity_like(h)
    return x + x @ ((b + 2 * c) * h + c * (h @ h))


def _executed(x: Any, schedule: Schedule) -> Any:
    x = _normalized(x, schedule.normalization)
    if schedule.restarts is not None:
        return _gram_form(x, schedule)
    for step in schedule.steps:
        x = _applied(x, step)
    return x


def _closed(x: Any, tolerance: float, *, newton: bool) -> tuple[Any, Any, tuple[Step, ...]]:
    """Append steps until the singular values are within ``tolerance`` of 1; traced code appends one."""
    eye = identity_like(gram(x))
    if is_traced(x) or is_lazy(x):
        x = _closing_quintic(x)
        return x, departure(x, eye), (CLOSING_QUINTIC,)
    enough = tolerance * (2 - tolerance) + eps(x) * x.shape[-1] ** 0.5
    residual = departure(x, eye)
    taken: list[Step] = []
    while _any(residual > enough) and len(taken) < MOST_CLOSING_STEPS:
        far = newton and _any(residual > NEAR)
        taken.append(CLOSING_NEWTON if far else CLOSING_QUINTIC)
        x = _applied(x, CLOSING_NEWTON) if far else _closing_quintic(x)
        residual = departure(x, eye)
    return x, residual, tuple(taken)


def _any(condition: Any) -> bool:
    return bool(namespace(condition).any(condition))


def _scheduled_tangent(arrays: Any, tangents: Any, out: Any, *, schedule: Schedule) -> Any:
    return _unitary_tangent(arrays, tangents, out, completion=schedule.completion)


def _reaches_the_factor(*, schedule: Schedule) -> bool:
    """Whether the steps end at the exact factor to rounding, and not at what so many steps make of it."""
    return 0 < schedule.closing_tol < UNFINISHED


@op(jvp=_scheduled_tangent, converges=_reaches_the_factor)
def scheduled_factor(x: Any, /, *, schedule: Schedule) -> Any:
    """Apply a static schedule of steps to ``x`` (..., m, n), m >= n; returns ``(u, stats)``.

    Plain products, solves and QR: traceable, and differentiable step by step where they stop early. With
    ``closing_tol > 0`` eager code measures the result and appends quintic steps until its singular values are that
    close to 1 (a backend may take any route there if ``any_route`` says so); otherwise the steps run exactly as they
    stand and the residual is infinite (not measured). A partial factor keeps singular values below the plan's lower
    bound between 0 and 1: its residual is what the largest square exceeds 1 by.
    """
    xp = namespace(x)
    kinds = {step.kind for step in schedule.steps}
    newton = StepKind.NEWTON in kinds
    x = decomposable(x) if newton or StepKind.HALLEY in kinds else x
    q, r = xp.linalg.qr(x) if newton and x.shape[-2] > x.shape[-1] else (None, x)
    u = _executed(r, schedule)
    extra: tuple[Step, ...] = ()
    residual = xp.full_like(largest_entry(u)[..., 0, 0], float("inf"))
    if newton and schedule.completion == "partial":
        # Newton's steps complete what has no direction.
        u = xp.where(largest_entry(x) > 0, u, xp.zeros_like(u))
    if schedule.closing_tol > 0 and schedule.completion == "partial":
        # What lies below the plan's lower bound may stay below 1; nothing may lie above.
        top = power_norm(u)[..., 0, 0]
        residual = xp.maximum(top * top - 1, xp.zeros_like(top))
    elif schedule.closing_tol > 0:
        u, residual, extra = _closed(u, schedule.closing_tol, newton=newton)
    u = u if q is None else q @ u
    return u, _stats(u, residual, (*schedule.steps, *extra), extra=len(extra))
