"""Regularized optimal transport with a certificate: one solver for every kind of regularizer."""

from __future__ import annotations

from typing import Any

from .._core import check
from .._core.autodiff import constant
from .._core.dispatch import kernel
from .._core.dtypes import eps
from .._core.errors import UnsupportedError
from .._core.namespace import is_traced, namespace
from .._core.progress import Listener, checked, listening
from .._core.results import warn_unconverged
from .._core.typing import ArrayT
from .bounds import Bounds, Evidence, Problem
from .codes import CONVERGED, FIXED, OPTIMAL, STALLED, TIES, Stat
from .kinds import Effort, Entropic, Kind, Quadratic, Sparse
from .loose import solve_unbalanced, with_nowhere
from .points import Points, solve_points
from .regularizers import Entropy, Partial, Unbalanced
from .request import (
    Regularizer,
    checked_clouds,
    checked_marginals,
    checked_problem,
    effort_of,
    kind_of,
)
from .results import OTInfo, OTResult, as_csr, entries_of
from .solution import solved

PLANS = ("auto", "dense", "coo", "csr", "none")
# Entries from which a sparse plan is returned as its entries.
LARGE_PLAN = 1_000_000
# What rounding may add to a gap, in eps.
ROUNDING = 64.0


@kernel()
def solve_ot(
    a: ArrayT,
    b: ArrayT,
    cost: ArrayT,
    /,
    *,
    regularizer: Regularizer,
    method: str = "auto",
    tol: float | None = 1e-8,
    max_iter: int | None = None,
    marginals: Unbalanced | Partial | None = None,
    plan: str = "auto",
    progress: Listener | None = None,
    warn: bool = True,
    backend: str | None = None,
) -> OTResult[ArrayT]:
    r"""Optimal transport between two vectors of masses, with a certificate.

    .. math::
        \min_T \; \langle T, C\rangle + \Omega(T) \quad \text{over} \quad T \ge 0,\ T 1 = a,\ T^T 1 = b

    Parameters
    ----------
    a : array (..., m)
        Masses of the rows, finite and not negative; zeros are allowed.
    b : array (..., n)
        Masses of the columns, of the same sum up to rounding; they are scaled to it.
    cost : array (..., m, n)
        Costs of any sign and scale, or :class:`Points`. Plus infinity forbids a pair; NaN and minus infinity are
        refused.
    regularizer : Unregularized, Entropy, SquaredL2 or SparsityConstrained
        :math:`\Omega`, with its strength.
    method : {"auto", "newton", "accelerated", "proximal", "simplex", "sinkhorn"}
        The engine; "auto" takes the one made for the regularizer.
    tol : float or None
        Marginal error as a share of the mass, and gap relative to the range of the costs, at which to stop; bins that
        hold less than a quarter of it together are left out. None runs exactly ``max_iter`` steps without a
        decision, which is what can be traced (jit, vmap, compile): "accelerated" and "sinkhorn" have this mode.
    max_iter : int, optional
        Most steps of the engine. The bounds hold also when it stops early.
    marginals : Unbalanced or Partial, optional
        Marginals at a price (with Entropy), or only a part of the mass moved (with Unregularized); the sums of ``a``
        and ``b`` may differ then. Without it both marginals are exact.
    plan : {"auto", "dense", "coo", "csr", "none"}
        Form of the plan: an array, a :class:`SparsePlan`, SciPy's ``csr_array`` (NumPy), or None. "auto" gives the
        entries of a sparse plan when the whole has more than a million.
    progress : callable, optional
        Called with the number of steps and the marginal error while an engine runs, outside a trace; what it raises
        ends the call.
    warn : bool
        Whether an eager call that does not converge warns.
    backend : str, optional
        Run on this backend; "array-api" forces the reference.

    Returns
    -------
    OTResult
        Arrays in the namespace, device and dtype of ``cost``.

    Notes
    -----
    Whatever happens inside, ``lower_bound <= optimum <= upper_bound`` up to rounding. Derivatives: of ``value`` with
    respect to masses, costs and strength for every regularizer (only differences of :math:`\partial/\partial a` and
    of :math:`\partial/\partial b` mean something); of plan and potentials, by the implicit function theorem, for
    SquaredL2 and Entropy, where plans of the other two are constants. Flops: about 10 m n for each of 20 to 200
    sweeps over the costs.

    References
    ----------
    T. Liu, J. Puigcerver, M. Blondel, "Sparsity-constrained optimal transport", arXiv:2209.15466. M. Blondel,
    V. Seguy, A. Rolet, "Smooth and sparse optimal transport", arXiv:1710.06276. D. Lorenz, P. Manns, C. Meyer,
    "Quadratically regularized optimal transport", arXiv:1903.01112.

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> cost = np.array([[0.0, 1.0], [1.0, 0.0]])
    >>> half = np.array([0.5, 0.5])
    >>> result = orthokern.solve_ot(half, half, cost, regularizer=orthokern.SquaredL2(4.0))
    >>> np.round(result.plan, 9).tolist()
    [[0.375, 0.125], [0.125, 0.375]]
    >>> bool(abs(result.gap) < 1e-8)
    True
    """
    options = (method, tol, max_iter)
    with listening(checked(progress, "solve_ot")):
        return _result("solve_ot", a, b, cost, regularizer, options, marginals, plan, warn)


@kernel()
def sinkhorn(
    a: ArrayT,
    b: ArrayT,
    cost: ArrayT,
    /,
    *,
    epsilon: Any,
    reference: str = "counting",
    tol: float | None = 1e-8,
    max_iter: int | None = None,
    marginals: Unbalanced | None = None,
    plan: str = "auto",
    progress: Listener | None = None,
    warn: bool = True,
    backend: str | None = None,
) -> OTResult[ArrayT]:
    r"""Entropic optimal transport: :func:`solve_ot` with :class:`Entropy`.

    .. math::
        \min_T \; \langle T, C\rangle + \epsilon \sum_{ij} t_{ij} (\log t_{ij} - 1), \qquad
        t_{ij} = \exp\bigl((\alpha_i + \beta_j - C_{ij}) / \epsilon\bigr)

    It converges at small ``epsilon`` too: the strength is lowered in stages, and Newton steps finish where plain
    iterations would crawl.

    Parameters
    ----------
    a : array (..., m)
        Masses of the rows.
    b : array (..., n)
        Masses of the columns, of the same sum.
    cost : array (..., m, n)
        Costs, or :class:`Points`; as in :func:`solve_ot`.
    epsilon : float or array (...)
        Strength, in units of the cost; positive.
    reference : {"counting", "product"}
        "product" measures the entropy relative to :math:`a b^T`: the same plan, other potentials and another constant
        in ``value``.
    tol, max_iter, marginals, plan, progress, warn, backend
        As in :func:`solve_ot`; ``tol=None`` runs ``max_iter`` plain iterations and can be traced.

    Returns
    -------
    OTResult
        Flops: about 2 m n for an iteration.

    References
    ----------
    M. Cuturi, "Sinkhorn distances", arXiv:1306.0895. B. Schmitzer, "Stabilized sparse scaling algorithms for entropy
    regularized transport problems", arXiv:1610.06519.

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> cost = np.array([[0.0, 1.0], [1.0, 0.0]])
    >>> result = orthokern.sinkhorn(np.array([0.5, 0.5]), np.array([0.5, 0.5]), cost, epsilon=1.0)
    >>> np.round(result.plan, 6).tolist()
    [[0.365529, 0.134471], [0.134471, 0.365529]]
    """
    entropy = Entropy(epsilon, reference)
    options = ("auto", tol, max_iter)
    with listening(checked(progress, "sinkhorn")):
        return _result("sinkhorn", a, b, cost, entropy, options, marginals, plan, warn)


def _result(
    name: str,
    a: Any,
    b: Any,
    cost: Any,
    regularizer: Any,
    options: tuple[Any, Any, Any],
    marginals: Any,
    form: Any,
    warn: Any,
) -> OTResult[Any]:
    """Checks, the solution, and its packing."""
    check.choice(form, PLANS, kernel=name, name="plan")
    check.flag(warn, kernel=name, name="warn")
    if isinstance(cost, Points) and marginals is None:
        return _between_clouds(name, a, b, cost, regularizer, options, form, warn)
    strength = getattr(regularizer, "gamma", getattr(regularizer, "epsilon", 1.0))
    problem = checked_problem(a, b, cost, strength, name, balanced=marginals is None)
    kind = kind_of(regularizer, problem.cost, name)
    checked_marginals(marginals, kind, cost, name)
    effort = effort_of(kind, problem.cost, *options, name)
    if 0 in problem.cost.shape[-2:]:
        return _nothing(problem, cost)
    plan, *potentials, bounds, evidence = _by_marginals(
        name, problem, kind, effort, marginals, regularizer
    )
    formed = _formed(_cast(plan, cost), form, kind, name)
    potentials = [_cast(v, cost) for v in potentials]
    return _packed(name, kind, formed, potentials, bounds, evidence, warn=warn)


def _by_marginals(
    name: str, problem: Problem, kind: Kind, effort: Effort, marginals: Any, regularizer: Any
) -> tuple[Any, Any, Any, Bounds, Evidence]:
    """The solution with exact marginals, or with those that were asked for."""
    if isinstance(marginals, Partial):
        wider = with_nowhere(problem, marginals.mass, name)
        plan, alpha, beta, bounds, evidence = solved(wider, kind, effort, "relaxed")
        return plan[..., :-1, :-1], alpha[..., :-1], beta[..., :-1], bounds, evidence
    if isinstance(marginals, Unbalanced) and isinstance(kind, Entropic):
        rho = check.per_matrix(marginals.rho, problem.cost, kernel=name, name="rho", strict=True)
        return solve_unbalanced(problem, kind, rho, effort)
    recover = getattr(regularizer, "recover", "relaxed")
    plan, *potentials, bounds, evidence = solved(problem, kind, effort, recover)
    potentials, bounds = _as_measured((problem.a, problem.b), kind, regularizer, potentials, bounds)
    return plan, potentials[0], potentials[1], bounds, evidence


def _between_clouds(
    name: str,
    a: Any,
    b: Any,
    cost: Points[Any],
    regularizer: Any,
    options: tuple[Any, Any, Any],
    form: str,
    warn: bool,
) -> OTResult[Any]:
    """The same where costs are computed from points."""
    rows, columns, points = checked_clouds(a, b, cost, name)
    kind = kind_of(regularizer, points.x, name)
    effort = effort_of(kind, points.x, *options, name)
    allowed = ("auto", "coo", "none") if kind.sparse else ("auto", "none")
    served = isinstance(kind, Quadratic | Entropic) and effort.method != "accelerated"
    if not served or effort.tol is None or form not in allowed:
        message = (
            f"{name}: expected SquaredL2 or Entropy, method='auto', a tolerance, and plan one of "
            f"{', '.join(map(repr, allowed))} with Points, which form no matrix; pass a matrix of costs for the rest"
        )
        raise UnsupportedError(message)
    plan, *potentials, bounds, evidence = solve_points(rows, columns, points, kind, effort)
    potentials, bounds = _as_measured((rows, columns), kind, regularizer, potentials, bounds)
    plan = None if form == "none" else plan
    return _packed(name, kind, plan, potentials, bounds, evidence, warn=warn)


def _packed(
    name: str,
    kind: Kind,
    plan: Any,
    potentials: list[Any],
    bounds: Bounds,
    evidence: Evidence,
    *,
    warn: bool,
) -> OTResult[Any]:
    """The result, and a warning where it is not what was asked for."""
    info = _info(kind, bounds, evidence)
    if warn:
        finite = namespace(bounds.value).isfinite(bounds.marginal_error)
        hint = "look at info.status, and at the bounds, which hold; raise tol or max_iter"
        warn_unconverged(name, info.converged, finite, bounds.marginal_error, hint=hint)
    alpha, beta = potentials
    return OTResult(
        plan=plan,
        alpha=alpha,
        beta=beta,
        value=bounds.value,
        linear_cost=bounds.linear_cost,
        dual_value=bounds.dual_value,
        gap=constant(bounds.value) - bounds.dual_value,
        marginal_error=bounds.marginal_error,
        lower_bound=bounds.dual_value,
        upper_bound=bounds.upper_bound,
        info=info,
    )


def _as_measured(
    masses: tuple[Any, Any], kind: Kind, regularizer: Any, potentials: list[Any], bounds: Bounds
) -> tuple[list[Any], Bounds]:
    """Potentials and values of the entropy relative to what its ``reference`` says."""
    if not isinstance(kind, Entropic) or regularizer.reference == "counting":
        return potentials, bounds
    xp = namespace(masses[0])
    epsilon = kind.epsilon[..., 0]
    logs = [epsilon * xp.log(xp.where(x > 0, x, xp.ones_like(x))) for x in masses]
    less = sum(xp.sum(x * log, axis=-1) for x, log in zip(masses, logs, strict=True))
    moved = bounds._replace(
        value=bounds.value - less,
        dual_value=bounds.dual_value - constant(less),
        upper_bound=bounds.upper_bound - constant(less),
    )
    return [v - log for v, log in zip(potentials, logs, strict=True)], moved


def _nothing(problem: Problem, cost: Any) -> OTResult[Any]:
    """The solution of problems without rows or without columns, whose masses are zero."""
    xp = namespace(problem.cost)
    zero = xp.sum(problem.cost, axis=(-2, -1))
    count = xp.astype(zero, xp.int32)
    info = OTInfo(count, zero, zero == 0, count + int(CONVERGED), count, count, zero)
    alpha, beta = xp.zeros_like(problem.a), xp.zeros_like(problem.b)
    plan, figures = _cast(problem.cost, cost), dict.fromkeys(OTResult._fields[3:-1], zero)
    return OTResult(plan, alpha, beta, **figures, info=info)


def _cast(x: Any, cost: Any) -> Any:
    return namespace(cost).astype(x, cost.dtype, copy=False)


def _formed(plan: Any, form: str, kind: Kind, kernel: str) -> Any:
    """The plan in the form that was asked for."""
    if form == "none":
        return None
    traced = is_traced(plan)
    if form == "auto":
        large = plan.ndim == 2 and plan.shape[0] * plan.shape[1] > LARGE_PLAN
        form = "coo" if large and kind.sparse and not traced else "dense"
    if form == "dense":
        return plan
    if plan.ndim > 2 or traced:
        message = (
            f"{kernel}: expected one problem outside a trace for plan={form!r}, got shape {tuple(plan.shape)}; "
            "pass plan='dense', or solve the problems one by one"
        )
        raise UnsupportedError(message)
    return as_csr(plan, kernel) if form == "csr" else entries_of(plan)


def _info(kind: Kind, bounds: Bounds, found: Evidence) -> OTInfo[Any]:
    """What ran, and whether marginals and gap are as they were asked for."""
    status, xp = found.status, namespace(found.status)
    error = found.stats[..., Stat.ERROR]
    tol = eps(error) ** 0.5 if found.tol is None else found.tol
    size = kind.size(found.mass, found.unit)
    allowed = found.mass * (tol * size + ROUNDING * eps(error) * (size + xp.abs(found.shift)))
    # What is missing or too much in the marginals is worth a potential.
    allowed = allowed + bounds.marginal_error * found.reach
    proven = xp.abs(constant(bounds.value) - bounds.dual_value) <= allowed
    good = (error <= tol) & (proven | (not kind.strong))
    good = good & ((status == CONVERGED) | (status == FIXED))
    failed = xp.where(status == CONVERGED, xp.full_like(status, STALLED), status)
    if isinstance(kind, Sparse):
        # Few entries, and no gap to the bound of the convex hull: nothing better exists.
        best = xp.where(found.ties > 0, TIES + 0 * error, OPTIMAL + 0 * error)
        status = xp.where(good & proven, best, status)
    return OTInfo(
        iterations=xp.astype(found.stats[..., Stat.ITERATIONS], xp.int32),
        residual=error,
        converged=good,
        status=xp.astype(xp.where(good, status, failed), xp.int32),
        max_column_nnz=xp.astype(found.fullest, xp.int32),
        ties=xp.astype(found.ties, xp.int32),
        pruned_mass=found.pruned,
    )
