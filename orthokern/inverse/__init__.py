"""Inverse problems: self-calibration, ridge regression, hyperparameters by certified gradients."""

from __future__ import annotations

from .hypergradient import Hypergradient, HypergradientInfo, hypergradient
from .maid import MaidInfo, MaidResult, MaidStatus, maid
from .problems import BilevelProblem, Constants, RidgeProblem
from .ridge import RidgePath, ridge_path, ridge_solve
from .selfcalibration import (
    SelfCalInfo,
    SelfCalModel,
    SelfCalResult,
    SelfCalStatus,
    self_calibrate,
)

__all__ = [
    "BilevelProblem",
    "Constants",
    "Hypergradient",
    "HypergradientInfo",
    "MaidInfo",
    "MaidResult",
    "MaidStatus",
    "RidgePath",
    "RidgeProblem",
    "SelfCalInfo",
    "SelfCalModel",
    "SelfCalResult",
    "SelfCalStatus",
    "hypergradient",
    "maid",
    "ridge_path",
    "ridge_solve",
    "self_calibrate",
]
