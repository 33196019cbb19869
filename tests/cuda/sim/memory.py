"""Arrays that watch what the threads of a block do to them: indices outside, and accesses that no barrier orders.

Only in the forward order, where they are twice as slow as plain ones. Atomic additions are not watched.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from greenlet import getcurrent

WARP = 32
DEPTH = 4
GEAR = (__file__, str(Path(__file__).with_name("fibers.py")))


class KernelError(RuntimeError):
    """What would be undefined on a device."""


def where(frame):
    """The place of a thread: the line of the innermost device function, and some that called it."""
    found = []
    while frame is not None and len(found) < DEPTH:
        if frame.f_code.co_filename not in GEAR:
            found.append((frame.f_code, frame.f_lineno, frame.f_lasti))
        frame = frame.f_back
    return tuple(found)


def described(site):
    """A place in words."""
    return " < ".join(f"{Path(c.co_filename).name}:{line} in {c.co_name}" for c, line, _ in site)


class Access(NamedTuple):
    """Who touched a number, after how many barriers of its block and of its warp, and in which line."""

    thread: Any
    barriers: int
    warp_barriers: int
    code: Any
    line: int

    def __str__(self):
        return f"thread {self.thread.number} at {Path(self.code.co_filename).name}:{self.line}"

    def precedes(self, other):
        """Whether a barrier of both threads lies between: they count the same ones."""
        if self.thread is other.thread or other.barriers > self.barriers:
            return True
        together = self.thread.number // WARP == other.thread.number // WARP
        return together and other.warp_barriers > self.warp_barriers


class Record:
    """The last write to each number of an array, and the reads since, within one block."""

    def __init__(self):
        self.block, self.writes, self.reads = None, {}, {}

    def begin(self, block):
        if self.block is not block:
            self.block, self.writes, self.reads = block, {}, {}

    def read(self, place, now):
        written = self.writes.get(place)
        if written is not None and not written.precedes(now):
            raise KernelError(f"{now} reads what {written} wrote, and no barrier is between them")
        self.reads.setdefault(place, []).append(now)

    def write(self, place, now):
        for before in (*self.reads.pop(place, ()), self.writes.get(place)):
            if before is not None and not before.precedes(now):
                raise KernelError(
                    f"{now} overwrites what {before} uses, and no barrier is between them"
                )
        self.writes[place] = now


class Guarded(np.ndarray):
    """An array that refuses what would be undefined; NumPy takes negative indices, a device any."""

    record, origin = None, 0

    @classmethod
    def of(cls, array):
        guarded = array.view(cls)
        guarded.record = Record()
        return guarded

    def __getitem__(self, index):
        thread = getcurrent()
        if self.record is None or not hasattr(thread, "barriers"):
            return super().__getitem__(index)
        place, now = self._place(index), self._access(thread)
        found = super().__getitem__(index)
        if isinstance(found, Guarded):
            found.record, found.origin = self.record, place
        else:
            self.record.read(place, now)
        return found

    def __setitem__(self, index, value):
        thread = getcurrent()
        if self.record is not None and hasattr(thread, "barriers"):
            self.record.write(self._place(index), self._access(thread))
        super().__setitem__(index, value)

    def _place(self, index):
        """Offset of the number, or row, in the memory of the whole array."""
        place = self.origin
        parts = index if type(index) is tuple else (index,)
        for part, extent, stride in zip(parts, self.shape, self.strides, strict=False):
            if not 0 <= part < extent:
                frame = sys._getframe(2)
                line = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
                raise KernelError(f"{line}: index {part} is outside of 0..{extent - 1}")
            place += int(part) * stride
        return place

    def _access(self, thread):
        frame = sys._getframe(2)
        self.record.begin(thread.block)
        return Access(thread, thread.barriers, thread.warp_barriers, frame.f_code, frame.f_lineno)
