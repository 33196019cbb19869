"""Many positive definite systems that differ in a diagonal: Cholesky factors in one buffer."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .library import aligned_empty, library


@intrinsic
def _posv(typing: Any, address: Any, system: Any, x: Any) -> Any:
    """Solve ``system y = x`` in place by the Fortran posv at ``address``, from the lower half of ``system``.

    Returns LAPACK's info: 0 where the system was positive definite. As an argument, the address stays out of the cache.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def stored(kind: Any, value: int) -> Any:
            return cgutils.alloca_once_value(builder, ir.Constant(kind, value))

        word = ir.IntType(32)
        matrix, vector = (
            context.make_array(signature.args[i])(context, builder, args[i]) for i in (1, 2)
        )
        (size,) = cgutils.unpack_tuple(builder, vector.shape, 1)
        n = cgutils.alloca_once_value(builder, builder.trunc(size, word))
        info = stored(word, 0)
        # Rows are what Fortran takes for columns.
        upper = stored(ir.IntType(8), ord("U"))
        pointers = [upper, n, stored(word, 1), matrix.data, n, vector.data, n, info]
        kind = ir.FunctionType(ir.VoidType(), [p.type for p in pointers])
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), pointers)
        return builder.sext(builder.load(info), ir.IntType(64))

    return types.int64(types.intp, system, x), codegen


@numba.njit(cache=True)
def _fill(g: np.ndarray, penalty: np.ndarray, excess: float, system: np.ndarray) -> None:
    """The half of a system that is read; its diagonal is a few eps too large, and nowhere zero."""
    for i in range(g.shape[0]):
        row, out = g[i], system[i]
        for j in range(i):
            out[j] = row[j]
        total = row[i] + penalty[i]
        out[i] = total * excess if total > 0 else excess


@numba.njit(cache=True)
def _solved_rows(
    address: int,
    g: np.ndarray,
    penalty: np.ndarray,
    r: np.ndarray,
    excess: float,
    system: np.ndarray,
    c: np.ndarray,
) -> np.ndarray:
    """The rows of one member; which of them have to be solved otherwise."""
    failed = np.zeros(len(r), dtype=np.bool_)
    for i in range(len(r)):
        _fill(g, penalty[i], excess, system)
        c[i] = r[i]
        failed[i] = _posv(address, system, c[i]) != 0
    return failed


def _by_lu(g: np.ndarray, penalty: np.ndarray, excess: float, r: np.ndarray) -> np.ndarray:
    """Where rounding errors made the system indefinite."""
    system = np.zeros_like(g)
    _fill(g, penalty, excess, system)
    system += np.tril(system, -1).T
    s = 1 / np.sqrt(np.diag(system))
    found: np.ndarray = s * np.linalg.solve(system * s[:, None] * s, s * r)
    return found


def _one(g: np.ndarray, penalty: np.ndarray, r: np.ndarray, c: np.ndarray) -> None:
    """All rows of one member."""
    k = g.shape[0]
    excess = g.dtype.type(1 + 2 * np.finfo(g.dtype).eps * k**0.5)
    system = aligned_empty((k, k), g.dtype)
    address = library(g.dtype).posv_address
    for i in np.flatnonzero(_solved_rows(address, g, penalty, r, excess, system, c)):
        c[i] = _by_lu(g, penalty[i], excess, r[i])


def regularized_rows(g: np.ndarray, penalty: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Rows ``c_i`` with ``(G + diag(P_i)) c_i = r_i``; G (..., k, k), P and r (..., m, k).

    Notes
    -----
    Flops: m k^3 / 3; memory k^2. G + diag(P_i) is symmetric positive semidefinite.
    """
    c = aligned_empty(r.shape, r.dtype)
    batch = r.shape[:-2]
    systems = np.broadcast_to(g, (*batch, *g.shape[-2:]))
    penalties = np.broadcast_to(penalty, r.shape)
    for index in np.ndindex(*batch):
        _one(systems[index], penalties[index], r[index], c[index])
    return c
