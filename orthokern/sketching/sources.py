"""Where the rows of a least-squares problem come from, as solvers see it: sums over all of them.

A solver needs four such sums and never asks where they were formed.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from .normal_equations import normal_equations, residual_gradient, squares, whitened_gram, widened


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

    def sketched(self, operator: Any) -> tuple[Any, Any, Any]:
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

    def sketched(self, operator: Any) -> tuple[Any, Any, Any]:
        """One pass."""
        sketches = widened(operator.apply(self.a)), widened(operator.apply(self.b))
        return (*sketches, squares(widened(self.b)))

    def dense(self) -> tuple[Any, Any]:
        """In the precision of sums."""
        return widened(self.a), widened(self.b)
