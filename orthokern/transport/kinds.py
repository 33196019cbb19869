"""The kinds of regularized transport: what each adds to the cost, its conjugate, its plan, and its engine.

A slack is ``alpha_i + beta_j - cost_ij``, minus infinity where nothing may flow. A kind stands for one regularizer in
one system of units; ``inside`` gives the same in those of a canonical problem.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from .._core.autodiff import constant
from .._core.dtypes import eps
from .._core.linalg import running_sum
from .._core.namespace import is_traced, namespace
from .accelerated import accelerated_potentials
from .canonical import INFINITY, Canonical, positive_or_one
from .certificate import lowered, rounded
from .clouds import distances, entropic_potentials_points, quadratic_potentials_points
from .columns import ksupport_norm_squared
from .newton import quadratic_potentials
from .proximal import exact_plan, proximal_plan
from .sinkhorn import entropic_potentials

# Marginal error that rounding the potentials makes in an entropic plan, in eps over the strength.
SHARPNESS = 4.0
# The largest such error that a plan may have and count as solved.
WORST_ROUNDING = 1e-3
# Costs between points that are formed, because the engine of a matrix is better: 32 MB in double precision.
FORMED = 2**22


class Effort(NamedTuple):
    """How an engine is run: to ``tol`` of the mass, or exactly ``max_iter`` steps where ``tol`` is None."""

    method: str
    tol: float | None
    max_iter: int | None

    @property
    def limits(self) -> dict[str, Any]:
        """As the engines take it."""
        return {"tol": self.tol, "max_iter": self.max_iter}


class Solution(NamedTuple):
    """Potentials and figures in canonical units; ``plan`` where the potentials do not determine it."""

    plan: Any
    alpha: Any
    beta: Any
    stats: Any


def _total(x: Any) -> Any:
    return namespace(x).sum(x, axis=(-2, -1))


def inner(x: Any, y: Any) -> Any:
    """Sum of the products of entries, without an array of them."""
    xp = namespace(x)
    return xp.sum(xp.vecdot(x, y, axis=-1), axis=-1)


def _squares(x: Any) -> Any:
    return inner(x, x)


def _times_log(x: Any) -> Any:
    """``x log x``, 0 at 0."""
    xp = namespace(x)
    return x * xp.log(xp.where(x > 0, x, xp.ones_like(x)))


def _positive(x: Any) -> Any:
    return namespace(x).clip(x, 0.0, None)


def _constants(problem: Canonical) -> tuple[Any, Any, Any]:
    return constant(problem.a), constant(problem.b), constant(problem.cost)


class Kind:
    """One regularizer on a stack of problems."""

    # What users call it.
    regularizer = ""
    methods: tuple[str, ...] = ("auto",)
    # Methods that can run a fixed number of steps.
    fixed: tuple[str, ...] = ()
    # Steps of the engine where the caller sets no limit; None leaves it to the engine.
    most_steps: int | None = None
    # Whether mass that is negligible is left out.
    prunes = True
    # Whether plans have few entries, and whether the optimum has no gap to its dual.
    sparse = True
    strong = True

    def size(self, mass: Any, unit: Any) -> Any:
        """How large costs and penalty of a unit of mass may be: ``unit`` is the range of the costs; shape (...)."""
        return unit

    def scaled(self, mass: Any, unit: Any) -> Kind:
        """The same for masses and costs that are divided by these."""
        return self

    def attainable(self, effort: Effort) -> Effort:
        """The effort with a tolerance that the precision allows; this kind is in canonical units."""
        return effort

    def lift(self, mass: Any) -> Any:
        """What the sum of two potentials has more for a plan of this mass than for its share of it; (..., 1, 1)."""
        return namespace(mass).zeros_like(mass)

    def solve(self, problem: Canonical, effort: Effort) -> Solution:
        """Run the engine; this kind is in the problem's units."""
        raise NotImplementedError

    def solve_points(
        self, x: Any, y: Any, a: Any, b: Any, scale: Any, p: float, effort: Effort
    ) -> tuple[Any, Any, Any]:
        """``(alpha, beta, stats)`` of the problem between two clouds at costs ``scale |x - y|^p``."""
        raise NotImplementedError

    def plan(self, slack: Any) -> Any:
        """The plan that belongs to the slacks of optimal potentials."""
        raise NotImplementedError

    def penalty(self, plan: Any) -> Any:
        """What the plan costs beyond its linear cost; shape (...)."""
        raise NotImplementedError

    def conjugate(self, slack: Any) -> Any:
        """What the dual subtracts; shape (...)."""
        raise NotImplementedError

    def value_near(self, plan: Any, a: Any, b: Any, cost: Any) -> Any:
        """Value of a plan with the marginals ``a`` and ``b``, not far from ``plan``, or a bound of it; shape (...)."""
        near = rounded(plan, a, b, sparse=False)
        return inner(near, _charged(near, cost)) + self.penalty(near)


def _charged(plan: Any, cost: Any) -> Any:
    """The costs where something flows, zero elsewhere: what is forbidden costs all, unless nothing goes there."""
    xp = namespace(cost)
    return xp.where(plan > 0, cost, xp.zeros_like(cost))


@dataclass(frozen=True)
class Linear(Kind):
    """No regularizer: the engine's own plan, and potentials without a positive slack."""

    regularizer = "Unregularized"
    methods = ("auto", "simplex", "proximal")

    def solve(self, problem: Canonical, effort: Effort) -> Solution:
        arrays = _constants(problem)
        if effort.method != "proximal":
            return Solution(*exact_plan(*arrays, **effort.limits))
        none = namespace(problem.mass).zeros_like(problem.mass)
        steps = Sparse.most_steps if effort.max_iter is None else effort.max_iter
        limits = {"k": int(arrays[2].shape[-2]), "tol": effort.tol, "max_iter": steps}
        return Solution(*proximal_plan(*arrays, none, **limits))

    def penalty(self, plan: Any) -> Any:
        return namespace(plan).zeros_like(plan[..., 0, 0])

    def conjugate(self, slack: Any) -> Any:
        return namespace(slack).zeros_like(slack[..., 0, 0])


@dataclass(frozen=True)
class Quadratic(Kind):
    """``gamma / 2`` times the sum of squares; gamma (..., 1, 1)."""

    gamma: Any
    regularizer = "SquaredL2"
    methods = ("auto", "newton", "accelerated")
    fixed = ("auto", "accelerated")
    most_steps = 5000

    def size(self, mass: Any, unit: Any) -> Any:
        return unit + mass * self.gamma[..., 0, 0]

    def scaled(self, mass: Any, unit: Any) -> Quadratic:
        return Quadratic(self.gamma * mass / unit)

    def solve(self, problem: Canonical, effort: Effort) -> Solution:
        arrays = (problem.a, problem.b, problem.cost, self.gamma)
        if effort.method == "accelerated" or effort.tol is None:
            return Solution(None, *accelerated_potentials(*arrays, max_iter=effort.max_iter))
        return Solution(None, *quadratic_potentials(*arrays, **effort.limits))

    def solve_points(
        self, x: Any, y: Any, a: Any, b: Any, scale: Any, p: float, effort: Effort
    ) -> tuple[Any, Any, Any]:
        return quadratic_potentials_points(x, y, a, b, self.gamma, scale, p=p, **effort.limits)  # type: ignore[no-any-return]

    def plan(self, slack: Any) -> Any:
        return _positive(slack) / self.gamma

    def penalty(self, plan: Any) -> Any:
        return _squares(plan) * self.gamma[..., 0, 0] / 2

    def conjugate(self, slack: Any) -> Any:
        return _squares(_positive(slack)) / (2 * self.gamma[..., 0, 0])


@dataclass(frozen=True)
class Sparse(Kind):
    """``gamma / 2`` times the sum of squares, and at most ``k`` entries in each column.

    ``convex`` replaces that by its convex hull: ``gamma / 2`` times the squared k-support norms of the columns. Both
    have the same dual.
    """

    gamma: Any
    k: int
    convex: bool = True
    regularizer = "SparsityConstrained"
    methods = ("auto", "proximal")
    most_steps = 10000

    @property
    def strong(self) -> bool:  # type: ignore[override]
        return self.convex

    def size(self, mass: Any, unit: Any) -> Any:
        return unit + mass * self.gamma[..., 0, 0]

    def scaled(self, mass: Any, unit: Any) -> Sparse:
        return Sparse(self.gamma * mass / unit, self.k, self.convex)

    def solve(self, problem: Canonical, effort: Effort) -> Solution:
        arrays = _constants(problem)
        if self.k > 1:
            return Solution(
                *proximal_plan(*arrays, constant(self.gamma), k=self.k, **effort.limits)
            )
        # The norm of a column is its sum, which is given: the exact plan, with potentials that know its price.
        plan, alpha, beta, stats = exact_plan(*arrays, **effort.limits)
        return Solution(plan, alpha, beta + constant(self.gamma)[..., 0] * arrays[1], stats)

    def plan(self, slack: Any) -> Any:
        return largest_of_columns(_positive(slack), self.k) / self.gamma

    def penalty(self, plan: Any) -> Any:
        xp = namespace(plan)
        half = self.gamma[..., 0, 0] / 2
        if self.convex:
            return xp.sum(ksupport_norm_squared(plan, k=self.k, axis=-2), axis=-1) * half
        squares = _squares(plan) * half
        return xp.where(fullest_column(plan) <= self.k, squares, xp.full_like(squares, INFINITY))

    def conjugate(self, slack: Any) -> Any:
        y = largest_of_columns(_positive(slack), self.k)
        return _squares(y) / (2 * self.gamma[..., 0, 0])


@dataclass(frozen=True)
class Entropic(Kind):
    """``epsilon`` times the entropy ``t (log t - 1)``; epsilon (..., 1, 1)."""

    epsilon: Any
    regularizer = "Entropy"
    methods = ("auto", "sinkhorn")
    fixed = ("auto", "sinkhorn")
    prunes = False
    sparse = False
    most_steps = 20000

    def size(self, mass: Any, unit: Any) -> Any:
        xp = namespace(unit)
        some = positive_or_one(mass)
        return unit + self.epsilon[..., 0, 0] * (1 + xp.abs(xp.log(some)))

    def scaled(self, mass: Any, unit: Any) -> Entropic:
        return Entropic(self.epsilon / unit)

    def attainable(self, effort: Effort) -> Effort:
        if effort.tol is None or is_traced(self.epsilon):
            return effort
        epsilon = constant(self.epsilon)
        if 0 in epsilon.shape:
            return effort
        sharpest = float(namespace(epsilon).max(1 / epsilon))
        rounding = min(SHARPNESS * eps(self.epsilon) * sharpest, WORST_ROUNDING)
        return effort._replace(tol=max(effort.tol, rounding))

    def lift(self, mass: Any) -> Any:
        return self.epsilon * namespace(mass).log(mass)

    def solve(self, problem: Canonical, effort: Effort) -> Solution:
        arrays = (problem.a, problem.b, problem.cost, self.epsilon)
        return Solution(None, *entropic_potentials(*arrays, **effort.limits))

    def solve_points(
        self, x: Any, y: Any, a: Any, b: Any, scale: Any, p: float, effort: Effort
    ) -> tuple[Any, Any, Any]:
        if x.shape[0] * y.shape[0] <= FORMED:
            # Newton steps want the matrix.
            costs = scale * distances(x, y, p)
            return entropic_potentials(a, b, costs, self.epsilon, **effort.limits)  # type: ignore[no-any-return]
        return entropic_potentials_points(x, y, a, b, self.epsilon, scale, p=p, **effort.limits)  # type: ignore[no-any-return]

    def plan(self, slack: Any) -> Any:
        xp = namespace(slack)
        open_ = slack > -INFINITY
        # Where nothing may flow an infinite exponent would leave no derivative by the strength.
        finite = xp.where(open_, slack, xp.zeros_like(slack))
        return xp.where(open_, xp.exp(finite / self.epsilon), xp.zeros_like(slack))

    def penalty(self, plan: Any) -> Any:
        return _total(_times_log(plan) - plan) * self.epsilon[..., 0, 0]

    def conjugate(self, slack: Any) -> Any:
        return _total(self.plan(slack)) * self.epsilon[..., 0, 0]

    def value_near(self, plan: Any, a: Any, b: Any, cost: Any) -> Any:
        """As of each kind; the plan nearby is this one, cut to its marginals, and a product of what they lack.

        The entropy of the two together is bounded by convexity, so that no logarithm of a sum is needed: with a share
        theta of the mass in the product it is too large by less than ``theta log(e / theta)``.
        """
        xp = namespace(plan)
        plan = plan * lowered(xp.sum(plan, axis=-2), b)[..., None, :]
        plan = plan * lowered(xp.sum(plan, axis=-1), a)[..., :, None]
        lacking = xp.clip(a - xp.sum(plan, axis=-1), 0.0, None)
        wanting = xp.clip(b - xp.sum(plan, axis=-2), 0.0, None)
        rest, kept = xp.sum(lacking, axis=-1), xp.sum(plan, axis=(-2, -1))
        product = lacking[..., :, None] * (wanting / positive_or_one(rest)[..., None])[..., None, :]
        linear = inner(plan, _charged(plan, cost)) + inner(product, _charged(product, cost))
        terms = [_total(_times_log(plan))]
        terms += [xp.sum(_times_log(x), axis=-1) for x in (lacking, wanting)]
        mixed = _times_log(rest + kept) - _times_log(kept) - 2 * _times_log(rest)
        return linear + self.epsilon[..., 0, 0] * (sum(terms) + mixed - rest - kept)


def fullest_column(plan: Any) -> Any:
    """Largest number of entries in a column; shape (...)."""
    xp = namespace(plan)
    return xp.max(xp.count_nonzero(plan, axis=-2), axis=-1)


def largest_of_columns(x: Any, k: int) -> Any:
    """The ``k`` largest entries of each column (not negative), of equal ones the first; zero elsewhere."""
    xp = namespace(x)
    least = xp.sort(x, axis=-2, descending=True, stable=False)[..., k - 1 : k, :]
    above, equal = x > least, x == least
    room = k - xp.sum(xp.astype(above, x.dtype), axis=-2, keepdims=True)
    turned = xp.matrix_transpose(xp.astype(equal, x.dtype))
    rank = xp.matrix_transpose(running_sum(turned))
    return xp.where(above | (equal & (rank <= room)), x, xp.zeros_like(x))
