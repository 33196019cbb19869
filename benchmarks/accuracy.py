"""How good a result is, by the residuals that the registry declares: the same figures for us and for peers."""

from __future__ import annotations

from typing import Any

import numpy as np
from peers import Factors
from tasks import Task

from orthokern._core.dtypes import EPS
from orthokern._core.registry import Residual, load_all
from orthokern.testing import libraries

FIGURES = ("orthogonality", "backward")


def to_numpy(factors: Factors) -> tuple[np.ndarray, np.ndarray | None]:
    """Both factors as float64 arrays, None for a Hermitian factor that was not made."""
    u, h = factors
    return libraries.to_numpy(u), None if h is None else libraries.to_numpy(h)


def _judged(
    kernel: str, x: np.ndarray, result: Any, options: dict[str, Any], dtype: str
) -> dict[str, Residual]:
    wide = (x.astype(np.float64),)
    return load_all()[kernel].residuals(wide, result, options, EPS[dtype])


def errors(x: np.ndarray, factors: Factors) -> dict[str, float]:
    """``|U^H U - I|`` and ``|X - U H| / |X|`` (Frobenius, the worst of a stack).

    A result without ``H`` is judged with the Hermitian part of ``U^H X``.
    """
    u, h = to_numpy(factors)
    kernel, result = ("unitary_factor", (u,)) if h is None else ("polar", (u, h))
    found = _judged(kernel, x, result, {}, "float64")
    return {name: found[name].value * EPS["float64"] for name in FIGURES}


def contract(task: Task, x: np.ndarray, factors: Factors) -> dict[str, Residual]:
    """The figures of the kernel's accuracy contract with their limits, in eps of the dtype."""
    u, h = to_numpy(factors)
    if task.kernel != "polar":
        return _judged(task.kernel, x, u, dict(task.options), task.dtype)
    if h is not None:
        return _judged("polar", x, (u, h), dict(task.options), task.dtype)
    return _judged("unitary_factor", x, (u,), {}, task.dtype)


def kept(figures: dict[str, Residual]) -> bool:
    """Whether every figure is within its limit; NaN is not."""
    return all(figure.value <= figure.limit for figure in figures.values())
