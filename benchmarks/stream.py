"""A regression on 20 GB of rows that are never held: time, memory and error, while it runs.

The rows are made block by block whenever they are asked for, out of a seed and the number of the block.

::

    python benchmarks/stream.py                  # into benchmarks/results/stream.md
    python benchmarks/stream.py --rows 1000000   # smaller, printed only
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from interleave import one_thread, restarted

import orthokern
from orthokern.__main__ import machine

RESULTS = Path(__file__).resolve().parent / "results"
ROWS, COLUMNS, BLOCK = 40_000_000, 64, 100_000
NOISE = 0.1
# Columns of sizes from 1 to 1e-3: units that differ.
UNITS = np.geomspace(1, 1e-3, COLUMNS)


def blocks(rows: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Normal rows and what a model of ones and noise gives for them."""
    for number, start in enumerate(range(0, rows, BLOCK)):
        g = np.random.default_rng(number)
        a = g.standard_normal((min(BLOCK, rows - start), COLUMNS))
        a *= UNITS
        yield a, a @ np.ones(COLUMNS) + NOISE * g.standard_normal(len(a))


def solved(rows: int) -> str:
    """The report as a table."""
    start = time.perf_counter()

    def tell(number: int, seen: int) -> None:
        seconds = time.perf_counter() - start
        sys.stderr.write(f"\rpass {number}: {seen / rows:4.0%} of the rows, {seconds:.0f} s ")

    found = orthokern.lstsq_stream(partial(blocks, rows), progress=tell)
    seconds = time.perf_counter() - start
    sys.stderr.write("\n")
    # Standard errors of the estimate: NOISE / (sqrt(rows) UNITS).
    departure = np.abs(found.x - 1) * UNITS * rows**0.5 / NOISE
    cells = {
        "seconds": f"{seconds:.0f}",
        "passes": f"{int(found.info.passes)}",
        "peak memory, MB": f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f}",
        "backward error": f"{float(found.info.backward_error):.1e}",
        "largest departure, standard errors": f"{departure.max():.1f}",
    }
    size = 8 * rows * (COLUMNS + 1) / 1e9
    about = (
        f"{machine()['processor']}, one thread. The rows would take {size:.1f} GB; they are made anew in each pass, "
        "which is in the time."
    )
    lines = [
        f"# Regression on {rows} rows of {COLUMNS} numbers",
        "",
        about,
        "",
        "| " + " | ".join(cells) + " |",
        "|" + " --- |" * len(cells),
        "| " + " | ".join(cells.values()) + " |",
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Solve and print."""
    parser = argparse.ArgumentParser(description="Regression on rows that are never held.")
    parser.add_argument("--rows", type=int, default=ROWS)
    rows = parser.parse_args().rows
    with one_thread():
        report = solved(rows)
    print(report)
    if rows == ROWS:
        (RESULTS / "stream.md").write_text(report, encoding="utf-8")
    return 0


if __name__ == "__main__":
    status = restarted()
    sys.exit(main() if status is None else status)
