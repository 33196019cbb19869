"""Sketching: random operators that shrink tall matrices, and what is solved with them."""

from __future__ import annotations

from .lstsq import lstsq
from .operators import SketchOperator, countsketch, sjlt
from .results import LstsqInfo, LstsqMethod, LstsqResult, LstsqStatus

__all__ = [
    "LstsqInfo",
    "LstsqMethod",
    "LstsqResult",
    "LstsqStatus",
    "SketchOperator",
    "countsketch",
    "lstsq",
    "sjlt",
]
