"""Examples of the sketching family, and how its results are judged."""

from __future__ import annotations

from . import factorizations, lstsq, operators

__all__ = ["factorizations", "lstsq", "operators"]
