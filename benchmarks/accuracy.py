"""How good a result is, by the residuals that the registry declares: the same figures for us and for peers."""

from __future__ import annotations

from typing import Any

import numpy as np
from peers import Factors
from tasks import Arrays, Task

from orthokern._core.dtypes import EPS
from orthokern._core.registry import Residual, load_all
from orthokern.testing import libraries

# What is printed of the two sides, for factors and for everything else.
FACTOR_FIGURES, FIGURES = ("orthogonality", "backward"), ("error",)


def to_numpy(factors: Factors) -> tuple[np.ndarray, np.ndarray | None]:
    """Both factors as float64 arrays, None for a Hermitian factor that was not made."""
    u, h = factors
    return libraries.to_numpy(u), None if h is None else libraries.to_numpy(h)


def _judged(
    kernel: str, arrays: Arrays, result: Any, options: dict[str, Any], dtype: str
) -> dict[str, Residual]:
    wide = tuple(a.astype(np.float64) for a in arrays)
    return load_all()[kernel].residuals(wide, result, options, EPS[dtype])


def errors(task: Task, arrays: Arrays, result: Any) -> dict[str, float]:
    """The figures that are printed for both sides, relative.

    Of factors ``|U^H U - I|`` and ``|X - U H| / |X|`` (Frobenius, the worst of a stack), without ``H`` with the
    Hermitian part of ``U^H X``; of other results the first figure that the registry declares for the kernel.
    """
    if task.factors:
        return factor_errors(arrays, result)
    first = next(iter(contract(task, arrays, result).values()))
    return {"error": first.value * EPS[task.dtype]}


def factor_errors(arrays: Arrays, factors: Factors) -> dict[str, float]:
    """Both errors of factors, whoever made them."""
    u, h = to_numpy(factors)
    kernel, result = ("unitary_factor", (u,)) if h is None else ("polar", (u, h))
    found = _judged(kernel, arrays, result, {}, "float64")
    return {name: found[name].value * EPS["float64"] for name in FACTOR_FIGURES}


def contract(task: Task, arrays: Arrays, result: Any) -> dict[str, Residual]:
    """The figures of the kernel's accuracy contract with their limits, in eps of the dtype."""
    options = dict(task.options)
    if not task.factors:
        parts = (
            tuple(libraries.to_numpy(part) for part in result)
            if isinstance(result, tuple)
            else None
        )
        return _judged(
            task.kernel, arrays, parts or libraries.to_numpy(result), options, task.dtype
        )
    u, h = to_numpy(result)
    if task.kernel != "polar":
        return _judged(task.kernel, arrays, u, options, task.dtype)
    if h is not None:
        return _judged("polar", arrays, (u, h), options, task.dtype)
    return _judged("unitary_factor", arrays, (u,), {}, task.dtype)


def kept(figures: dict[str, Residual]) -> bool:
    """Whether every figure is within its limit; NaN is not."""
    return all(figure.value <= figure.limit for figure in figures.values())
