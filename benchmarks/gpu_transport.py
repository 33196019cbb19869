"""Transport and projections on a GPU beside OTT, POT and what users write."""

from __future__ import annotations

import importlib
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
from gpu_polar import gaussian
from gpu_timing import Call, Task, wide

import orthokern
from orthokern._core.namespace import namespace

DTYPES = ("float64", "float32")
EPSILONS = (0.05, 0.01)
# Where both sides stop: the l1 error of the marginals.
STOP = {"float64": 1e-6, "float32": 1e-4}


def clouds(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Masses of two Gaussian clouds in the plane, and their squared distances, the largest 1."""
    g = np.random.default_rng(0)
    x, y = g.standard_normal((n, 2)), g.standard_normal((n, 2)) + 0.5
    cost = ((x[:, None] - y[None]) ** 2).sum(-1)
    a, b = g.random(n), g.random(n)
    return a / a.sum(), b / b.sum(), cost / cost.max()


def _marginals(a: Any, b: Any, _: Any, plan: Any) -> Any:
    space, t = namespace(plan), wide(plan)
    errors = (space.abs(space.sum(t, axis=1 - i) - wide(m)) for i, m in enumerate((a, b)))
    return sum(space.sum(error) for error in errors)


def _sinkhorns(epsilon: float, library: str, a: Any, b: Any, cost: Any) -> dict[str, Call]:
    stop = STOP["float64" if "64" in str(a.dtype) else "float32"]

    def ours() -> Any:
        regularizer = orthokern.Entropy(epsilon)
        return orthokern.solve_ot(a, b, cost, regularizer=regularizer, plan="dense", tol=stop).plan

    found: dict[str, Call] = {"orthokern.solve_ot, Entropy": ours}
    if library == "jax" and find_spec("ott"):
        found["ott Sinkhorn, compiled"] = _of_ott(epsilon, stop, a, b, cost)
    elif library != "jax" and find_spec("ot"):
        ot = importlib.import_module("ot")
        for method in ("sinkhorn", "sinkhorn_log"):
            found[f"ot.sinkhorn, {method}"] = partial(
                ot.sinkhorn, a, b, cost, epsilon, method=method, numItermax=5000, stopThr=stop
            )
    return found


def _of_ott(epsilon: float, stop: float, a: Any, b: Any, cost: Any) -> Call:
    jax = importlib.import_module("jax")
    geometry = importlib.import_module("ott.geometry.geometry")
    problems = importlib.import_module("ott.problems.linear.linear_problem")
    solvers = importlib.import_module("ott.solvers.linear.sinkhorn")

    @jax.jit
    def solve(a: Any, b: Any, cost: Any) -> Any:
        problem = problems.LinearProblem(geometry.Geometry(cost, epsilon=epsilon), a, b)
        return solvers.Sinkhorn(threshold=stop, max_iterations=20_000)(problem).matrix

    return partial(solve, a, b, cost)


def _sums(_: Any, projected: Any) -> Any:
    space = namespace(projected)
    return space.max(space.abs(space.sum(wide(projected), axis=-1) - 1))


def _by_sorting(v: Any, places: Any) -> Any:
    """The usual projection on the simplex: sort, sum, count; ``places`` are 1, 2, ... in the dtype of ``v``."""
    space = namespace(v)
    u = space.sort(v, axis=-1, descending=True)
    excess = space.cumulative_sum(u, axis=-1) - 1
    last = space.sum(space.astype(u * places > excess, space.int64), axis=-1, keepdims=True) - 1
    level = space.take_along_axis(excess, last, axis=-1) / space.astype(last + 1, v.dtype)
    return space.where(v > level, v - level, space.zeros_like(v))


def _projections(library: str, v: Any) -> dict[str, Call]:
    peer = importlib.import_module("jax").jit(_by_sorting) if library == "jax" else _by_sorting
    places = namespace(v).arange(1, v.shape[-1] + 1, dtype=v.dtype, device=v.device)
    return {
        "orthokern.project_simplex": lambda: orthokern.project_simplex(v),
        "projection by sorting": partial(peer, v, places),
    }


def tasks(*, dry: bool) -> list[Task]:
    """What is measured."""
    sizes, rows = ((50,), (20, 30)) if dry else ((1000, 4000), (8192, 1024))
    problems = [
        Task(
            f"entropic transport, epsilon {epsilon}, n={n}, {dtype}",
            dtype,
            partial(clouds, n),
            partial(_sinkhorns, epsilon),
            _marginals,
        )
        for dtype in DTYPES
        for n in sizes
        for epsilon in EPSILONS
    ]
    shape = "x".join(map(str, rows))
    projections = [
        Task(f"simplex, {shape}, {dtype}", dtype, partial(gaussian, *rows), _projections, _sums)
        for dtype in DTYPES
    ]
    return [*projections, *problems]
