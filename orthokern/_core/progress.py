"""Who listens to a long computation: engines say how far they are, wherever they run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from .errors import OptionError
from .namespace import compiling, is_traced, namespace

Listener = Callable[[int, float], object]

_LISTENER: ContextVar[Listener | None] = ContextVar("orthokern_progress", default=None)


def checked(progress: Any, kernel: str) -> Listener | None:
    """``progress`` as an option of a kernel: None, or what can be called with two numbers."""
    if progress is None or callable(progress):
        return progress  # type: ignore[no-any-return]
    message = (
        f"{kernel}: expected progress to be a function of (iterations, residual) or None, got "
        f"{progress!r}; for example progress=lambda n, error: print(n, error)"
    )
    raise OptionError(message)


@contextmanager
def listening(progress: Listener | None) -> Iterator[None]:
    """Have ``progress`` told by the engines that run inside; None leaves everything as it is."""
    if progress is None:
        yield
        return
    token = _LISTENER.set(progress)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def is_heard() -> bool:
    """Whether someone listens."""
    return not compiling() and _LISTENER.get() is not None


def tell(iterations: Any, residual: Any) -> None:
    """Say how many iterations are done and the residual after them: numbers, or arrays of which the worst counts."""
    listener = None if compiling() else _LISTENER.get()
    if listener is None:
        return
    if not isinstance(residual, float):
        if is_traced(residual):
            return
        xp = namespace(residual)
        iterations, residual = xp.max(iterations), xp.max(residual)
    listener(int(iterations), float(residual))
