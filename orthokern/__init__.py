"""Numerical linear-algebra kernels around orthogonality, for every array library.

Names are imported on first use: ``import orthokern`` loads no array library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from . import sketching, spectral, transport
    from ._core.dispatch import explain, use_backend
    from ._core.errors import (
        ArrayTypeError,
        BackendError,
        ConvergenceWarning,
        DTypeError,
        OptionError,
        OrthokernError,
        ShapeError,
        UnsupportedError,
        ValuesError,
    )
    from .sketching import (
        SketchOperator,
        countsketch,
        sjlt,
    )
    from .spectral import (
        NormBounds,
        OutlierSplit,
        PolarInfo,
        PolarResult,
        cosh_rms_scale,
        inverse_pth_root,
        lmo_spectral_ball,
        matrix_sign,
        newton_schulz,
        orthogonalize,
        outlier_split,
        polar,
        root_orthogonalize,
        soft_spectral_clip,
        soft_threshold,
        spectral_clip,
        spectral_norm_bounds,
    )
    from .transport import (
        AssignmentInfo,
        AssignmentResult,
        Entropy,
        FmapLosses,
        OTInfo,
        OTResult,
        OTStatus,
        Partial,
        Points,
        RefinedMap,
        RoutingInfo,
        RoutingResult,
        SparsePlan,
        SparsityConstrained,
        SquaredL2,
        Unbalanced,
        Unregularized,
        c_transform,
        fmap_losses,
        fmap_to_pointmap,
        functional_map,
        ksupport_norm_squared,
        linear_assignment,
        pointmap_to_fmap,
        project_simplex,
        project_sparse_simplex,
        prox_ksupport,
        round_to_marginals,
        sinkhorn,
        sinkhorn_route,
        sliced_wasserstein,
        solve_ot,
        wasserstein_1d,
        zoomout,
    )

_HOMES = {
    "sketching": (
        "SketchOperator",
        "countsketch",
        "sjlt",
    ),
    "spectral": (
        "NormBounds",
        "OutlierSplit",
        "PolarInfo",
        "PolarResult",
        "cosh_rms_scale",
        "inverse_pth_root",
        "lmo_spectral_ball",
        "matrix_sign",
        "newton_schulz",
        "orthogonalize",
        "outlier_split",
        "polar",
        "root_orthogonalize",
        "soft_spectral_clip",
        "soft_threshold",
        "spectral_clip",
        "spectral_norm_bounds",
    ),
    "transport": (
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
    ),
    "_core.dispatch": ("explain", "use_backend"),
    "_core.errors": (
        "ArrayTypeError",
        "BackendError",
        "ConvergenceWarning",
        "DTypeError",
        "OptionError",
        "OrthokernError",
        "ShapeError",
        "UnsupportedError",
        "ValuesError",
    ),
}
_FAMILIES = ("sketching", "spectral", "transport")
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "ArrayTypeError",
    "AssignmentInfo",
    "AssignmentResult",
    "BackendError",
    "ConvergenceWarning",
    "DTypeError",
    "Entropy",
    "FmapLosses",
    "NormBounds",
    "OTInfo",
    "OTResult",
    "OTStatus",
    "OptionError",
    "OrthokernError",
    "OutlierSplit",
    "Partial",
    "Points",
    "PolarInfo",
    "PolarResult",
    "RefinedMap",
    "RoutingInfo",
    "RoutingResult",
    "ShapeError",
    "SketchOperator",
    "SparsePlan",
    "SparsityConstrained",
    "SquaredL2",
    "Unbalanced",
    "Unregularized",
    "UnsupportedError",
    "ValuesError",
    "c_transform",
    "cosh_rms_scale",
    "countsketch",
    "explain",
    "fmap_losses",
    "fmap_to_pointmap",
    "functional_map",
    "inverse_pth_root",
    "ksupport_norm_squared",
    "linear_assignment",
    "lmo_spectral_ball",
    "matrix_sign",
    "newton_schulz",
    "orthogonalize",
    "outlier_split",
    "pointmap_to_fmap",
    "polar",
    "project_simplex",
    "project_sparse_simplex",
    "prox_ksupport",
    "root_orthogonalize",
    "round_to_marginals",
    "sinkhorn",
    "sinkhorn_route",
    "sjlt",
    "sketching",
    "sliced_wasserstein",
    "soft_spectral_clip",
    "soft_threshold",
    "solve_ot",
    "spectral",
    "spectral_clip",
    "spectral_norm_bounds",
    "transport",
    "use_backend",
    "wasserstein_1d",
    "zoomout",
]


def __getattr__(name: str) -> Any:
    if name in _FAMILIES:
        return importlib.import_module(f".{name}", __name__)
    if name in _HOME_OF:
        value = getattr(importlib.import_module(f".{_HOME_OF[name]}", __name__), name)
        globals()[name] = value
        return value
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
