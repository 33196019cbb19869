"""Exact optimal transport by the network simplex method on the bipartite graph of rows and columns.

The nodes are the rows ``0 .. m - 1``, the columns ``m .. m + n - 1`` and a root. The basis is a spanning tree; the arc
of node x joins it to its parent and is named by x. Arcs lead from rows to columns, from a row to the root and from
the root to a column, so the kind of a node tells the direction of its arc: up for a row, down for a column. An arc
from or to the root is artificial: it carries mass that no pair of a row and a column has taken yet.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np

from .minimum import lowest

# Masses are counted in integers of this unit, so that flows are exact and ties are ties.
UNITS = 2.0**62
# A pair enters the basis when its reduced cost is below minus this times the penalty; costs are at most one.
NEGATIVE = 2.0**-47
# Pivots allowed for each node where no limit is given; clouds of 2000 points take 7.
PIVOTS_PER_NODE = 2000
# What an artificial arc costs at first where pairs are forbidden, and how this grows while mass is left on them.
FIRST_PENALTY, GROWTH = 2.0, 8.0
CONVERGED, MAX_ITER, INFEASIBLE = 0, 1, 3
LEAST_BLOCK = 16


class Tree(NamedTuple):
    """The basis. ``after`` and ``before`` link the nodes in a ring, in preorder from the root."""

    parent: Any
    after: Any
    before: Any
    last: Any
    size: Any
    flow: Any


@numba.njit(cache=True)
def _entering(
    cost: np.ndarray, height: np.ndarray, place: int, block: int, negative: float
) -> tuple[int, int, Any, int]:
    """``(row, column, reduced cost, place)``: the best pair of the first block that has one; row -1 if none has."""
    m, n = cost.shape
    best, best_row, best_column = negative, -1, -1
    i, j = place // n, place % n
    left, room = m * n, block
    while left > 0:
        stop = min(n, j + min(room, left))
        low = lowest(cost[i, j:stop], height[m + j : m + stop])
        if low - height[i] < best:
            best, best_row = low - height[i], i
            best_column = j
            while cost[i, best_column] + height[m + best_column] != low:
                best_column += 1
        left -= stop - j
        room -= stop - j
        j = stop
        if j == n:
            i, j = (i + 1) % m, 0
        if room == 0:
            if best_row >= 0:
                break
            room = block
    return best_row, best_column, best, i * n + j


@numba.njit(cache=True)
def _leaving(tree: Tree, row: int, column: int, m: int) -> tuple[int, int, int, bool]:
    """``(node, apex, amount, whether on the row's side)``: the arc that blocks the cycle of the entering pair.

    Of several the last one from the apex on, in the direction of the flow. This keeps the tree strongly feasible
    (every arc without flow leads towards the root), and that keeps the method from running in circles.
    """
    u, v = row, column
    least_u = least_v = np.iinfo(np.int64).max
    out_u = out_v = -1
    while u != v:
        if tree.size[u] < tree.size[v]:
            if u < m and tree.flow[u] < least_u:
                out_u, least_u = u, tree.flow[u]
            u = tree.parent[u]
        else:
            if v >= m and tree.flow[v] <= least_v:
                out_v, least_v = v, tree.flow[v]
            v = tree.parent[v]
    if least_v <= least_u:
        return out_v, u, least_v, False
    return out_u, u, least_u, True


@numba.njit(cache=True)
def _push(tree: Tree, row: int, column: int, apex: int, amount: int, m: int) -> None:
    """Send ``amount`` around the cycle."""
    for start, sign in ((row, -amount), (column, amount)):
        x = start
        while x != apex:
            tree.flow[x] += sign if x < m else -sign
            x = tree.parent[x]


@numba.njit(cache=True)
def _resize(tree: Tree, x: int, apex: int, change: int) -> None:
    while x != apex:
        tree.size[x] += change
        x = tree.parent[x]


@numba.njit(cache=True)
def _end_with(tree: Tree, x: int, old: int, new: int) -> None:
    """Subtrees of ``x`` and its ancestors that ended with the node ``old`` end with ``new``."""
    while x >= 0 and tree.last[x] == old:
        tree.last[x] = new
        x = tree.parent[x]


@numba.njit(cache=True)
def _hang(tree: Tree, top: int, out: int, target: int, apex: int, amount: int) -> None:
    """Cut the subtree of ``out`` off, turn it so that ``top`` is its root, and hang it on ``target``."""
    parent, after, before, last, size, flow = tree
    whole, above = size[out], parent[out]
    _resize(tree, above, apex, -whole)
    _resize(tree, target, apex, whole)
    # Along the stem from top to out each node goes, with what is left of its subtree, behind the nodes before it.
    x, below, tail, front, end, inner = top, target, -1, -1, -1, 0
    while True:
        stop = front if last[x] == end else last[x]
        end = last[x]
        front, back = before[x], after[stop]
        after[front], before[back] = back, front
        if x != top:
            after[tail], before[x] = x, tail
        tail = stop
        flow[x], amount = amount, flow[x]
        size[x], inner = whole - inner, size[x]
        higher, parent[x] = parent[x], below
        if x == out:
            break
        x, below = higher, x
    _end_with(tree, above, end, front)
    while x != target:
        last[x] = tail
        x = parent[x]
    _end_with(tree, target, target, tail)
    back = after[target]
    after[target], before[top] = top, target
    after[tail], before[back] = back, tail


@numba.njit(cache=True)
def _raise(tree: Tree, height: np.ndarray, top: int, shift: float) -> None:
    """Raise the subtree of ``top`` by ``shift``, or lower all other nodes, whichever are fewer."""
    x, stop = top, tree.after[tree.last[top]]
    if 2 * tree.size[top] > len(height):
        x, stop, shift = stop, x, -shift
    while x != stop:
        height[x] += shift
        x = tree.after[x]


@numba.njit(cache=True)
def _optimize(tree: Tree, height: np.ndarray, cost: np.ndarray, negative: float, most: int) -> int:
    """Pivots until no pair has a reduced cost below ``negative``; their number, at most ``most``."""
    m, n = cost.shape
    block = max(int(np.ceil(np.sqrt(m * n))), LEAST_BLOCK)
    place = 0
    for count in range(most):
        row, column, reduced, place = _entering(cost, height, place, block, negative)
        if row < 0:
            return count
        column += m
        out, apex, amount, on_row_side = _leaving(tree, row, column, m)
        if amount > 0:
            _push(tree, row, column, apex, amount, m)
        if on_row_side:
            _hang(tree, row, out, column, apex, amount)
            _raise(tree, height, row, reduced)
        else:
            _hang(tree, column, out, row, apex, amount)
            _raise(tree, height, column, -reduced)
    return most


@numba.njit(cache=True)
def _regret(cost: np.ndarray) -> np.ndarray:
    """How much more than its cheapest column the next one costs each row."""
    regret = np.zeros(len(cost))
    for i in range(len(cost)):
        least, next_ = np.inf, np.inf
        for value in cost[i]:
            if value < next_:
                least, next_ = min(value, least), max(value, least)
        if least < np.inf:
            regret[i] = next_ - least
    return regret


@numba.njit(cache=True)
def _greedy(
    supply: np.ndarray, demand: np.ndarray, cost: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``(rows, columns, amounts)``: each row fills the cheapest columns that have room, the row with most regret first.

    Every pair exhausts a row or a column, so the pairs are a forest in each of whose trees at most one node has
    something left. What is left replaces ``supply`` and ``demand``.
    """
    m, n = cost.shape
    rows, columns, amounts = np.empty((3, m + n), np.int64)
    closed = np.zeros(n)
    count = 0
    for i in np.argsort(-_regret(cost), kind="mergesort"):
        while supply[i] > 0:
            low = lowest(cost[i], closed)
            if low == np.inf:
                break
            j = 0
            while cost[i, j] + closed[j] != low:
                j += 1
            amount = min(supply[i], demand[j])
            supply[i] -= amount
            demand[j] -= amount
            if demand[j] == 0:
                closed[j] = np.inf
            rows[count], columns[count], amounts[count] = i, j, amount
            count += 1
    return rows[:count], columns[:count], amounts[:count]


@numba.njit(cache=True)
def _neighbours(
    rows: np.ndarray, columns: np.ndarray, nodes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``(first, near, through)``: the ends of the pairs at node x are ``near[first[x]:first[x + 1]]``."""
    first = np.zeros(nodes + 1, np.int64)
    for k in range(len(rows)):
        first[rows[k]] += 1
        first[columns[k]] += 1
    first = np.cumsum(first)
    near, through = np.empty(2 * len(rows), np.int64), np.empty(2 * len(rows), np.int64)
    for k in range(len(rows)):
        for x, y in ((rows[k], columns[k]), (columns[k], rows[k])):
            first[x] -= 1
            near[first[x]], through[first[x]] = y, k
    return first, near, through


@numba.njit(cache=True)
def _planted(
    pairs: tuple[np.ndarray, np.ndarray, np.ndarray], supply: np.ndarray, demand: np.ndarray
) -> Tree:
    """The tree whose arcs are a forest of ``pairs`` and an artificial one for each of its trees."""
    rows, columns, amounts = pairs
    m, root = len(supply), len(supply) + len(demand)
    first, near, through = _neighbours(rows, columns + m, root)
    parent = np.full(root + 1, -1, np.int32)
    flow = np.zeros(root + 1, np.int64)
    order, stack = np.empty(root + 1, np.int32), np.empty(root + 1, np.int32)
    order[0], count = root, 1
    # A node with something left has to be the top of its tree; where none has, any row may be.
    for wanted in (True, False):
        for top in range(root):
            left = supply[top] if top < m else demand[top - m]
            if parent[top] >= 0 or (left == 0 and (wanted or top >= m)):
                continue
            parent[top], flow[top], stack[0], depth = root, left, top, 1
            while depth > 0:
                depth -= 1
                x = stack[depth]
                order[count], count = x, count + 1
                for k in range(first[x], first[x + 1]):
                    y = near[k]
                    if y != parent[x]:
                        parent[y], flow[y], stack[depth] = x, amounts[through[k]], y
                        depth += 1
    tree: Tree = _threaded(parent, flow, order)
    return tree


@numba.njit(cache=True)
def _threaded(parent: np.ndarray, flow: np.ndarray, order: np.ndarray) -> Tree:
    """The tree of these parents, whose preorder is ``order``."""
    nodes = len(order)
    after, before, last = np.empty_like(order), np.empty_like(order), np.empty_like(order)
    size = np.ones(nodes, np.int32)
    for k in range(nodes):
        x, y = order[k], order[(k + 1) % nodes]
        after[x], before[y], last[x] = y, x, x
    for k in range(nodes - 1, 0, -1):
        x = order[k]
        up = parent[x]
        size[up] += size[x]
        if last[up] == up:
            last[up] = last[x]
    return Tree(parent, after, before, last, size, flow)


@numba.njit(cache=True)
def _measure(tree: Tree, height: np.ndarray, cost: np.ndarray, penalty: float) -> None:
    """Heights at which every arc of the tree has reduced cost zero."""
    m, n = cost.shape
    root = m + n
    height[root] = 0.0
    x = tree.after[root]
    while x != root:
        up = tree.parent[x]
        if up == root:
            height[x] = penalty if x < m else -penalty
        elif x < m:
            height[x] = cost[x, up - m] + height[up]
        else:
            height[x] = height[up] - cost[up, x - m]
        x = tree.after[x]


@numba.njit(cache=True)
def _missing(tree: Tree, m: int) -> int:
    """Mass that takes the way through the root."""
    total, root = 0, len(tree.parent) - 1
    for x in range(m):
        if tree.parent[x] == root:
            total += tree.flow[x]
    return total


@numba.njit(cache=True)
def solve(
    supply: np.ndarray, demand: np.ndarray, cost: np.ndarray, limit: int
) -> tuple[Tree, np.ndarray, int, int]:
    """``(tree, heights, pivots, status)`` of a problem in integer masses of equal sums, all positive.

    Costs are at most one in modulus, or infinite. The potentials are the heights of the rows, and minus those of the
    columns. ``supply`` and ``demand`` are used up.
    """
    m, n = cost.shape
    pairs = _greedy(supply, demand, cost)
    tree = _planted(pairs, supply, demand)
    height = np.empty(m + n + 1)
    penalty, pivots = FIRST_PENALTY, 0
    while True:
        _measure(tree, height, cost, penalty)
        step = _optimize(tree, height, cost, -NEGATIVE * penalty, limit - pivots)
        pivots += step
        if pivots >= limit:
            return tree, height, pivots, MAX_ITER
        # Rounding of the steps that the heights have made may hide or feign a negative reduced cost.
        if step > 0:
            continue
        if _missing(tree, m) == 0:
            return tree, height, pivots, CONVERGED
        if penalty > min(m, n):
            return tree, height, pivots, INFEASIBLE
        penalty *= GROWTH


@numba.njit(cache=True)
def _transform(cost: np.ndarray, height: np.ndarray) -> None:
    """Lower the columns' potentials to ``min_i cost_ij - alpha_i``: the greatest that are feasible."""
    m, n = cost.shape
    lifted = np.full(n, -np.inf)
    for i in range(m):
        for j in range(n):
            lifted[j] = max(lifted[j], height[i] - cost[i, j])
    for j in range(n):
        # A column that no row may reach keeps what it has.
        if lifted[j] > -np.inf:
            height[m + j] = lifted[j]


def _counted(mass: np.ndarray) -> np.ndarray:
    """Masses in units; at least one where there is any, so that each live bin has its potential."""
    counts = np.rint(mass * (UNITS / mass.sum())).astype(np.int64)
    at_least: np.ndarray = np.maximum(counts, mass > 0)
    return at_least


def flows(tree: Tree, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``(rows, columns, masses)`` of the pairs of the tree."""
    x = np.flatnonzero(tree.parent < len(tree.parent) - 1)[:-1]
    up = tree.parent[x]
    return np.where(x < m, x, up), np.where(x < m, up, x) - m, tree.flow[x]


def _exact(
    a: np.ndarray, b: np.ndarray, cost: np.ndarray, limit: int | None, out: Any
) -> tuple[int, float, int]:
    """Write plan, alpha and beta of one problem into ``out``; returns its stats."""
    plan, alpha, beta = out
    if cost.shape[0] < cost.shape[1]:
        # Pricing by rows and a start from the rows pay where there are more rows than columns.
        return _exact(b, a, cost.T, limit, (plan.T, beta, alpha))
    supply, demand = _counted(a), _counted(b)
    demand[np.argmax(demand)] += supply.sum() - demand.sum()
    rows, columns = np.flatnonzero(supply), np.flatnonzero(demand)
    m, n = len(rows), len(columns)
    whole = m == len(a) and n == len(b)
    live = np.ascontiguousarray(cost if whole else cost[np.ix_(rows, columns)], dtype=np.float64)
    most = PIVOTS_PER_NODE * (m + n) if limit is None else limit
    tree, height, pivots, status = solve(supply[rows], demand[columns], live, most)
    _transform(live, height)
    alpha[rows], beta[columns] = height[:m], -height[m:-1]
    level = (alpha @ a - beta @ b) / (a.sum() + b.sum())
    alpha[rows] -= level
    beta[columns] += level
    i, j, mass = flows(tree, m)
    plan[rows[i], columns[j]] = mass * (a.sum() / UNITS)
    return pivots, np.abs(plan.sum(1) - a).sum() + np.abs(plan.sum(0) - b).sum(), status


def exact_plan(
    a: np.ndarray, b: np.ndarray, cost: np.ndarray, *, tol: float, max_iter: int | None
) -> tuple[np.ndarray, ...]:
    """``(plan, alpha, beta, stats)`` of each problem of the batch; ``stats`` are pivots, error and status.

    ``a`` (..., m) and ``b`` (..., n) sum to one, ``cost`` (..., m, n) is at most one in modulus, or plus infinity for
    a forbidden pair and for all of a bin without mass. The result is exact up to rounding, whatever ``tol``; without
    ``max_iter`` there may be PIVOTS_PER_NODE (m + n) pivots. A problem that was not solved has a plan of what mass
    could be placed so far, and potentials that are feasible.
    """
    batch, (m, n) = cost.shape[:-2], cost.shape[-2:]
    plan = np.zeros(cost.shape)
    alpha, beta = np.zeros((*batch, m)), np.zeros((*batch, n))
    stats = np.zeros((*batch, 3))
    for k in np.ndindex(*batch):
        masses = a[k].astype(np.float64), b[k].astype(np.float64)
        stats[k] = _exact(*masses, cost[k], max_iter, (plan[k], alpha[k], beta[k]))
    return tuple(x.astype(cost.dtype, copy=False) for x in (plan, alpha, beta, stats))
