"""From figures to results."""

from __future__ import annotations

from typing import Any

from .._core.dtypes import real_dtype
from .._core.namespace import namespace
from .._core.results import warn_unconverged
from .normal_equations import squares
from .results import LstsqInfo, LstsqResult, LstsqStatus, Stat

# What says that nothing was promised.
UNPROMISED = (LstsqStatus.ONE_PASS, LstsqStatus.SKETCHED, LstsqStatus.NOT_FINITE)


def figures_of_nothing(b: Any) -> Any:
    """Figures (..., k, len(Stat)) of a matrix without entries: what is left is B (..., n, k)."""
    xp = namespace(b)
    norm = xp.sqrt(squares(b))
    zero = xp.zeros_like(norm)
    return xp.stack([norm if stat == Stat.RESIDUAL else zero for stat in Stat], axis=-1)


def packed(
    x: Any, stats: Any, like: Any, *, kernel: str, vector: bool, values: Any = None
) -> LstsqResult[Any]:
    """The result for ``x`` (..., d, k) and figures (..., k or 1, len(Stat)), in the real dtype of ``like``."""
    xp = namespace(x)
    table = xp.astype(stats, real_dtype(like), copy=False)
    whole, k = {stat: table[..., int(stat)] for stat in Stat}, x.shape[-1]
    columns = {stat: (v[..., 0] if vector else v[..., :k]) for stat, v in whole.items()}
    status = columns[Stat.STATUS]
    good = status == LstsqStatus.CONVERGED
    promised = status == LstsqStatus.NOT_BACKWARD_STABLE
    warn_unconverged(
        kernel, good, promised, columns[Stat.BACKWARD_ERROR], hint="pass method='auto' or 'qr'"
    )

    def code(stat: Stat) -> Any:
        return xp.astype(whole[stat][..., 0], xp.int32)

    info = LstsqInfo(
        iterations=code(Stat.ITERATIONS),
        residual=columns[Stat.RESIDUAL],
        converged=good,
        method=code(Stat.METHOD),
        status=xp.astype(status, xp.int32),
        backward_error=columns[Stat.BACKWARD_ERROR],
        cond_estimate=whole[Stat.CONDITION][..., 0],
        passes=code(Stat.PASSES),
        sketch_rows=code(Stat.SKETCH_ROWS),
        error_bound=columns[Stat.ERROR_BOUND],
    )
    residuals = _squared(whole[Stat.RESIDUAL])
    residuals = residuals[..., 0] if vector else residuals[..., :k]
    return LstsqResult(x[..., 0] if vector else x, residuals, code(Stat.RANK), values, info)


def _squared(norm: Any) -> Any:
    """Squares without a warning where they leave the range."""
    xp = namespace(norm)
    high = float(xp.finfo(norm.dtype).max) ** 0.5
    beyond = norm >= high
    square = xp.where(beyond, xp.zeros_like(norm), norm) ** 2
    return xp.where(beyond, xp.full_like(norm, float("inf")), square)
