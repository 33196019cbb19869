"""Examples of the transport family, and how its results are judged."""

from __future__ import annotations

from . import assignment, columns, sinkhorn, solve

__all__ = ["assignment", "columns", "sinkhorn", "solve"]
