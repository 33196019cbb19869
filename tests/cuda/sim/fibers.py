"""A place where kernels run on NumPy arrays: every CUDA thread is a greenlet, and blocks run one after the other.

Numba's simulator gives the decorators and the plain parts of the device module. Replaced here are the threads, what
they wait for each other with (barriers, and exchanges within a warp, which the simulator lacks), and shared memory.
Threads run in a chosen order from one meeting to the next, so that a race shows as a difference between orders; in
the forward order every access to memory is checked.
"""

from __future__ import annotations

import contextlib
import contextvars
import math
import random
import sys
from pathlib import Path
from unittest import mock

import numpy as np
from greenlet import getcurrent, greenlet
from numba import cuda
from numba.cuda.simulator.kernel import FakeCUDAKernel
from numba.cuda.simulator.kernelapi import Dim3, FakeCUDAModule

ORDERS = ("forward", "backward", 20240229)
WARP = 32
HERE = __file__


class KernelError(RuntimeError):
    """What would be undefined on a device."""


def frames(frame):
    """The frames of the kernel and its device functions, innermost first."""
    while frame is not None:
        if frame.f_code.co_filename != HERE:
            yield frame
        frame = frame.f_back


def described(site):
    """Where a thread stands: the line of the innermost function, and the lines that called it."""
    return " < ".join(f"{Path(c.co_filename).name}:{line} in {c.co_name}" for c, line, _ in site)


class Guarded(np.ndarray):
    """An array that refuses indices outside of it; NumPy takes negative ones, a device any."""

    def __getitem__(self, index):
        self._check(index)
        return super().__getitem__(index)

    def __setitem__(self, index, value):
        self._check(index)
        super().__setitem__(index, value)

    def _check(self, index):
        parts = index if type(index) is tuple else (index,)
        for part, extent in zip(parts, self.shape, strict=False):
            if not 0 <= part < extent:
                found = next(frames(sys._getframe(2)))
                site = f"{Path(found.f_code.co_filename).name}:{found.f_lineno}"
                raise KernelError(f"{site}: index {part} is outside of 0..{extent - 1}")


class Thread(greenlet):
    """One CUDA thread: where it is in the grid, the meeting it waits at, and what the others brought there."""

    def __init__(self, run, number, index, block):
        super().__init__(run)
        self.gr_context = contextvars.copy_context()
        self.number, self.index, self.block = number, index, block
        self.meeting, self.site, self.value, self.others = None, None, None, None

    def meet(self, meeting, value=None):
        """Wait until every thread of ``meeting`` has come; their values by lane or number."""
        self.meeting, self.value = meeting, value
        self.site = tuple((f.f_code, f.f_lineno, f.f_lasti) for f in frames(sys._getframe(1)))
        self.parent.switch()
        return self.others


def lanes(mask, value=None):
    """Meet the threads of ``mask`` in the own warp."""
    here = getcurrent()
    if not mask >> (here.number % WARP) & 1:
        raise KernelError(f"lane {here.number % WARP} is not in the mask {mask:#x} that it passes")
    return here.meet(("warp", here.number // WARP, mask), value)


def shuffle(source):
    """An exchange in which each lane takes the value of the lane that ``source(own, argument)`` names."""

    def exchange(self, mask, value, argument):
        own = getcurrent().number % WARP
        values = lanes(mask, value)
        return values.get(source(own, int(argument)), value)

    return exchange


class Shared:
    """Arrays of a block by the place that asks for them; their bytes say NaN, or the largest number, at first."""

    def __init__(self, make):
        self._make, self._arrays = make, {}

    def array(self, shape, dtype):
        caller = sys._getframe(1)
        key = caller.f_code, caller.f_lasti
        if key not in self._arrays:
            self._arrays[key] = self._make(shape, dtype)
        return self._arrays[key]


class Module(FakeCUDAModule):
    """What the name ``cuda`` means inside a kernel."""

    def __init__(self, grid, block, make):
        super().__init__(grid, block, 0)
        self._make = make
        self.start_block()

    def start_block(self):
        self._shared = Shared(self._make)

    def __getattr__(self, name):
        # Kernels that are made while another one runs.
        return getattr(cuda, name)

    threadIdx = property(lambda self: getcurrent().index)
    blockIdx = property(lambda self: getcurrent().block)
    laneid = property(lambda self: getcurrent().number % WARP)

    def syncthreads(self):
        getcurrent().meet(("block",))

    def syncthreads_or(self, value):
        return int(any(getcurrent().meet(("block",), value).values()))

    def syncwarp(self, mask=0xFFFFFFFF):
        lanes(mask)

    def any_sync(self, mask, value):
        return any(lanes(mask, value).values())

    shfl_sync = shuffle(lambda own, lane: lane % WARP)
    shfl_up_sync = shuffle(lambda own, step: own - step)
    shfl_down_sync = shuffle(lambda own, step: own + step)
    shfl_xor_sync = shuffle(lambda own, mask: own ^ mask)


def expected(meeting, threads):
    """The threads that a meeting waits for, also those that have left the kernel."""
    if meeting[0] == "block":
        return threads
    _, warp, mask = meeting
    return [t for t in threads[warp * WARP : (warp + 1) * WARP] if mask >> (t.number % WARP) & 1]


def dissolve(meeting, members):
    """Let the members of a complete meeting go on; they must have come to the same one."""
    sites = {t.site for t in members}
    if len(sites) > 1:
        raise KernelError(f"threads wait in different places: {' and '.join(sorted(map(described, sites)))}")
    values = {t.number % WARP if meeting[0] == "warp" else t.number: t.value for t in members}
    for thread in members:
        thread.meeting, thread.others = None, values


def run_block(threads, shuffled):
    """Run all threads of one block to the end."""
    while alive := [t for t in threads if not t.dead]:
        for thread in shuffled([t for t in alive if t.meeting is None]):
            thread.switch()
        waiting = {}
        for thread in threads:
            if not thread.dead:
                waiting.setdefault(thread.meeting, []).append(thread)
        complete = [m for m, those in waiting.items() if len(those) == len(expected(m, threads))]
        for meeting in complete:
            dissolve(meeting, waiting[meeting])
        if waiting and not complete:
            left = sum(t.dead for t in threads)
            sites = sorted({described(t.site) for those in waiting.values() for t in those})
            raise KernelError(f"threads wait for ever, {left} have left: {' and '.join(sites)}")


def extent(size):
    """Three extents from one, two or three."""
    sizes = size if isinstance(size, tuple) else (size,)
    assert min(sizes) > 0, f"a launch of extent {sizes}"
    return sizes + (1,) * (3 - len(sizes))


@contextlib.contextmanager
def replaced(function, module):
    """Give ``module`` to every kernel and device function as ``cuda``, and let device functions be functions."""
    spaces = [function.__globals__, *(vars(m) for m in tuple(sys.modules.values()) if m)]
    spaces = [space for space in spaces if space.get("cuda") is cuda and space is not globals()]
    own = [space for space in spaces if not str(space.get("__name__")).startswith("numba")]
    with contextlib.ExitStack() as stack:
        for space in own:
            stack.enter_context(mock.patch.dict(space, cuda=module))
        stack.enter_context(
            mock.patch.object(FakeCUDAKernel, "__call__", lambda self, *given: self.fn(*given))
        )
        yield


class Place:
    """Launcher of NumPy arrays: threads run ``forward``, ``backward``, or shuffled by a seed."""

    def __init__(self, order="forward"):
        self.order = order
        self.threads = 0
        self._random = random.Random(order)

    def empty(self, shape, dtype):
        array = np.empty(shape, dtype)
        array.reshape(-1).view(np.uint8).fill(0xFF)
        return self._seen(array)

    def _seen(self, value):
        guarded = self.order == "forward" and isinstance(value, np.ndarray)
        return value.view(Guarded) if guarded else value

    def _shuffled(self, threads):
        if self.order == "backward":
            threads.reverse()
        elif self.order != "forward":
            self._random.shuffle(threads)
        return threads

    def __call__(self, kernel, blocks, threads, *arguments):
        grid, block = extent(blocks), extent(threads)
        module = Module(grid, block, self.empty)
        function, given = kernel.py_func, tuple(map(self._seen, arguments))
        self.threads += math.prod(grid) * math.prod(block)
        with replaced(function, module), np.errstate(all="ignore"):
            for place in np.ndindex(*grid[::-1]):
                module.start_block()
                indices = enumerate(Dim3(*index[::-1]) for index in np.ndindex(*block[::-1]))
                here = Dim3(*place[::-1])
                run_block([Thread(lambda: function(*given), *i, here) for i in indices], self._shuffled)
