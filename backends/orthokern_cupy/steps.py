"""The steps of a schedule on a matrix or a stack (..., m, n), m >= n, none of which waits for the device.

Each maps the singular values alone. Flops for a square matrix: CUBIC 3 n^3 with a Gram matrix of one triangle, 4 n^3
without; QUINTIC 4 and 6; HALLEY 10/3 and 13/3 by Cholesky; NEWTON 8/3 by elimination. Sources: Higham, *Functions of
Matrices* (2008), ch. 8; Nakatsukasa, Bai, Gygi, SIMAX 31 (2010); Amsel et al., arXiv:2505.16932.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from orthokern.spectral.plan import Schedule, Step, StepKind

from .estimates import norm_bound, power_norm
from .kernels import kernel
from .library import (
    adjoint,
    affine,
    averaged,
    blend,
    epsilon,
    frobenius,
    gram,
    hermitian_part,
    left_divided,
    real,
    safe,
    solve_definite,
)

# Above this weight the Cholesky form of a Halley step loses about c * eps; the QR form does not.
CHOLESKY_LIMIT = 200.0
POWER_MARGIN = 1.1
Coefficients = tuple[float, ...]


def identity_like(x: Any, cp: Any) -> Any:
    """The identity of the shape of ``X^H X``, repeated for each matrix."""
    n = x.shape[-1]
    return cp.broadcast_to(cp.eye(n, dtype=x.dtype), (*x.shape[:-2], n, n))


def factor_of(g: Any, coefficients: Coefficients, cp: Any) -> Any:
    """``c0 I + c1 G + c2 G^2 + ...``; a cubic or quintic step takes one pass over G besides its product."""
    if len(coefficients) == 3:
        a, b, c = (real(g)(value) for value in coefficients)
        return kernel("quadratic", g, cp)(g, gram(g, cp), a, b, c, np.int32(g.shape[-1]))
    factor = affine(g, coefficients[-2], coefficients[-1], cp)
    for coefficient in reversed(coefficients[:-2]):
        factor = affine(cp.matmul(g, factor), coefficient, 1.0, cp)
    return factor


def polynomial(x: Any, coefficients: Coefficients, cp: Any, g: Any = None) -> Any:
    """``X (c0 I + c1 G + c2 G^2 + ...)``; ``g`` is ``X^H X`` if it is known."""
    g = gram(x, cp) if g is None else g
    return cp.matmul(x, factor_of(g, coefficients, cp))


def corrected(x: Any, defect: Any, kind: StepKind, cp: Any) -> Any:
    """The closing step ``kind`` for a small ``E = X^H X - I``: ``X - X E / 2``, or ``X - X (E / 2 - 3/8 E^2)``.

    As a correction it rounds once; in powers of the Gram matrix the weights 15/8, -10/8, 3/8 cancel on the diagonal.
    """
    if kind is StepKind.CUBIC:
        return blend(x, cp.matmul(x, defect), 1.0, -0.5, cp)
    change = blend(defect, gram(defect, cp), -0.5, 0.375, cp)
    return blend(x, cp.matmul(x, change), 1.0, 1.0, cp)


def halley(x: Any, coefficients: Coefficients, cp: Any, g: Any = None) -> Any:
    """``s ((b/c) X + (a - b/c) X (I + c G)^{-1})``, by Cholesky or, for large c, by QR of [sqrt(c) X; I]."""
    a, b, c, after = (*coefficients, 1.0)[:4]
    if c <= CHOLESKY_LIMIT:
        shifted = affine(gram(x, cp) if g is None else g, 1.0, c, cp)
        solved = adjoint(solve_definite(shifted, adjoint(x, cp), cp), cp)
    else:
        root, m = c**0.5, x.shape[-2]
        stacked = cp.concatenate([x * real(x)(root), identity_like(x, cp)], axis=-2)
        q, _ = cp.linalg.qr(stacked)
        solved = cp.matmul(q[..., :m, :], adjoint(q[..., m:, :], cp)) * real(x)(1 / root)
    return blend(x, solved, after * b / c, after * (a - b / c), cp)


def newton(x: Any, coefficients: Coefficients, cp: Any, g: Any = None) -> Any:
    """``a X + b X^{-H}`` by QR; a vanishing pivot is lifted to eps, a perturbation within the backward error."""
    a, b = coefficients
    q, r = cp.linalg.qr(x)
    eye = identity_like(x, cp)
    sizes = cp.abs(cp.diagonal(r, axis1=-2, axis2=-1))
    floor = cp.max(sizes, axis=-1, keepdims=True) * real(x)(epsilon(x)) + real(x)(epsilon(x) ** 2)
    lift = cp.where(sizes < floor, floor, cp.zeros_like(sizes)).astype(x.dtype)
    inverse = left_divided(r + lift[..., None] * eye, eye, cp)
    return blend(x, cp.matmul(q, adjoint(inverse, cp)), a, b, cp)


def newton_with(x: Any, inverse: Any, coefficients: Coefficients, cp: Any) -> Any:
    """``a X + b X^{-H}`` with the inverse of X at hand."""
    a, b = coefficients
    return averaged(x, inverse, a, b, cp)


def eliminated(x: Any, coefficients: Coefficients, cp: Any, g: Any = None) -> Any:
    """Newton's step by elimination: faster than by QR, without a meaning where X is singular."""
    return newton_with(x, cp.linalg.inv(x), coefficients, cp)


CAREFUL = {
    StepKind.NEWTON: newton,
    StepKind.HALLEY: halley,
    StepKind.CUBIC: polynomial,
    StepKind.QUINTIC: polynomial,
}
# For matrices whose inverse is known to exist.
FAST = CAREFUL | {StepKind.NEWTON: eliminated}


def run(x: Any, steps: tuple[Step, ...], cp: Any, *, table: Any, g: Any = None) -> Any:
    """The steps in order; ``g`` is ``X^H X`` before the first if it is known."""
    for step in steps:
        x = table[step.kind](x, step.coefficients, cp, g)
        g = None
    return x


def gram_form(x: Any, schedule: Schedule, cp: Any) -> Any:
    """Newton-Schulz on the n x n Gram matrix alone, with X and a fresh Gram matrix at the restarts."""
    steps, restarts = schedule.steps, schedule.restarts or ()
    g = gram(x, cp)
    total = None
    for place, step in enumerate(steps):
        if place in restarts and total is not None:
            x, total = cp.matmul(x, total), None
            g = gram(x, cp)
        factor = factor_of(g, step.coefficients, cp)
        total = factor if total is None else cp.matmul(total, factor)
        if place + 1 < len(steps) and place + 1 not in restarts:
            g = hermitian_part(cp.matmul(cp.matmul(factor, g), factor), cp)
    return x if total is None else cp.matmul(x, total)


def normalized(x: Any, normalization: str, cp: Any) -> Any:
    """``x`` over the named norm of each matrix, or of each column; a zero matrix stays one."""
    if normalization == "none":
        return x
    if normalization == "aol":
        sums = cp.sum(cp.abs(gram(x, cp)), axis=-2, keepdims=True)
        return x / safe(cp.sqrt(sums), cp)
    if normalization == "frobenius":
        bound = frobenius(x, cp)
    elif normalization == "schatten4":
        bound = cp.sqrt(frobenius(gram(x, cp), cp))
    else:
        bound = cp.minimum(power_norm(x, cp) * real(x)(POWER_MARGIN), norm_bound(x, cp))
    return x / safe(bound, cp)[..., None, None]
