"""Products of real matrices by tiles of registers, in compiled loops: packing, order, edges."""

from __future__ import annotations

import numba
import numpy as np

from .tiles import HEIGHT, WIDTH, ask_for, divide_tile, tile_1, tile_2, tile_3, turn

# Numbers of rows that stay in cache while they are multiplied; bytes that are fetched at a time.
BLOCK, LINE = 1 << 15, 64


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
def pack_turned(x: np.ndarray, panels: np.ndarray) -> None:
    """Panels of the transpose."""
    lanes = panels.shape[2]
    for j in range(len(panels)):
        _turn_in(x[j * lanes : (j + 1) * lanes], panels[j])


@numba.njit(cache=True, nogil=True)
def pack_divisor(r: np.ndarray, panels: np.ndarray) -> None:
    """Panels of -R with inverted entries on the diagonal, for `divide`; rows and columns to a multiple of the lanes."""
    d, lanes = len(r), panels.shape[2]
    panels[:] = 0
    pack(-r, panels[:, :d])
    for i in range(d):
        panels[i // lanes, i, i % lanes] = 1 / r[i, i] if r[i, i] != 0 else np.nan


@numba.njit(cache=True, inline="always")
def _tile(panels: np.ndarray, b: np.ndarray, c: np.ndarray, add: bool) -> None:
    if len(panels) == 3:
        tile_3(panels, b, c, add)
    elif len(panels) == 2:
        tile_2(panels, b, c, add)
    else:
        tile_1(panels, b, c, add)


@numba.njit(cache=True, inline="always")
def _spare(width: int, like: np.ndarray) -> np.ndarray:
    """Working space for rows of a tile, of the type that slices of arrays have."""
    return np.zeros((HEIGHT, width + 1), like.dtype)[:, :width]


@numba.njit(cache=True, inline="always")
def _put(panels: np.ndarray, b: np.ndarray, c: np.ndarray, add: bool, spare: np.ndarray) -> None:
    """A tile, written over or added to ``c``, which at an edge is smaller than the tile: there by way of a spare."""
    height, width = c.shape
    whole = height == HEIGHT and width == len(panels) * panels.shape[2]
    _tile(panels, b, c if whole else spare, add and whole)
    if not whole:
        for i in range(height):
            for j in range(width):
                c[i, j] = c[i, j] + spare[i, j] if add else spare[i, j]


@numba.njit(cache=True, inline="always")
def _ask(rows: np.ndarray, part: int, parts: int) -> None:
    """Have one of ``parts`` parts of the rows fetched while others are computed with."""
    n, lines = len(rows), -(-rows.shape[1] * rows.itemsize // LINE)
    for i in range(min(part * n // parts, n), min((part + 1) * n // parts, n)):
        ask_for(rows[i], 0, lines)


@numba.njit(cache=True, inline="always")
def _add_cross(
    x: np.ndarray, y: np.ndarray, total: np.ndarray, upper: bool, next_rows: np.ndarray
) -> None:
    """``total += X^T Y`` of packed matrices, or its upper triangle; ``next_rows`` are fetched on the way."""
    count, _, lanes = y.shape
    spare = _spare(WIDTH * lanes, total)
    parts, tile = -(-count // WIDTH), 0
    tiles = -(-len(total) // HEIGHT) * parts
    tiles = (tiles + 1) // 2 if upper else tiles
    for top in range(0, len(total), HEIGHT):
        j, lane = top // lanes, top % lanes
        b = x[j, :, lane : lane + HEIGHT]
        for part in range(parts):
            first, last = part * count // parts, (part + 1) * count // parts
            if upper and last <= j:
                continue
            left = max(first, j) if upper else first
            c = total[top : top + HEIGHT, left * lanes : min(last * lanes, total.shape[1])]
            _put(y[left:last], b, c, True, spare)
            _ask(next_rows, tile, tiles)
            tile += 1


@numba.njit(cache=True, inline="always")
def _packed(x: np.ndarray, start: int, panels: np.ndarray, turned: bool) -> np.ndarray:
    """Rows of X, or of its transpose, from ``start`` on."""
    depth = panels.shape[1]
    if turned:
        columns = x[:, start : start + depth]
        packed = panels[:, : columns.shape[1]]
        pack_turned(columns, packed)
    else:
        rows = x[start : start + depth]
        packed = panels[:, : len(rows)]
        pack(rows, packed)
    return packed


@numba.njit(cache=True, nogil=True)
def add_gram(x: np.ndarray, panels: np.ndarray, total: np.ndarray, turned: bool) -> None:
    """``total += X^T X``, or ``X X^T`` if turned, its upper triangle; panels as working space."""
    depth = panels.shape[1]
    for start in range(0, x.shape[1] if turned else x.shape[0], depth):
        packed = _packed(x, start, panels, turned)
        next_rows = x[:0] if turned else x[start + depth : start + 2 * depth]
        _add_cross(packed, packed, total, True, next_rows)


@numba.njit(cache=True, nogil=True)
def add_adjoint_product(
    x: np.ndarray,
    y: np.ndarray,
    panels: tuple[np.ndarray, np.ndarray],
    total: np.ndarray,
    turned: bool,
    upper: bool,
) -> None:
    """``total += X^T Y``, or ``X Y^T`` if turned, or the upper triangle; panels for each as working space."""
    depth = panels[0].shape[1]
    for start in range(0, x.shape[1] if turned else x.shape[0], depth):
        left = _packed(x, start, panels[0], turned)
        right = _packed(y, start, panels[1], turned)
        next_rows = x[:0] if turned else x[start + depth : start + 2 * depth]
        _add_cross(left, right, total, upper, next_rows)


@numba.njit(cache=True, inline="always")
def _rows_times(
    x: np.ndarray, panels: np.ndarray, out: np.ndarray, add: bool, next_rows: np.ndarray
) -> None:
    """``X P``, written over or added to ``out``, with up to three panels."""
    n, depth = x.shape
    spare, edge = _spare(WIDTH * panels.shape[2], out), _spare(depth, x)
    for top in range(0, n, HEIGHT):
        rows = x[top : top + HEIGHT]
        if len(rows) < HEIGHT:
            for i in range(len(rows)):
                for k in range(depth):
                    edge[i, k] = rows[i, k]
            rows = edge
        _put(panels, rows.T, out[top : top + HEIGHT], add, spare)
        _ask(next_rows, top // HEIGHT, -(-n // HEIGHT))


@numba.njit(cache=True, nogil=True)
def times_upper(x: np.ndarray, panels: np.ndarray, out: np.ndarray) -> None:
    """``out = X T`` with the panels of an upper triangular T; ``out`` may be X. Rows contiguous.

    The rightmost columns come first: what they are made of may be written over then.
    """
    count, d, lanes = panels.shape
    parts = -(-count // WIDTH)
    size = max(HEIGHT, BLOCK // d // HEIGHT * HEIGHT)
    for start in range(0, len(x), size):
        rows, next_rows = x[start : start + size], x[start + size : start + 2 * size]
        for part in range(parts - 1, -1, -1):
            first, last = part * count // parts, (part + 1) * count // parts
            right = min(last * lanes, d)
            share = next_rows[part * len(next_rows) // parts : (part + 1) * len(next_rows) // parts]
            to = out[start : start + size, first * lanes : right]
            _rows_times(rows[:, :right], panels[first:last, :right], to, False, share)


@numba.njit(cache=True, inline="always")
def _add_packed_product(x: np.ndarray, packed: np.ndarray, out: np.ndarray) -> None:
    count, depth, lanes = packed.shape
    parts = -(-count // WIDTH)
    size = max(HEIGHT, BLOCK // depth // HEIGHT * HEIGHT)
    for start in range(0, len(x), size):
        rows, next_rows = x[start : start + size], x[start + size : start + 2 * size]
        for part in range(parts):
            first, last = part * count // parts, (part + 1) * count // parts
            share = next_rows[part * len(next_rows) // parts : (part + 1) * len(next_rows) // parts]
            to = out[start : start + size, first * lanes : min(last * lanes, out.shape[1])]
            _rows_times(rows, packed[first:last], to, True, share)


@numba.njit(cache=True, nogil=True)
def add_product(x: np.ndarray, y: np.ndarray, panels: np.ndarray, out: np.ndarray) -> None:
    """``out += X Y``, panels as working space."""
    count, depth, lanes = panels.shape
    for left in range(0, y.shape[1], count * lanes):
        for start in range(0, len(y), depth):
            some = y[start : start + depth, left : left + count * lanes]
            packed = panels[: -(-some.shape[1] // lanes), : len(some)]
            pack(some, packed)
            to = out[:, left : left + count * lanes]
            _add_packed_product(x[:, start : start + depth], packed, to)


@numba.njit(cache=True, nogil=True)
def divide(x: np.ndarray, divisor: np.ndarray, out: np.ndarray) -> None:
    """``out = X R^{-1}`` by substitution, R as `pack_divisor` writes it; ``out`` may be X. Rows contiguous."""
    count, depth, lanes = divisor.shape
    turned = np.empty((WIDTH, depth, lanes), x.dtype)
    group = WIDTH * lanes
    for start in range(0, len(x), group):
        next_rows = x[start + group : start + 2 * group]
        for part in range(WIDTH):
            _turn_in(x[start + part * lanes : start + (part + 1) * lanes], turned[part])
        for j in range(count):
            _ask(next_rows, j, count)
            divide_tile(turned[:, : j * lanes], divisor[j], turned[:, j * lanes :])
        for part in range(WIDTH):
            _turn_out(turned[part], out[start + part * lanes : start + (part + 1) * lanes])
