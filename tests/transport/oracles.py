"""Hard random problems of transport, and answers that another solver gives for them."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import coo_array

KINDS = ("plain", "dead", "duplicates", "constant", "integers", "graded", "one row")


def problem(rng, kind, most=60):
    """``(a, b, cost)`` with m, n in 1..most; masses sum to 1."""
    m, n = (int(x) for x in rng.integers(1, most + 1, 2))
    m = 1 if kind == "one row" else m
    x, y = rng.standard_normal((m, 2)), rng.standard_normal((n, 2))
    a, b = rng.random(m) + 0.01, rng.random(n) + 0.01
    if kind == "dead":
        a[rng.random(m) < 0.4], b[rng.random(n) < 0.4] = 0.0, 0.0
        a[0], b[0] = 0.5, 0.5
    if kind == "duplicates":
        x, y = x[rng.integers(0, m, m) // 2], y[rng.integers(0, n, n) // 2]
    if kind == "graded":
        a, b = 10.0 ** rng.uniform(-8, 0, m), 10.0 ** rng.uniform(-8, 0, n)
    cost = ((x[:, None] - y[None]) ** 2).sum(-1)
    if kind == "constant":
        cost = np.full((m, n), 3.0)
    if kind == "integers":
        cost = rng.integers(0, 4, (m, n)).astype(float)
    return a / a.sum(), b / b.sum(), cost


def optimum(a, b, cost):
    """Value of linear transport, by SciPy's HiGHS to the last digits that it gives."""
    m, n = cost.shape
    entries = np.arange(m * n)
    rows = np.concatenate([entries // n, m + entries % n])
    marginals = coo_array((np.ones(2 * m * n), (rows, np.concatenate([entries, entries]))))
    inside = np.isfinite(cost.ravel())
    found = linprog(
        cost.ravel()[inside],
        A_eq=marginals.tocsc()[:, inside],
        b_eq=np.concatenate([a, b]),
        method="highs",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    assert found.status == 0, found.message
    return found.fun


def clouds(rng, m, n, *batch):
    """Masses and costs of two clouds of points in the plane, the largest cost 1."""
    x, y = rng.standard_normal((*batch, m, 2)), rng.standard_normal((*batch, n, 2)) + 0.5
    cost = ((x[..., :, None, :] - y[..., None, :, :]) ** 2).sum(-1)
    a, b = rng.random((*batch, m)) + 0.05, rng.random((*batch, n)) + 0.05
    cost = cost / cost.max((-2, -1), keepdims=True)
    return a / a.sum(-1, keepdims=True), b / b.sum(-1, keepdims=True), cost


def figure(n=100):
    """Two bumps on a line, masses down to 1e-57: the example of the paper on sparsity constraints."""
    x = np.arange(float(n))
    a, b = np.exp(-((x - 20) ** 2) / 50), np.exp(-((x - 60) ** 2) / 200)
    return a / a.sum(), b / b.sum(), (x[:, None] - x) ** 2 / (n - 1.0) ** 2
