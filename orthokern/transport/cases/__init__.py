"""Examples of the transport family, and how its results are judged."""

from __future__ import annotations

from . import functional_maps, sliced

__all__ = ["functional_maps", "sliced"]
