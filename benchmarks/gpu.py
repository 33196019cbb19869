"""Validate and time what runs on a GPU, in one command that ends within eight minutes.

::

    PYTHONPATH=.:backends python benchmarks/gpu.py           # on a GPU; writes benchmarks/results/gpu.{json,md}
    PYTHONPATH=.:backends python benchmarks/gpu.py --dry     # small, on the processor: does the script run?

First every declared case runs on every CUDA backend and library, on fresh random input, and is judged in float64. Then
``polar`` and ``orthogonalize`` are timed in turns with what users of each library call today. Times are medians of
CUDA events on the current stream for PyTorch and CuPy, and of the clock around ``block_until_ready`` for JAX.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from gpu_entrants import Task, clock_of, computes, entrants, peak_of, tasks

from orthokern.__main__ import machine
from orthokern.testing import Outcome, Selection, libraries
from orthokern.testing.validation import jobs, run

RESULTS = Path(__file__).resolve().parent / "results"
# Libraries that have arrays on a GPU, and seconds for all of the timing.
LIBRARIES = ("torch", "cupy", "jax")
BUDGET = 240.0
ROUNDS, WARM_UPS = 7, 2
# Double precision, and memory left for the other libraries; read when JAX is imported.
JAX_SETTINGS = {"JAX_ENABLE_X64": "1", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


class Place(NamedTuple):
    """Where everything runs."""

    device: str
    dry: bool


@dataclass
class Row:
    """One task: median seconds of each entrant, and what the speed of a product makes of ours."""

    library: str
    task: str
    seconds: dict[str, float] = field(default_factory=dict)
    fraction_of_peak: dict[str, float] = field(default_factory=dict)
    left_out: str = ""

    def ratios(self) -> dict[str, dict[str, float]]:
        """Peer time / our time, for each of our entrants and each peer."""
        ours = {name for name in self.seconds if name.startswith("orthokern")}
        peers = sorted(set(self.seconds) - ours)
        return {o: {p: self.seconds[p] / self.seconds[o] for p in peers} for o in sorted(ours)}


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Validate and time orthokern on a GPU.")
    parser.add_argument(
        "--dry", action="store_true", help="small, on the processor, written nowhere"
    )
    parser.add_argument(
        "--seed", type=int, default=None, help="of the random input; default: drawn"
    )
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds for the timing")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="default: benchmarks/results")
    return parser.parse_args(given)


def validated(place: Place, seed: int) -> Iterator[Outcome]:
    """Every row of ``orthokern validate --device cuda --seed ...``; a handful of them in a dry run."""
    selection = Selection(device=place.device, seed=seed, quick=place.dry)
    wanted = jobs(selection)
    for job in wanted[:: max(1, len(wanted) // 40)] if place.dry else wanted:
        yield run(job, repeats=0)


def timed(place: Place, budget: float) -> Iterator[Row]:
    """Every task on every library that is here; what does not fit the budget is named and left out."""
    for library in LIBRARIES:
        start = time.perf_counter()
        reason = libraries.missing(library, place.device)
        if reason is not None:
            yield Row(library, "all", left_out=reason)
            continue
        for task in tasks(dry=place.dry):
            spent = time.perf_counter() - start
            if not computes(library, task.dtype):
                yield Row(library, task.name, left_out="dtype")
            elif spent > budget / len(LIBRARIES):
                yield Row(library, task.name, left_out="time")
            else:
                yield _row(library, task, place)


def _row(library: str, task: Task, place: Place) -> Row:
    row = Row(library, task.name)
    clock = clock_of(library, place.device)
    calls = entrants(library, task, place.device)
    laps: dict[str, list[float]] = {name: [] for name in calls}
    for lap in range(ROUNDS + WARM_UPS):
        for name, call in calls.items():
            seconds = clock.measure(call)
            if lap >= WARM_UPS:
                laps[name].append(seconds)
    row.seconds = {name: sorted(found)[len(found) // 2] for name, found in laps.items()}
    peak = peak_of(library, task, place.device, clock)
    row.fraction_of_peak = {
        name: task.flops / seconds / peak
        for name, seconds in row.seconds.items()
        if name.startswith("orthokern.polar")
    }
    return row


def summary(rows: Sequence[Outcome]) -> dict[str, Any]:
    """Verdicts, which ops ran on which backend, and the sentence of each failure."""
    ran = Counter(f"{op} on {backend}" for row in rows for op, backend in row.ran.items())
    failures = [
        f"{row.kernel} / {row.case} / {row.library} / {row.dtype}: {row.reason}"
        for row in rows
        if row.verdict == "fail"
    ]
    return {
        "verdicts": dict(Counter(row.verdict for row in rows)),
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
    found = content["validation"]
    lines += [f"- Validation, seed {content['seed']}: {found['verdicts']}", ""]
    lines += [f"- FAILED {sentence}" for sentence in found["failures"]]
    lines += ["", "| op and backend | rows |", "|---|---|"]
    lines += [f"| {name} | {count} |" for name, count in found["ran"].items()]
    lines += ["", "Ratio: peer time / orthokern time. Peak: share of the speed of a product.", ""]
    lines += [
        "| library | task | ours | ms | peak | peer | ms | ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(line for row in content["rows"] for line in _lines(row))]) + "\n"


def _lines(row: Row) -> list[str]:
    if row.left_out:
        return [f"| {row.library} | {row.task} | left out: {row.left_out} | | | | | |"]
    found = []
    for ours, peers in row.ratios().items():
        mine = f"{1e3 * row.seconds[ours]:.3f}"
        share = row.fraction_of_peak.get(ours)
        peak = "-" if share is None else f"{share:.2f}"
        for peer, ratio in peers.items():
            theirs = f"{1e3 * row.seconds[peer]:.3f}"
            found.append(
                f"| {row.library} | {row.task} | {ours} | {mine} | {peak} | {peer} | {theirs} | {ratio:.2f} |"
            )
    return found


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
    seed = time.time_ns() % 2**31 if arguments.seed is None else arguments.seed
    outcomes = list(validated(place, seed))
    content: dict[str, Any] = {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "device": device_name(place),
        "dry": arguments.dry,
        "machine": machine(),
        "seed": seed,
        "validation": summary(outcomes),
        "rows": list(timed(place, arguments.budget)),
    }
    text = markdown(content)
    print(text)
    folder = arguments.output or (None if arguments.dry else RESULTS)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        plain = {**content, "rows": [{**asdict(r), "ratios": r.ratios()} for r in content["rows"]]}
        (folder / "gpu.json").write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
        (folder / "gpu.md").write_text(text, encoding="utf-8")
    return 1 if content["validation"]["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
