"""Sketching: random operators that shrink tall matrices, and what is solved with them."""

from __future__ import annotations

from .operators import SketchOperator, countsketch, sjlt

__all__ = ["SketchOperator", "countsketch", "sjlt"]
