"""CUDA arrays of torch and JAX as CuPy arrays and back: the same memory, in the order of the caller's own work.

Imported only after such an array has arrived for a backend that is written in CuPy.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .namespace import library


def _cupy() -> Any:
    return importlib.import_module("cupy")


@contextmanager
def current(like: Any) -> Iterator[None]:
    """A block in which CuPy works on the device of ``like``, for a tensor on the stream that torch works on.

    JAX has no current stream: the exchange by DLPack makes each side wait for the other there.
    """
    cupy = _cupy()
    with cupy.cuda.Device(_number(like)):
        if library(like) != "torch":
            yield
            return
        address = sys.modules["torch"].cuda.current_stream(like.device).cuda_stream
        # The address 0 is the default stream, which CuPy has an object for.
        stream = cupy.cuda.ExternalStream(address) if address else cupy.cuda.Stream.null
        with stream:
            yield


def _number(x: Any) -> int:
    """Which of the CUDA devices that this process sees holds ``x``."""
    if library(x) != "jax":
        return int(x.device.index)
    device = next(iter(x.devices()))
    number = getattr(device, "local_hardware_id", None)
    return int(device.id if number is None else number)


def view(x: Any) -> Any:
    """CuPy array that shares the memory of ``x``; conjugate and negative bits of torch are resolved by a copy."""
    if library(x) == "torch":
        x = x.detach().resolve_conj().resolve_neg()
    cupy = _cupy()
    return cupy.from_dlpack(x)


def returned(arrays: list[Any], like: Any) -> list[Any]:
    """CuPy ``arrays`` in the library of ``like``, sharing their memory."""
    if library(like) == "torch":
        return [sys.modules["torch"].from_dlpack(a) for a in arrays]
    # JAX has arrays without gaps only.
    cupy, take = _cupy(), sys.modules[library(like)].numpy.from_dlpack
    return [take(cupy.ascontiguousarray(a)) for a in arrays]
