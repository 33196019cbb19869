"""Examples of the transport family, and how its results are judged."""

from __future__ import annotations

from . import assignment, columns, functional_maps, newton, proximal, sinkhorn, sliced, solve, sweep

__all__ = [
    "assignment",
    "columns",
    "functional_maps",
    "newton",
    "proximal",
    "sinkhorn",
    "sliced",
    "solve",
    "sweep",
]
