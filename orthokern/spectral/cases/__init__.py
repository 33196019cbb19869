"""Examples of the spectral family, and how its results are judged."""

from __future__ import annotations

from . import functions, polar

__all__ = ["functions", "polar"]
