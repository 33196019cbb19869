"""Spectral kernels: polar factorization, functions of singular values, and what optimizers make of them."""

from __future__ import annotations

from .coefficients import polar_express_coefficients
from .functions import (
    NormBounds,
    lmo_spectral_ball,
    soft_spectral_clip,
    spectral_clip,
    spectral_norm_bounds,
)
from .optimizer import (
    OutlierSplit,
    cosh_rms_scale,
    outlier_split,
    root_orthogonalize,
    shape_coefficients,
    soft_threshold,
)
from .plan import Step, StepKind, plan_polar
from .polar import Method, PolarInfo, PolarResult, newton_schulz, orthogonalize, polar
from .roots import inverse_pth_root, matrix_sign

__all__ = [
    "Method",
    "NormBounds",
    "OutlierSplit",
    "PolarInfo",
    "PolarResult",
    "Step",
    "StepKind",
    "cosh_rms_scale",
    "inverse_pth_root",
    "lmo_spectral_ball",
    "matrix_sign",
    "newton_schulz",
    "orthogonalize",
    "outlier_split",
    "plan_polar",
    "polar",
    "polar_express_coefficients",
    "root_orthogonalize",
    "shape_coefficients",
    "soft_spectral_clip",
    "soft_threshold",
    "spectral_clip",
    "spectral_norm_bounds",
]
