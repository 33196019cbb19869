"""Codes of the figures that engines of transport return, and of how they ended. Host side; no arrays here."""

from __future__ import annotations

from enum import IntEnum


class Stat(IntEnum):
    """Columns of the figures that an engine returns beside its potentials."""

    ITERATIONS = 0
    ERROR = 1
    STATUS = 2


class Figure(IntEnum):
    """Columns of what ``entropic_solution`` knows of a plan: the fields of ``Bounds``, units, entries, tolerance."""

    VALUE = 0
    LINEAR = 1
    DUAL = 2
    ERROR = 3
    UPPER = 4
    UNIT = 5
    SHIFT = 6
    FULLEST = 7
    TOLERANCE = 8


class OTStatus(IntEnum):
    """Codes of ``info.status``."""

    CONVERGED = 0
    MAX_ITER = 1
    STALLED = 2
    INFEASIBLE = 3
    TIES = 4
    OPTIMAL_KSPARSE = 5
    NO_FEASIBLE_KSPARSE = 6
    FIXED = 7


# As numbers, because Dynamo neither converts members of an enumeration nor compares arrays with them.
CONVERGED, FIXED, STALLED = map(float, (OTStatus.CONVERGED, OTStatus.FIXED, OTStatus.STALLED))
TIES, OPTIMAL = float(OTStatus.TIES), float(OTStatus.OPTIMAL_KSPARSE)
