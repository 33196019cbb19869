r"""Entropic transport: potentials of ``T_ij = exp((alpha_i + beta_j - C_ij) / epsilon)`` with given marginals.

One engine solves the balanced problem and the one whose marginals are only asked for at a price. It works on
potentials f, g of the product reference, ``T_ij = a_i b_j exp((f_i + g_j - C_ij) / epsilon)``, in which small masses
are harmless, and in the logarithmic domain, in which nothing under- or overflows.
"""

from __future__ import annotations

from typing import Any, Generic, NamedTuple

from .._core import check
from .._core.autodiff import constant
from .._core.dispatch import kernel, op
from .._core.dtypes import compute_precision
from .._core.dtypes import eps as rounding
from .._core.errors import UnsupportedError
from .._core.linalg import adjoint, identity_like, nan_unless
from .._core.loop import iterate
from .._core.namespace import device, is_lazy, is_traced, namespace
from .._core.progress import tell
from .._core.typing import ArrayT
from .codes import OTStatus
from .implicit import entropic_tangent
from .sweep import entropic_sweep

# Continuation in epsilon: from half the range of the cost, a quarter at a time, each stage to this error.
FIRST_EPSILON, EPSILON_STEP, STAGE_ERROR = 0.5, 0.25, 0.05
# A sweep that leaves more than this part of the error is followed by a Newton step.
SLOW = 0.5
# Newton steps move no potential by more than this many epsilon, but where longer ones pay.
REACH, HALVINGS, DOUBLINGS, ASCENT = 2.0, 12, 20, 1e-4
MOST_EXPONENT = 60.0
# Steps without progress after which an engine gives up.
PATIENCE = 30
# Codes of a status as numbers: what compiles knows no enumerations.
RUNNING, CONVERGED = -1.0, float(OTStatus.CONVERGED)
MAX_ITER, STALLED = float(OTStatus.MAX_ITER), float(OTStatus.STALLED)
INFEASIBLE, FIXED = float(OTStatus.INFEASIBLE), float(OTStatus.FIXED)


def _to_a_tolerance(*, tol: float | None, **static: Any) -> bool:
    return tol is not None


class RoutingInfo(NamedTuple, Generic[ArrayT]):
    """What the routing amounts to, in the batch shape.

    load
        Expected number of tokens of each expert under the soft assignment, (..., experts); balanced where all are
        tokens / experts.
    copies
        How many experts took each token, (..., tokens).
    unassigned
        How many of the tokens that may go somewhere no expert took.
    """

    load: ArrayT
    copies: ArrayT
    unassigned: ArrayT


class RoutingResult(NamedTuple, Generic[ArrayT]):
    """Tokens of each expert and their weights; unpack as ``tokens, weights, *_ = sinkhorn_route(...)``."""

    tokens: ArrayT
    weights: ArrayT
    info: RoutingInfo[ArrayT]


@kernel()
def sinkhorn_route(
    scores: ArrayT,
    /,
    *,
    capacity: int,
    n_iter: int,
    epsilon: float = 1.0,
    backend: str | None = None,
) -> RoutingResult[ArrayT]:
    r"""Balanced routing of tokens to experts: each expert takes the tokens that a transport plan gives it most of.

    The soft assignment :math:`P_{te} \propto \exp((s_{te} + \beta_e) / \varepsilon)` has sum 1 over the experts for
    every token; ``n_iter`` sweeps of Sinkhorn's iteration choose the offsets :math:`\beta` that give all experts equal
    loads :math:`\sum_t P_{te}`. Then every expert takes its ``capacity`` tokens of largest :math:`P_{te}`, so that a
    token may be taken by several experts or, where capacities leave it out, by none.

    Parameters
    ----------
    scores : array (..., tokens, experts)
        Real floating, the logits of a router; low precision is computed in float32. Minus infinity forbids a pair; a
        token, or an expert, with nothing else takes no part, and has weight 0 where it is listed all the same.
    capacity : int
        Tokens per expert, at most all of them.
    n_iter : int
        Sweeps; exactly these run, in the logarithmic domain.
    epsilon : float
        Temperature of the assignment, positive: 1 starts from the softmax of the scores, small values approach the
        balanced assignment of largest total score.
    backend : str, optional
        Run on this backend; "array-api" forces the reference.

    Returns
    -------
    RoutingResult
        ``tokens`` (..., experts, capacity), indices in the order of falling weight, the lower one first where equal;
        ``weights`` (..., experts, capacity), the P of these pairs in the dtype of ``scores``; and ``info``
        (:class:`RoutingInfo`).

    Notes
    -----
    Traceable, batched and differentiable: the derivative of the weights is that of the sweeps as they ran, at fixed
    indices. Scores with NaN or plus infinity give weights that are NaN. Flops: 8 tokens experts n_iter and a sort of
    the tokens for each expert; memory: three arrays like ``scores``.

    References
    ----------
    M. Lewis et al., "BASE Layers", arXiv:2103.16716; A. Clark et al., "Unified scaling laws for routed language
    models", arXiv:2202.01169; Y. Zhou et al., "Mixture-of-experts with expert choice routing", arXiv:2202.09368.

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> scores = np.array([[3.0, 0.0], [2.0, 0.0], [2.0, 1.5], [1.0, 0.0]])
    >>> tokens, weights, info = orthokern.sinkhorn_route(scores, capacity=2, n_iter=20)
    >>> tokens.tolist(), info.load.round(6).tolist(), int(info.unassigned)
    ([[0, 1], [2, 3]], [2.0, 2.0], 0)
    """
    check.matrix(scores, kernel="sinkhorn_route", name="scores")
    check.real(scores, kernel="sinkhorn_route", name="scores")
    check.not_empty(scores, kernel="sinkhorn_route", name="scores")
    most = int(scores.shape[-2])
    size = check.count(capacity, kernel="sinkhorn_route", name="capacity", most=most)
    sweeps = check.count(n_iter, kernel="sinkhorn_route", name="n_iter")
    strength = check.at_least(epsilon, 0.0, kernel="sinkhorn_route", name="epsilon", strict=True)
    if is_lazy(scores):
        message = (
            "sinkhorn_route: tokens are sorted for each expert, which Dask cannot do; map it over the blocks, or pass "
            "scores.compute()"
        )
        raise UnsupportedError(message)
    xp = namespace(scores)
    share, known = _soft_assignment(adjoint(compute_precision(scores)), strength, sweeps)
    tokens = xp.argsort(constant(share), axis=-1, descending=True, stable=True)[..., :size]
    weights = nan_unless(known, xp.take_along_axis(share, tokens, axis=-1))
    info = _routed(constant(share), constant(known), tokens)
    return RoutingResult(tokens, xp.astype(weights, scores.dtype, copy=False), info)


def _soft_assignment(gains: Any, strength: float, sweeps: int) -> tuple[Any, Any]:
    """``(share, known)``: the assignment (..., experts, tokens), and which members hold scores that mean something."""
    xp = namespace(gains)
    known = ~xp.any(xp.isnan(gains) | (gains == float("inf")), axis=(-2, -1), keepdims=True)
    cost = xp.where(known, -gains, xp.zeros_like(gains))
    open_ = xp.isfinite(cost)
    a, b = (xp.astype(xp.any(open_, axis=axis), cost.dtype) for axis in (-1, -2))
    count = xp.clip(xp.sum(b, axis=-1, keepdims=True), 1.0, None)
    a = a / xp.clip(xp.sum(a, axis=-1, keepdims=True), 1.0, None)
    epsilon = xp.full((1,) * cost.ndim, strength, dtype=cost.dtype, device=device(cost))
    problem = _problem(a, b / count, cost, xp.zeros_like(epsilon))
    f, g, _ = _fixed(problem, epsilon, sweeps)
    return xp.exp(_exponents(problem, f, g, epsilon)) * count[..., None], known


def _routed(share: Any, known: Any, tokens: Any) -> RoutingInfo[Any]:
    """Loads, and how often each token is listed with a weight."""
    xp = namespace(share)
    last = xp.take_along_axis(share, tokens[..., -1:], axis=-1)
    place = xp.arange(share.shape[-1], device=device(share))
    last_index = tokens[..., -1:]
    taken = (share > last) | ((share == last) & (place <= last_index))
    taken = taken & (share > 0)
    copies = xp.sum(xp.astype(taken, xp.int32), axis=-2, dtype=xp.int32)
    lost = (copies == 0) & xp.any(share > 0, axis=-2)
    return RoutingInfo(
        load=nan_unless(known[..., 0], xp.sum(share, axis=-1)),
        copies=copies,
        unassigned=xp.sum(xp.astype(lost, xp.int32), axis=-1, dtype=xp.int32),
    )


class Problem(NamedTuple):
    """Masses a (..., m), b (..., n), their logarithms, cost and where it is finite, 1 / rho (..., 1, 1).

    ``cost`` has zeros where it is infinite, ``closed`` has not.
    """

    a: Any
    b: Any
    log_a: Any
    log_b: Any
    cost: Any
    allowed: Any
    closed: Any
    rigidity: Any


@op(jvp=entropic_tangent, converges=_to_a_tolerance)
def entropic_potentials(
    a: Any, b: Any, cost: Any, epsilon: Any, /, *, tol: float | None, max_iter: int
) -> tuple[Any, Any, Any]:
    """Potentials ``(alpha, beta, stats)`` of entropic transport, in the counting reference.

    ``T = exp((alpha + beta - cost) / epsilon)`` has the marginals ``a`` (..., m) and ``b`` (..., n), each of mass 1,
    up to the error ``tol``; ``cost`` (..., m, n) in [0, 1] or infinite, ``epsilon`` (..., 1, 1). Continuation in
    epsilon; at each value sweeps, and Newton steps where those are slow. With ``tol=None`` exactly ``max_iter`` sweeps
    run, traceable and differentiable as they ran.
    """
    xp = namespace(cost)
    problem = _problem(a, b, cost, xp.zeros_like(epsilon))
    f, g, stats = _solved(problem, epsilon, tol, max_iter)
    strength = epsilon[..., 0]
    alpha, beta = f + strength * problem.log_a, g + strength * problem.log_b
    return _on_bins(alpha, a), _on_bins(beta, b), stats


@op()
def unbalanced_potentials(
    a: Any, b: Any, cost: Any, epsilon: Any, rho: Any, /, *, tol: float | None, max_iter: int
) -> tuple[Any, Any, Any]:
    """Potentials ``(f, g, stats)`` of entropic transport with the price ``rho`` KL on both marginals.

    ``T = a b^T exp((f + g - cost) / epsilon)``, product reference, with the marginals ``a exp(-f / rho)`` and
    ``b exp(-g / rho)``, distances to which are the error; ``rho`` (..., 1, 1) may be infinite where the masses are
    equal. Otherwise as :func:`entropic_potentials`.
    """
    problem = _problem(a, b, cost, 1 / rho)
    f, g, stats = _solved(problem, epsilon, tol, max_iter)
    return _on_bins(f, a), _on_bins(g, b), stats


def _on_bins(potential: Any, masses: Any) -> Any:
    xp = namespace(potential)
    return xp.where(masses > 0, potential, xp.zeros_like(potential))


def _problem(a: Any, b: Any, cost: Any, rigidity: Any) -> Problem:
    xp = namespace(cost)
    allowed = xp.isfinite(cost) & (a > 0)[..., :, None] & (b > 0)[..., None, :]
    # Infinite entries would make derivatives of masked differences NaN.
    finite = xp.where(allowed, cost, xp.zeros_like(cost))
    closed = xp.where(allowed, cost, xp.full_like(cost, float("inf")))
    return Problem(a, b, logarithm(a), logarithm(b), finite, allowed, closed, rigidity)


def logarithm(masses: Any) -> Any:
    """Logarithms; 0 of what is 0, which is masked elsewhere."""
    xp = namespace(masses)
    return xp.log(xp.where(masses > 0, masses, xp.ones_like(masses)))


def _solved(p: Problem, epsilon: Any, tol: float | None, max_iter: int) -> tuple[Any, Any, Any]:
    if tol is None:
        return _fixed(p, epsilon, max_iter)
    refuse_abstract(p.a, p.b, p.cost, epsilon)
    return _to_tolerance(p, epsilon, tol, max_iter)


def refuse_abstract(*arrays: Any) -> None:
    """Refuse a tolerance where there are no values to look at."""
    if any(is_traced(x) or is_lazy(x) for x in arrays):
        message = (
            "entropic transport: a tolerance needs concrete values, which a traced call (jit, vmap, compile) and Dask "
            "do not have; pass tol=None and max_iter=..."
        )
        raise UnsupportedError(message)


def _transposed(p: Problem) -> Problem:
    cost, allowed, closed = (adjoint(x) for x in (p.cost, p.allowed, p.closed))
    return Problem(p.b, p.a, p.log_b, p.log_a, cost, allowed, closed, p.rigidity)


def _exponents(p: Problem, f: Any, g: Any, e: Any) -> Any:
    """Logarithm of the plan; minus infinity where the pair is forbidden."""
    xp = namespace(f)
    rows, columns = f / e[..., 0] + p.log_a, g / e[..., 0] + p.log_b
    whole = rows[..., :, None] + columns[..., None, :] - p.cost / e
    return xp.where(p.allowed, whole, xp.full_like(whole, -float("inf")))


def _rows_from(p: Problem, g: Any, e: Any) -> Any:
    """The potential of the rows that is optimal for ``g``: ``-e / (1 + e / rho)`` times a logarithm of a sum."""
    xp = namespace(g)
    epsilon = xp.broadcast_to(e, (*p.cost.shape[:-2], 1, 1))
    found = entropic_sweep(g + e[..., 0] * p.log_b, p.closed, epsilon)
    strength = e[..., 0] / (1 + e[..., 0] * p.rigidity[..., 0])
    return -strength * xp.where(found > -float("inf"), found, xp.zeros_like(found))


def _swept(p: Problem, g: Any, e: Any) -> tuple[Any, Any]:
    """Rows for ``g``, then columns for these."""
    f = _rows_from(p, g, e)
    return f, _rows_from(_transposed(p), f, e)


def _wanted(masses: Any, potential: Any, rigidity: Any) -> Any:
    """The marginal that is optimal at this potential: the masses themselves where rho is infinite."""
    return masses * namespace(masses).exp(-potential * rigidity[..., 0])


class _Marginals(NamedTuple):
    """A plan, its sums, and what they lack (gradient of the dual in units of epsilon)."""

    plan: Any
    rows: Any
    columns: Any
    row_lack: Any
    column_lack: Any

    @property
    def error(self) -> Any:
        """L1, shape (...)."""
        xp = namespace(self.plan)
        return sum(xp.sum(xp.abs(x), axis=-1) for x in (self.row_lack, self.column_lack))


def _measured(p: Problem, f: Any, g: Any, e: Any) -> _Marginals:
    xp = namespace(f)
    plan = xp.exp(_exponents(p, f, g, e))
    rows, columns = xp.sum(plan, axis=-1), xp.sum(plan, axis=-2)
    row_lack = _wanted(p.a, f, p.rigidity) - rows
    return _Marginals(plan, rows, columns, row_lack, _wanted(p.b, g, p.rigidity) - columns)


def packed_stats(iterations: Any, error: Any, status: Any) -> Any:
    """The figures of an engine as one array (..., 3) without derivative."""
    return constant(namespace(error).stack([iterations, error, status], axis=-1))


def _fixed(p: Problem, epsilon: Any, steps: int) -> tuple[Any, Any, Any]:
    xp = namespace(p.cost)
    f, g = xp.zeros_like(p.a), xp.zeros_like(p.b)
    for _ in range(steps):
        f, g = _swept(p, g, epsilon)
    error = _measured(p, constant(f), constant(g), constant(epsilon)).error
    one = xp.ones_like(error)
    return f, g, packed_stats(float(steps) * one, error, FIXED * one)


class _State(NamedTuple):
    """Potentials, the epsilon of the stage (..., 1, 1); error, least error, steps since it fell, steps, status."""

    f: Any
    g: Any
    e: Any
    error: Any
    least: Any
    waiting: Any
    steps: Any
    status: Any


def _to_tolerance(p: Problem, epsilon: Any, tol: float, max_iter: int) -> tuple[Any, Any, Any]:
    if p.a.shape[-1] > p.b.shape[-1]:
        g, f, stats = _to_tolerance(_transposed(p), epsilon, tol, max_iter)
        return f, g, stats
    xp = namespace(p.cost)
    none = xp.zeros_like(epsilon[..., 0, 0])
    endless = xp.full_like(none, float("inf"))
    start = xp.maximum(epsilon, xp.full_like(epsilon, FIRST_EPSILON))
    status = xp.where(_stranded(p), INFEASIBLE, RUNNING + none)
    state = _State(
        xp.zeros_like(p.a), xp.zeros_like(p.b), start, endless, endless, none, none, status
    )

    def step(s: Any) -> _State:
        new = _advanced(p, epsilon, tol, _State(*s))
        tell(new.steps, new.error)
        return new

    found, _ = iterate(
        step,
        state,
        done=lambda s: xp.all(s[-1] != RUNNING),
        max_steps=max_iter,
    )
    return _ended(p, epsilon, _State(*found))


def _ended(p: Problem, epsilon: Any, s: _State) -> tuple[Any, Any, Any]:
    """The result of a loop; where it has not converged, columns are made exact and the marginals looked at again."""
    xp = namespace(s.error)
    converged = s.status == CONVERGED
    if bool(xp.all(converged)):
        return s.f, s.g, packed_stats(s.steps, s.error, s.status)
    f, g = _swept(p, s.g, epsilon)
    status = xp.where(s.status == RUNNING, MAX_ITER, s.status)
    status = xp.where(_is_infeasible(p, f, g, epsilon), INFEASIBLE, status)
    error = _measured(p, f, g, epsilon).error
    f, g, error, status = (
        kept(converged, x, y) for x, y in ((s.f, f), (s.g, g), (s.error, error), (s.status, status))
    )
    return f, g, packed_stats(s.steps, error, status)


def _stranded(p: Problem) -> Any:
    """Members with a mass that may go nowhere."""
    xp = namespace(p.cost)
    rows = xp.any((p.a > 0) & ~xp.any(p.allowed, axis=-1), axis=-1)
    columns = xp.any((p.b > 0) & ~xp.any(p.allowed, axis=-2), axis=-1)
    return (rows | columns) & (p.rigidity[..., 0, 0] == 0)


def _is_infeasible(p: Problem, f: Any, g: Any, e: Any) -> Any:
    """Proof that no plan has these marginals: a direction in which the dual grows for ever.

    Where sweeps do not converge, their increments (u, v) become one: ``u_i + v_j <= 0`` for all pairs that may carry
    mass, and ``<u, a> + <v, b> > 0``. A plan with the marginals would make these two the same number.
    """
    xp = namespace(f)
    balanced = p.rigidity[..., 0, 0] == 0
    ahead, beside = _swept(p, g, e)
    u, v = ahead - f, beside - g
    sums = u[..., :, None] + v[..., None, :]
    most = xp.max(xp.where(p.allowed, sums, xp.full_like(sums, -float("inf"))), axis=(-2, -1))
    gain = xp.sum(u * p.a, axis=-1) + xp.sum(v * p.b, axis=-1)
    noise = 1e3 * rounding(f) * (1 + xp.max(xp.abs(f), axis=-1) + xp.max(xp.abs(g), axis=-1))
    return (_stranded(p) | (gain > xp.clip(most, 0.0, None) + noise)) & balanced


def _is_unbounded(p: Problem, f: Any, g: Any, e: Any) -> Any:
    """Whether the potentials are worth more than any plan costs, which is at most 1."""
    xp = namespace(f)
    worth = sum(
        xp.sum(x * (h + e[..., 0] * log), axis=-1)
        for x, h, log in ((p.a, f, p.log_a), (p.b, g, p.log_b))
    )
    return (worth > 1 + 2 * e[..., 0, 0]) & (p.rigidity[..., 0, 0] == 0)


def _advanced(p: Problem, epsilon: Any, tol: float, s: _State) -> _State:
    """One sweep, a Newton step where that was slow, and the next stage where this one is done."""
    xp = namespace(p.cost)
    running = s.status == RUNNING
    f, g = _swept(p, s.g, s.e)
    now = _measured(p, f, g, s.e)
    error = now.error
    last = (s.e == epsilon)[..., 0, 0]
    waiting = xp.where(error < 0.9 * s.least, xp.zeros_like(error), s.waiting + 1)
    stalled = waiting > PATIENCE
    settled = error <= xp.where(last, xp.full_like(error, tol), xp.full_like(error, STAGE_ERROR))
    status = xp.where(stalled & last, STALLED, s.status)
    status = xp.where(settled & last, CONVERGED, status)
    onward = (settled | stalled) & ~last
    slow = running & ~settled & ~stalled & (error > SLOW * s.error)
    if bool(xp.any(slow)):
        x, y, long = _ascended(p, f, g, s.e, now, slow)
        waiting = xp.where(long & ~_is_unbounded(p, f, g, s.e), xp.zeros_like(waiting), waiting)
        f, g = f + s.e[..., 0] * x, g + s.e[..., 0] * y
    e = xp.where(onward[..., None, None], xp.maximum(epsilon, EPSILON_STEP * s.e), s.e)
    fresh = xp.full_like(error, float("inf"))
    new = _State(
        f,
        g,
        e,
        xp.where(onward, fresh, error),
        xp.where(onward, fresh, xp.minimum(error, s.least)),
        xp.where(onward, xp.zeros_like(error), waiting),
        s.steps + 1,
        xp.astype(status, error.dtype),
    )
    return _State(*(kept(running, x, y) for x, y in zip(new, s, strict=True)))


def kept(mask: Any, new: Any, old: Any) -> Any:
    """The new values of the members in ``mask``."""
    xp = namespace(new)
    return xp.where(xp.reshape(mask, (*mask.shape, *(1,) * (new.ndim - mask.ndim))), new, old)


def _ascended(
    p: Problem, f: Any, g: Any, e: Any, now: _Marginals, wanted: Any
) -> tuple[Any, Any, Any]:
    """A Newton step (x, y) in units of epsilon that raises the dual, 0 where none is wanted; whether it is a long one.

    Groups of bins between which almost nothing flows have to be shifted by many epsilon before anything does. Along
    such a shift the dual is almost linear, so that the step grows as long as it rises like that.
    """
    xp = namespace(f)
    x, y = _newton_step(p, f, g, e, now)
    size = xp.maximum(xp.max(xp.abs(x), axis=-1), xp.max(xp.abs(y), axis=-1))
    slope = xp.sum(now.row_lack * x, axis=-1) + xp.sum(now.column_lack * y, axis=-1)
    height = _dual(p, f, g, e, xp.sum(now.rows, axis=-1))

    def rises(step: Any, share: float, slack: Any) -> Any:
        ahead, beside = (z + e[..., 0] * step[..., None] * d for z, d in ((f, x), (g, y)))
        # Cut off where the step is much too long anyway.
        exponents = xp.clip(_exponents(p, ahead, beside, e), None, MOST_EXPONENT)
        mass = xp.sum(xp.exp(exponents), axis=(-2, -1))
        return _dual(p, ahead, beside, e, mass) >= height + share * step * slope - slack

    step = xp.where(wanted, REACH / xp.clip(size, REACH, None), xp.zeros_like(size))
    slack = 64 * rounding(f) * (1 + xp.abs(height))
    long = wanted & (size > REACH)
    for _ in range(HALVINGS):
        enough = rises(step, ASCENT, slack)
        if bool(xp.all(enough)):
            break
        step, long = xp.where(enough, step, step / 2), long & enough
    growing = long
    for _ in range(DOUBLINGS):
        growing = growing & (2 * step <= 1) & rises(2 * step, 0.5, 0.0)
        if not bool(xp.any(growing)):
            break
        step = xp.where(growing, 2 * step, step)
    return step[..., None] * x, step[..., None] * y, long


def _dual(p: Problem, f: Any, g: Any, e: Any, mass: Any) -> Any:
    """Value of the dual in units of epsilon, but for a constant."""
    return _worth(p.a, f, e, p.rigidity) + _worth(p.b, g, e, p.rigidity) - mass


def _worth(masses: Any, potential: Any, e: Any, rigidity: Any) -> Any:
    """``<masses, rho (1 - exp(-potential / rho))> / e``; ``<masses, potential> / e`` for infinite rho."""
    xp = namespace(potential)
    stiff = rigidity[..., 0]
    soft = stiff > 0
    one = xp.ones_like(stiff)
    bent = -xp.expm1(-potential * stiff) / xp.where(soft, stiff, one)
    return xp.sum(masses * xp.where(soft, bent, potential), axis=-1) / e[..., 0, 0]


def _newton_step(p: Problem, f: Any, g: Any, e: Any, now: _Marginals) -> tuple[Any, Any]:
    """Solution of the Newton equations by the Schur complement of the columns, scaled to a unit diagonal."""
    xp = namespace(f)
    pull = e[..., 0] * p.rigidity[..., 0]
    rows = now.rows + pull * (now.rows + now.row_lack)
    columns = now.columns + pull * (now.columns + now.column_lack)
    rows, columns = (xp.where(x > 0, x, xp.ones_like(x)) for x in (rows, columns))
    root = xp.sqrt(rows)
    t = now.plan / root[..., :, None]
    scaled = t / xp.sqrt(columns)[..., None, :]
    # Singular where bins fall apart into groups between which nothing flows: each may be shifted.
    ridge = 1 + 4 * p.cost.shape[-1] * rounding(f)
    product = scaled @ adjoint(scaled)
    schur = ridge * identity_like(product) - product
    lack = now.row_lack / root - _times(t, now.column_lack / columns)
    z = xp.linalg.solve(schur, lack[..., None])[..., 0]
    z = xp.where(xp.isfinite(z), z, xp.zeros_like(z))
    return z / root, (now.column_lack - _times(adjoint(t), z)) / columns


def _times(matrix: Any, vector: Any) -> Any:
    return (matrix @ vector[..., None])[..., 0]
