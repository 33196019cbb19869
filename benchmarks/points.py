"""Transport between two clouds of 20 000 points whose costs are never held: time, memory and proof, while it runs.

::

    python benchmarks/points.py               # into benchmarks/results/points.md
    python benchmarks/points.py --size 2000   # smaller, printed only
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from interleave import one_thread, restarted

import orthokern
from orthokern.__main__ import machine

RESULTS = Path(__file__).resolve().parent / "results"
SIZE = 20_000
COLUMNS = ("regularizer", "seconds", "peak memory, MB", "steps", "marginals", "gap", "bounds apart")


def solved(name: str, size: int) -> dict[str, Any]:
    """One problem in this process; the strengths make plans of some ten entries a point, and soft ones."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((size, 2)), rng.standard_normal((size, 2)) + 0.5
    masses = np.full(size, 1 / size)
    kind: Any = orthokern.SquaredL2(float(size)) if name == "SquaredL2" else orthokern.Entropy(1.0)

    def tell(steps: int, error: float) -> None:
        sys.stderr.write(f"\r{name}: {steps} steps, error {error:.1e}   ")

    cloud: Any = orthokern.Points(x, y)
    start = time.perf_counter()
    result = orthokern.solve_ot(masses, masses, cloud, regularizer=kind, progress=tell)
    sys.stderr.write("\n")
    return {
        "regularizer": f"{kind}",
        "seconds": f"{time.perf_counter() - start:.1f}",
        "peak memory, MB": f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f}",
        "steps": f"{int(result.info.iterations)}",
        "marginals": f"{float(result.marginal_error):.1e}",
        "gap": f"{float(result.gap):.1e}",
        "bounds apart": f"{float(result.upper_bound - result.lower_bound):.1e}",
    }


def markdown(rows: list[dict[str, Any]], size: int) -> str:
    """The report as a table."""
    about = (
        f"{machine()['processor']}, one thread; a matrix of the costs would take {8 * size * size / 2**20:.0f} MB. "
        "Each problem in a process of its own, whose memory is that of Python, the libraries and the solver."
    )
    lines = [
        f"# Transport between two clouds of {size} points",
        "",
        about,
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + " --- |" * len(COLUMNS),
    ]
    lines += ["| " + " | ".join(row[name] for name in COLUMNS) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Solve both problems, each in a process of its own, and print."""
    parser = argparse.ArgumentParser(description="Transport between two large clouds.")
    parser.add_argument("--size", type=int, default=SIZE)
    parser.add_argument("--one", default="", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        with one_thread():
            print(json.dumps(solved(asked.one, asked.size)))
        return 0
    rows = []
    for name in ("SquaredL2", "Entropy"):
        command = [sys.executable, __file__, "--size", str(asked.size), "--one", name]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        rows.append(json.loads(done.stdout))
    print(markdown(rows, asked.size))
    if asked.size == SIZE:
        (RESULTS / "points.md").write_text(markdown(rows, asked.size), encoding="utf-8")
    return 0


if __name__ == "__main__":
    status = restarted()
    sys.exit(main() if status is None else status)
