"""Where the rows of a least-squares problem come from, as solvers see it: sums over all of them.

A solver needs four such sums and never asks where they were formed.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

from .._core.dtypes import is_complex
from .._core.errors import OptionError
from .._core.linalg import adjoint
from .._core.namespace import namespace
from .normal_equations import normal_equations, residual_gradient, squares, whitened_gram, widened

# Numbers of a dense block of a sparse product.
DENSE_BLOCK = 2**20


class Source(Protocol):
    """A problem ``min ||B - A X||`` with A (..., n, d) and B (..., n, k); results are in the precision of sums."""

    @property
    def shape(self) -> tuple[int, int]:
        """``(n, d)``."""
        ...

    def normal_equations(self) -> tuple[Any, Any, Any]:
        """``(A^H A, A^H B, squared norms of the columns of B)``."""
        ...

    def residual_gradient(self, x: Any) -> tuple[Any, Any]:
        """``(A^H R, squared norms of the columns of R)`` with ``R = B - A X``."""
        ...

    def whitened_gram(self, p: Any) -> Any:
        """``(A P)^H (A P)``."""
        ...

    def sketched(self, sketch: Any) -> tuple[Any, Any, Any]:
        """``(S A, S B, squared norms of the columns of B)``."""
        ...

    def dense(self) -> tuple[Any, Any]:
        """``(A, B)``, for problems with few rows."""
        ...


class Dense(NamedTuple):
    """Two arrays."""

    a: Any
    b: Any

    @property
    def shape(self) -> tuple[int, int]:
        """``(n, d)``."""
        return tuple(self.a.shape[-2:])

    def normal_equations(self) -> tuple[Any, Any, Any]:
        """One pass."""
        return normal_equations(self.a, self.b)  # type: ignore[no-any-return]

    def residual_gradient(self, x: Any) -> tuple[Any, Any]:
        """One pass."""
        return residual_gradient(self.a, self.b, x)  # type: ignore[no-any-return]

    def whitened_gram(self, p: Any) -> Any:
        """One pass."""
        return whitened_gram(self.a, p)

    def sketched(self, sketch: Any) -> tuple[Any, Any, Any]:
        """One pass."""
        sketches = widened(sketch.apply(self.a)), widened(sketch.apply(self.b))
        return (*sketches, squares(widened(self.b)))

    def dense(self) -> tuple[Any, Any]:
        """In the precision of sums."""
        return widened(self.a), widened(self.b)


class Scales(NamedTuple):
    """Powers of two that columns of A and of B are multiplied by as they are read, or None."""

    columns: Any = None
    right: Any = None

    def of_a(self, a: Any) -> Any:
        """``a`` (n, d) scaled."""
        return a if self.columns is None else a * self.columns

    def of_b(self, b: Any) -> Any:
        """``b`` (n, k) scaled."""
        return b if self.right is None else b * self.right


def maxima(a: Any) -> Any:
    """Largest modulus of a real or imaginary part in each column of ``a`` (..., n, d)."""
    xp = namespace(a)
    sizes = xp.maximum(xp.abs(xp.real(a)), xp.abs(xp.imag(a))) if is_complex(a) else xp.abs(a)
    return xp.max(sizes, axis=-2)


class Blocks:
    """Rows that arrive in blocks ``(start, a, b)``, over and over again; all sums are those of the blocks.

    ``rows`` makes a new iterator over the blocks at each pass.
    """

    def __init__(self, rows: Callable[[], Iterator[tuple[int, Any, Any]]]) -> None:
        self.rows = rows
        self.scales = Scales()
        self.shape = (0, 0)

    def _sum(self, terms: Callable[[int, Any, Any], tuple[Any, ...]]) -> tuple[Any, ...]:
        total: tuple[Any, ...] | None = None
        for start, a, b in self.rows():
            part = terms(start, self.scales.of_a(a), self.scales.of_b(b))
            total = part if total is None else tuple(map(operator.add, total, part))
            self.shape = (start + a.shape[-2], a.shape[-1])
        if total is None:
            message = "lstsq_stream: expected at least one block of rows, got none"
            raise OptionError(message)
        return total

    def normal_equations(self) -> tuple[Any, Any, Any]:
        """One pass, which also counts the rows."""
        return self._sum(lambda _, a, b: normal_equations(a, b))

    def residual_gradient(self, x: Any) -> tuple[Any, Any]:
        """One pass."""
        return self._sum(lambda _, a, b: residual_gradient(a, b, x))

    def whitened_gram(self, p: Any) -> Any:
        """One pass."""
        return self._sum(lambda _, a, b: (whitened_gram(a, p),))[0]

    def sketched(self, sketch: Any) -> tuple[Any, Any, Any]:
        """One pass; rows are hashed by their number in the whole."""

        def terms(start: int, a: Any, b: Any) -> tuple[Any, Any, Any]:
            rows = (start, start + a.shape[-2])
            sketches = (widened(sketch.apply(v, rows=rows)) for v in (a, b))
            return (*sketches, squares(widened(b)))

        return self._sum(terms)

    def dense(self) -> tuple[Any, Any]:
        """All blocks at once: few rows."""
        pairs = [(self.scales.of_a(a), self.scales.of_b(b)) for _, a, b in self.rows()]
        xp = namespace(pairs[0][0])
        a, b = (xp.concat(parts, axis=-2) for parts in zip(*pairs, strict=True))
        return widened(a), widened(b)

    def maxima(self) -> tuple[Any, Any]:
        """One pass; NaN where something is no finite number."""
        largest: tuple[Any, Any] | None = None
        for _, a, b in self.rows():
            part = maxima(a), maxima(b)
            xp = namespace(a)
            largest = part if largest is None else tuple(map(xp.maximum, largest, part))
        assert largest is not None
        return largest


class Lazy:
    """Two lazy arrays (n, d), (n, k) whose sums are computed where their blocks of rows are; results are plain."""

    def __init__(self, a: Any, b: Any) -> None:
        xp = namespace(a)
        self.whole = xp.concat([widened(a), widened(b)], axis=-1).rechunk({1: -1})
        self.shape = tuple(a.shape)
        self.d = a.shape[-1]
        self.scales = Scales()

    def _parts(self) -> tuple[Any, Any]:
        return self.scales.of_a(self.whole[:, : self.d]), self.scales.of_b(self.whole[:, self.d :])

    def _joined(self, *parts: Any) -> Any:
        return namespace(self.whole).concat(parts, axis=-1).rechunk({1: -1})

    def normal_equations(self) -> tuple[Any, Any, Any]:
        """One pass."""
        a, b = self._parts()
        whole = self._joined(a, b)
        g = (adjoint(whole) @ whole).compute()
        d = self.d
        return g[:d, :d], g[:d, d:], namespace(g).real(namespace(g).linalg.diagonal(g))[d:]

    def residual_gradient(self, x: Any) -> tuple[Any, Any]:
        """One pass."""
        a, b = self._parts()
        r = b - a @ x
        g = (adjoint(self._joined(a, r)) @ r).compute()
        tail = g[self.d :, :]
        return g[: self.d, :], namespace(g).real(namespace(g).linalg.diagonal(tail))

    def whitened_gram(self, p: Any) -> Any:
        """One pass."""
        y = self._parts()[0] @ p
        return (adjoint(y) @ y).compute()

    def sketched(self, sketch: Any) -> tuple[Any, Any, Any]:
        """One pass for the sketches, and one for the squares of B alone."""
        a, b = self._parts()
        found = sketch.apply(self._joined(a, b)).compute()
        return found[:, : self.d], found[:, self.d :], squares(b).compute()

    def dense(self) -> tuple[Any, Any]:
        """All rows."""
        a, b = self._parts()
        whole = self._joined(a, b).compute()
        return whole[:, : self.d], whole[:, self.d :]

    def maxima(self) -> tuple[Any, Any]:
        """One pass."""
        found = maxima(self.whole).compute()
        return found[: self.d], found[self.d :]


class Sparse:
    """A sparse matrix of SciPy and dense right-hand sides."""

    def __init__(self, a: Any, b: Any) -> None:
        self.a, self.b = a.tocsr(), b
        self.shape = tuple(a.shape)
        self.scales = Scales()

    def _parts(self) -> tuple[Any, Any]:
        a = self.a
        if self.scales.columns is not None:
            a = a.multiply(self.scales.columns[None, :]).tocsr()
        return a, self.scales.of_b(self.b)

    def normal_equations(self) -> tuple[Any, Any, Any]:
        """A sparse product, made dense."""
        a, b = self._parts()
        left = a.conj().T.tocsr()
        return (left @ a).toarray(), left @ b, squares(b)

    def residual_gradient(self, x: Any) -> tuple[Any, Any]:
        """Two products with vectors."""
        a, b = self._parts()
        r = b - a @ x
        return a.conj().T @ r, squares(r)

    def whitened_gram(self, p: Any) -> Any:
        """In blocks of rows that are dense after they were whitened."""
        a, _ = self._parts()
        size, total = max(1, DENSE_BLOCK // p.shape[-1]), 0 * p
        for i in range(0, a.shape[0], size):
            y = a[i : i + size] @ p
            total = total + adjoint(y) @ y
        return total

    def sketched(self, sketch: Any) -> tuple[Any, Any, Any]:
        """The sketch as a sparse matrix times A."""
        a, b = self._parts()
        rows, columns, values = sketch.to_sparse()
        from scipy.sparse import csr_array

        s = csr_array((values, (rows, columns)), shape=sketch.shape)
        return (s @ a).toarray(), s @ b, squares(b)

    def dense(self) -> tuple[Any, Any]:
        """A as an array."""
        a, b = self._parts()
        return a.toarray(), b

    def maxima(self) -> tuple[Any, Any]:
        """Of stored entries."""
        a = self.a
        size = abs(a.real).maximum(abs(a.imag)) if a.dtype.kind == "c" else abs(a)
        return size.max(axis=0).toarray().ravel(), maxima(self.b)
