"""Self-calibration beside the dense least-squares solve, and MAID beside fixed accuracies: cost and error of both.

::

    python benchmarks/inverse.py            # everything, into benchmarks/results
    python benchmarks/inverse.py --quick    # small sizes, few rounds: does it run?
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import statistics
import sys
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from interleave import Rounds, one_thread, race, ratio, restarted

import orthokern
from orthokern.__main__ import machine

RESULTS = Path(__file__).resolve().parent / "results"
SEEDS = (0, 1, 2)
ROUNDS = Rounds(least=3, most=5, seconds=10.0)
QUICK_ROUNDS = Rounds(least=2, most=2, seconds=0.0)
# What the dense solve is to be slower by, for snapshots with (m, n, p) = (256, 32, 16).
TARGET = 50.0
ACCURACIES = (0.1, 1e-2, 1e-4)
COLUMNS = ("problem", "method", "ratio", "min..max", "target", "our error", "dense error")


class Problem(NamedTuple):
    """Complex measurements of a model, with the gains that made them."""

    model: str
    y: np.ndarray
    a: np.ndarray
    gains: np.ndarray


def problem(model: str, m: int, n: int, p: int, seed: int) -> Problem:
    """Gaussian matrices and signals, gains of size 0.5 to 1.5 and any phase, no noise."""
    g = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return g.standard_normal(shape) + 1j * g.standard_normal(shape)

    gains = (0.5 + g.random(m)) * np.exp(2j * np.pi * g.random(m))
    a = draw(m, n) if model == "snapshots" else draw(p, m, n)
    x = draw(1 if model == "shared" else p, n)
    return Problem(model, gains * (a @ x[..., None])[..., 0], a, gains)


def dense(given: Problem) -> np.ndarray:
    """Inverse gains by least squares with all unknowns: ``diag(y_l) s - A_l x_l = 0``, and the mean of s set."""
    p, m = given.y.shape
    n = given.a.shape[-1]
    shared = given.model == "shared"
    system = np.zeros((p * m + 1, m + (n if shared else p * n)), dtype=complex)
    for k in range(p):
        first = m if shared else m + k * n
        system[k * m : (k + 1) * m, :m] = np.diag(given.y[k])
        system[k * m : (k + 1) * m, first : first + n] = -(
            given.a if given.a.ndim == 2 else given.a[k]
        )
    system[-1, :m] = 1
    right = np.zeros(p * m + 1)
    right[-1] = m
    return np.linalg.lstsq(system, right, rcond=None)[0][:m]


def ours(given: Problem, method: str) -> np.ndarray:
    """Inverse gains."""
    options = {"model": given.model, "method": method}
    return orthokern.self_calibrate(given.y, given.a, **options).inverse_gains  # type: ignore[arg-type]


def error(s: np.ndarray, gains: np.ndarray) -> float:
    """Relative distance of the gains after the best scalar."""
    found = 1 / s
    factor = np.vdot(found, gains) / np.vdot(found, found)
    return float(np.linalg.norm(factor * found - gains) / np.linalg.norm(gains))


def calibration(
    model: str, sizes: tuple[int, int, int], seeds: Sequence[int], rounds: Rounds
) -> list[dict[str, Any]]:
    """A row for each method: ratios of the seeds and the worst errors."""
    target = TARGET if model == "snapshots" and sizes == (256, 32, 16) else None
    rows = {
        method: {
            "problem": f"{model}, m, n, p = {sizes}",
            "method": method,
            "target": target,
            "ratios": [],
            "our_error": 0.0,
            "dense_error": 0.0,
        }
        for method in ("spectral", "lstsq")
    }
    for seed in seeds:
        given = problem(model, *sizes, seed)
        calls = {method: partial(ours, given, method) for method in rows}
        laps = race({"dense": partial(dense, given), **calls}, rounds)
        for method, row in rows.items():
            row["ratios"].append(ratio(laps["dense"], laps[method]))
            for key, name in (("our_error", method), ("dense_error", "dense")):
                row[key] = max(row[key], error(laps[name].result, given.gains))
    return list(rows.values())


def regression(seed: int, *, quick: bool) -> orthokern.RidgeProblem:
    """A hundred rows, 120 coefficients in eight groups, most of them zero."""
    g = np.random.default_rng(seed)
    n, d = (20, 12) if quick else (100, 120)
    x = g.standard_normal(d) * (g.random(d) < 0.3)
    a, c = g.standard_normal((n, d)), g.standard_normal((n, d))
    b, e = (part @ x + 0.5 * g.standard_normal(n) for part in (a, c))
    return orthokern.RidgeProblem(a, b, c, e, np.arange(d) * 8 // d)


def descent(*, quick: bool) -> list[dict[str, Any]]:
    """Final values and conjugate-gradient steps for each first accuracy, and gradient steps at the finest it used."""
    given = regression(0, quick=quick)
    rows = []
    for accuracy in ACCURACIES:
        found = orthokern.maid(
            given, np.zeros(8), eps0=accuracy, delta0=accuracy, max_iter=20 if quick else 300
        )
        rows.append(
            {
                "eps0": accuracy,
                "value": float(found.value),
                "steps": found.info.iterations,
                "lower": found.info.lower_steps,
                "adjoint": found.info.adjoint_steps,
                "finest": found.info.eps,
            }
        )
    return rows


def markdown(content: dict[str, Any]) -> str:
    """The report as two tables."""
    about = content["machine"]
    lines = [
        "# Inverse problems",
        "",
        f"{content['date']}, {about.get('processor', '')}, one thread ({content['threads']}).",
        "",
        "## Self-calibration beside numpy.linalg.lstsq of the whole system",
        "",
        "- ratio: time of the dense solve / orthokern time, median over the rounds, then over the seeds",
        "- error: relative, of the gains after the best scalar, without noise; the worst of all seeds",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + " --- |" * len(COLUMNS),
    ]
    for row in content["calibration"]:
        cells = (
            row["problem"],
            row["method"],
            f"{statistics.median(row['ratios']):.1f}",
            f"{min(row['ratios']):.1f}..{max(row['ratios']):.1f}",
            "" if row["target"] is None else f"{row['target']:.0f}",
            f"{row['our_error']:.1e}",
            f"{row['dense_error']:.1e}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        "## MAID from several first accuracies",
        "",
        "| eps0 = delta0 | final value | outer steps | lower CG steps | adjoint CG steps | last eps |",
        "|" + " --- |" * 6,
    ]
    for row in content["descent"]:
        lines.append(
            f"| {row['eps0']:g} | {row['value']:.6f} | {row['steps']} | {row['lower']} | {row['adjoint']} "
            f"| {row['finest']:.1e} |"
        )
    versions = ", ".join(f"{key} {value}" for key, value in content["versions"].items())
    return "\n".join([*lines, "", versions, ""])


def main(given: Sequence[str] | None = None) -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="Inverse problems beside dense solves.")
    parser.add_argument("--quick", action="store_true", help="small and few: proves nothing")
    quick = parser.parse_args(given).quick
    sizes = (24, 4, 5) if quick else (256, 32, 16)
    rows = []
    with one_thread() as limiter:
        for model in ("snapshots", "diverse", "shared"):
            sys.stderr.write(f"{model} {sizes}\n")
            seeds = SEEDS[:1] if quick else SEEDS
            rows += calibration(model, sizes, seeds, QUICK_ROUNDS if quick else ROUNDS)
        sys.stderr.write("MAID\n")
        steps = descent(quick=quick)
    content = {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "threads": limiter,
        "versions": {name: version(name) for name in ("numpy", "scipy")},
        "calibration": rows,
        "descent": steps,
    }
    print(markdown(content))
    if not quick:
        (RESULTS / "inverse.md").write_text(markdown(content), encoding="utf-8")
        text = json.dumps(content, indent=1) + "\n"
        (RESULTS / "inverse.json").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    status = restarted()
    sys.exit(main() if status is None else status)
