"""Transport kernels: distances of distributions on the line, and maps between shapes."""

from __future__ import annotations

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
    "fmap_losses",
    "fmap_to_pointmap",
    "functional_map",
    "pointmap_to_fmap",
    "sliced_wasserstein",
    "wasserstein_1d",
    "zoomout",
]
