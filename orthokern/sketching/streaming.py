"""Least squares of rows that arrive in blocks: sums in bounded memory, in one pass or in several."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .._core import check
from .._core.dispatch import kernel
from .._core.dtypes import EPS, eps
from .._core.errors import OptionError, ShapeError
from .._core.namespace import namespace
from .blockwise import solved_source
from .lstsq import right_hand_sides
from .normal_equations import normal_equations, widened
from .operators import SketchOperator, gaussian_sketch, sjlt
from .packing import packed
from .refine import figures, one_pass
from .results import LstsqMethod, LstsqResult, LstsqStatus, Stat
from .solution import least_rcond
from .sources import Blocks
from .starts import Request, start_of_sketch, start_of_sums

Block = tuple[Any, Any]
Progress = Callable[[int, int], None]
# A stream may have so many rows: sketches hash the number of a row, and need a bound.
MOST_ROWS = 2**40
PASSES = (1, 3)
SKETCHES = ("sjlt", "gaussian")


@kernel()
def lstsq_stream(
    blocks: Iterable[Block] | Callable[[], Iterable[Block]],
    /,
    *,
    passes: int = 3,
    rcond: float | None = None,
    tol: float | None = None,
    damp: float = 0.0,
    sketch_size: int | None = None,
    seed: int = 0,
    max_refine: int = 8,
    progress: Progress | None = None,
    backend: str | None = None,
) -> LstsqResult[Any]:
    r"""Least-squares solution of a problem whose rows arrive in blocks and are never held together.

    Parameters
    ----------
    blocks : iterable of pairs (a, b), or a function that returns one
        Blocks of rows (..., m, d) and (..., m) or (..., m, k) without batch dimensions, m >= 1: arrays of one library,
        of one dtype. With ``passes=3`` it is gone through several times, in the same order.
    passes : {3, 1}
        3: as many as :func:`lstsq` takes for the same accuracy, which are three where the Gram matrix will do. 1: the
        normal equations alone, whose solution nothing refines; ``info.status`` says ``ONE_PASS``.
    rcond, tol, damp, sketch_size, seed, max_refine
        As in :func:`lstsq`.
    progress : function, optional
        Called after each block with the number of the pass and the number of rows it has seen.
    backend : str, optional
        Run on this backend; "array-api" forces the reference.

    Returns
    -------
    LstsqResult
        That of :func:`lstsq` on the blocks put together, up to rounding; float32 blocks give a float32 solution. One
        value that is not finite makes all of it NaN.

    Notes
    -----
    Flops: those of :func:`lstsq`. Memory: d^2 and one block. A rank-deficient matrix with at least 8 d rows is
    decided on by a sketch.

    References
    ----------
    E. N. Epperly, M. Meier, Y. Nakatsukasa, "Fast randomized least-squares solvers can be just as accurate and stable
    as classical direct solvers", arXiv:2406.03468.

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> t = np.arange(12.0)
    >>> blocks = [(np.stack([np.ones(4), t[i : i + 4]], axis=1), 2 * t[i : i + 4] + 1) for i in (0, 4, 8)]
    >>> np.round(orthokern.lstsq_stream(blocks).x, 12).tolist()
    [1.0, 2.0]
    """
    if passes not in PASSES:
        message = f"lstsq_stream: expected passes to be 1 or 3, got {passes!r}"
        raise OptionError(message)
    options = {
        "method": "auto",
        "rcond": rcond,
        "tol": tol,
        "damp": check.at_least(damp, 0.0, kernel="lstsq_stream", name="damp"),
        "max_refine": check.count(max_refine, kernel="lstsq_stream", name="max_refine"),
        "equilibrate": True,
        "sketch_rows": sketch_size,
        "seed": seed,
    }
    stream = _Stream(blocks, progress, again=passes > 1)
    if passes == 1:
        sketch = StreamingSketch(sketch=None)
        for _, a, b in stream.rows():
            sketch.update(a, b)
        sketch.vector = stream.vector
        return sketch.solve(damp=damp, rcond=rcond)
    source = Blocks(stream.rows)
    x, stats = solved_source(source, tolerance=stream.eps, **options)
    return stream.packed(x, stats)


class _Stream:
    """Blocks that have been checked, with the number of their first row."""

    def __init__(self, blocks: Any, progress: Progress | None, *, again: bool) -> None:
        if again and isinstance(blocks, Iterator):
            message = (
                "lstsq_stream: expected blocks that can be gone through several times, got an iterator; pass a "
                "function that returns a new one, or passes=1"
            )
            raise OptionError(message)
        self.blocks, self.progress, self.number = blocks, progress, 0
        self.like: Any = None
        self.vector = True

    @property
    def eps(self) -> float:
        """Of the blocks' dtype; known after the first pass has begun."""
        return EPS["float64"] if self.like is None else eps(self.like)

    def rows(self) -> Iterator[tuple[int, Any, Any]]:
        """One pass."""
        self.number += 1
        start = 0
        blocks: Any = self.blocks() if callable(self.blocks) else self.blocks
        for a, b in blocks:
            columns = _checked(a, b)
            self.like, self.vector = a, b.ndim == 1
            yield start, a, columns
            start += a.shape[0]
            if self.progress is not None:
                self.progress(self.number, start)

    def packed(self, x: Any, stats: Any) -> LstsqResult[Any]:
        """The result in the dtype of the blocks."""
        xp = namespace(x)
        return packed(
            xp.astype(x, self.like.dtype, copy=False),
            stats,
            self.like,
            kernel="lstsq_stream",
            vector=self.vector,
        )


def _checked(a: Any, b: Any) -> Any:
    check.matrix(a, kernel="lstsq_stream", name="a", low_precision=False)
    if a.ndim != 2 or 0 in a.shape or b.ndim not in (1, 2):
        message = (
            f"lstsq_stream: expected blocks of rows (m, d) and (m,) or (m, k) with m and d >= 1, got {tuple(a.shape)} "
            f"and {tuple(b.shape)}; leave out empty blocks"
        )
        raise ShapeError(message)
    return right_hand_sides(a, b)


class StreamingSketch:
    """Normal equations, and a sketch, of rows that arrive in blocks: they are read once and forgotten.

    Parts of a problem may be summed apart, on several machines, and merged: the rows of each are told from the others
    by their number, of which ``first_row`` is the first.

    Parameters
    ----------
    sketch : {"sjlt", "gaussian", None}
        What solves the problem where the normal equations are too ill-conditioned. None keeps those alone.
    sketch_size : int, optional
        Rows of the sketch; default 4 d.
    seed : int
        Of the sketch.
    first_row : int
        Number of the first row that this object will see.

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> t = np.arange(12.0)
    >>> left, right = orthokern.StreamingSketch(), orthokern.StreamingSketch(first_row=6)
    >>> _ = left.update(np.stack([np.ones(6), t[:6]], axis=1), 2 * t[:6] + 1)
    >>> _ = right.update(np.stack([np.ones(6), t[6:]], axis=1), 2 * t[6:] + 1)
    >>> np.round(left.merge(right).solve().x, 12).tolist()
    [1.0, 2.0]
    """

    def __init__(
        self,
        *,
        sketch: str | None = "sjlt",
        sketch_size: int | None = None,
        seed: int = 0,
        first_row: int = 0,
    ) -> None:
        if sketch is not None:
            check.choice(sketch, SKETCHES, kernel="StreamingSketch", name="sketch")
        self.kind, self.size, self.seed = sketch, sketch_size, seed
        self.next_row = check.count(
            first_row, kernel="StreamingSketch", name="first_row", least=0, most=MOST_ROWS
        )
        self.rows = 0
        self._sums: tuple[Any, ...] | None = None
        self._like: Any = None
        self.vector = True

    def update(self, a: Any, b: Any, /) -> StreamingSketch:
        """Take in the next rows: ``a`` (m, d), ``b`` (m,) or (m, k); returns the object itself."""
        columns = _checked(a, b)
        operator_ = self._operator(int(a.shape[1]))
        found: tuple[Any, ...] = normal_equations(a, columns)
        if operator_ is not None:
            rows = (self.next_row, self.next_row + int(a.shape[0]))
            found += tuple(widened(operator_.apply(v, rows=rows)) for v in (a, columns))
        self._add(found)
        self._like, self.vector = a[:1, :], b.ndim == 1
        self.rows += int(a.shape[0])
        self.next_row += int(a.shape[0])
        return self

    def _operator(self, d: int) -> SketchOperator | None:
        if self.kind is None:
            return None
        size = max(4 * d, 8) if self.size is None else self.size
        make = sjlt if self.kind == "sjlt" else gaussian_sketch
        return make(size, MOST_ROWS, seed=self.seed)

    def _add(self, found: tuple[Any, ...]) -> None:
        self._sums = found if self._sums is None else tuple(map(operator.add, self._sums, found))

    def merge(self, other: StreamingSketch, /) -> StreamingSketch:
        """Add the sums of ``other``, which has seen other rows with the same options; returns the object itself."""
        mine, its = ((s.kind, s.size, s.seed) for s in (self, other))
        if mine != its:
            message = (
                f"StreamingSketch.merge: expected an object with the options {mine}, got {its}"
            )
            raise OptionError(message)
        if other._sums is not None:
            self._add(other._sums)
            self._like, self.vector = other._like, other.vector
        self.rows += other.rows
        self.next_row = max(self.next_row, other.next_row)
        return self

    def solve(self, *, damp: float = 0.0, rcond: float | None = None) -> LstsqResult[Any]:
        """The solution that the sums allow: of the normal equations, or of the sketch where these fail.

        ``info.backward_error`` is measured by the normal equations: below 1e-8 it cannot be told from rounding.
        """
        if self._sums is None:
            message = "StreamingSketch.solve: expected rows, got none; call update first"
            raise OptionError(message)
        g, c, squares_of_b, *sketches = self._sums
        xp = namespace(g)
        ridge = None
        if damp:
            ridge = xp.full_like(xp.real(g[0, :]), float(damp) ** 2)
        start, method = start_of_sums(g, c, squares_of_b, ridge=ridge), LstsqMethod.GRAM
        request = Request(ridge, rcond, eps(g), 1, True, None, self.seed)
        if sketches and not bool(start.rcond > least_rcond(g)):
            source = Blocks(lambda: iter(()))
            source.shape = (self.rows, int(g.shape[-1]))
            sa, sb = sketches
            start = start_of_sketch(sa, sb, squares_of_b, source=source, request=request)
            method = LstsqMethod.SKETCH
        found = one_pass(g, c, start, ridge)
        stats = figures(start, found, request, method)
        columns = [stats[..., int(stat)] for stat in Stat]
        columns[Stat.STATUS] = xp.full_like(columns[0], float(LstsqStatus.ONE_PASS))
        columns[Stat.PASSES] = xp.ones_like(columns[0])
        stats = xp.stack(columns, axis=-1)
        x = xp.astype(found.x, self._like.dtype, copy=False)
        return packed(x, stats, self._like, kernel="StreamingSketch", vector=self.vector)
