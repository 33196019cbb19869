"""Least squares beside its peers: time in turns, and the backward error of every solution.

::

    python benchmarks/lstsq.py            # everything, into benchmarks/results
    python benchmarks/lstsq.py --quick    # small sizes, few rounds: does it run?
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
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from interleave import Rounds, one_thread, race, ratio, restarted
from scipy.sparse.linalg import lsmr, lsqr

import orthokern
from orthokern.__main__ import machine

RESULTS = Path(__file__).resolve().parent / "results"
ROUNDS = Rounds(least=3, most=15, seconds=4.0)
QUICK_ROUNDS = Rounds(least=2, most=2, seconds=0.0)
COLUMNS = ("problem", "peer", "ratio", "min..max", "target", "way", "our error", "peer's error")
# Steps that the iterative peers get.
STEPS = 400

Problem = tuple[Any, np.ndarray]
Solver = Callable[[Any, np.ndarray], np.ndarray]


class Peer(NamedTuple):
    """Another library's call."""

    name: str
    solve: Solver
    target: float | None = None
    offset: float = 0.0


class Task(NamedTuple):
    """One problem and the peers that solve it; ``offset`` of a peer is added to its time (a target of + 50 us)."""

    name: str
    make: Callable[[], Problem]
    peers: tuple[Peer, ...]


def dense(n: int, d: int, kappa: float) -> Problem:
    """Gaussian A with its singular values graded from 1 to 1 / kappa; b of a known x and noise."""
    g = np.random.default_rng(n + d)
    a = g.standard_normal((n, d))
    if kappa > 1:
        v, _ = np.linalg.qr(g.standard_normal((d, d)))
        a = (a * np.geomspace(1, 1 / kappa, d)) @ v
    return a, a @ np.ones(d) + 0.1 * g.standard_normal(n)


def sparse(n: int, d: int, density: float, kappa: float) -> Problem:
    """Random sparse A with graded columns that are mixed with their neighbours."""
    g = np.random.default_rng(n + d)
    a = scipy.sparse.random(n, d, density, format="csr", random_state=g)
    mix = scipy.sparse.diags([np.ones(d), np.ones(d - 1)], [0, 1])
    a = (a @ scipy.sparse.diags(np.geomspace(1, 1 / kappa, d)) @ mix).tocsr()
    return a, a @ np.ones(d) + 0.1 * g.standard_normal(n)


def _numpy(a: Any, b: Any) -> Any:
    return np.linalg.lstsq(a, b, rcond=None)[0]


def _gelsy(a: Any, b: Any) -> Any:
    import scipy.linalg

    return scipy.linalg.lstsq(a, b, lapack_driver="gelsy", check_finite=False)[0]


def _lsqr(a: Any, b: Any) -> Any:
    return lsqr(a, b, atol=1e-14, btol=1e-14, iter_lim=STEPS)[0]


def _lsmr(a: Any, b: Any) -> Any:
    return lsmr(a, b, atol=1e-14, btol=1e-14, maxiter=STEPS)[0]


def tasks(*, quick: bool) -> list[Task]:
    """What is measured."""
    if quick:
        shapes: Sequence[tuple[int, int, float, float | None]] = (
            (2000, 40, 1e2, None),
            (2000, 150, 1e10, None),
        )
        small: Sequence[tuple[int, int]] = ((50, 5),)
        sizes: Sequence[tuple[int, int]] = ((4000, 40),)
    else:
        shapes = (
            (65536, 64, 1e3, 6.0),
            (65536, 128, 1e6, 6.0),
            (65536, 256, 1e2, 4.0),
            (16384, 1024, 1e3, 3.5),
            (16384, 1024, 1e6, None),
            (262144, 128, 1e10, 4.5),
            (65536, 512, 1e10, 1.8),
        )
        small = ((50, 5), (20, 20), (30, 40), (200, 20), (1000, 10), (2000, 8), (4000, 32))
        sizes = ((200_000, 400),)
    return [
        *(
            Task(
                f"{n} x {d}, condition {kappa:.0e}",
                partial(dense, n, d, kappa),
                (Peer("numpy.linalg.lstsq", _numpy, target), Peer("scipy gelsy", _gelsy, 1.0)),
            )
            for n, d, kappa, target in shapes
        ),
        *(
            Task(
                f"small, {n} x {d}",
                partial(dense, n, d, 1.0),
                (
                    Peer("numpy.linalg.lstsq", _numpy, 1.0)
                    if n * d >= 4000
                    else Peer("numpy.linalg.lstsq + 50 us", _numpy, 1.0, 50e-6),
                ),
            )
            for n, d in small
        ),
        *(
            Task(
                f"sparse, {n} x {d}, 1 %, condition 1e5",
                partial(sparse, n, d, 0.01, 1e5),
                (
                    Peer(f"scipy lsqr, {STEPS} steps", _lsqr, 20.0),
                    Peer(f"scipy lsmr, {STEPS} steps", _lsmr, 20.0),
                ),
            )
            for n, d in sizes
        ),
    ]


def backward_error(a: Any, b: np.ndarray, x: np.ndarray) -> float:
    """Karlson and Waldén's estimate relative to ``||A||_F``, by the singular values of A."""
    r = b - a @ x
    square = a.toarray() if scipy.sparse.issparse(a) else a
    _, s, vh = np.linalg.svd(np.linalg.qr(square, mode="r") if len(square) > len(x) else square)
    length = max(float(np.linalg.norm(x)), np.finfo(float).tiny)
    omega = float(np.linalg.norm(r)) / length
    inside = (vh @ (a.T @ r))[: len(s)]
    return float(np.linalg.norm(inside / np.sqrt(s**2 + omega**2)) / length / np.linalg.norm(s))


def measure(task: Task, rounds: Rounds) -> list[dict[str, Any]]:
    """A row for each peer."""
    a, b = task.make()
    calls = {peer.name: partial(peer.solve, a, b) for peer in task.peers}
    laps = race({"ours": lambda: orthokern.lstsq(a, b), **calls}, rounds)
    found = laps["ours"].result
    ours = backward_error(a, b, found.x)
    rows = []
    for peer in task.peers:
        slower = laps[peer.name]._replace(
            seconds=[seconds + peer.offset for seconds in laps[peer.name].seconds]
        )
        each = [t / o for t, o in zip(slower.seconds, laps["ours"].seconds, strict=True)]
        rows.append(
            {
                "problem": task.name,
                "peer": peer.name,
                "target": peer.target,
                "ratio": ratio(slower, laps["ours"]),
                "least": min(each),
                "most": max(each),
                "way": orthokern.LstsqMethod(int(found.info.method)).name.lower(),
                "our_error": ours,
                "peer_error": backward_error(a, b, laps[peer.name].result),
                "our_seconds": statistics.median(laps["ours"].seconds),
            }
        )
    return rows


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    target = "" if row["target"] is None else f"{row['target']:.2g}"
    return (
        row["problem"],
        row["peer"],
        f"{row['ratio']:.2f}",
        f"{row['least']:.2f}..{row['most']:.2f}",
        target,
        row["way"],
        f"{row['our_error']:.0e}",
        f"{row['peer_error']:.0e}",
    )


def markdown(content: dict[str, Any]) -> str:
    """The report as a table."""
    about = content["machine"]
    lines = [
        "# Least squares beside its peers",
        "",
        f"{content['date']}, {about.get('processor', '')}, one thread ({content['threads']}).",
        "",
        "- ratio: peer time / orthokern time on the same input, median over the rounds",
        "- error: backward error relative to the Frobenius norm of A, of both",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + " --- |" * len(COLUMNS),
    ]
    lines += ["| " + " | ".join(_cells(row)) + " |" for row in content["rows"]]
    versions = ", ".join(f"{key} {value}" for key, value in content["versions"].items())
    return "\n".join([*lines, "", versions, ""])


def main(given: Sequence[str] | None = None) -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="Least squares beside its peers.")
    parser.add_argument("--quick", action="store_true", help="small and few: proves nothing")
    parser.add_argument("--only", default="", metavar="NAME", help="tasks named like this")
    options = parser.parse_args(given)
    quick, only = options.quick, options.only
    chosen = [task for task in tasks(quick=quick) if only in task.name]
    rows = []
    with one_thread() as limiter, warnings.catch_warnings():
        # Peers warn of limits that they were given.
        warnings.simplefilter("ignore")
        for number, task in enumerate(chosen, 1):
            sys.stderr.write(f"[{number}/{len(chosen)}] {task.name}\n")
            rows += measure(task, QUICK_ROUNDS if quick else ROUNDS)
    content = {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "threads": limiter,
        "versions": {name: version(name) for name in ("numpy", "scipy", "numba")},
        "rows": rows,
    }
    print(markdown(content))
    if not quick and not only:
        (RESULTS / "lstsq.md").write_text(markdown(content), encoding="utf-8")
        text = json.dumps(content, indent=1) + "\n"
        (RESULTS / "lstsq.json").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    status = restarted()
    sys.exit(main() if status is None else status)
