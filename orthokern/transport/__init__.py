"""Optimal transport: the solver, its results, the column functions of its regularizers, bounds, functional maps."""

from __future__ import annotations

from .assignment import AssignmentInfo, AssignmentResult, linear_assignment
from .canonical import OTStatus
from .certificate import c_transform, round_to_marginals
from .columns import ksupport_norm_squared, project_simplex, project_sparse_simplex, prox_ksupport
from .points import Points
from .regularizers import Entropy, SparsityConstrained, SquaredL2, Unregularized
from .results import OTInfo, OTResult, SparsePlan
from .sinkhorn import RoutingInfo, RoutingResult, sinkhorn_route
from .solve import sinkhorn, solve_ot

__all__ = [
    "AssignmentInfo",
    "AssignmentResult",
    "Entropy",
    "OTInfo",
    "OTResult",
    "OTStatus",
    "Points",
    "RoutingInfo",
    "RoutingResult",
    "SparsePlan",
    "SparsityConstrained",
    "SquaredL2",
    "Unregularized",
    "c_transform",
    "ksupport_norm_squared",
    "linear_assignment",
    "project_simplex",
    "project_sparse_simplex",
    "prox_ksupport",
    "round_to_marginals",
    "sinkhorn",
    "sinkhorn_route",
    "solve_ot",
]
