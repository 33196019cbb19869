"""What is added to the linear cost of transport: one small object for each kind of problem."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

REFERENCES = ("counting", "product")
RECOVERIES = ("relaxed", "topk", "feasible")


@dataclass(frozen=True)
class Unregularized:
    """Nothing: the linear program of optimal transport."""


@dataclass(frozen=True)
class Entropy:
    r"""Entropy :math:`\epsilon \sum_{ij} t_{ij} (\log t_{ij} - 1)`: dense plans, Sinkhorn's algorithm.

    ``epsilon`` is a number or an array (...) with one for each problem, in units of the cost. With ``reference``
    "product" the entropy is taken relative to :math:`a b^T`; plans are the same, potentials differ by
    :math:`\epsilon \log a` and :math:`\epsilon \log b`.
    """

    epsilon: Any
    reference: str = "counting"


@dataclass(frozen=True)
class SquaredL2:
    r"""Quadratic term :math:`\tfrac{\gamma}{2} \|T\|_F^2`: sparse plans, smooth dual.

    ``gamma`` is a number or an array (...) with one for each problem, in units of cost per mass.
    """

    gamma: Any


@dataclass(frozen=True)
class SparsityConstrained:
    r"""At most ``k`` entries in each column of the plan, and :math:`\tfrac{\gamma}{2} \|T\|_F^2`.

    That problem is not convex. ``recover`` says which plan is wanted: "relaxed", the optimum over the convex hull
    (:math:`\tfrac{\gamma}{2}` times the squared k-support norm of the columns), with exact marginals and, where
    there are ties, columns of more than ``k`` entries; "topk", the ``k`` largest of the dual's entries, whose
    marginals are off by what ``marginal_error`` says; "feasible", a plan with both at most ``k`` entries and these
    marginals, if one is found, and ``gap`` bounds how far it is from the best one.
    """

    k: int
    gamma: Any
    recover: str = "relaxed"


@dataclass(frozen=True)
class Unbalanced:
    r"""Marginals at a price: :math:`\rho\, \mathrm{KL}(T 1 | a) + \rho\, \mathrm{KL}(T^T 1 | b)` in place of equality.

    For :class:`Entropy`, relative to :math:`a b^T`; the masses need not be equal. ``rho`` is a number or an array (...)
    with one for each problem, in units of the cost.
    """

    rho: Any


@dataclass(frozen=True)
class Partial:
    """Only the amount ``mass`` is moved, at the least cost, and no bin gives or takes more than it has.

    For :class:`Unregularized`; ``mass`` is a number or an array (...), at most the lesser of the two sums.
    """

    mass: Any
