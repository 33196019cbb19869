"""How a kernel is started: what the launch code asks of the place where kernels run, and CuPy as that place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

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

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Uninitialized CuPy array."""
        import cupy

        return cupy.empty(shape, dtype)

    def __call__(self, kernel: Any, blocks: Extent, threads: Extent, *arguments: Any) -> None:
        """Start ``kernel``; nothing is waited for."""
        import cupy
        from numba import cuda

        handle = cupy.cuda.get_current_stream().ptr
        stream = cuda.external_stream(handle) if handle else cuda.default_stream()
        # Memory is handed out and taken back in the order of the stream: no synchronization is needed.
        given = [
            cuda.as_cuda_array(a, sync=False) if isinstance(a, cupy.ndarray) else a
            for a in arguments
        ]
        kernel[blocks, threads, stream](*given)


@contextmanager
def on_device(x: Any) -> Iterator[Launcher]:
    """Launcher for the device that holds the CuPy array ``x``, which is the current one inside the block."""
    from numba import cuda

    # Numba keeps an account of its own of the current device.
    with x.device, cuda.gpus[x.device.id]:
        yield _CurrentDevice()


def contiguous(x: Any) -> Any:
    """``x`` in C order, without a copy where it is."""
    return x if x.flags.c_contiguous else x.copy(order="C")
