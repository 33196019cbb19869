"""Sketch operators: random matrices S (s, n) with E[S^T S] = I, applied without being formed or stored."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._core import check
from .._core.errors import OptionError, ShapeError, UnsupportedError
from .._core.namespace import is_lazy
from .._core.segments import block_sum, per_columns
from .axes import along
from .dense import dense_adjoint, dense_product
from .hadamard import mixed_rows, unmixed_rows
from .hashing import SPARSE, gathered_rows, hashed, scattered_rows
from .sampling import chosen_rows, placed_rows, sample

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

        def sketched(x: Any) -> Any:
            self._expect(stop - start, x)
            if not is_lazy(x):
                return self._apply(x, start)
            if self.splits:
                return block_sum(self._apply, x, self.shape[0], start)
            return per_columns(functools.partial(self._apply, start=0), x, self.shape[0])

        return along(a, axis, sketched, kernel=self.kind, name="a")

    def adjoint(self, y: Any, /, *, axis: int = -2, rows: Rows | None = None) -> Any:
        """``S^T y`` for ``y`` (..., s, d) or (s,); with ``rows`` only these rows of it."""
        start, stop = self._block(rows)

        def spread(x: Any) -> Any:
            self._expect(self.shape[0], x)
            if not is_lazy(x):
                return self._adjoint(x, start, stop)
            block = functools.partial(self._adjoint, start=start, stop=stop)
            return per_columns(block, x, stop - start)

        return along(y, axis, spread, kernel=self.kind, name="y")

    def __matmul__(self, a: Any) -> Any:
        return self.apply(a)

    def to_dense(self, *, xp: Any = np) -> Any:
        """S as an array (s, n) of the namespace ``xp``, in its widest floating dtype."""
        # JAX has no numbers of 64 bits by default, and says so where they are asked for.
        wide = str(xp.arange(1).dtype).endswith("64")
        return self.apply(xp.eye(self.shape[1], dtype=xp.float64 if wide else xp.float32))

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

    def _expect(self, size: int, x: Any) -> None:
        if x.shape[-2] != size:
            message = f"{self.kind}: expected {size} rows, got an array seen as {tuple(x.shape)}"
            raise ShapeError(message)

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
        s, n = self.operator.shape
        return n, s

    @property
    def T(self) -> SketchOperator:
        """The operator itself."""
        return self.operator

    def __matmul__(self, y: Any) -> Any:
        return self.operator.adjoint(y)


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
        places = hashed(
            0, n, np.empty(0), block=s // z, nnz=z, seed=self.seed, stream=SPARSE, group=0
        )
        targets = np.stack([target + k * (s // z) for k, (target, _) in enumerate(places)], axis=-1)
        bits = np.stack([bit for _, bit in places], axis=-1)
        columns = np.repeat(np.arange(n), z)
        return targets.ravel(), columns, (2.0 * bits.ravel() - 1) * z**-0.5


@dataclass(frozen=True)
class DenseSketch(SketchOperator):
    """Independent entries: normal numbers, or signs, over ``sqrt(s)``."""

    law: str

    @property
    def kind(self) -> str:
        """``gaussian_sketch`` or ``rademacher_sketch``."""
        return self.law

    def _apply(self, a: Any, start: int) -> Any:
        return dense_product(self.kind, self.shape, self.seed, a, start)

    def _adjoint(self, y: Any, start: int, stop: int) -> Any:
        return dense_adjoint(self.kind, self.shape, self.seed, y, start, stop)


@dataclass(frozen=True)
class RowSketch(SketchOperator):
    """``s`` different rows chosen at random, times ``sqrt(n / s)``."""

    @property
    def kind(self) -> str:
        """``uniform_row_sketch``."""
        return "uniform_row_sketch"

    def _apply(self, a: Any, start: int) -> Any:
        return chosen_rows(a, self.shape, self.seed, start)

    def _adjoint(self, y: Any, start: int, stop: int) -> Any:
        return placed_rows(y, self.shape, self.seed)[..., start:stop, :]

    def to_sparse(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Row indices, column indices and values: one entry for each row."""
        s, n = self.shape
        columns = sample(n, np.empty(0), self.seed)[:s]
        return np.arange(s), columns, np.full(s, (n / s) ** 0.5)


@dataclass(frozen=True)
class HadamardSketch(SketchOperator):
    """Random rows of the Walsh-Hadamard transform, behind random signs and a random order of the rows."""

    permute: bool
    splits = False

    @property
    def kind(self) -> str:
        """``srht``."""
        return "srht"

    def _apply(self, a: Any, start: int) -> Any:
        return mixed_rows(a, rows=self.shape[0], seed=self.seed, permute=self.permute)

    def _adjoint(self, y: Any, start: int, stop: int) -> Any:
        return unmixed_rows(y, n=self.shape[1], seed=self.seed, permute=self.permute)


def sizes(s: Any, n: Any, seed: Any, *, kernel: str, sampled: bool = False) -> tuple[int, int, int]:
    """Checked size, length and seed; ``sampled``: no row can be taken twice."""
    n = check.count(n, kernel=kernel, name="n")
    s = check.count(s, kernel=kernel, name="s", most=n if sampled else None)
    return s, n, check.count(seed, kernel=kernel, name="seed", least=0, most=2**64 - 1)


def gaussian_sketch(s: int, n: int, /, *, seed: int = 0) -> SketchOperator:
    """Independent normal entries of variance 1/s: the sketch that theory describes exactly, and the slowest.

    flops: 2 s n d, and s n random numbers.  memory: a block of S.
    """
    s, n, seed = sizes(s, n, seed, kernel="gaussian_sketch")
    return DenseSketch((s, n), seed, "gaussian_sketch")


def rademacher_sketch(s: int, n: int, /, *, seed: int = 0) -> SketchOperator:
    """Independent entries ``+-1 / sqrt(s)``: like the Gaussian one, from one random bit an entry.

    flops: 2 s n d.  memory: a block of S.
    """
    s, n, seed = sizes(s, n, seed, kernel="rademacher_sketch")
    return DenseSketch((s, n), seed, "rademacher_sketch")


def uniform_row_sketch(s: int, n: int, /, *, seed: int = 0) -> SketchOperator:
    """``s`` different rows chosen uniformly: keeps only subspaces that no few rows carry.

    flops: s d.  memory: nothing but the result.
    """
    s, n, seed = sizes(s, n, seed, kernel="uniform_row_sketch", sampled=True)
    return RowSketch((s, n), seed)


def countsketch(s: int, n: int, /, *, seed: int = 0) -> SketchOperator:
    """One entry +-1 in each column: the cheapest sketch, and singular on structured subspaces (use ``sjlt``).

    flops: n d additions, one pass over a.  memory: nothing but the result.
    """
    s, n, seed = sizes(s, n, seed, kernel="countsketch")
    return HashSketch((s, n), seed, 1)


def sjlt(s: int, n: int, /, *, nnz: int = 8, seed: int = 0) -> SketchOperator:
    """Sparse sign embedding: ``nnz`` entries ``+-1 / sqrt(nnz)`` in each column, in different blocks of rows.

    ``s`` is rounded up to a multiple of ``nnz``; ``operator.shape`` says to what.

    flops: 2 nnz n d, one pass over a.  memory: nothing but the result.

    References
    ----------
    Kane, Nelson, "Sparser Johnson-Lindenstrauss transforms" (J. ACM 61, 2014), the block construction.

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> operator = orthokern.sjlt(16, 1000, seed=7)
    >>> (operator @ np.ones((1000, 3))).shape
    (16, 3)
    """
    s, n, seed = sizes(s, n, seed, kernel="sjlt")
    nnz = check.count(nnz, kernel="sjlt", name="nnz", most=s)
    return HashSketch((-(-s // nnz) * nnz, n), seed, nnz)


def srht(s: int, n: int, /, *, permute: bool = True, seed: int = 0) -> SketchOperator:
    """Subsampled randomized Hadamard transform ``R H D P / sqrt(s)``: dense, at the price of ``log2(n)`` additions.

    P is a random order of the rows, D random signs, H Sylvester's matrix of the next power of two, R takes s
    different rows. Without ``permute`` it is singular on structured subspaces (see the manual).

    flops: n log2(n) d additions.  memory: one copy of a.

    References
    ----------
    Tropp, "Improved analysis of the subsampled randomized Hadamard transform" (Adv. Adapt. Data Anal. 3, 2011).
    """
    s, n, seed = sizes(s, n, seed, kernel="srht", sampled=True)
    return HadamardSketch((s, n), seed, check.flag(permute, kernel="srht", name="permute"))
