"""Examples of the sketching family, and how its results are judged."""

from __future__ import annotations

from . import lstsq, operators

__all__ = ["lstsq", "operators"]
