"""Canonical problems of transport for the tests of engines, and what their results are measured by."""

from __future__ import annotations

import numpy as np

COSTS = ("constant", "integers", "squared distances", "equal rows", "line", "uniform")
MASSES = ("equal", "uniform", "eight decades", "with zeros")


def _cost(rng, kind, m, n):
    if kind == "constant":
        return np.full((m, n), 0.3)
    if kind == "integers":
        return rng.integers(0, 6, (m, n)).astype(float)
    if kind == "squared distances":
        x, y = rng.random((m, 2)), rng.random((n, 2))
        return ((x[:, None] - y) ** 2).sum(-1)
    if kind == "line":
        return (np.arange(m)[:, None] / m - np.arange(n) / n) ** 2
    cost = rng.random((m, n))
    if kind == "equal rows":
        cost[: m // 2 + 1] = cost[0]
    return cost


def _masses(rng, kind, size):
    if kind == "equal":
        w = np.ones(size)
    elif kind == "uniform":
        w = rng.random(size) + 0.01
    elif kind == "eight decades":
        w = 10 ** rng.uniform(-8, 0, size)
    else:
        w = rng.random(size) * (rng.random(size) < 0.7)
        w[rng.integers(size)] = 1
    return w / w.sum()


def northwest(a, b):
    """The plan of the rule of the northwest corner."""
    plan = np.zeros((len(a), len(b)))
    i = j = 0
    left, room = a.copy(), b.copy()
    while i < len(a) and j < len(b):
        moved = min(left[i], room[j])
        plan[i, j] = moved
        left[i] -= moved
        room[j] -= moved
        on_the_last = i == len(a) - 1 or j == len(b) - 1
        if j == len(b) - 1 or (not on_the_last and left[i] <= room[j]):
            i += 1
        else:
            j += 1
    return plan


def canonical(seed, size=60):
    """``(a, b, cost, gamma, k)``: anything that a solver may hand to an engine, decided by ``seed``."""
    rng = np.random.default_rng(seed)
    m, n = rng.integers(1, size + 1, 2)
    cost = _cost(rng, COSTS[rng.integers(len(COSTS))], m, n)
    cost -= cost.min()
    cost /= max(cost.max(), 1e-300)
    masses = MASSES[rng.integers(len(MASSES))]
    a, b = _masses(rng, masses, m), _masses(rng, masses, n)
    if rng.random() < 0.3:
        forbidden = rng.random((m, n)) < 0.5
        cost[forbidden & ~reachable(a, b)] = np.inf
    cost[a == 0] = np.inf
    cost[:, b == 0] = np.inf
    gamma = np.full((1, 1), 10 ** rng.uniform(-3, 3))
    return a, b, cost, gamma, int(rng.integers(1, min(m, 12) + 1))


def reachable(a, b):
    """Entries that the corner rule passes, so that a plan is left whatever else is forbidden."""
    passed = northwest(a, b) > 0
    # Where a row and a column end together rounding may leave a crumb for the next entry.
    for i, j in np.argwhere(passed):
        passed[i : i + 2, j : j + 2] = True
    return passed


def plan_of(alpha, beta, cost, gamma):
    return np.maximum(alpha[..., :, None] + beta[..., None, :] - cost, 0) / gamma


def departure(plan, a, b):
    """The l1 error of both marginals."""
    return np.abs(plan.sum(-1) - a).sum(-1) + np.abs(plan.sum(-2) - b).sum(-1)


def ksupport_squared(t, k):
    """By its definition, for one vector."""
    t = np.sort(t)[::-1]
    for h in range(min(k, len(t))):
        mean = t[h:].sum() / (k - h)
        if (h == 0 or t[h - 1] > mean) and mean >= t[h]:
            return (t[:h] ** 2).sum() + mean * t[h:].sum()
    return (t**2).sum()


def linear_cost(plan, cost):
    return np.where(plan > 0, cost, 0).ravel() @ plan.ravel()


def gap(plan, a, b, cost, alpha, beta, gamma, k):
    """Value of the plan less that of the potentials, both by their definitions."""
    g = float(np.ravel(gamma)[0])
    primal = linear_cost(plan, cost) + g / 2 * sum(ksupport_squared(t, k) for t in plan.T)
    slack = alpha[:, None] + beta - cost
    if g == 0:
        assert slack.max() <= 1e-12
        return primal - alpha @ a - beta @ b
    largest = np.sort(np.maximum(slack, 0), axis=0)[::-1][:k]
    return primal - alpha @ a - beta @ b + (largest**2).sum() / (2 * g)


# Three points on a line, whose plan does not depend on gamma.
LINE = np.abs(np.arange(3.0)[:, None] - np.arange(3.0)) / 2
LINE_MASSES = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.3, 0.5])
LINE_PLAN = np.array([[0.2, 0.15, 0.15], [0, 0.15, 0.15], [0, 0, 0.2]])


def bells():
    """Two bells on a line of 100 bins, the lightest bins dropped: a, b, cost, and the largest cost before."""
    x = np.arange(100.0)
    a, b = np.exp(-((x - 20) ** 2) / 50), np.exp(-((x - 60) ** 2) / 200)
    a, b = (_pruned(w / w.sum(), 1e-9 / 4) for w in (a, b))
    cost = (x[:, None] - x) ** 2 / 99**2
    cost[a == 0] = np.inf
    cost[:, b == 0] = np.inf
    unit = cost[np.isfinite(cost)].max()
    return a, b, cost / unit, unit


def _pruned(w, mass):
    order = np.argsort(w)
    w = w.copy()
    w[order[np.cumsum(w[order]) <= mass]] = 0
    return w / w.sum()


# Two rows whose only column is too small for them; what the other column needs they cannot give.
SHUT = np.array([[0.0, np.inf], [0.5, np.inf], [np.inf, 1.0]])
SHUT_MASSES = np.array([0.4, 0.3, 0.3]), np.array([0.5, 0.5])
