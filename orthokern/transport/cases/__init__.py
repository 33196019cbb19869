"""Examples of the transport family, and how its results are judged."""

from __future__ import annotations

from . import columns, functional_maps, sliced

__all__ = ["columns", "functional_maps", "sliced"]
