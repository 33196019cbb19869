"""First solutions of tall least-squares problems, each with a whitener that can refine it."""

from __future__ import annotations

from typing import Any, NamedTuple

from .._core.dtypes import eps, is_complex
from .._core.linalg import adjoint, identity_like, running_sum, thin_svd
from .._core.namespace import device, is_traced, namespace
from .normal_equations import squares
from .operators import sjlt
from .sources import Source
from .whitening import gram_whitener, triangular_whitener, truncated

# Singular values of a sketch below so many eps of the largest are rounding errors.
SKETCH_FLOOR = 30.0
# Nonzeros in a column of the sketch that preconditions.
NNZ = 8
# Rows of that sketch for each column; few columns get as many again, up to so many rows.
ROWS, EXTRA = 2, 128
# Reciprocal condition number of what a sketch has whitened; below, the sketch has lost a direction.
WHITE_RCOND = 1e-4


class Request(NamedTuple):
    """What is asked of a solver.

    ``ridge`` (..., d), or None, is added to the diagonal of the Gram matrix; ``rcond`` decides on ranks, ``tol`` is the
    backward error to reach. ``columns`` (..., d), or None, are powers of two that the columns of A were multiplied by.
    """

    ridge: Any
    rcond: float | None
    tol: float
    max_refine: int
    equilibrate: bool
    sketch_rows: int | None
    seed: int
    columns: Any = None


class Start(NamedTuple):
    """A first solution and what refines it.

    ``p`` whitens A; ``f`` (..., d, d) has the Gram matrix of A with its columns divided by ``scale`` (..., d), less the
    directions that were left out; ``null`` is an orthonormal basis of these, filled up with zeros, or None.
    """

    x: Any
    p: Any
    f: Any
    scale: Any
    null: Any
    rank: Any
    rcond: Any
    squares_of_b: Any
    passes: int
    sketch_rows: int = 0


def gram_start(source: Source, request: Request) -> Start:
    """By the factor of the Gram matrix scaled to a unit diagonal."""
    return start_of_sums(*source.normal_equations(), ridge=request.ridge)


def start_of_sums(g: Any, c: Any, squares_of_b: Any, *, ridge: Any) -> Start:
    """The same of ``A^H A`` and ``A^H B``; a column of zeros gets a zero in the solution."""
    xp = namespace(g)
    eye = identity_like(g)
    total = diagonal(g) if ridge is None else diagonal(g) + ridge
    scale = _norms_or_one(total)
    unit = g / scale[..., :, None] / scale[..., None, :]
    white, f, rcond = gram_whitener(xp.where(eye != 0, eye, unit))
    p = white / scale[..., :, None]
    rank = xp.sum(xp.astype(total > 0, total.dtype), axis=-1)
    return Start(p @ (adjoint(p) @ c), p, f, scale, None, rank, rcond, squares_of_b, 1)


def diagonal(g: Any) -> Any:
    """Real diagonal of each matrix."""
    d = namespace(g).linalg.diagonal(g)
    return namespace(g).real(d) if is_complex(g) else d


def _norms_or_one(total: Any) -> Any:
    """Roots of squared norms; 1 for those that are zero."""
    xp = namespace(total)
    return xp.sqrt(xp.where(total > 0, total, xp.ones_like(total)))


def with_ridge(a: Any, b: Any, ridge: Any) -> tuple[Any, Any]:
    """Rows ``diag(sqrt(ridge))`` under A, and zeros under B."""
    if ridge is None:
        return a, b
    xp = namespace(a)
    d = a.shape[-1]
    rows = xp.astype(xp.sqrt(ridge), a.dtype)[..., :, None] * xp.eye(
        d, dtype=a.dtype, device=device(a)
    )
    below = xp.zeros((*b.shape[:-2], d, b.shape[-1]), dtype=b.dtype, device=device(b))
    rows = xp.broadcast_to(rows, (*a.shape[:-2], d, d))
    return xp.concat([a, rows], axis=-2), xp.concat([b, below], axis=-2)


def unit_scales(a: Any) -> Any:
    """Norms of the columns of ``a`` (..., n, d); 1 for columns of zeros."""
    return _norms_or_one(squares(a))


def _scales(a: Any, request: Request) -> Any:
    return unit_scales(a) if request.equilibrate else namespace(a).ones_like(squares(a))


def _cutoff(source: Source, a: Any, request: Request) -> float:
    return eps(a) * max(source.shape) if request.rcond is None else request.rcond


def _started(
    core: Any, coordinates: Any, scale: Any, whitener: tuple[Any, Any, Any, Any], request: Request
) -> Start:
    """Of the matrix ``Q core`` with its columns divided by ``scale``; ``coordinates`` are those of B in Q.

    The squares of B are still to be filled in.
    """
    white, f, rank, rcond = whitener
    p = white / scale[..., :, None]
    x = p @ (adjoint(core @ white) @ coordinates)
    null = None
    if not _is_full(rank, core):
        units = scale if request.columns is None else scale / request.columns
        null = _null_basis(core, units, rank)
    return Start(x, p, f, scale, null, rank, rcond, None, 1)


def _is_full(rank: Any, core: Any) -> bool:
    return not is_traced(rank) and bool(namespace(rank).all(rank == core.shape[-1]))


def _null_basis(core: Any, scale: Any, rank: Any) -> Any:
    """Orthonormal basis of the directions that were left out, in the coordinates of x, and columns of zeros."""
    xp = namespace(core)
    d = core.shape[-1]
    finite = xp.all(xp.isfinite(core), axis=(-2, -1), keepdims=True)
    _, _, vh = thin_svd(xp.where(finite, core, identity_like(core)))
    lost = xp.astype(running_sum(xp.ones_like(scale)) <= d - rank[..., None], scale.dtype)
    # The last directions first, where those of the QR factor stand as well.
    t = xp.flip(adjoint(vh), axis=-1) * lost[..., None, :]
    # In units of the smallest scale, and each column of norm 1: nothing leaves the range.
    t = t * (xp.min(scale, axis=-1, keepdims=True) / scale)[..., :, None]
    q, _ = xp.linalg.qr(t / _norms_or_one(squares(t))[..., None, :])
    return q * lost[..., None, :]


def qr_start(source: Source, request: Request) -> Start:
    """By Householder QR of the matrix itself."""
    a, b = source.dense()
    squares_of_b = squares(b)
    a, b = with_ridge(a, b, request.ridge)
    scale = _scales(a, request)
    q, r = namespace(a).linalg.qr(a / scale[..., None, :])
    whitener = triangular_whitener(r, cutoff=_cutoff(source, a, request))
    start = _started(r, adjoint(q) @ b, scale, whitener, request)
    return start._replace(squares_of_b=squares_of_b)


def svd_start(source: Source, request: Request) -> Start:
    """By the singular values of the matrix itself."""
    a, b = source.dense()
    squares_of_b = squares(b)
    a, b = with_ridge(a, b, request.ridge)
    scale = _scales(a, request)
    u, s, vh = thin_svd(a / scale[..., None, :])
    whitener = truncated(s, vh, _cutoff(source, a, request))
    start = _started(s[..., :, None] * vh, adjoint(u) @ b, scale, whitener, request)
    return start._replace(squares_of_b=squares_of_b)


def sketch_rows(source: Source, request: Request) -> int:
    """Rows of the sketch that preconditions."""
    if request.sketch_rows is not None:
        return request.sketch_rows
    rows = ROWS * source.shape[1]
    return max(rows + min(rows, EXTRA), NNZ)


def sketched_start(source: Source, request: Request) -> Start:
    """By QR of a sketch: its solution, and a whitener that leaves a condition number of about 6."""
    operator = sjlt(sketch_rows(source, request), source.shape[0], nnz=NNZ, seed=request.seed)
    return start_of_sketch(*source.sketched(operator), source=source, request=request)


def start_of_sketch(
    sa: Any, sb: Any, squares_of_b: Any, *, source: Source, request: Request
) -> Start:
    """The same of ``S A`` and ``S B``."""
    rows = int(sa.shape[-2])
    sa, sb = with_ridge(sa, sb, request.ridge)
    scale = _scales(sa, request)
    q, r = namespace(sa).linalg.qr(sa / scale[..., None, :])
    cutoff = max(_cutoff(source, sa, request), SKETCH_FLOOR * eps(sa))
    whitener = triangular_whitener(r, cutoff=cutoff)
    start = _started(r, adjoint(q) @ sb, scale, whitener, request)
    return start._replace(squares_of_b=squares_of_b, sketch_rows=rows)


def pgram_start(source: Source, request: Request) -> Start:
    """By the Gram matrix of A whitened by a sketch, which has a condition number of about 36."""
    return whitened_start(sketched_start(source, request), source, request)


def whitened_start(start: Start, source: Source, request: Request) -> Start:
    """``start`` with a whitener to full accuracy; ``rcond`` is 0 where the sketch had lost a direction."""
    xp = namespace(start.p)
    g = source.whitened_gram(start.p)
    if request.ridge is not None:
        g = g + adjoint(start.p) @ (request.ridge[..., :, None] * start.p)
    eye = identity_like(g)
    lost = (diagonal(g) == 0)[..., None, :]
    white, f, quality = gram_whitener(xp.where(lost & (eye != 0), eye, g))
    rcond = xp.where(quality > WHITE_RCOND, start.rcond, xp.zeros_like(quality))
    return start._replace(p=start.p @ white, f=f @ start.f, rcond=rcond, passes=2)
