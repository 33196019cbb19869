"""Calls of one array library timed in turns on a GPU, and what their results are worth."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from orthokern._core.namespace import namespace
from orthokern.testing import libraries

Call = Callable[[], Any]
OURS = "orthokern"
# Rounds of each task, unless an entrant has used up its seconds.
ROUNDS, SECONDS = 7, 1.5


class Task(NamedTuple):
    """One problem in one dtype.

    ``make`` gives the arrays on the host; ``calls`` the entrants of a library on its arrays, ours named
    "orthokern..."; ``error`` takes the same arrays and a result. ``flops`` are those of the usual algorithm, 0 if no
    speed of a product is to be named beside the times.
    """

    name: str
    dtype: str
    make: Callable[[], tuple[np.ndarray, ...]]
    calls: Callable[..., dict[str, Call]]
    error: Callable[..., Any]
    flops: float = 0.0


@dataclass
class Row:
    """One task on one library: median seconds and error of each entrant."""

    library: str
    task: str
    seconds: dict[str, float] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    fraction_of_peak: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    left_out: str = ""

    def ratios(self) -> dict[str, dict[str, float]]:
        """Peer time / our time, for each of our entrants and each peer."""
        ours = {name for name in self.seconds if name.startswith(OURS)}
        peers = sorted(set(self.seconds) - ours)
        return {o: {p: self.seconds[p] / self.seconds[o] for p in peers} for o in sorted(ours)}


class Clock:
    """Seconds of one call by the processor's clock, until the result is there."""

    def measure(self, call: Call) -> float:
        """Run once."""
        start = time.perf_counter()
        for part in parts(call()):
            if hasattr(part, "block_until_ready"):
                part.block_until_ready()
        return time.perf_counter() - start


class Events(Clock):
    """Seconds between two events on the current stream; ``module`` is ``torch.cuda`` or ``cupy.cuda``."""

    def __init__(self, start: Any, stop: Any, elapsed: Callable[[Any, Any], float]) -> None:
        self.start, self.stop, self.elapsed = start, stop, elapsed

    def measure(self, call: Call) -> float:
        """Run once."""
        self.start.record()
        call()
        self.stop.record()
        self.stop.synchronize()
        return 1e-3 * self.elapsed(self.start, self.stop)


def clock_of(library: str, device: str) -> Clock:
    """The clock for arrays of ``library`` on ``device``."""
    if device == "cpu" or library == "jax":
        return Clock()
    if library == "torch":
        cuda = importlib.import_module("torch").cuda
        pair = [cuda.Event(enable_timing=True) for _ in range(2)]
        return Events(*pair, lambda start, stop: float(start.elapsed_time(stop)))
    cuda = importlib.import_module("cupy").cuda
    return Events(cuda.Event(), cuda.Event(), cuda.get_elapsed_time)


def parts(result: Any) -> tuple[Any, ...]:
    """The arrays of a result."""
    if isinstance(result, tuple):
        return tuple(leaf for part in result for leaf in parts(part))
    return (result,)


def array(host: np.ndarray, library: str, dtype: str, device: str) -> Any:
    """``host`` as an array of ``library`` on ``device``, in ``dtype``, bfloat16 too."""
    if host.dtype.kind in "iu" or dtype != "bfloat16":
        wanted = host.dtype if host.dtype.kind in "iu" else dtype
        return libraries.to_library(host.astype(wanted), library, device=device)
    wide = libraries.to_library(host.astype("float32"), library, device=device)
    module = importlib.import_module("torch" if library == "torch" else "jax.numpy")
    return wide.to(module.bfloat16) if library == "torch" else wide.astype(module.bfloat16)


def wide(x: Any) -> Any:
    """``x`` in double precision, where it is."""
    space = namespace(x)
    return space.astype(x, space.float64)


def computes(library: str, dtype: str) -> bool:
    """Whether ``library`` computes in ``dtype`` here; CuPy has no bfloat16, JAX float64 only where it is on."""
    if dtype == "bfloat16":
        return library != "cupy"
    return dtype in libraries.dtypes_of(library)


def measured(task: Task, library: str, device: str) -> Row:
    """Every entrant once to warm up and to be judged, then all of them in turns."""
    row, clock = Row(library, task.name), clock_of(library, device)
    arrays = tuple(array(host, library, task.dtype, device) for host in task.make())
    calls = task.calls(library, *arrays)
    for name, call in list(calls.items()):
        try:
            row.errors[name] = float(task.error(*arrays, call()))
        except Exception as failure:  # noqa: BLE001 - what one entrant raises is told in its row
            row.failed[name] = f"{type(failure).__name__}: {str(failure).splitlines()[0]}"
            del calls[name]
    row.seconds = {name: sorted(laps)[len(laps) // 2] for name, laps in _laps(clock, calls).items()}
    if task.flops:
        peak = _peak(arrays[0], clock)
        row.fraction_of_peak = {
            name: task.flops / seconds / peak
            for name, seconds in row.seconds.items()
            if name.startswith(OURS)
        }
    return row


def _laps(clock: Clock, calls: dict[str, Call]) -> dict[str, list[float]]:
    laps: dict[str, list[float]] = {name: [] for name in calls}
    for lap in range(ROUNDS + 1):
        for name, call in calls.items():
            if lap < 2 or sum(laps[name]) < SECONDS:
                seconds = clock.measure(call)
                laps[name] += [seconds] if lap else []
    return laps


def _peak(x: Any, clock: Clock) -> float:
    """Flops per second of one product of the same arrays; the best of five."""
    product = min(clock.measure(lambda: x @ x) for _ in range(5))
    return float(np.prod(x.shape[:-2])) * 2.0 * x.shape[-1] ** 3 / max(product, 1e-9)
