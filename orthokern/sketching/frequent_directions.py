"""Frequent directions: a deterministic sketch of a stream of rows, with a certificate of its error."""

from __future__ import annotations

from typing import Any

from .._core import check
from .._core.dtypes import compute_precision, is_complex
from .._core.errors import ShapeError, UnsupportedError, ValuesError
from .._core.linalg import thin_svd
from .._core.namespace import is_lazy, is_traced, namespace, same_library
from .normal_equations import widened


class FrequentDirections:
    r"""``l`` rows B that stand for all rows A seen: :math:`0 \le A^H A - B^H B \le` ``shed`` I.

    ``shed`` is at most :math:`\|A - A_k\|_F^2 / (l - k)` for every k < l.

    Parameters
    ----------
    l : int
        Rows of the sketch.
    d : int
        Columns.

    References
    ----------
    M. Ghashami, E. Liberty, J. M. Phillips, D. P. Woodruff, "Frequent directions", SIAM J. Comput. 45 (2016).

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> stream = orthokern.FrequentDirections(2, 3)
    >>> stream.update(np.eye(3)).shed
    1.0
    """

    def __init__(self, l: int, d: int) -> None:  # noqa: E741
        self.l = check.count(l, kernel="FrequentDirections", name="l")
        self.d = check.count(d, kernel="FrequentDirections", name="d")
        self._rows: Any = None
        self._shed = 0.0

    def update(self, rows: Any) -> FrequentDirections:
        """Take in rows (m, d), or one row (d,), of the library of those before; in double precision where it can."""
        check.floating(rows, kernel="FrequentDirections", name="rows")
        rows = rows[None, :] if rows.ndim == 1 else rows
        if rows.ndim != 2 or rows.shape[-1] != self.d:
            message = f"FrequentDirections: expected rows (m, {self.d}), got shape {tuple(rows.shape)}; see d"
            raise ShapeError(message)
        if is_traced(rows) or is_lazy(rows):
            message = "FrequentDirections: expected rows with values, which a traced or a Dask array has not"
            raise UnsupportedError(message)
        xp = namespace(rows)
        if not bool(xp.all(xp.isfinite(rows))):
            message = (
                "FrequentDirections: expected finite rows, got NaN or infinity; leave them out"
            )
            raise ValuesError(message)
        for start in range(0, rows.shape[0], self.l):
            block = rows[start : min(start + self.l, rows.shape[0]), :]
            self._take(widened(compute_precision(block)))
        return self

    def merge(self, other: FrequentDirections) -> FrequentDirections:
        """Take in what ``other``, of the same columns, has seen; the certificates add up."""
        if other.d != self.d:
            message = f"FrequentDirections: expected a sketch of {self.d} columns, got {other.d}; merge like sketches"
            raise ShapeError(message)
        shed, rows = other._shed, other._rows
        if rows is not None:
            self.update(rows)
        self._shed += shed
        return self

    @property
    def sketch(self) -> Any:
        """B (at most l rows, d); None before the first row."""
        self._shrink()
        return self._rows

    @property
    def shed(self) -> float:
        """Bound of the norm of ``A^H A - B^H B``."""
        self._shrink()
        return self._shed

    def _take(self, rows: Any) -> None:
        if self._rows is None:
            self._rows = rows
        else:
            xp = same_library(rows, self._rows)
            wide = next((x.dtype for x in (rows, self._rows) if is_complex(x)), rows.dtype)
            self._rows = xp.concat([xp.astype(self._rows, wide), xp.astype(rows, wide)], axis=0)
        if self._rows.shape[0] >= 2 * self.l:
            self._shrink()

    def _shrink(self) -> None:
        """To l rows: the (l+1)-th squared singular value is taken off all of them."""
        if self._rows is None or self._rows.shape[0] <= self.l:
            return
        xp = namespace(self._rows)
        _, s, vh = thin_svd(self._rows)
        s, vh, lost = s[: self.l], vh[: self.l, :], s[self.l :][:1]
        delta = float(lost[0]) if lost.shape[0] else 0.0
        # (s - delta)(s + delta) keeps the digits that a difference of squares would lose.
        gap = (s - delta) * (s + delta)
        root = xp.sqrt(xp.where(gap > 0, gap, xp.zeros_like(gap)))
        self._rows = xp.astype(root, vh.dtype)[:, None] * vh
        self._shed += delta**2
