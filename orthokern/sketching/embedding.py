"""How well a sketch keeps a subspace, and how many rows it takes."""

from __future__ import annotations

import math
from typing import Any

from .._core import check
from .._core.errors import OptionError
from .._core.namespace import namespace
from .operators import SketchOperator

KINDS = (
    "gaussian_sketch",
    "rademacher_sketch",
    "countsketch",
    "sjlt",
    "srht",
    "kronecker_srht",
)
PURPOSES = ("precondition", "embedding", "linf")


def sketch_distortion(operator: SketchOperator, u: Any, /) -> tuple[Any, Any]:
    """Smallest and largest singular value of ``S u`` (...,), for ``u`` (..., n, d) with orthonormal columns.

    All vectors of the subspace keep their length up to these two factors.

    flops: those of the sketch, and 4 s d^2.

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> low, high = orthokern.sketch_distortion(orthokern.sjlt(64, 500, seed=1), np.eye(500)[:, :8])
    >>> bool(0.5 < low < 1 < high < 1.5)
    True
    """
    check.matrix(u, kernel="sketch_distortion", name="u", low_precision=False)
    xp = namespace(u)
    values = xp.linalg.svdvals(operator.apply(u))
    return xp.min(values, axis=-1), xp.max(values, axis=-1)


def suggest_sketch_size(
    kind: str, d: int, /, *, eps: float = 0.5, delta: float = 0.01, purpose: str = "embedding"
) -> int:
    """Number of rows of a sketch of that kind for subspaces of dimension ``d``.

    Parameters
    ----------
    kind
        Name of the function that makes the operator.
    d
        Dimension of the subspace.
    eps
        Relative error of lengths (``embedding``), or of the bound of a coordinate (``linf``).
    delta
        Probability of failure.
    purpose
        ``embedding``: ``(sqrt(d) + sqrt(2 ln(2/delta)))^2 / eps^2``, which is exact for Gaussian entries and measured
        for the others; for countsketch ``d (d + 1) / (eps^2 delta)``, which is proved. ``precondition``: 2 d. ``linf``:
        the first one or ``2 d ln(2 d / delta) / eps^2``, whichever is more, for dense kinds only.

    Examples
    --------
    >>> import orthokern
    >>> orthokern.suggest_sketch_size("sjlt", 100, purpose="precondition")
    200
    """
    name = "suggest_sketch_size"
    check.choice(kind, KINDS, kernel=name, name="kind")
    check.choice(purpose, PURPOSES, kernel=name, name="purpose")
    d = check.count(d, kernel=name, name="d")
    eps = check.interval(eps, kernel=name, name="eps")
    delta = check.interval(delta, kernel=name, name="delta")
    if (purpose == "linf" and kind in ("countsketch", "sjlt")) or (
        purpose == "precondition" and kind == "countsketch"
    ):
        other = "srht" if purpose == "linf" else "sjlt"
        message = (
            f"{name}: expected a kind that serves purpose={purpose!r}, got {kind!r}; use {other!r}"
        )
        raise OptionError(message)
    if purpose == "precondition":
        return 2 * d
    if kind == "countsketch":
        return math.ceil(d * (d + 1) / (eps**2 * delta))
    gaussian = (math.sqrt(d) + math.sqrt(2 * math.log(2 / delta))) ** 2
    if purpose == "linf":
        gaussian = max(gaussian, 2 * d * math.log(2 * d / delta))
    return math.ceil(gaussian / eps**2)
