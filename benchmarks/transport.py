"""Transport beside its peers: time in turns, and of every plan its marginals and its cost.

::

    python benchmarks/transport.py            # everything, into benchmarks/results
    python benchmarks/transport.py --quick    # small sizes, few rounds: does it run?
    python benchmarks/transport.py --only entropy --record    # these rows anew, the others stay

Peers that are not installed (POT, OTT) are rows that say so.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import statistics
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from interleave import Rounds, one_thread, race, ratio, restarted

import orthokern
from orthokern.__main__ import machine

RESULTS = Path(__file__).resolve().parent / "results"
SEEDS = (0, 1, 2)
ROUNDS = Rounds(least=3, most=9, seconds=3.0)
QUICK_ROUNDS = Rounds(least=2, most=2, seconds=0.0)
COLUMNS = (
    "problem",
    "peer",
    "ratio",
    "min..max",
    "target",
    "our marginals",
    "peer's marginals",
    "our cost",
    "peer's cost",
    "measured",
)

Problem = tuple[np.ndarray, np.ndarray, np.ndarray]
Solver = Callable[[np.ndarray, np.ndarray, np.ndarray], Any]


class Peer(NamedTuple):
    """Another library's call; it returns a plan."""

    name: str
    package: str
    solve: Solver
    target: float | None = None


class Task(NamedTuple):
    """One kind of problem, our call and those of the peers."""

    name: str
    make: Callable[[int], Problem]
    ours: Solver
    peers: tuple[Peer, ...]


def clouds(n: int, seed: int) -> Problem:
    """Two Gaussian clouds in the plane with random masses, the largest cost 1."""
    g = np.random.default_rng(seed)
    x, y = g.standard_normal((n, 2)), g.standard_normal((n, 2)) + 0.5
    cost = ((x[:, None] - y[None]) ** 2).sum(-1)
    a, b = g.random(n), g.random(n)
    return a / a.sum(), b / b.sum(), cost / cost.max()


def experts(tokens: int, seed: int) -> Problem:
    """Scores of tokens at sixteen experts, as costs."""
    scores = np.random.default_rng(seed).standard_normal((tokens, 16))
    return np.full(tokens, 1 / tokens), np.full(16, 1 / 16), -scores


def _solved(regularizer: Any, **options: Any) -> Solver:
    return lambda a, b, cost: (
        orthokern.solve_ot(a, b, cost, regularizer=regularizer, plan="dense", **options).plan
    )


def _smooth(gamma: float, **options: Any) -> Solver:
    def solve(a: Any, b: Any, cost: Any) -> Any:
        import ot

        return ot.smooth.smooth_ot_dual(a, b, cost, gamma, stopThr=1e-14, **options)

    return solve


def _sinkhorn(epsilon: float, method: str, stop: float) -> Solver:
    def solve(a: Any, b: Any, cost: Any) -> Any:
        import ot

        limits = {"numItermax": 20_000 if method == "sinkhorn" else 2000, "stopThr": stop}
        return ot.sinkhorn(a, b, cost, epsilon, method=method, **limits)

    return solve


def _ott(epsilon: float, stop: float) -> Solver:
    def solve(a: Any, b: Any, cost: Any) -> Any:
        from ott.geometry import geometry
        from ott.problems.linear import linear_problem
        from ott.solvers.linear import sinkhorn

        problem = linear_problem.LinearProblem(geometry.Geometry(cost, epsilon=epsilon), a, b)
        solver = sinkhorn.Sinkhorn(threshold=stop, max_iterations=20_000)
        return solver(problem).matrix.block_until_ready()

    return solve


def _emd(a: Any, b: Any, cost: Any) -> Any:
    import ot

    return ot.emd(a, b, cost, numItermax=10_000_000)


def _assigned(a: Any, b: Any, cost: Any) -> Any:
    from scipy.optimize import linear_sum_assignment

    return _pairs(cost, *linear_sum_assignment(cost))


def _ours_assigned(a: Any, b: Any, cost: Any) -> Any:
    result = orthokern.linear_assignment(cost)
    return _pairs(cost, result.rows, result.columns)


def _pairs(cost: Any, rows: Any, columns: Any) -> Any:
    plan = np.zeros_like(cost)
    plan[rows, columns] = 1 / len(cost)
    return plan


def _uniform(n: int, seed: int) -> Problem:
    _, _, cost = clouds(n, seed)
    return np.full(n, 1 / n), np.full(n, 1 / n), cost


def _squares(sizes: Sequence[int]) -> list[Task]:
    targets = {200: 5.0, 500: 8.0, 1000: 15.0}
    ours = _solved(orthokern.SquaredL2(1.0))
    return [
        Task(
            f"squares, gamma 1, n={n}",
            partial(clouds, n),
            ours,
            (
                Peer(
                    "ot.smooth.smooth_ot_dual", "ot", _smooth(1.0, numItermax=1000), targets.get(n)
                ),
            ),
        )
        for n in sizes
    ]


def _sparse(sizes: Sequence[int]) -> list[Task]:
    peer = _smooth(10.0, reg_type="sparsity_constrained", max_nz=8, numItermax=500)
    ours = _solved(orthokern.SparsityConstrained(8, 10.0))
    return [
        Task(
            f"8 entries a column, gamma 10, n={n}",
            partial(clouds, n),
            ours,
            (Peer("ot.smooth.smooth_ot_dual", "ot", peer, 5.0),),
        )
        for n in sizes
    ]


def _routing() -> list[Task]:
    targets = {0.1: 15.0, 10.0: 4.0}
    return [
        Task(
            f"1024 tokens, 16 experts, 64 entries, gamma {gamma}",
            partial(experts, 1024),
            _solved(orthokern.SparsityConstrained(64, gamma)),
            (
                Peer(
                    "ot.smooth.smooth_ot_dual",
                    "ot",
                    _smooth(gamma, reg_type="sparsity_constrained", max_nz=64, numItermax=500),
                    target,
                ),
            ),
        )
        for gamma, target in targets.items()
    ]


def _entropic(sizes: Sequence[int]) -> list[Task]:
    """Each side stops at an error of 1e-6, or where it ends by its own rule."""
    aims = {0.002: (1.3, 20.0, 5.0), 0.05: (1 / 1.3, None, None)}
    return [
        Task(
            f"entropy {epsilon}, n={n}",
            partial(clouds, n),
            _solved(orthokern.Entropy(epsilon), tol=1e-6),
            (
                Peer("ot.sinkhorn", "ot", _sinkhorn(epsilon, "sinkhorn", 1e-6), scaling),
                Peer("ot.sinkhorn, log", "ot", _sinkhorn(epsilon, "sinkhorn_log", 1e-6), logs),
                Peer("ott Sinkhorn", "ott", _ott(epsilon, 1e-6), jitted),
            ),
        )
        for epsilon, (scaling, logs, jitted) in aims.items()
        for n in sizes
    ]


def _exact(sizes: Sequence[int]) -> list[Task]:
    ours = _solved(orthokern.Unregularized())
    return [
        Task(f"linear, n={n}", partial(clouds, n), ours, (Peer("ot.emd", "ot", _emd, 1 / 1.5),))
        for n in sizes
    ] + [
        Task(
            f"assignment, n={n}",
            partial(_uniform, n),
            _ours_assigned,
            (Peer("scipy.optimize.linear_sum_assignment", "scipy", _assigned),),
        )
        for n in sizes
    ]


def tasks(*, quick: bool) -> list[Task]:
    """What is measured."""
    if quick:
        return [*_squares((60,)), *_sparse((60,)), *_entropic((60,)), *_exact((60,))]
    sizes = (200, 500, 1000)
    return [
        *_squares((*sizes, 2000)),
        *_sparse(sizes[1:]),
        *_routing(),
        *_entropic((500, 1000)),
        *_exact((*sizes, 2000)),
    ]


def figures(plan: Any, problem: Problem) -> tuple[float, float]:
    """Marginal error and linear cost."""
    a, b, cost = problem
    t = np.asarray(plan, dtype=float)
    error = np.abs(t.sum(1) - a).sum() + np.abs(t.sum(0) - b).sum()
    return float(error), float((t * cost).sum())


def measure(task: Task, seeds: Sequence[int], rounds: Rounds) -> list[dict[str, Any]]:
    """A row for each peer: ratios of the seeds, the worst marginals, the costs of the first seed."""
    present = [peer for peer in task.peers if find_spec(peer.package)]
    about = {"problem": task.name, "date": dt.datetime.now(dt.UTC).isoformat(timespec="minutes")}
    rows: dict[str, dict[str, Any]] = {
        peer.name: {**about, "peer": peer.name, "target": peer.target, "ratios": []}
        for peer in task.peers
    }
    for seed in seeds if present else ():
        problem = task.make(seed)
        calls = {peer.name: partial(peer.solve, *problem) for peer in present}
        laps = race({"ours": partial(task.ours, *problem), **calls}, rounds)
        ours = figures(laps["ours"].result, problem)
        for peer in present:
            row, theirs = rows[peer.name], figures(laps[peer.name].result, problem)
            row["ratios"].append(ratio(laps[peer.name], laps["ours"]))
            row["our_error"] = max(ours[0], row.get("our_error", 0.0))
            row["peer_error"] = max(theirs[0], row.get("peer_error", 0.0))
            row.setdefault("our_cost", ours[1])
            row.setdefault("peer_cost", theirs[1])
            row.setdefault("our_seconds", []).append(statistics.median(laps["ours"].seconds))
    return list(rows.values())


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    if not row["ratios"]:
        return (row["problem"], row["peer"], "not installed", *("",) * 7)
    target = "" if row["target"] is None else f"{row['target']:.2g}"
    low, high = min(row["ratios"]), max(row["ratios"])
    return (
        row["problem"],
        row["peer"],
        f"{statistics.median(row['ratios']):.2f}",
        f"{low:.2f}..{high:.2f}",
        target,
        f"{row['our_error']:.0e}",
        f"{row['peer_error']:.0e}",
        f"{row['our_cost']:.9f}",
        f"{row['peer_cost']:.9f}",
        row["date"][:16].replace("T", " "),
    )


def markdown(content: dict[str, Any]) -> str:
    """The report as a table."""
    about = content["machine"]
    lines = [
        "# Transport beside its peers",
        "",
        f"{about.get('processor', '')}, one thread ({content['threads']}). Certificate included.",
        "",
        "- ratio: peer time / orthokern time on the same input, median over the rounds, then over the seeds",
        "- marginals: l1 error of both, the worst of all seeds; cost: linear, of the first seed",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + " --- |" * len(COLUMNS),
    ]
    lines += ["| " + " | ".join(_cells(row)) + " |" for row in content["rows"]]
    versions = ", ".join(f"{key} {value}" for key, value in content["versions"].items())
    return "\n".join([*lines, "", versions, ""])


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("numpy", "scipy", "numba", "POT", "ott-jax", "jax"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def main(given: Sequence[str] | None = None) -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="Transport beside its peers.")
    parser.add_argument("--quick", action="store_true", help="small and few: proves nothing")
    parser.add_argument("--only", default="", metavar="NAME", help="tasks named like this")
    parser.add_argument("--record", action="store_true", help="put these rows into the record")
    asked = parser.parse_args(given)
    quick, only = asked.quick, asked.only
    chosen = [task for task in tasks(quick=quick) if only in task.name]
    rows = []
    with one_thread() as limiter, warnings.catch_warnings():
        # Peers warn of limits that they were given.
        warnings.simplefilter("ignore")
        for number, task in enumerate(chosen, 1):
            sys.stderr.write(f"[{number}/{len(chosen)}] {task.name}\n")
            rows += measure(task, SEEDS[:1] if quick else SEEDS, QUICK_ROUNDS if quick else ROUNDS)
    content = {
        "machine": machine(),
        "threads": limiter,
        "versions": _versions(),
        "rows": rows,
    }
    print(markdown(content))
    if asked.record or not (quick or only):
        _write(content)
    return 0


def _write(content: dict[str, Any]) -> None:
    """Rows of the record that were measured anew are replaced; others, of the same versions, stay."""
    place = RESULTS / "transport.json"
    before = json.loads(place.read_text(encoding="utf-8")) if place.exists() else content
    if before["versions"] == content["versions"] and before["machine"] == content["machine"]:
        fresh = {(row["problem"], row["peer"]): row for row in content["rows"]}
        kept = [fresh.pop((row["problem"], row["peer"]), row) for row in before["rows"]]
        content = {**content, "rows": [*kept, *fresh.values()]}
    place.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    place.with_suffix(".md").write_text(markdown(content), encoding="utf-8")


if __name__ == "__main__":
    status = restarted()
    sys.exit(main() if status is None else status)
