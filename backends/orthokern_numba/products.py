"""Products of matrices: by tiles of registers where BLAS leaves half of each register idle, else by BLAS.

OpenBLAS takes many processors with AVX-512 for older ones. On several threads it is left alone.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import llvmlite.binding
import numpy as np
from numba.core import config
from threadpoolctl import ThreadpoolController

from .lanes import REGISTER_BYTES
from .layout import mirror
from .library import aligned_empty, library
from .panels import add_adjoint_product, add_gram, add_product, pack, pack_divisor

# Processors for which OpenBLAS has kernels that fill their registers; in single precision none is faster.
WIDE = {"SkylakeX", "Cooperlake", "SapphireRapids"}
# NumPy's product of a real block with itself, which fills both triangles, pays from so many rows for each column on.
PRODUCT_ROWS = 8
# Fewest and most rows between two visits of a tile of a Gram matrix.
DEPTHS = 128, 256
# Multiplications from which packing and calls are repaid.
LEAST_WORK = {"d": 1 << 20, "f": 1 << 23}
# Packed rows of that many bytes stay in cache.
PANEL_BYTES = 1 << 19
# Panels that are packed at a time, and their rows: with few panels more, which reads a tall matrix in longer pieces.
PANELS, DEPTH, TALL_DEPTH = 24, 256, 512


@functools.cache
def _blas() -> list[Any]:
    return list(ThreadpoolController().select(user_api="blas").lib_controllers)


@functools.cache
def _has_wide_registers() -> bool:
    chosen = any(getattr(config, name, None) for name in ("CPU_NAME", "CPU_FEATURES"))
    return not chosen and llvmlite.binding.get_host_cpu_features().get("avx512f", False)


@functools.cache
def _blas_knows() -> bool:
    return any(getattr(blas, "architecture", None) in WIDE for blas in _blas())


def tiles_pay(dtype: np.dtype, work: float = math.inf) -> bool:
    """Whether tiles, which run on one thread, are faster for ``work`` multiplications than BLAS as it is set now."""
    least = LEAST_WORK.get(dtype.char)
    if least is None or work < least or not _has_wide_registers():
        return False
    if dtype.char == "f" and _blas_knows():
        return False
    return all(blas.num_threads == 1 for blas in _blas())


def empty_panels(depth: int, columns: int, dtype: np.dtype) -> np.ndarray:
    """Panels for a matrix (depth, columns), uninitialized."""
    lanes = REGISTER_BYTES // dtype.itemsize
    return aligned_empty((-(-columns // lanes), depth, lanes), dtype)


def panels_of(y: np.ndarray) -> np.ndarray:
    """A packed copy."""
    panels = empty_panels(y.shape[0], y.shape[1], y.dtype)
    pack(y, panels)
    return panels


def divisor_of(r: np.ndarray) -> np.ndarray:
    """A packed upper triangle, to divide by."""
    lanes = REGISTER_BYTES // r.itemsize
    panels = empty_panels(-(-len(r) // lanes) * lanes, len(r), r.dtype)
    pack_divisor(r, panels)
    return panels


class BlasGram:
    """Sum of ``block^H block`` over blocks of rows, of which the upper triangle is held."""

    def __init__(self, d: int, dtype: np.dtype) -> None:
        self.least_rows = PRODUCT_ROWS * d
        self.rank_k = library(dtype).rank_k
        self.total = aligned_empty((d, d), dtype, "F")
        self.total[...] = 0
        self.part = aligned_empty((d, d), dtype, "F")
        self.whole = True

    def add(self, block: np.ndarray) -> None:
        """The transpose of a row-major block is column-major: the sum is the conjugate of the one looked for."""
        if block.dtype.kind != "c" and len(block) >= self.least_rows:
            np.matmul(block.T, block, out=self.part.T)
            self.total += self.part
        else:
            self.rank_k(1.0, block.T, beta=1.0, c=self.total, overwrite_c=1)
            self.whole = False

    def write(self, g: np.ndarray) -> None:
        """Both triangles of a row-major G; a real sum by its rows, which are the columns that were summed."""
        if g.dtype.kind == "c":
            np.conj(self.total, out=g)
            mirror(g.T)
        else:
            np.copyto(g, self.total.T)
            if not self.whole:
                mirror(g)


class TiledGram:
    """The same sum by tiles, however few rows a block has; real."""

    least_rows = 0

    def __init__(self, d: int, dtype: np.dtype) -> None:
        self.panels = empty_panels(min(max(d // 2, DEPTHS[0]), DEPTHS[1]), d, dtype)
        self.total = aligned_empty((d, d), dtype)
        self.total[...] = 0

    def add(self, block: np.ndarray) -> None:
        """Rows contiguous."""
        add_gram(block, self.panels, self.total, False)

    def write(self, g: np.ndarray) -> None:
        """Both triangles of a row-major G."""
        np.copyto(g, self.total)
        mirror(g.T)


def gram_sum(d: int, dtype: np.dtype) -> BlasGram | TiledGram:
    """A sum of Gram matrices, zero to begin with."""
    return TiledGram(d, dtype) if tiles_pay(dtype) else BlasGram(d, dtype)


def upper_gram(a: np.ndarray) -> np.ndarray:
    """``A^H A``, column-major: its upper triangle, and anything below."""
    g = aligned_empty((a.shape[1],) * 2, a.dtype, "F")
    write_upper_gram(1.0, a, g)
    return g


def write_upper_gram(factor: float, a: np.ndarray, g: np.ndarray, *, beta: float = 0.0) -> None:
    """``G = factor A^H A + beta G``, the upper triangle of a column-major G; A is read as it lies."""
    f = library(a.dtype)
    if beta == 0 and tiles_pay(a.dtype, a.size * a.shape[1]):
        _tiled_gram(a, g)
        if factor != 1:
            g *= a.dtype.type(factor)
    elif not a.flags.c_contiguous:
        f.rank_k(factor, a, trans=f.adjoint, c=g, beta=beta, overwrite_c=1)
    else:
        # The transpose of a row-major matrix is column-major: A^T (A^T)^H is the conjugate of A^H A.
        f.rank_k(factor, a.T, c=g, beta=beta, overwrite_c=1)
        if a.dtype.kind == "c":
            np.conj(g, out=g)


def _tiled_gram(a: np.ndarray, g: np.ndarray) -> None:
    panels = empty_panels(DEPTHS[1], a.shape[1], a.dtype)
    g[...] = 0
    turned = a.flags.f_contiguous
    add_gram(a.T if turned else a, panels, g.T, turned)
    mirror(g)


def add_times_hermitian(
    scale: float, x: np.ndarray, p: np.ndarray, out: np.ndarray, *, beta: float
) -> None:
    """``out = scale X P + beta out``, all column-major, of P the upper triangle; P may be overwritten."""
    if not tiles_pay(x.dtype, x.size * len(p)):
        product = library(x.dtype).hermitian_product
        product(scale, p, x, side=1, c=out, beta=beta, overwrite_c=1)
        return
    mirror(p.T)
    if scale != 1:
        p *= x.dtype.type(scale)
    if beta == 0:
        out[...] = 0
    elif beta != 1:
        out *= x.dtype.type(beta)
    add_tiled_product(p.T, x.T, out.T)


def add_tiled_product(x: np.ndarray, y: np.ndarray, out: np.ndarray) -> None:
    """``out += X Y``, real and row-major."""
    lanes = REGISTER_BYTES // out.itemsize
    columns = min(out.shape[1], PANELS * lanes)
    depth = TALL_DEPTH if 2 * columns < PANELS * lanes else DEPTH
    add_product(x, y, empty_panels(min(depth, len(y)), columns, out.dtype), out)


def multiplied(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """``X Y`` in the layout of X, of one matrix each."""
    row_major = x.flags.c_contiguous
    out = aligned_empty((len(x), y.shape[1]), x.dtype, "C" if row_major else "F")
    if not tiles_pay(x.dtype, x.size * y.shape[1]):
        return np.matmul(x, np.ascontiguousarray(y) if row_major else y, out=out)
    out[...] = 0
    if row_major:
        add_tiled_product(x, y, out)
    else:
        add_tiled_product(y.T, x.T, out.T)
    return out


def adjoint_multiplied(x: np.ndarray, y: np.ndarray, *, hermitian: bool = False) -> np.ndarray:
    """``X^H Y``, row-major; of a product that is Hermitian one triangle may stand for both."""
    if not tiles_pay(x.dtype, x.size * y.shape[1]):
        return x.conj().T @ y  # type: ignore[no-any-return]
    out = aligned_empty((x.shape[1], y.shape[1]), x.dtype)
    out[...] = 0
    turned = x.flags.f_contiguous and y.flags.f_contiguous
    depth = min(max(PANEL_BYTES // max(y.shape[1] * x.itemsize, 1), DEPTHS[0]), DEPTHS[1])
    panels = empty_panels(depth, x.shape[1], x.dtype), empty_panels(depth, y.shape[1], x.dtype)
    sides = (x.T, y.T) if turned else (x, y)
    add_adjoint_product(*sides, panels, out, turned, hermitian)
    if hermitian:
        mirror(out.T)
    return out


def carrier(n: int, dtype: np.dtype) -> tuple[int, np.ndarray | None]:
    """What `layout.invert` multiplies with at order n: the address of gemm, and panels where tiles pay."""
    lanes = REGISTER_BYTES // dtype.itemsize
    panels = empty_panels(DEPTH, PANELS * lanes, dtype) if tiles_pay(dtype, n**3) else None
    return library(dtype).gemm_address, panels


def stacked_product(a: np.ndarray, b: np.ndarray, *, adjoint: bool) -> np.ndarray:
    """``A B`` or ``A^H B`` of each pair."""
    if a.dtype != b.dtype or a.shape[:-2] != b.shape[:-2] or 0 in a.shape:
        return (np.swapaxes(a, -1, -2).conj() if adjoint else a) @ b  # type: ignore[no-any-return]
    function = adjoint_multiplied if adjoint else multiplied
    if a.ndim == 2:
        return function(a, b)
    members = [function(a[index], b[index]) for index in np.ndindex(*a.shape[:-2])]
    return np.stack(members).reshape(*a.shape[:-2], *members[0].shape)
