"""Validate and time what runs on a GPU, in one command that ends within eight minutes.

::

    PYTHONPATH=.:backends python benchmarks/gpu.py           # on a GPU; writes benchmarks/results/gpu.{json,md}
    PYTHONPATH=.:backends python benchmarks/gpu.py --dry     # small, on the processor: does the script run?
    PYTHONPATH=.:backends python benchmarks/gpu.py --only lstsq   # no validation; tasks named like this

First the declared cases run on every CUDA backend and library, on fresh random input, several processes at once, and
are judged in float64. Then ours and the peers are timed in turns, alone on the device, and the error of both is
measured there in double precision. Times are medians of CUDA events on the current stream for PyTorch and CuPy, and of
the clock around ``block_until_ready`` for JAX.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import gpu_polar
import gpu_sketching
import gpu_transport
from gpu_timing import Row, Task, computes, measured
from gpu_validation import validated

from orthokern.__main__ import machine
from orthokern.testing import Outcome, Selection, libraries
from orthokern.testing.validation import jobs, run

RESULTS = Path(__file__).resolve().parent / "results"
# Libraries that have arrays on a GPU with their shares of the timing; seconds for all of it, and of the validation.
LIBRARIES = {"torch": 0.45, "cupy": 0.3, "jax": 0.25}
TIMING, VALIDATION = 240.0, 200.0
LEGEND = (
    "- Ratio: peer time / orthokern time, both on the device. Peak: share of the speed of a product.",
    "- Errors of polar factors and of QR: max |U^T U - I|; of lstsq |A^T r| / (|A| (|A| |x| + |r|));",
    "  of transforms and sketches the departure of the Frobenius norm; of singular values the distance to",
    "  the product of the factors; of transport and projections the marginals.",
)
# Rows of the validation in a dry run.
FEW = 40
# Double precision, and memory left for the other libraries and processes; read when JAX is imported.
JAX_SETTINGS = {"JAX_ENABLE_X64": "1", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


class Place(NamedTuple):
    """Where everything runs."""

    device: str
    dry: bool


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Validate and time orthokern on a GPU.")
    parser.add_argument(
        "--dry", action="store_true", help="small, on the processor, written nowhere"
    )
    parser.add_argument(
        "--seed", type=int, default=None, help="of the random input; default: drawn"
    )
    parser.add_argument("--budget", type=float, default=TIMING, help="seconds for the timing")
    parser.add_argument(
        "--validation", type=float, default=VALIDATION, help="seconds for the validation"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="its processes")
    parser.add_argument(
        "--only", default="", metavar="NAME", help="time tasks named like this, validate nothing"
    )
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="default: benchmarks/results")
    return parser.parse_args(given)


def rows_of_validation(place: Place, seed: int, workers: int, seconds: float) -> Iterator[Outcome]:
    """Rows of ``orthokern validate --device cuda --seed ...``; a handful of them in a dry run."""
    if not place.dry:
        yield from validated(Selection(device=place.device, seed=seed), workers, seconds)
        return
    wanted = jobs(Selection(seed=seed, quick=True))
    for job in wanted[:: max(1, len(wanted) // FEW)]:
        yield run(job, repeats=0)


def all_tasks(*, dry: bool, only: str) -> list[Task]:
    """Tasks of each family in turn, those named like ``only``."""
    families = [module.tasks(dry=dry) for module in (gpu_polar, gpu_sketching, gpu_transport)]
    turns = range(max(map(len, families)))
    mixed = [family[turn] for turn in turns for family in families if turn < len(family)]
    return [task for task in mixed if only in task.name]


def timed(place: Place, budget: float, only: str = "") -> Iterator[Row]:
    """Every task on every library that is here; what does not fit the budget is named and left out."""
    for library, share in LIBRARIES.items():
        start = time.perf_counter()
        reason = libraries.missing(library, place.device)
        if reason is not None:
            yield Row(library, "all", left_out=reason)
            continue
        for task in all_tasks(dry=place.dry, only=only):
            spent = time.perf_counter() - start
            if not computes(library, task.dtype):
                yield Row(library, task.name, left_out="dtype")
            elif spent > budget * share:
                yield Row(library, task.name, left_out="time")
            else:
                sys.stderr.write(f"{library} {spent:.0f} s: {task.name}\n")
                with warnings.catch_warnings():
                    # Of what the peers think of their own features.
                    warnings.simplefilter("ignore")
                    row = measured(task, library, place.device)
                yield row


def summary(rows: Sequence[Outcome], wanted: int) -> dict[str, Any]:
    """Verdicts, which ops ran on which backend, and the sentence of each failure."""
    ran = Counter(f"{op} on {backend}" for row in rows for op, backend in row.ran.items())
    failures = [
        f"{row.kernel} / {row.case} / {row.library} / {row.dtype} / {row.backend}: {row.reason}"
        for row in rows
        if row.verdict == "fail"
    ]
    return {
        "verdicts": dict(Counter(row.verdict for row in rows)),
        "not_reached": wanted - len(rows),
        "ran": dict(sorted(ran.items())),
        "failures": failures,
    }


def device_name(place: Place) -> str:
    """Name of the GPU, or of the processor in a dry run."""
    if place.dry:
        return machine()["processor"]
    import torch

    return str(torch.cuda.get_device_name(place.device))


def markdown(content: dict[str, Any]) -> str:
    """The report."""
    lines = ["# GPU", "", f"- Date: {content['date']}", f"- Device: {content['device']}"]
    lines += [f"- Versions: {', '.join(f'{k} {v}' for k, v in content['machine'].items())}"]
    if content["validation"]:
        lines += _validation_lines(content["validation"], content["seed"])
    lines += [
        "",
        *LEGEND,
        "",
        "| library | task | ours | ms | peak | error | peer | ms | error | ratio |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(line for row in content["rows"] for line in _lines(row))]) + "\n"


def _validation_lines(found: dict[str, Any], seed: int) -> list[str]:
    counts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(found["verdicts"].items()))
    reached = f"; {found['not_reached']} rows were not reached in the time" * bool(
        found["not_reached"]
    )
    return [
        f"- Validation, seed {seed}: {counts}{reached}",
        "",
        *(f"- FAILED {sentence}" for sentence in found["failures"]),
        "",
        "| op and backend | rows |",
        "|---|---|",
        *(f"| {name} | {count} |" for name, count in found["ran"].items()),
    ]


def _lines(row: Row) -> list[str]:
    if row.left_out:
        return [f"| {row.library} | {row.task} | left out: {row.left_out} | | | | | | | |"]
    failed = [
        f"| {row.library} | {row.task} | {name} failed: {reason} | | | | | | | |"
        for name, reason in row.failed.items()
    ]
    return failed + [
        f"| {row.library} | {row.task} | {ours} | {_figures(row, ours)} | {peer} "
        f"| {1e3 * row.seconds[peer]:.3f} | {row.errors[peer]:.0e} | {ratio:.2f} |"
        for ours, peers in row.ratios().items()
        for peer, ratio in peers.items()
    ]


def _figures(row: Row, ours: str) -> str:
    share = row.fraction_of_peak.get(ours)
    peak = "-" if share is None else f"{share:.2f}"
    return f"{1e3 * row.seconds[ours]:.3f} | {peak} | {row.errors[ours]:.0e}"


def _validation(place: Place, arguments: argparse.Namespace) -> dict[str, Any]:
    """Nothing where only some tasks are asked for."""
    if arguments.only:
        return {}
    seed, workers = arguments.seed, arguments.workers
    rows = list(rows_of_validation(place, seed, workers, arguments.validation))
    wanted = len(rows) if place.dry else len(jobs(Selection(device=place.device)))
    return summary(rows, wanted)


def _write(content: dict[str, Any], folder: Path | None) -> None:
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    plain = {**content, "rows": [{**asdict(r), "ratios": r.ratios()} for r in content["rows"]]}
    (folder / "gpu.json").write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
    (folder / "gpu.md").write_text(markdown(content), encoding="utf-8")


def main(given: Sequence[str] | None = None) -> int:
    """Validate, time, print and write; 1 if a row failed, 2 without a GPU."""
    arguments = _arguments(given)
    for name, value in JAX_SETTINGS.items():
        os.environ.setdefault(name, value)
    place = Place("cpu" if arguments.dry else "cuda", arguments.dry)
    if not arguments.dry and all(libraries.missing(name, "cuda") for name in LIBRARIES):
        reasons = "; ".join(str(libraries.missing(name, "cuda")) for name in LIBRARIES)
        sys.stderr.write(f"no CUDA device ({reasons}); --dry runs on the processor\n")
        return 2
    if arguments.seed is None:
        arguments.seed = time.time_ns() % 2**31
    content: dict[str, Any] = {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "device": device_name(place),
        "dry": arguments.dry,
        "machine": machine(),
        "seed": arguments.seed,
        "validation": _validation(place, arguments),
        "rows": [],
    }
    folder = arguments.output or (None if arguments.dry or arguments.only else RESULTS)
    _write(content, folder)
    for row in timed(place, arguments.budget, arguments.only):
        # A run that is cut leaves what it had.
        content["rows"].append(row)
        _write(content, folder)
    print(markdown(content))
    return 1 if content["validation"].get("failures") else 0


if __name__ == "__main__":
    sys.exit(main())
