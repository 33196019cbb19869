"""Examples of the transport family, and how its results are judged."""

from __future__ import annotations

from . import columns, sweep

__all__ = ["columns", "sweep"]
