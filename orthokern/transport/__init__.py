"""Optimal transport: columns of its plans, bounds of its values, sliced distances, and functional maps of shapes."""

from __future__ import annotations

from .certificate import c_transform, round_to_marginals
from .columns import (
    ksupport_norm_squared,
    project_simplex,
    project_sparse_simplex,
    prox_ksupport,
)
from .functional_maps import (
    FmapLosses,
    RefinedMap,
    fmap_losses,
    fmap_to_pointmap,
    functional_map,
    pointmap_to_fmap,
    zoomout,
)
from .sliced import sliced_wasserstein, wasserstein_1d

__all__ = [
    "FmapLosses",
    "RefinedMap",
    "c_transform",
    "fmap_losses",
    "fmap_to_pointmap",
    "functional_map",
    "ksupport_norm_squared",
    "pointmap_to_fmap",
    "project_simplex",
    "project_sparse_simplex",
    "prox_ksupport",
    "round_to_marginals",
    "sliced_wasserstein",
    "wasserstein_1d",
    "zoomout",
]
