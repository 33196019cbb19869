"""A place where kernels run on NumPy arrays: every CUDA thread is a greenlet, and blocks run one after the other.

Numba's simulator gives the decorators and the plain parts of the device module. Replaced here are the threads, what
they wait for each other with (barriers, and exchanges within a warp, which the simulator lacks), and shared memory.
Threads run in a chosen order from one meeting to the next, so that a race shows as a difference between orders; in
the forward order every access to memory is watched (see memory.py).
"""

from __future__ import annotations

import contextlib
import contextvars
import math
import random
import sys
from unittest import mock

import numpy as np
from greenlet import getcurrent, greenlet
from numba import cuda
from numba.cuda.simulator.kernel import FakeCUDAKernel
from numba.cuda.simulator.kernelapi import Dim3, FakeCUDAModule

from .memory import WARP, Guarded, KernelError, described, where

ORDERS = ("forward", "backward", 20240229)


class Thread(greenlet):
    """One CUDA thread: its indices, the meeting it waits at, and what the others brought there."""

    def __init__(self, run, number, index, block):
        super().__init__(run)
        self.gr_context = contextvars.copy_context()
        self.number, self.index, self.block = number, index, block
        self.meeting, self.site, self.value, self.others = None, None, None, None
        self.barriers, self.warp_barriers = 0, 0

    def meet(self, meeting, value=None):
        """Wait until every thread of ``meeting`` has come; their values by lane or number."""
        self.meeting, self.value, self.site = meeting, value, where(sys._getframe(1))
        self.parent.switch()
        return self.others

    def barrier(self, value=0):
        if isinstance(value, bool | np.bool_):
            raise KernelError(f"{described(where(sys._getframe(1)))}: a barrier takes an integer")
        values = self.meet(("block",), value)
        self.barriers += 1
        return values


def lanes(mask, value=None):
    """Meet the threads of ``mask`` in the own warp; this orders no memory."""
    here = getcurrent()
    if not mask >> (here.number % WARP) & 1:
        raise KernelError(f"{described(where(sys._getframe(1)))}: the mask lacks the own lane")
    return here.meet(("warp", here.number // WARP, mask), value)


def shuffle(source):
    """An exchange in which each lane takes the value of the lane that ``source(own, argument)`` names."""

    def exchange(self, mask, value, argument):
        return lanes(mask, value).get(source(getcurrent().number % WARP, int(argument)), value)

    return exchange


class Shared:
    """Arrays of a block by the place in the code that asks for them."""

    def __init__(self, make):
        self._make, self._arrays = make, {}

    def array(self, shape, dtype):
        caller = sys._getframe(1)
        key = caller.f_code, caller.f_lasti
        if key not in self._arrays:
            self._arrays[key] = self._make(shape, dtype)
        return self._arrays[key]


class Atomic:
    """Additions that nobody interrupts, past what watches the array."""

    def add(self, array, index, value):
        plain = array.view(np.ndarray)
        old = plain[index]
        plain[index] = old + value
        return old


class Module(FakeCUDAModule):
    """What the name ``cuda`` means inside a kernel."""

    def __init__(self, grid, block, make):
        super().__init__(grid, block, 0)
        self._shared, self._atomic = Shared(make), Atomic()

    threadIdx = property(lambda self: getcurrent().index)  # noqa: N815 - CUDA's spelling
    blockIdx = property(lambda self: getcurrent().block)  # noqa: N815

    def syncthreads(self):
        getcurrent().barrier()

    def syncthreads_or(self, value):
        return int(any(getcurrent().barrier(value).values()))

    def syncwarp(self, mask=0xFFFFFFFF):
        lanes(mask)
        getcurrent().warp_barriers += 1

    def any_sync(self, mask, value):
        return any(lanes(mask, value).values())

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
        places = " and ".join(sorted(map(described, sites)))
        raise KernelError(f"threads wait in different places: {places}")
    values = {t.number % WARP if meeting[0] == "warp" else t.number: t.value for t in members}
    for thread in members:
        thread.meeting, thread.others = None, values


def run_block(threads, shuffled):
    """Run all threads of one block to the end."""
    while alive := [t for t in threads if not t.dead]:
        for thread in shuffled([t for t in alive if t.meeting is None]):
            thread.switch()
        waiting = {}
        for thread in (t for t in threads if not t.dead):
            waiting.setdefault(thread.meeting, []).append(thread)
        complete = [m for m, those in waiting.items() if len(those) == len(expected(m, threads))]
        for meeting in complete:
            dissolve(meeting, waiting[meeting])
        if waiting and not complete:
            sites = sorted({described(t.site) for those in waiting.values() for t in those})
            left = sum(t.dead for t in threads)
            raise KernelError(f"threads wait for ever, {left} have left: {' and '.join(sites)}")


@contextlib.contextmanager
def replaced(function, module):
    """Give ``module`` to every kernel and device function as ``cuda``, and let device functions be functions."""
    loaded = [(name, m) for name, m in sys.modules.items() if not name.startswith("numba")]
    spaces = [vars(m) for _, m in loaded if hasattr(m, "__dict__")]
    with contextlib.ExitStack() as stack:
        for space in (function.__globals__, *spaces):
            if space is not globals() and space.get("cuda") is cuda:
                stack.enter_context(mock.patch.dict(space, cuda=module))
        call = mock.patch.object(FakeCUDAKernel, "__call__", lambda self, *given: self.fn(*given))
        stack.enter_context(call)
        yield


class Place:
    """Launcher of NumPy arrays: threads run ``forward``, ``backward``, or shuffled by a seed."""

    def __init__(self, order="forward"):
        self.order, self.threads, self._random = order, 0, random.Random(order)

    def empty(self, shape, dtype):
        size = math.prod(np.atleast_1d(shape)) * np.dtype(dtype).itemsize
        return np.full(size, 0xFF, np.uint8).view(dtype).reshape(shape)

    def _seen(self, value):
        watched = self.order == "forward" and isinstance(value, np.ndarray)
        return Guarded.of(value) if watched else value

    def _shuffled(self, threads):
        if self.order == "backward":
            return threads[::-1]
        return threads if self.order == "forward" else self._random.sample(threads, len(threads))

    def __call__(self, kernel, blocks, threads, *arguments):
        grid, block = ([*np.atleast_1d(size).tolist(), 1, 1, 1] for size in (blocks, threads))
        grid, block = grid[:3], block[:3]
        self.threads += math.prod(grid) * math.prod(block)
        function, given = kernel.py_func, tuple(map(self._seen, arguments))
        indices = [Dim3(*index[::-1]) for index in np.ndindex(*block[::-1])]
        for place in np.ndindex(*grid[::-1]):
            here = Dim3(*place[::-1])
            module = Module(grid, block, lambda *form: self._seen(self.empty(*form)))
            with replaced(function, module), np.errstate(all="ignore"):
                those = [Thread(lambda: function(*given), *i, here) for i in enumerate(indices)]
                run_block(those, self._shuffled)
