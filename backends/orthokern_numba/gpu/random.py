"""Random words on the device: the bits of the reference, whatever the launch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .launching import Launcher, contiguous
from .random_kernels import philox

THREADS = 256
_MASK = 0xFFFFFFFF


def random_bits(launch: Launcher, index: Any, *, seed: int, stream: int, group: int) -> Any:
    """Four words for each counter of ``index``, shape (..., 4); uint32 for counters of 32 bits, else int64."""
    wide = index.dtype.itemsize > 4
    word = np.uint64 if wide else np.uint32
    counters = contiguous(index.astype(np.int64 if wide else np.uint32, copy=False)).view(word)
    counters = counters.reshape(-1)
    words = launch.empty((counters.size, 4), word)
    if counters.size:
        fixed = map(np.uint64, (seed & _MASK, (seed >> 32) & _MASK, group, stream))
        launch(philox, math.ceil(counters.size / THREADS), THREADS, counters, *fixed, words)
    return words.view(np.int64 if wide else np.uint32).reshape(*index.shape, 4)
