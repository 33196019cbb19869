"""Products of tall real matrices with small ones, by tiles of registers: where BLAS uses but half of each register."""

from __future__ import annotations

import functools
from typing import Any

import llvmlite.binding
import numba
import numpy as np
from numba.core import config
from threadpoolctl import ThreadpoolController

from .library import aligned_empty
from .tiles import (
    HEIGHT,
    WIDTH,
    add_1,
    add_2,
    add_3,
    ask_for,
    divide_3,
    turn,
    write_1,
    write_2,
    write_3,
)

# Numbers of rows that stay in cache while they are multiplied; bytes that are fetched at a time.
BLOCK, LINE = 1 << 15, 64
# Fewest and most rows between two visits of a tile of a Gram matrix.
DEPTHS = 64, 256


@functools.cache
def _blas() -> list[Any]:
    return list(ThreadpoolController().select(user_api="blas").lib_controllers)


@functools.cache
def _has_wide_registers() -> bool:
    chosen = any(getattr(config, name, None) for name in ("CPU_NAME", "CPU_FEATURES"))
    return not chosen and llvmlite.binding.get_host_cpu_features().get("avx512f", False)


def pay(dtype: np.dtype) -> bool:
    """Whether these loops, which run on one thread, are faster than BLAS as it is set now."""
    is_served = dtype.char in "fd" and _has_wide_registers()
    return is_served and all(blas.num_threads == 1 for blas in _blas())


def empty_panels(depth: int, columns: int, dtype: np.dtype) -> np.ndarray:
    """Panels for a matrix (depth, columns), uninitialized."""
    lanes = 64 // dtype.itemsize
    return aligned_empty((-(-columns // lanes), depth, lanes), dtype)


def upper_panels(t: np.ndarray) -> np.ndarray:
    """Panels of a matrix, for `times_upper`."""
    panels = empty_panels(len(t), len(t), t.dtype)
    pack(t, panels)
    return panels


def divisor_panels(r: np.ndarray) -> np.ndarray:
    """Panels of -R with inverted entries on the diagonal, for `divide`; rows and columns to a multiple of the lanes."""
    panels = empty_panels(-(-len(r) // (64 // r.itemsize)) * (64 // r.itemsize), len(r), r.dtype)
    _pack_divisor(r, panels)
    return panels


@numba.njit(cache=True)
def mirror_up(g: np.ndarray) -> None:
    """Fill the rows below the diagonal from those above."""
    for i in range(g.shape[0]):
        for j in range(i):
            g[i, j] = np.conj(g[j, i])


@numba.njit(cache=True, nogil=True)
def pack(x: np.ndarray, panels: np.ndarray) -> None:
    """Write a matrix into panels of as many rows; what they have beyond its columns is zero."""
    d, lanes = x.shape[1], panels.shape[2]
    for j in range(len(panels)):
        panel, left = panels[j], j * lanes
        if left + lanes <= d:
            for i in range(x.shape[0]):
                for lane in range(lanes):
                    panel[i, lane] = x[i, left + lane]
        else:
            panel[:] = 0
            for i in range(x.shape[0]):
                for column in range(left, d):
                    panel[i, column - left] = x[i, column]


@numba.njit(cache=True, nogil=True)
def _add(panels: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    if len(panels) == 3:
        add_3(panels, b, c)
    elif len(panels) == 2:
        add_2(panels, b, c)
    else:
        add_1(panels, b, c)


@numba.njit(cache=True, nogil=True)
def _write(panels: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    if len(panels) == 3:
        write_3(panels, b, c)
    elif len(panels) == 2:
        write_2(panels, b, c)
    else:
        write_1(panels, b, c)


@numba.njit(cache=True, nogil=True)
def _ask(rows: np.ndarray, part: int, parts: int) -> None:
    """Have one of ``parts`` parts of contiguous rows fetched while others are computed with."""
    lines = rows.size * rows.itemsize // LINE
    ask_for(rows, min(part * lines // parts, lines), min((part + 1) * lines // parts, lines))


@numba.njit(cache=True, nogil=True)
def add_gram(x: np.ndarray, panels: np.ndarray, total: np.ndarray) -> None:
    """``total += X^T X``, its upper triangle; total has as many columns as the panels, which are working space."""
    count, depth, lanes = panels.shape
    parts = -(-count // WIDTH)
    tiles = (parts + 1) * count * lanes // HEIGHT // 2
    for start in range(0, len(x), depth):
        rows, next_rows = x[start : start + depth], x[start + depth : start + 2 * depth]
        packed = panels[:, : len(rows)]
        pack(rows, packed)
        tile = 0
        for part in range(parts):
            first, last = part * count // parts, (part + 1) * count // parts
            for top in range(0, last * lanes, HEIGHT):
                j, lane = top // lanes, top % lanes
                left = max(first, j)
                b = packed[j, :, lane : lane + HEIGHT]
                _add(packed[left:last], b, total[top:, left * lanes :])
                _ask(next_rows, tile, tiles)
                tile += 1


class PanelGram:
    """Sum of ``block^T block`` over blocks of rows, however many these are."""

    least_rows = 0

    def __init__(self, d: int, dtype: np.dtype) -> None:
        self.d = d
        self.panels = empty_panels(min(max(d // 2, DEPTHS[0]), DEPTHS[1]), d, dtype)
        columns = len(self.panels) * self.panels.shape[2]
        self.total = aligned_empty((columns, columns), dtype)
        self.total[...] = 0

    def add(self, block: np.ndarray) -> None:
        """Rows contiguous."""
        add_gram(block, self.panels, self.total)

    def write(self, g: np.ndarray) -> None:
        """Both triangles."""
        np.copyto(g, self.total[: self.d, : self.d])
        mirror_up(g)


@numba.njit(cache=True, nogil=True)
def _times_upper(x: np.ndarray, panels: np.ndarray, out: np.ndarray, next_rows: np.ndarray) -> None:
    """The rightmost columns come first: what they are made of may be written over then."""
    n, d = x.shape
    count, _, lanes = panels.shape
    parts = -(-count // WIDTH)
    edge, border = np.zeros((HEIGHT, d), x.dtype), np.empty((HEIGHT, WIDTH * lanes), x.dtype)
    tile, tiles = 0, parts * -(-n // HEIGHT)
    for part in range(parts - 1, -1, -1):
        first, last = part * count // parts, (part + 1) * count // parts
        left, right = first * lanes, min(last * lanes, d)
        some = panels[first:last, :right]
        for top in range(0, n, HEIGHT):
            rows = x[top : top + HEIGHT]
            _ask(next_rows, tile, tiles)
            tile += 1
            if len(rows) == HEIGHT and right == last * lanes:
                _write(some, rows.T, out[top : top + HEIGHT, left:])
                continue
            for i in range(len(rows)):
                for column in range(right):
                    edge[i, column] = rows[i, column]
            _write(some, edge.T, border)
            for i in range(len(rows)):
                for column in range(left, right):
                    out[top + i, column] = border[i, column - left]


@numba.njit(cache=True, nogil=True)
def times_upper(x: np.ndarray, panels: np.ndarray, out: np.ndarray) -> None:
    """``out = X T`` with the panels of an upper triangular T; ``out`` may be X. Rows contiguous."""
    size = max(HEIGHT, BLOCK // x.shape[1] // HEIGHT * HEIGHT)
    for start in range(0, len(x), size):
        stop = start + size
        _times_upper(x[start:stop], panels, out[start:stop], x[stop : stop + size])


@numba.njit(cache=True, nogil=True)
def _pack_divisor(r: np.ndarray, panels: np.ndarray) -> None:
    d, lanes = len(r), panels.shape[2]
    panels[:] = 0
    pack(-r, panels[:, :d])
    for i in range(d):
        panels[i // lanes, i, i % lanes] = 1 / r[i, i] if r[i, i] != 0 else np.nan


@numba.njit(cache=True, nogil=True)
def _turn_in(x: np.ndarray, turned: np.ndarray) -> None:
    """Rows of x, up to as many as a register has lanes, into the registers of ``turned`` (columns, lanes)."""
    n, d = x.shape
    lanes = turned.shape[1]
    whole = d // lanes * lanes if n == lanes else 0
    for left in range(0, whole, lanes):
        turn(x[:, left : left + lanes], turned[left : left + lanes])
    turned[whole:] = 0
    for column in range(whole, d):
        for i in range(n):
            turned[column, i] = x[i, column]


@numba.njit(cache=True, nogil=True)
def _turn_out(turned: np.ndarray, x: np.ndarray) -> None:
    n, d = x.shape
    lanes = turned.shape[1]
    whole = d // lanes * lanes if n == lanes else 0
    for left in range(0, whole, lanes):
        turn(turned[left : left + lanes], x[:, left : left + lanes])
    for column in range(whole, d):
        for i in range(n):
            x[i, column] = turned[column, i]


@numba.njit(cache=True, nogil=True)
def divide(x: np.ndarray, divisor: np.ndarray, out: np.ndarray) -> None:
    """``out = X R^{-1}`` by substitution, R as `divisor_panels` gives it; ``out`` may be X. Rows contiguous."""
    count, depth, lanes = divisor.shape
    turned = np.empty((WIDTH, depth, lanes), x.dtype)
    group = WIDTH * lanes
    for start in range(0, len(x), group):
        next_rows = x[start + group : start + 2 * group]
        for part in range(WIDTH):
            _turn_in(x[start + part * lanes : start + (part + 1) * lanes], turned[part])
        for j in range(count):
            _ask(next_rows, j, count)
            divide_3(turned[:, : j * lanes], divisor[j], turned[:, j * lanes :])
        for part in range(WIDTH):
            _turn_out(turned[part], out[start + part * lanes : start + (part + 1) * lanes])
