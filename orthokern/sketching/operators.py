"""Sketch operators: random matrices S (s, n) with E[S^T S] = I that hold no arrays and are applied without being formed."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._core import check
from .._core.autodiff import full_precision
from .._core.dtypes import compute_precision
from .._core.errors import OptionError, ShapeError, UnsupportedError
from .._core.namespace import is_lazy, namespace
from .._core.segments import block_sum, per_columns
from .hashing import gathered_rows, hashed, scattered_rows

Rows = tuple[int, int]


@dataclass(frozen=True)
class SketchOperator:
    """A random matrix S (s, n) with E[S^T S] = I, known by its kind, its shape and a seed.

    The same S for every matrix of a batch, on every library and device. Operators compare and hash by what they are.
    """

    shape: tuple[int, int]
    seed: int

    # Whether partial sums over blocks of rows make up the whole.
    splits = True

    @property
    def kind(self) -> str:
        """The name of the function that makes such operators."""
        raise NotImplementedError

    @property
    def T(self) -> TransposedSketch:
        """The transpose of S."""
        return TransposedSketch(self)

    def apply(self, a: Any, /, *, axis: int = -2, rows: Rows | None = None) -> Any:
        """``S a``, in the dtype and on the device of ``a``.

        Parameters
        ----------
        a
            Array (..., n, d), or (n,): real or complex floating. float16 and bfloat16 are summed in float32.
        axis
            The axis of ``a`` along which its n rows are counted; it holds the s rows of the result.
        rows
            ``(start, stop)``: ``a`` holds only these rows of the whole. The results of blocks that make up the whole
            add up to its sketch, up to rounding.

        Returns
        -------
        Array (..., s, d), or (s,)
        """
        start, stop = self._block(rows)
        return _along(
            a, axis, stop - start, self.kind, lambda x: self._sketched(x, start, rows is not None)
        )

    def adjoint(self, y: Any, /, *, axis: int = -2, rows: Rows | None = None) -> Any:
        """``S^T y`` for ``y`` (..., s, d) or (s,); with ``rows`` only these rows of it."""
        start, stop = self._block(rows)
        return _along(y, axis, self.shape[0], self.kind, lambda x: self._spread(x, start, stop))

    def __matmul__(self, a: Any) -> Any:
        return self.apply(a)

    def to_dense(self, *, xp: Any = np) -> Any:
        """S as an array (s, n) of the namespace ``xp``, in its widest floating dtype."""
        return self.apply(xp.eye(self.shape[1], dtype=xp.float64))

    def to_sparse(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Row indices, column indices and values of the entries that are not zero, as NumPy arrays."""
        message = (
            f"{self.kind}: expected a sparse kind for to_sparse, got a dense one; use to_dense()"
        )
        raise UnsupportedError(message)

    def _block(self, rows: Rows | None) -> Rows:
        n = self.shape[1]
        if rows is None:
            return 0, n
        if not self.splits:
            message = f"{self.kind}: expected whole columns, got rows={rows!r}; use sjlt, whose partial sketches add up"
            raise UnsupportedError(message)
        try:
            start, stop = (
                check.count(r, kernel=self.kind, name="rows", least=0, most=n) for r in rows
            )
        except (TypeError, ValueError):
            start = stop = 0
        if not start < stop:
            message = f"{self.kind}: expected rows to be (start, stop) with 0 <= start < stop <= {n}, got {rows!r}"
            raise OptionError(message)
        return start, stop

    def _sketched(self, a: Any, start: int, part: bool) -> Any:
        if not is_lazy(a):
            return self._apply(a, start)
        if self.splits:
            return block_sum(self._apply, a, self.shape[0], start)
        return per_columns(functools.partial(self._apply, start=0), a, self.shape[0])

    def _spread(self, y: Any, start: int, stop: int) -> Any:
        if not is_lazy(y):
            return self._adjoint(y, start, stop)
        return per_columns(
            functools.partial(self._adjoint, start=start, stop=stop), y, stop - start
        )

    def _apply(self, a: Any, start: int) -> Any:
        """``S[:, start : start + m] a`` for ``a`` (..., m, d)."""
        raise NotImplementedError

    def _adjoint(self, y: Any, start: int, stop: int) -> Any:
        """``S[:, start:stop]^T y``."""
        raise NotImplementedError


@dataclass(frozen=True)
class TransposedSketch:
    """The transpose of a sketch operator."""

    operator: SketchOperator

    @property
    def shape(self) -> tuple[int, int]:
        """(n, s)."""
        return self.operator.shape[::-1]

    @property
    def T(self) -> SketchOperator:
        """The operator itself."""
        return self.operator

    def __matmul__(self, y: Any) -> Any:
        return self.operator.adjoint(y)


def _along(x: Any, axis: int, size: int, kernel: str, function: Any) -> Any:
    """``function`` of ``x`` seen as (..., size, d), in float32 at least; back as ``x`` was."""
    check.floating(x, kernel=kernel, name="a")
    vector = x.ndim == 1
    where = -2 if vector else check.axis(axis, x, kernel=kernel, name="a")
    xp = namespace(x)
    rows = x[:, None] if vector else x if where == -2 else xp.moveaxis(x, where, -2)
    if rows.ndim < 2 or rows.shape[-2] != size:
        message = f"{kernel}: expected {size} rows along axis {axis}, got an array of shape {tuple(x.shape)}"
        raise ShapeError(message)
    with full_precision(x):
        out = xp.astype(function(compute_precision(rows)), x.dtype, copy=False)
    return out[:, 0] if vector else out if where == -2 else xp.moveaxis(out, -2, where)


@dataclass(frozen=True)
class HashSketch(SketchOperator):
    """``nnz`` entries ``+-1 / sqrt(nnz)`` in each column, one in each of ``nnz`` blocks of rows."""

    nnz: int

    @property
    def kind(self) -> str:
        """``countsketch`` for one entry a column, else ``sjlt``."""
        return "countsketch" if self.nnz == 1 else "sjlt"

    def _apply(self, a: Any, start: int) -> Any:
        return scattered_rows(a, rows=self.shape[0], nnz=self.nnz, seed=self.seed, start=start)

    def _adjoint(self, y: Any, start: int, stop: int) -> Any:
        return gathered_rows(y, stop=stop, nnz=self.nnz, seed=self.seed, start=start)

    def to_sparse(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Row indices, column indices and values of the ``nnz`` n entries, column by column."""
        (s, n), z = self.shape, self.nnz
        places = hashed(0, n, np.empty(0), block=s // z, nnz=z, seed=self.seed, stream=1, group=0)
        targets = np.stack([target + k * (s // z) for k, (target, _) in enumerate(places)], axis=-1)
        bits = np.stack([bit for _, bit in places], axis=-1)
        columns = np.repeat(np.arange(n), z)
        return targets.ravel(), columns, (2.0 * bits.ravel() - 1) * z**-0.5


def _sizes(s: Any, n: Any, seed: Any, kernel: str) -> tuple[int, int, int]:
    s = check.count(s, kernel=kernel, name="s")
    n = check.count(n, kernel=kernel, name="n")
    return s, n, check.count(seed, kernel=kernel, name="seed", least=0, most=2**64 - 1)


def sjlt(s: int, n: int, /, *, nnz: int = 8, seed: int = 0) -> SketchOperator:
    """Sparse sign embedding: ``nnz`` entries ``+-1 / sqrt(nnz)`` in each column, in different blocks of rows.

    ``s`` is rounded up to a multiple of ``nnz``; ``operator.shape`` says to what.

    flops: 2 nnz n d, one pass over a.  memory: nothing but the result.
    """
    s, n, seed = _sizes(s, n, seed, "sjlt")
    nnz = check.count(nnz, kernel="sjlt", name="nnz", most=s)
    return HashSketch((-(-s // nnz) * nnz, n), seed, nnz)


def countsketch(s: int, n: int, /, *, seed: int = 0) -> SketchOperator:
    """One entry +-1 in each column: the cheapest sketch, and singular on structured subspaces (use ``sjlt``)."""
    s, n, seed = _sizes(s, n, seed, "countsketch")
    return HashSketch((s, n), seed, 1)
