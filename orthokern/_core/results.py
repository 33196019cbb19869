"""What the results of kernels share."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

from .errors import ConvergenceWarning
from .linalg import nan_unless
from .namespace import is_lazy, is_traced, namespace

PACKAGE = f"{__name__.partition('.')[0]}."


def mask_members(x: Any, keep: Any) -> Any:
    """``x`` with NaN in the members where ``keep`` (..., 1, 1) is False; ``x`` itself if nothing is masked."""
    xp = namespace(x)
    if not is_traced(x) and not is_lazy(x) and bool(xp.all(keep)):
        return x
    return nan_unless(keep, x)


def warn_unconverged(kernel: str, converged: Any, finite: Any, residual: Any, *, hint: str) -> None:
    """Warn once per eager call if a finite member did not reach the accuracy asked for."""
    if is_traced(converged) or is_lazy(converged):
        return
    xp = namespace(converged)
    if not bool(xp.all(converged | ~finite)):
        worst = float(xp.max(xp.where(finite, residual, xp.zeros_like(residual))))
        message = (
            f"{kernel}: the accuracy asked for was not reached (worst residual {worst:.1e}); {hint}"
        )
        warnings.warn(message, ConvergenceWarning, stacklevel=_depth())


def _depth() -> int:
    """How far up from the caller of this function the first line outside the package stands."""
    depth, frame = 0, inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").startswith(PACKAGE):
        depth, frame = depth + 1, frame.f_back
    return depth
