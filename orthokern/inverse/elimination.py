"""Self-calibration without its unknown signals: they are eliminated, and a small Hermitian problem remains.

Arrays here: ``y`` (..., p, m), ``a`` (..., p, m, n) or (..., 1, m, n), already scaled.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .._core.dispatch import op
from .._core.dtypes import eps, is_complex
from .._core.linalg import adjoint, gram, identity_like, thin_svd
from .._core.loop import iterate, repeat
from .._core.namespace import namespace
from .eigenpairs import conjugate, inner, inverse_above, lowest_pairs, refuse_lazy

CORRECTIONS = 2
# Below this share of a row nothing but the signal's own freedom explains it.
LEAST_SHARE = 8.0
# Alternating steps end where a step lowers the residual by less than this share of it.
ENOUGH = 1e-6


class Frame(NamedTuple):
    """Orthonormal columns for the ranges of matrices, and what takes coordinates in them back to signals."""

    q: Any
    back: Any


def frame_of(a: Any, model: str) -> Frame:
    """Of each matrix of ``a``, or of all as one for a shared signal; directions below rounding are left out."""
    xp = namespace(a)
    p, m, n = a.shape[-3:]
    whole = xp.reshape(a, (*a.shape[:-3], 1, p * m, n)) if model == "shared" else a
    q, r = xp.linalg.qr(whole)
    u, s, vh = thin_svd(r)
    kept = s > max(whole.shape[-2:]) * eps(a) * xp.max(s, axis=-1, keepdims=True)
    inverse = xp.where(kept, 1 / xp.where(kept, s, xp.ones_like(s)), xp.zeros_like(s))
    u = u * xp.astype(kept, a.dtype)[..., None, :]
    return Frame(q @ u, adjoint(vh) * xp.astype(inverse, a.dtype)[..., None, :])


def _grouped(t: Any, model: str) -> Any:
    """Rows (..., p, m) as the vectors that the matrices of a frame act on, as columns."""
    xp = namespace(t)
    p, m = t.shape[-2:]
    rows = xp.reshape(t, (*t.shape[:-2], 1, p * m)) if model == "shared" else t
    return rows[..., None]


def signals(frame: Frame, t: Any, model: str) -> Any:
    """Least-squares signals (..., p, n), or (..., 1, n) if shared, whose images are nearest to ``t`` (..., p, m)."""
    return (frame.back @ (adjoint(frame.q) @ _grouped(t, model)))[..., 0]


def _projected(frame: Frame, t: Any, model: str) -> Any:
    """What no signal explains of ``t`` (..., p, m)."""
    g = _grouped(t, model)
    g = g - frame.q @ (adjoint(frame.q) @ g)
    return namespace(t).reshape(g, (*g.shape[:-3], *t.shape[-2:]))


def images(a: Any, x: Any) -> Any:
    """``A_l x_l``, shape (..., p, m)."""
    return (a @ x[..., None])[..., 0]


def squares(x: Any) -> Any:
    """``|x|^2``, real."""
    xp = namespace(x)
    return xp.real(x) ** 2 + xp.imag(x) ** 2 if is_complex(x) else x * x


def real_part(x: Any) -> Any:
    """Real part; real arrays as they are."""
    return namespace(x).real(x) if is_complex(x) else x


def norms(x: Any) -> Any:
    """2-norm along the last axis, shape (..., 1)."""
    xp = namespace(x)
    return xp.sqrt(xp.sum(squares(x), axis=-1, keepdims=True))


def _reduced(frame: Frame, y: Any, model: str) -> tuple[Any, Any, Any]:
    """``(energy, explained, share)``: ``s^H S s``, ``S = diag(energy) - explained``, is the squared misfit of ``s``.

    It is that of inverse gains with the best signals; ``share`` (..., m) is the diagonal of what white noise in ``y``
    adds to ``S``, for variance 1.
    """
    xp = namespace(y)
    p, m = y.shape[-2:]
    q = frame.q
    energy = xp.sum(squares(y), axis=-2)
    if model == "snapshots":
        q = q[..., 0, :, :]
        return energy, (q @ adjoint(q)) * gram(y), p * (1 - xp.sum(squares(q), axis=-1))
    q = xp.reshape(q, (*q.shape[:-3], p, m, q.shape[-1]))
    share = xp.sum(1 - xp.sum(squares(q), axis=-1), axis=-2)
    z = conjugate(y)[..., None] * q
    if model == "shared":
        z = xp.sum(z, axis=-3)
    else:
        z = xp.moveaxis(z, -3, -2)
        z = xp.reshape(z, (*z.shape[:-2], p * z.shape[-1]))
    return energy, z @ adjoint(z), share


class _Spectrum(NamedTuple):
    """Of the scaled problem: the vector of the least eigenvalue, the inverse above it, and the extreme eigenvalues.

    ``pair`` and ``root`` are those of ``lowest_pairs``; ``extremes`` (..., 3) are the two least and the largest.
    """

    first: Any
    pair: Any
    root: Any
    extremes: Any


def _decomposed(
    frame: Frame, y: Any, model: str, energy: Any, explained: Any, scale: Any
) -> _Spectrum:
    """Of ``diag(scale) S diag(scale)``, with rows whose scale is zero moved out of the way.

    Squaring costs half of the digits; the first eigenvector gets them back by corrections whose residual is formed by
    the projection itself, and so do the two least eigenvalues.
    """
    xp = namespace(y)
    diagonal = energy * scale * scale
    top = xp.sum(diagonal, axis=-1, keepdims=True)
    top = xp.where(top > 0, top, xp.ones_like(top))
    diagonal = xp.where(scale > 0, diagonal, 2 * top)
    weights = scale[..., :, None] * scale[..., None, :]
    values, pair, root = lowest_pairs(
        identity_like(weights) * diagonal[..., None] - explained * weights
    )
    scale = xp.astype(scale, y.dtype)
    inside = xp.where(values < 1.5 * top, values, xp.zeros_like(values))
    largest = xp.max(inside, axis=-1, keepdims=True)
    first = pair[..., 0]
    for _ in range(CORRECTIONS):
        image, least = _applied(frame, y, model, scale, first)
        missed = image - xp.astype(least, y.dtype) * first
        first = first - inverse_above(pair[..., 0], root, missed)
        first = first / xp.astype(norms(first), y.dtype)
    least, second = (_applied(frame, y, model, scale, v)[1] for v in (first, pair[..., 1]))
    return _Spectrum(first, pair, root, xp.concat([least, second, largest], axis=-1))


def _applied(frame: Frame, y: Any, model: str, scale: Any, v: Any) -> tuple[Any, Any]:
    """Image of ``v`` under the scaled problem, and its Rayleigh quotient; ``v`` has length 1."""
    xp = namespace(y)
    t = _projected(frame, y * (scale * v)[..., None, :], model)
    quotient = xp.sum(squares(t), axis=(-2, -1))[..., None]
    # Projected once more, so that rounding errors stay in the range, where the inverse does not blow them up.
    t = _projected(frame, t, model)
    return scale * xp.sum(conjugate(y) * t, axis=-2), quotient


def _nearest_to_one(found: _Spectrum, w: Any) -> Any:
    """Minimizer of the misfit with ``w^H u = 1``; a misfit of zero divides nothing."""
    xp = namespace(w)
    least = xp.astype(found.extremes[..., :1], w.dtype)
    u = found.first * inner(found.first, w)
    u = u + least * inverse_above(found.pair[..., 0], found.root, w)
    total = inner(w, u)
    some = total != 0
    return u / xp.where(some, total, xp.ones_like(total))


@op()
def inverse_gains(
    y: Any, a: Any, w: Any, /, *, model: str, method: str, weighted: bool
) -> tuple[Any, Any, Any, Any]:
    """Inverse gains ``s`` for which ``diag(y_l) s`` is nearest to the ranges of the matrices.

    Returns ``(s, x, sigma, lost)``: s (..., m) is of length 1 in the metric of the noise ("spectral") or has
    ``w^H s = 1`` ("lstsq"), signals x (..., p, n) or (..., 1, n), the two smallest singular values
    and the largest, and which gains nothing determines (zeros in ``s``).
    """
    refuse_lazy(y)
    xp = namespace(y)
    dead = xp.sum(squares(y), axis=-2) == 0
    a = xp.where(dead[..., None, :, None], xp.zeros_like(a), a)
    frame = frame_of(a, model)
    energy, explained, share = _reduced(frame, y, model)
    lost = dead | (share <= LEAST_SHARE * max(y.shape[-2:]) * eps(y))
    share = xp.where(lost, xp.ones_like(share), share)
    units = 1 / xp.sqrt(share) if weighted else xp.ones_like(share)
    units = xp.where(lost, xp.zeros_like(units), units)
    found = _decomposed(frame, y, model, energy, explained, units)
    scale = xp.astype(units, y.dtype)
    u = found.first if method == "spectral" else _nearest_to_one(found, scale * w)
    s = scale * u
    if method == "spectral":
        s = s * phase(inner(s, w))
    sigma = xp.sqrt(found.extremes)
    return s, signals(frame, y * s[..., None, :], model), sigma, lost


def phase(z: Any) -> Any:
    """``z / |z|``, and 1 for zero."""
    xp = namespace(z)
    size = xp.abs(z)
    some = size > 0
    size = xp.astype(xp.where(some, size, xp.ones_like(size)), z.dtype)
    return xp.where(some, z / size, xp.ones_like(z))


@op()
def alternating_gains(
    y: Any, a: Any, d: Any, /, *, model: str, steps: int, until_done: bool
) -> tuple[Any, Any, Any]:
    """Gains and signals for ``y_l = D A_l x_l`` by least squares in turns, from gains ``d``.

    Returns ``(d, x, count)``: ``steps`` steps, or as many as it takes until the residual hardly sinks.
    """
    refuse_lazy(y)
    xp = namespace(y)
    total = norms(xp.reshape(y, (*y.shape[:-2], -1)))

    def step(state: tuple[Any, ...]) -> tuple[Any, ...]:
        d, _, residual, _ = state
        frame = frame_of(d[..., None, :, None] * a, model)
        x = signals(frame, y, model)
        image = images(a, x)
        energy = xp.sum(squares(image), axis=-2)
        seen = energy > 0
        energy = xp.astype(xp.where(seen, energy, xp.ones_like(energy)), y.dtype)
        d = xp.where(seen, xp.sum(conjugate(image) * y, axis=-2) / energy, d)
        misfit = y - d[..., None, :] * image
        return d, x, norms(xp.reshape(misfit, (*y.shape[:-2], -1))), residual

    def done(state: tuple[Any, ...]) -> Any:
        _, _, now, before = state
        return xp.all(before - now <= ENOUGH * now + 10 * eps(y) * total)

    start = signals(frame_of(d[..., None, :, None] * a, model), y, model)
    state = (d, start, 4 * total, 8 * total)
    if until_done:
        state, count = iterate(step, state, done=done, max_steps=steps)
    else:
        state, count = repeat(step, state, count=steps), steps
    d, x, residual, _ = state
    return d, x, xp.astype(0 * residual[..., 0], xp.int32) + count
