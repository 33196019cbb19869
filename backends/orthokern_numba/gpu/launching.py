"""How a kernel is started: what the launch code asks of the place where kernels run, and CuPy as that place."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

Extent = int | tuple[int, int]


class Launcher(Protocol):
    """A place where kernels run. Tests put one of NumPy arrays in the place of a device."""

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Uninitialized contiguous array there."""
        ...

    def __call__(self, kernel: Any, blocks: Extent, threads: Extent, *arguments: Any) -> None:
        """Start ``kernel``; arrays among its arguments are written in place."""
        ...


class _CurrentDevice:
    """CuPy's current device and stream."""

    def __init__(self, cupy: Any, cuda: Any) -> None:
        self._cupy, self._cuda = cupy, cuda

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Uninitialized CuPy array."""
        return self._cupy.empty(shape, dtype)

    def _stream(self) -> Any:
        handle = self._cupy.cuda.get_current_stream().ptr
        return self._cuda.external_stream(handle) if handle else self._cuda.default_stream()

    def _seen(self, argument: Any) -> Any:
        """A CuPy array as Numba takes it; memory is handed out in the order of the stream, so that nothing waits."""
        if not isinstance(argument, self._cupy.ndarray):
            return argument
        return self._cuda.as_cuda_array(argument, sync=False)

    def __call__(self, kernel: Any, blocks: Extent, threads: Extent, *arguments: Any) -> None:
        """Start ``kernel``; nothing is waited for."""
        with _few_blocks():
            launch = kernel[blocks, threads, self._stream()]
        launch(*map(self._seen, arguments))


@contextmanager
def _few_blocks() -> Iterator[None]:
    """A block in which numba-cuda does not warn of small grids: a small problem has no more blocks."""
    config = importlib.import_module("numba.cuda.dispatcher").config
    before, config.CUDA_LOW_OCCUPANCY_WARNINGS = config.CUDA_LOW_OCCUPANCY_WARNINGS, 0
    try:
        yield
    finally:
        config.CUDA_LOW_OCCUPANCY_WARNINGS = before


@functools.cache
def _numba_cuda() -> Any:
    """``numba.cuda``, ready to compile: numba-cuda 0.30 asks for a name that NumPy 2.5 has dropped."""
    missing = not hasattr(np, "row_stack")
    if missing:
        np.row_stack = np.vstack  # noqa: NPY201 - for numba-cuda alone
    try:
        importlib.import_module("numba.cuda.np.arrayobj")
    finally:
        if missing:
            del np.row_stack  # noqa: NPY201
    return importlib.import_module("numba.cuda")


@contextmanager
def on_device(x: Any) -> Iterator[Launcher]:
    """Launcher for the device that holds the CuPy array ``x``, which is the current one inside the block."""
    import cupy  # pyright: ignore[reportMissingImports]

    cuda = _numba_cuda()
    # Numba keeps an account of its own of the current device.
    with x.device, cuda.gpus[x.device.id]:
        yield _CurrentDevice(cupy, cuda)


def contiguous(x: Any) -> Any:
    """``x`` in C order, without a copy where it is."""
    return x if x.flags.c_contiguous else x.copy(order="C")
