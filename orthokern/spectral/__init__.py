"""Spectral kernels: polar factorization and what optimizers make of it."""

from __future__ import annotations

from .coefficients import polar_express_coefficients
from .plan import Step, StepKind, plan_polar
from .polar import Method, PolarInfo, PolarResult, newton_schulz, orthogonalize, polar

__all__ = [
    "Method",
    "PolarInfo",
    "PolarResult",
    "Step",
    "StepKind",
    "newton_schulz",
    "orthogonalize",
    "plan_polar",
    "polar",
    "polar_express_coefficients",
]
