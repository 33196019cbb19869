"""Serve the arrays of any library by a backend of another one, through zero-copy views.

A backend for NumPy arrays sees the CPU arrays of torch, JAX and others as NumPy arrays that share memory, one for
CuPy arrays sees their CUDA arrays as CuPy arrays, and its results go back as arrays of the caller's library. Data
never moves between devices here.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from .namespace import device_kind, library, namespace

# The library in whose arrays a backend for this kind of device is written.
HOME = {"cpu": "numpy", "cuda": "cupy"}
# Alignment in bytes that JAX asks of memory that it shares, and size from which sharing saves time.
ALIGNMENT, LARGE = 64, 2**20


def owned(arrays: tuple[Any, ...]) -> tuple[Any, ...]:
    """NumPy arrays as compiled code can take them: native byte order, writable; others unchanged."""
    if all(
        not isinstance(a, np.ndarray) or (a.flags.writeable and a.dtype.isnative) for a in arrays
    ):
        return arrays
    return tuple(np.array(a, dtype=a.dtype.newbyteorder("="), order="K") for a in arrays)


def host_view(x: Any) -> Any:
    """NumPy array that shares the memory of ``x``."""
    if library(x) == "torch":
        from . import _torch

        return _torch.host_view(x)
    return np.asarray(x)


def _leaves(result: Any) -> list[Any]:
    if isinstance(result, tuple):
        return [leaf for part in result for leaf in _leaves(part)]
    return [result]


def _rebuilt(result: Any, leaves: list[Any]) -> Any:
    """The nest of tuples and NamedTuples that ``result`` is, filled with ``leaves`` in order."""
    if not isinstance(result, tuple):
        return leaves.pop(0)
    parts = [_rebuilt(part, leaves) for part in result]
    return type(result)(*parts) if hasattr(result, "_fields") else tuple(parts)


@functools.cache
def _jax_identity() -> Callable[..., Any]:
    # One compiled call takes NumPy arrays over in a third of the time of as many conversions.
    return sys.modules["jax"].jit(lambda *arrays: arrays)  # type: ignore[no-any-return]


def _converted(leaves: list[Any], like: Any) -> list[Any]:
    if device_kind(like) == "cuda":
        from . import _cuda

        return _cuda.returned(leaves, like)
    arrays = [np.asarray(leaf) for leaf in leaves]
    name = library(like)
    if name == "torch":
        return [sys.modules["torch"].from_numpy(a) for a in arrays]
    if name == "jax":
        return _to_jax(arrays)
    xp = namespace(like)
    return [xp.asarray(a) for a in arrays]


def _to_jax(arrays: list[Any]) -> list[Any]:
    """JAX arrays: large aligned ones share the memory, the others are copied by one compiled call."""
    shared = [a if _is_adoptable(a) else None for a in arrays]
    small = iter(_jax_identity()(*(a for a, s in zip(arrays, shared, strict=True) if s is None)))
    take = sys.modules["jax"].numpy.from_dlpack
    return [next(small) if s is None else take(s) for s in shared]


def _is_adoptable(a: np.ndarray) -> bool:
    """Whether JAX takes ``a`` over without a copy, and whether that is worth a call of its own."""
    aligned = a.ctypes.data % ALIGNMENT == 0
    wide = a.dtype.char in "dD" and not sys.modules["jax"].config.jax_enable_x64
    return aligned and a.flags.c_contiguous and a.nbytes >= LARGE and not wide


def returned(result: Any, like: Any) -> Any:
    """``result`` (a nest of tuples) of a backend in the library of ``like``, without a copy where it can be."""
    return _rebuilt(result, _converted(_leaves(result), like))


def at_home(arrays: tuple[Any, ...]) -> tuple[Any, ...]:
    """Views of ``arrays`` in the library that backends for their device are written in."""
    if device_kind(arrays[0]) == "cuda":
        from . import _cuda

        return tuple(_cuda.view(a) for a in arrays)
    return tuple(host_view(a) for a in arrays)


def current(like: Any) -> AbstractContextManager[Any]:
    """A block in which the library that backends for CUDA are written in works where ``like`` does."""
    from . import _cuda

    return _cuda.current(like)
