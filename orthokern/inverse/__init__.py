"""Inverse problems: self-calibration, ridge regression, hyperparameters by certified gradients."""

from __future__ import annotations

from .selfcalibration import (
    SelfCalInfo,
    SelfCalModel,
    SelfCalResult,
    SelfCalStatus,
    self_calibrate,
)

__all__ = ["SelfCalInfo", "SelfCalModel", "SelfCalResult", "SelfCalStatus", "self_calibrate"]
