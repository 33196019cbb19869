"""Timing in turns: in one process, one thread, round after round, so that a busy machine slows everybody alike.

In each round every entrant runs once (small calls several times in a row), and the order is turned by one from
round to round. What counts is the ratio of two entrants within a round; the median over the rounds is
reported.
"""

from __future__ import annotations

import gc
import importlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

# JAX reads NPROC for the size of its pools; XLA_FLAGS for that of its products.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "NPROC": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "JAX_PLATFORMS": "cpu",
    "JAX_ENABLE_X64": "1",
}
WARM_UPS = 2
MOST_REPEATS = 1000
POOL_KEYS = ("prefix", "version", "architecture", "num_threads")

Call = Callable[[], Any]


class Laps(NamedTuple):
    """One entrant: seconds per call in each round, processor time / wall time, and the last result.

    A share above 1 tells of a second thread, one below 1 of other programs on the machine.
    """

    seconds: list[float]
    processor_share: float
    result: Any


def restarted(environment: Mapping[str, str] = ONE_THREAD) -> int | None:
    """Run this program again with ``environment``, which libraries read when they are loaded.

    Returns the exit status, or None if the environment is in force and nothing was started.
    """
    if all(os.environ.get(key) == value for key, value in environment.items()):
        return None
    command = [sys.executable, *sys.orig_argv[1:]]
    return subprocess.run(command, env={**os.environ, **environment}, check=False).returncode


def _threadpoolctl() -> Any | None:
    try:
        return importlib.import_module("threadpoolctl")
    except ImportError:
        return None


@contextmanager
def one_thread() -> Iterator[str]:
    """Hold the thread pools of the libraries loaded so far to one thread; yields who does it."""
    control = _threadpoolctl()
    if control is None:
        yield "environment variables"
        return
    with control.threadpool_limits(limits=1):
        yield "threadpoolctl and environment variables"


def thread_pools() -> list[dict[str, Any]]:
    """The thread pools of this process as threadpoolctl sees them, without paths; empty without it."""
    control = _threadpoolctl()
    pools = [] if control is None else control.threadpool_info()
    return [{key: pool[key] for key in POOL_KEYS if pool.get(key) is not None} for pool in pools]


def _repeats(call: Call, visit: float) -> int:
    for _ in range(WARM_UPS - 1):
        call()
    start = time.perf_counter()
    call()
    seconds = max(time.perf_counter() - start, 1e-9)
    return min(max(1, round(visit / seconds)), MOST_REPEATS)


def _visit(call: Call, repeats: int) -> tuple[float, float, Any]:
    """Wall and processor seconds per call, and the result of the last call."""
    processor, start = time.process_time(), time.perf_counter()
    for _ in range(repeats):
        result = call()
    seconds = time.perf_counter() - start
    return seconds / repeats, (time.process_time() - processor) / repeats, result


@contextmanager
def _no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class Rounds(NamedTuple):
    """How often everybody runs: from ``least`` to ``most`` times, until ``seconds`` have passed.

    Calls shorter than ``visit`` seconds are repeated within a round.
    """

    least: int
    most: int
    seconds: float
    visit: float = 0.02

    def turns(self) -> Iterator[int]:
        """The numbers of the rounds."""
        start = time.perf_counter()
        for turn in range(self.most):
            if turn >= self.least and time.perf_counter() - start > self.seconds:
                return
            yield turn


def race(entrants: Mapping[str, Call], rounds: Rounds) -> dict[str, Laps]:
    """Warm up every entrant, then time all of them in turns."""
    repeats = {name: _repeats(call, rounds.visit) for name, call in entrants.items()}
    names = list(entrants)
    visits: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    results: dict[str, Any] = {}
    with _no_collection():
        for turn in rounds.turns():
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                wall, processor, results[name] = _visit(entrants[name], repeats[name])
                visits[name].append((wall, processor))
    return {name: _laps(visits[name], results[name]) for name in names}


def _laps(visits: list[tuple[float, float]], result: Any) -> Laps:
    walls = [wall for wall, _ in visits]
    return Laps(walls, sum(processor for _, processor in visits) / sum(walls), result)


def ratio(peer: Laps, ours: Laps) -> float:
    """Median over the rounds of peer time / our time."""
    return statistics.median(
        theirs / own for theirs, own in zip(peer.seconds, ours.seconds, strict=True)
    )
