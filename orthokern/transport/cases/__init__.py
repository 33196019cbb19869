"""Examples of the transport family, and how its results are judged."""

from __future__ import annotations

from . import assignment, columns, newton, proximal, sinkhorn, solve, sweep

__all__ = ["assignment", "columns", "newton", "proximal", "sinkhorn", "solve", "sweep"]
