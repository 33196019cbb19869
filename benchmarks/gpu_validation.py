"""Every declared case on a device, by several processes at once, within a given time."""

from __future__ import annotations

import multiprocessing
import queue
import time
from collections.abc import Iterator
from typing import Any

from orthokern.testing import Outcome, Selection
from orthokern.testing.validation import Job, jobs, run

# What is looked at first, should the time not suffice: the backends' own code, then the bodies. JAX comes last, since
# it compiles for seconds what it then does once.
BACKENDS = ("numba_cuda", "cupy", "array-api")
LIBRARIES = ("cupy", "torch", "jax")
# Seconds to wait for rows before the clock is looked at again, and for a process to end.
PATIENCE = 1.0


def ordered(wanted: list[Job]) -> list[int]:
    """Places of the jobs in ``wanted``, in the order they are to run."""

    def rank(place: int) -> tuple[bool, bool, int, int]:
        setting = wanted[place].setting
        library, backend = LIBRARIES.index(setting.library), BACKENDS.index(setting.backend or "")
        return (setting.library == "jax", setting.backend == BACKENDS[-1], library, backend)

    return sorted(range(len(wanted)), key=rank)


def validated(selection: Selection, workers: int, seconds: float) -> Iterator[Outcome]:
    """The rows of ``selection`` that are done within ``seconds``, as they are done."""
    context = multiprocessing.get_context("spawn")
    places, rows = context.Queue(), context.Queue()
    order = ordered(jobs(selection))
    for place in [*order, *[-1] * workers]:
        places.put(place)
    crew = [
        context.Process(target=_work, args=(selection, places, rows), daemon=True)
        for _ in range(workers)
    ]
    for process in crew:
        process.start()
    try:
        yield from _gathered(rows, len(order), time.monotonic() + seconds)
    finally:
        for process in crew:
            process.kill()
        for process in crew:
            process.join(PATIENCE)


def _gathered(rows: Any, expected: int, end: float) -> Iterator[Outcome]:
    found = 0
    while found < expected and time.monotonic() < end:
        try:
            yield rows.get(timeout=PATIENCE)
        except queue.Empty:
            continue
        found += 1


def _work(selection: Selection, places: Any, rows: Any) -> None:
    """One process: every job whose place it draws."""
    wanted = jobs(selection)
    while (place := places.get()) >= 0:
        rows.put(run(wanted[place], repeats=0))
