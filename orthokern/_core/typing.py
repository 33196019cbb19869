"""The small part of an array that signatures talk about, and the type variable that keeps it generic."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar


class Array(Protocol):
    """What orthokern needs to know of an array statically; the array API says the rest."""

    @property
    def shape(self) -> Any:
        """Sizes of the dimensions."""
        ...

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        ...

    @property
    def dtype(self) -> Any:
        """Type of the entries."""
        ...

    def __matmul__(self, other: Any, /) -> Any:
        """Matrix product over the last two dimensions."""
        ...


ArrayT = TypeVar("ArrayT", bound=Array)
