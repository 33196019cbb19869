"""Directive ``contract-table``: errors of the methods at several condition numbers, computed when the page is built."""

from __future__ import annotations

import numpy as np
import scipy.linalg
from docutils import nodes
from docutils.parsers.rst import Directive
from support import _table

import orthokern
from orthokern.spectral.cases.matrices import graded

SIZE = 200
CONDITIONS = (1e1, 1e4, 1e8, 1e12)
METHODS = ("auto", "svd", "newton", "dwh")


def _errors(a: np.ndarray, u: np.ndarray, h: np.ndarray) -> str:
    eps = np.finfo(a.dtype).eps
    orthogonality = np.linalg.norm(u.conj().T @ u - np.eye(len(u))) / eps
    backward = np.linalg.norm(a - u @ h) / np.linalg.norm(a) / eps
    return f"{orthogonality:.0f} / {backward:.0f}"


class Contract(Directive):
    """Rows: condition numbers. Columns: methods, and SciPy beside them."""

    def run(self) -> list[nodes.Node]:
        body = []
        for kappa in CONDITIONS:
            a = graded(np.random.default_rng(5), SIZE, SIZE, kappa)
            ours = [_errors(a, *orthokern.polar(a, method=method)[:2]) for method in METHODS]
            body.append([f"1e{np.log10(kappa):.0f}", *ours, _errors(a, *scipy.linalg.polar(a))])
        limit = f"{10 * SIZE**0.5:.0f} / {max(60, 20 * SIZE**0.5):.0f}"
        body.append(["limit", *[limit] * len(METHODS), "none stated"])
        head = ["condition number", *(f"``{name}``" for name in METHODS), "``scipy.linalg.polar``"]
        return [_table(head, body, [16] * len(head))]


def setup(app: object) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("contract-table", Contract)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
