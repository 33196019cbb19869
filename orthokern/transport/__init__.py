"""Optimal transport: the solver, its results, the column functions of its regularizers, bounds, functional maps."""

from __future__ import annotations

from .assignment import AssignmentInfo, AssignmentResult, linear_assignment
from .certificate import c_transform, round_to_marginals
from .codes import OTStatus
from .columns import ksupport_norm_squared, project_simplex, project_sparse_simplex, prox_ksupport
from .functional_maps import (
    FmapLosses,
    RefinedMap,
    fmap_losses,
    fmap_to_pointmap,
    functional_map,
    pointmap_to_fmap,
    zoomout,
)
from .points import Points
from .regularizers import (
    Entropy,
    Partial,
    SparsityConstrained,
    SquaredL2,
    Unbalanced,
    Unregularized,
)
from .results import OTInfo, OTResult, SparsePlan
from .sinkhorn import RoutingInfo, RoutingResult, sinkhorn_route
from .sliced import sliced_wasserstein, wasserstein_1d
from .solve import sinkhorn, solve_ot

__all__ = [
    "AssignmentInfo",
    "AssignmentResult",
    "Entropy",
    "FmapLosses",
    "OTInfo",
    "OTResult",
    "OTStatus",
    "Partial",
    "Points",
    "RefinedMap",
    "RoutingInfo",
    "RoutingResult",
    "SparsePlan",
    "SparsityConstrained",
    "SquaredL2",
    "Unbalanced",
    "Unregularized",
    "c_transform",
    "fmap_losses",
    "fmap_to_pointmap",
    "functional_map",
    "ksupport_norm_squared",
    "linear_assignment",
    "pointmap_to_fmap",
    "project_simplex",
    "project_sparse_simplex",
    "prox_ksupport",
    "round_to_marginals",
    "sinkhorn",
    "sinkhorn_route",
    "sliced_wasserstein",
    "solve_ot",
    "wasserstein_1d",
    "zoomout",
]
