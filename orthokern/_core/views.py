"""Serve the arrays of any library by a backend of another one, through zero-copy views.

A backend for NumPy arrays sees the CPU arrays of torch, JAX and others as NumPy arrays that share memory, and
its results go back as arrays of the caller's library. Data never moves between devices here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from .namespace import library, namespace

# The library in whose arrays a backend for this kind of device is written.
HOME = {"cpu": "numpy", "cuda": "cupy"}


def owned(arrays: tuple[Any, ...]) -> tuple[Any, ...]:
    """NumPy arrays as compiled code can take them: native byte order, writable; others unchanged."""
    if all(not isinstance(a, np.ndarray) or (a.flags.writeable and a.dtype.isnative) for a in arrays):
        return arrays
    return tuple(np.array(a, dtype=a.dtype.newbyteorder("="), order="K") for a in arrays)


def _host_view(x: Any) -> Any:
    if library(x) == "torch":
        from . import _torch

        return _torch.host_view(x)
    return np.asarray(x)


def _home_view(x: Any, home: str) -> Any:
    return _host_view(x) if home == "numpy" else sys.modules[home].from_dlpack(x)


def _returned(result: Any, like: Any) -> Any:
    """``result`` of the home library as an array of the library of ``like``, without a copy where it can be."""
    if isinstance(result, tuple):
        return tuple(_returned(part, like) for part in result)
    name = library(like)
    if name == "torch" and isinstance(result, np.ndarray):
        return sys.modules["torch"].from_numpy(result)
    if name == "jax":
        return sys.modules["jax"].dlpack.from_dlpack(result)
    xp = namespace(like)
    return xp.asarray(result) if isinstance(result, np.ndarray) else xp.from_dlpack(result)


def run_at_home(implementation: Callable[..., Any], arrays: tuple[Any, ...], static: dict[str, Any]) -> Any:
    """Call ``implementation`` on views of ``arrays`` and hand the result back in the caller's library."""
    lead = arrays[0]
    home = "cupy" if library(lead) in ("torch", "jax") and _on_cuda(lead) else "numpy"
    seen = tuple(_home_view(a, home) for a in arrays)
    return _returned(implementation(*owned(seen), **static), lead)


def _on_cuda(x: Any) -> bool:
    from .namespace import device_kind

    return device_kind(x) == "cuda"
