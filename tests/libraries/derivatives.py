"""Closed forms and differences that derivatives of ``A = U H`` are compared with; NumPy alone.

The forms come from the singular value decomposition and divide by sums of singular values only, so they hold at
repeated ones. At rank r < min(m, n) they are those of the canonical factor along matrices of rank r; a direction
that leaves the rank counts as zero, which is also the convention of the library.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


def adjoint(x):
    return np.conj(np.swapaxes(x, -1, -2))


def with_values(rng, m, n, values, *, dtype=np.float64):
    """A random m x n matrix with these singular values."""
    k = len(values)
    z = rng.standard_normal((m + n, k))
    z = z + 1j * rng.standard_normal((m + n, k)) if np.dtype(dtype).kind == "c" else z
    return (np.linalg.qr(z[:m])[0] * values) @ adjoint(np.linalg.qr(z[m:])[0])


def well_conditioned(rng, *shape, dtype=np.float64):
    """A stack of matrices with singular values between 1 and 2."""
    *batch, m, n = shape
    values = np.linspace(1, 2, min(m, n))
    members = [with_values(rng, m, n, values, dtype=dtype) for _ in range(int(np.prod(batch)))]
    return np.reshape(members, shape)


def _spectrum(x, rank):
    p, s, qh = np.linalg.svd(x, full_matrices=False)
    rank = len(s) if rank is None else rank
    return p[:, :rank], s[:rank], adjoint(qh[:rank])


def unitary_factor(x, rank=None):
    """The canonical unitary factor of one matrix: ``P Q^H`` over its leading singular triplets."""
    p, _, q = _spectrum(x, rank)
    return p @ adjoint(q)


def unitary_derivative(x, d, rank=None):
    """Derivative of the unitary factor in direction ``d``; self-adjoint, so also the gradient of ``Re <d, U>``."""
    p, s, q = _spectrum(x, rank)
    m = adjoint(p) @ d @ q
    turning = (m - adjoint(m)) / (s[:, None] + s)
    columns = (d @ q - p @ m) / s
    rows = (adjoint(p) @ d - m @ adjoint(q)) / s[:, None]
    return p @ turning @ adjoint(q) + columns @ adjoint(q) + p @ rows


def hermitian_factor(x):
    """``H = sqrt(A^H A)`` of one matrix."""
    _, s, q = _spectrum(x, None)
    return (q * s) @ adjoint(q)


def _lyapunov(x, k):
    """The Hermitian Y with ``H Y + Y H = K``, zero where two singular values vanish."""
    m, n = x.shape
    _, s, qh = np.linalg.svd(x)
    s = np.concatenate([s, np.zeros(max(n - m, 0))])
    sums = s[:, None] + s
    inner = qh @ k @ adjoint(qh)
    return adjoint(qh) @ np.divide(inner, sums, out=0 * inner, where=sums > 0) @ qh


def hermitian_derivative(x, d):
    """Derivative of ``H = sqrt(A^H A)`` in direction ``d``."""
    k = adjoint(x) @ d
    return _lyapunov(x, k + adjoint(k))


def hermitian_gradient(x, v):
    """Gradient of ``Re <v, H>``."""
    return x @ _lyapunov(x, v + adjoint(v))


class Loss(NamedTuple):
    """``Re <w, U> + Re <v, H>`` with H on the right; its gradient g has ``dL = Re <g, dA>``, as torch has it."""

    w: np.ndarray
    v: np.ndarray

    def value(self, x):
        u, h = unitary_factor(x), hermitian_factor(x)
        return float(np.sum(np.conj(self.w) * u).real + np.sum(np.conj(self.v) * h).real)

    def gradient(self, x):
        return unitary_derivative(x, self.w) + hermitian_gradient(x, self.v)

    def hessian(self, x):
        """Differences of the gradient, entry by entry of a real ``x``; shape (x.size, x.size)."""
        basis = np.eye(x.size).reshape(-1, *x.shape)
        rows = [central_difference(self.gradient, x, e) for e in basis]
        return np.reshape(rows, (x.size, x.size))


def random_loss(rng, m, n, dtype=np.float64):
    draw = [rng.standard_normal((k, n)) for k in (m, n, m, n)]
    if np.dtype(dtype).kind == "c":
        return Loss(draw[0] + 1j * draw[2], draw[1] + 1j * draw[3])
    return Loss(draw[0], draw[1])


def central_difference(function, x, direction, step=1e-3):
    """Derivative of ``function`` at ``x`` by five points; the error is about ``step**4 + eps / step``."""
    near, far = (
        function(x + k * direction) - function(x - k * direction) for k in (step, 2 * step)
    )
    return (8 * near - far) / (12 * step)


def _turned(n, dtype=np.float64):
    """A fixed orthogonal or unitary matrix without zeros."""
    return np.linalg.qr(well_conditioned(np.random.default_rng(n), n, n, dtype=dtype))[0]


# Real matrices at which derivatives through the singular value decomposition divide by zero.
REPEATED = {
    "identity": np.eye(3),
    "diag(1, 1, 2)": np.diag([1.0, 1.0, 2.0]),
    "Q diag(1, 1, 2) Q^T": _turned(3) @ np.diag([1.0, 1.0, 2.0]) @ _turned(3).T,
    "P diag(2, 2, 1) Q^T": _turned(3) @ np.diag([2.0, 2.0, 1.0]) @ _turned(3)[::-1],
    "reflection": np.diag([1.0, -1.0, 1.0]),
    "tall": _turned(4)[:, :3] @ np.diag([1.5, 1.5, 1.5]) @ _turned(3).T,
    "wide": _turned(2) @ np.diag([0.5, 0.5]) @ _turned(4)[:2],
}
