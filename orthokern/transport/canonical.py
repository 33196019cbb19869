"""What every engine of optimal transport reports about a canonical problem, and how it ended."""

from __future__ import annotations

from enum import IntEnum


class Stat(IntEnum):
    """Columns of the figures that an engine returns."""

    ITERATIONS = 0
    ERROR = 1
    STATUS = 2


class OTStatus(IntEnum):
    """How a solve ended."""

    CONVERGED = 0
    MAX_ITER = 1
    STALLED = 2
    INFEASIBLE = 3
    TIES = 4
    OPTIMAL_KSPARSE = 5
    NO_FEASIBLE_KSPARSE = 6
    FIXED = 7
