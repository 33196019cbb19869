"""Examples of the sketching family, and how its results are judged."""

from __future__ import annotations

from . import operators

__all__ = ["operators"]
