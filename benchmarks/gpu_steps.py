"""What each step of a polar factorization takes on a device, in products: the prices that plans are made with.

::

    PYTHONPATH=.:backends python benchmarks/gpu_steps.py     # on a GPU; writes benchmarks/results/gpu_steps.md

``orthokern.spectral.plan.COSTS`` holds the prices in use.
"""

from __future__ import annotations

import argparse
import datetime as dt
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gpu_timing import Events
from orthokern_cupy.steps import eliminated, halley, polynomial

RESULTS = Path(__file__).resolve().parent / "results"
SIZES = (512, 1024, 2048, 4096, 8192)
ROUNDS = 5
STEPS: dict[str, Callable[[Any, Any], Any]] = {
    "Newton": lambda x, cp: eliminated(x, (0.5, 0.5), cp),
    "Halley": lambda x, cp: halley(x, (10.0, 40.0, 50.0), cp),
    "cubic": lambda x, cp: polynomial(x, (1.5, -0.5), cp),
    "quintic": lambda x, cp: polynomial(x, (1.875, -1.25, 0.375), cp),
}


def prices(n: int, dtype: str, cp: Any) -> tuple[float, dict[str, float]]:
    """Milliseconds of a product, and each step in products; medians after one run to warm up."""
    clock = Events(cp.cuda.Event(), cp.cuda.Event(), cp.cuda.get_elapsed_time)
    x = cp.asarray(np.random.default_rng(n).standard_normal((n, n)).astype(dtype) / n**0.5)

    def median(call: Callable[[], Any]) -> float:
        call()
        return sorted(clock.measure(call) for _ in range(ROUNDS))[ROUNDS // 2]

    product = median(lambda: cp.matmul(x, x))
    found = {name: median(lambda step=step: step(x, cp)) / product for name, step in STEPS.items()}
    return 1e3 * product, found


def table(cp: Any) -> str:
    """The report."""
    name = cp.cuda.runtime.getDeviceProperties(0)["name"].decode()
    lines = [
        "# Steps of a polar factorization in products",
        "",
        f"{dt.datetime.now(dt.UTC).date()}, {name}, CuPy {cp.__version__}; medians of {ROUNDS}.",
        "",
        f"| dtype | n | product, ms | {' | '.join(STEPS)} |",
        "|---|---|---|---|---|---|---|",
    ]
    for dtype in ("float64", "float32"):
        for n in SIZES:
            product, found = prices(n, dtype, cp)
            cells = " | ".join(f"{price:.1f}" for price in found.values())
            lines.append(f"| {dtype} | {n} | {product:.3f} | {cells} |")
    return "\n".join([*lines, ""])


def main(given: Sequence[str] | None = None) -> int:
    """Print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=RESULTS, metavar="FOLDER")
    folder = parser.parse_args(given).output
    import cupy as cp

    if not cp.cuda.is_available():
        sys.stderr.write("no CUDA device\n")
        return 2
    text = table(cp)
    print(text)
    (folder / "gpu_steps.md").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
