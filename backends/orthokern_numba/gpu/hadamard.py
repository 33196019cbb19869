"""The Walsh-Hadamard transform on the device: launches."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import hadamard_kernels as kernels
from .hashing import real_columns
from .launching import Launcher

# Numbers that are neighbours in memory, at least, where a tile has parts of rows; blocks of a launch.
_NEIGHBOURS, _MOST_BLOCKS = 8, 65535


def parts(bits: int, d: int) -> list[int]:
    """How many stages each pass does: as many as fit a tile."""
    done: list[int] = []
    while sum(done) < bits:
        span = min(d * 2 ** sum(done), _NEIGHBOURS)
        room = (kernels.TILE // span).bit_length() - 1
        done.append(min(room, bits - sum(done)))
    return done


def hadamard(launch: Launcher, x: Any, *, scale: float = 1.0) -> Any:
    """``scale H x`` for ``x`` (..., q, d), in as few passes over memory as tiles allow."""
    out = launch.empty(x.shape, x.dtype)
    source = real_columns(x)
    q, width = source.shape[1:]
    flat, source = real_columns(out).reshape(-1), source.reshape(-1)
    if not flat.size:
        return out
    kernel = kernels.stages_kernel(str(source.dtype))
    for bits in parts(q.bit_length() - 1, width) or [0]:
        rows = 2**bits
        span = min(width, kernels.TILE // rows)
        tiles = flat.size // (rows * width) * math.ceil(width / span)
        given = map(np.int64, (rows, width, span))
        launch(kernel, min(tiles, _MOST_BLOCKS), kernels.THREADS, source, *given, flat)
        source, width = flat, width * rows
    if scale != 1:
        flat *= flat.dtype.type(scale)
    return out
