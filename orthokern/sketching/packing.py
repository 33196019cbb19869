"""From figures to results."""

from __future__ import annotations

from typing import Any

from .._core.dtypes import real_dtype
from .._core.namespace import namespace
from .._core.results import warn_unconverged
from .normal_equations import squares
from .results import LstsqInfo, LstsqResult, LstsqStatus, Stat


def figures_of_nothing(b: Any) -> Any:
    """Figures (..., k, len(Stat)) of a matrix without entries: what is left is B (..., n, k)."""
    xp, total = namespace(b), squares(b)
    known = {Stat.RESIDUAL: xp.sqrt(total), Stat.SQUARES: total}
    return xp.stack([known.get(stat, xp.zeros_like(total)) for stat in Stat], axis=-1)


def packed(
    x: Any, stats: Any, like: Any, *, kernel: str, vector: bool, values: Any = None
) -> LstsqResult[Any]:
    """The result for ``x`` (..., d, k) and figures (..., k or 1, len(Stat)), in the real dtype of ``like``."""
    xp = namespace(x)
    wanted = real_dtype(like)
    table = stats if stats.dtype == wanted else xp.astype(stats, wanted)
    # Of one vector, or of the columns that there are.
    part: Any = (..., 0, slice(None)) if vector else (..., slice(x.shape[-1]), slice(None))
    columns, whole = table[part], table[..., 0, :]
    error, residual = columns[..., Stat.BACKWARD_ERROR], columns[..., Stat.RESIDUAL]
    status = columns[..., Stat.STATUS]
    good = status == LstsqStatus.CONVERGED.value
    missed = status == LstsqStatus.NOT_BACKWARD_STABLE.value
    warn_unconverged(kernel, ~missed, missed, error, hint="pass method='auto' or 'qr'")
    codes = xp.astype(whole[..., Stat.ITERATIONS :], xp.int32)

    def code(stat: Stat) -> Any:
        return codes[..., stat - Stat.ITERATIONS]

    info = LstsqInfo(
        iterations=code(Stat.ITERATIONS),
        residual=residual,
        converged=good,
        method=code(Stat.METHOD),
        status=xp.astype(status, xp.int32),
        backward_error=error,
        cond_estimate=whole[..., Stat.CONDITION],
        passes=code(Stat.PASSES),
        sketch_rows=code(Stat.SKETCH_ROWS),
        error_bound=columns[..., Stat.ERROR_BOUND],
    )
    squared = columns[..., Stat.SQUARES]
    return LstsqResult(x[..., 0] if vector else x, squared, code(Stat.RANK), values, info)
