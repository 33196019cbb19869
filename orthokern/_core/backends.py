"""Backends: what one is, how it is found, in which order it is asked."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import os
import warnings
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

from .errors import BackendError

ARRAY_API = "array-api"
GROUP = "orthokern.backends"
ENVIRONMENT = "ORTHOKERN_BACKENDS"
DEFAULT_ORDER = ("cupy", "numba_cuda", "numba")
# Read when package metadata is absent (a plain checkout on PYTHONPATH).
IN_REPOSITORY = {
    "cupy": "orthokern_cupy:backend",
    "numba": "orthokern_numba:backend",
    "numba_cuda": "orthokern_numba.gpu:backend",
}

Implementation = Callable[..., Any]
Predicate = Callable[..., str | None]
F = TypeVar("F", bound=Implementation)


class Entry(NamedTuple):
    """One op of one backend."""

    implementation: Implementation
    when: Predicate | None


class Backend:
    """A named bag of op implementations and the arrays that it accepts.

    Parameters
    ----------
    name
        What users write after ``backend=``.
    serves
        Pairs of (library, device kind), e.g. ``("numpy", "cpu")``. A backend that serves NumPy arrays also
        gets the CPU arrays of every other eager library, as zero-copy NumPy views.
    available
        Called once: None, or the reason why the backend cannot run here ("numba is not installed").
    """

    def __init__(
        self,
        name: str,
        *,
        serves: Iterable[tuple[str, str]],
        available: Callable[[], str | None] = lambda: None,
    ) -> None:
        self.name = name
        self.serves = frozenset(serves)
        self.available: Callable[[], str | None] = functools.cache(available)
        self.entries: dict[str, Entry] = {}

    def implements(self, op: str, *, when: Predicate | None = None) -> Callable[[F], F]:
        """Register the decorated function as this backend's implementation of ``op``.

        ``when(*arrays, **static)`` may return the reason for which a call is declined, or None to take it.
        """

        def register_entry(function: F) -> F:
            if op in self.entries:
                message = f"backend {self.name!r} implements {op!r} twice; remove one of the two"
                raise BackendError(message)
            self.entries[op] = Entry(function, when)
            _forget()
            return function

        return register_entry

    def __repr__(self) -> str:
        return f"Backend({self.name!r}, ops={sorted(self.entries)})"


_registered: dict[str, Backend] = {}
_conclusions: list[dict[Any, Any]] = []


def conclusions() -> dict[Any, Any]:
    """A dictionary for what follows from the backends known; emptied whenever one is added or changed."""
    _conclusions.append({})
    return _conclusions[-1]


def _forget() -> None:
    for conclusion in _conclusions:
        conclusion.clear()


def register(backend: Backend) -> Backend:
    """Make ``backend`` known to this process without package metadata (notebooks, tests).

    One of the same name is replaced.
    """
    _registered[backend.name] = backend
    load.cache_clear()
    priority.cache_clear()
    _forget()
    return backend


@functools.cache
def _targets() -> dict[str, str]:
    found: dict[str, str] = {}
    for point in importlib.metadata.entry_points(group=GROUP):
        if point.name in found and found[point.name] != point.value:
            message = (
                f"two installed packages offer an orthokern backend named {point.name!r} "
                f"({found[point.name]} and {point.value}); the first is used, uninstall one of them"
            )
            warnings.warn(message, RuntimeWarning, stacklevel=2)
        found.setdefault(point.name, point.value)
    for name, target in IN_REPOSITORY.items():
        if name not in found and importlib.util.find_spec(target.partition(":")[0]) is not None:
            found[name] = target
    return found


def installed() -> tuple[str, ...]:
    """Names of all backends that this process can load, sorted."""
    return tuple(sorted({*_targets(), *_registered}))


@functools.cache
def load(name: str) -> Backend:
    """The backend called ``name``; a BackendError says what is installed when there is none."""
    if name in _registered:
        return _registered[name]
    target = _targets().get(name)
    if target is None:
        names = ", ".join((ARRAY_API, *installed()))
        message = f"expected the name of an installed backend ({names}), got {name!r}; install it or name another"
        raise BackendError(message)
    module, _, attribute = target.partition(":")
    try:
        backend = getattr(importlib.import_module(module), attribute)
    except Exception as reason:
        message = f"backend {name!r} ({target}) could not be loaded: {reason}; reinstall it or name another"
        raise BackendError(message) from reason
    if not isinstance(backend, Backend):
        message = (
            f"expected {target} to be an orthokern.backend.Backend, got {type(backend).__name__}"
        )
        raise BackendError(message)
    return backend


def absence(name: str) -> str | None:
    """Why the installed backend ``name`` cannot run here; None if it can."""
    try:
        return load(name).available()
    except BackendError as broken:
        return str(broken)


def ops_of(name: str) -> frozenset[str]:
    """The ops that the installed backend ``name`` implements; none if it cannot be loaded."""
    try:
        return frozenset(load(name).entries)
    except BackendError:
        return frozenset()


@functools.cache
def priority() -> tuple[str, ...]:
    """Backends asked when the caller names none, in order; the environment variable replaces the default."""
    text = os.environ.get(ENVIRONMENT)
    if text is not None:
        named = [name for name in (part.strip() for part in text.split(",")) if name]
        unknown = [name for name in named if name not in (ARRAY_API, *installed())]
        if unknown:
            message = f"{ENVIRONMENT} names {', '.join(unknown)}, but installed are {', '.join(installed())}"
            warnings.warn(message, RuntimeWarning, stacklevel=2)
        return tuple(name for name in named if name != ARRAY_API)
    return tuple(name for name in DEFAULT_ORDER if name in installed())
