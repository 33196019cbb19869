"""Optimal transport: column functions of its regularizers, assignment, what turns potentials and plans into bounds."""

from __future__ import annotations

from .assignment import AssignmentInfo, AssignmentResult, linear_assignment
from .certificate import c_transform, round_to_marginals
from .columns import (
    ksupport_norm_squared,
    project_simplex,
    project_sparse_simplex,
    prox_ksupport,
)

__all__ = [
    "AssignmentInfo",
    "AssignmentResult",
    "c_transform",
    "ksupport_norm_squared",
    "linear_assignment",
    "project_simplex",
    "project_sparse_simplex",
    "prox_ksupport",
    "round_to_marginals",
]
