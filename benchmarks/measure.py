"""One task measured: orthokern and the peers timed in turns on the same input, and all results judged."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from accuracy import contract, errors, kept
from interleave import Laps, Rounds, race, ratio
from peers import cannot_run
from tasks import Arrays, Rival, Task

import orthokern
from orthokern._core.registry import Residual, load_all
from orthokern.testing import libraries

PRODUCT = "one product"
# Orthokern's own entrants, by whether they make H: it runs with and without where the peers differ.
OURS = {True: "orthokern with H", False: "orthokern without H"}


@dataclass
class Comparison:
    """Orthokern against one peer: figures for each seed, and the worst errors over the seeds.

    ``ratios`` are peer time / our time, ``products`` our time in products of the input with a square matrix.
    """

    peer: str
    h_included: bool
    target: float | None
    must_be_more_orthogonal: bool
    missing: str | None
    ratios: list[float] = field(default_factory=list)
    products: list[float] = field(default_factory=list)
    our_errors: dict[str, float] = field(default_factory=dict)
    peer_errors: dict[str, float] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """Median over the seeds of peer time / our time."""
        return statistics.median(self.ratios)

    @property
    def spread(self) -> tuple[float, float]:
        """Smallest and largest ratio of the seeds."""
        return min(self.ratios), max(self.ratios)

    def shortfalls(self, contract_met: bool) -> list[str]:
        """Why the target is missed; empty if it is met."""
        if self.target is None or self.missing:
            return []
        found = [] if self.ratio >= self.target else ["ratio"]
        if not contract_met:
            found.append("contract")
        if self.must_be_more_orthogonal and not (
            self.our_errors["orthogonality"] < self.peer_errors["orthogonality"]
        ):
            found.append("orthogonality")
        return found


@dataclass
class Record:
    """What is kept of a task.

    ``contract`` maps each figure to its worst value and its limit in eps. ``rounds``, and the lists in ``seconds``
    and ``processor_share``, have a figure for each seed.
    """

    group: str
    name: str
    kernel: str
    options: dict[str, Any]
    caller: str
    dtype: str
    shape: tuple[int, ...]
    comparisons: list[Comparison]
    ran: dict[str, str] = field(default_factory=dict)
    contract: dict[str, tuple[float, float]] = field(default_factory=dict)
    contract_met: bool = True
    rounds: list[int] = field(default_factory=list)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    processor_share: dict[str, list[float]] = field(default_factory=dict)


def our_call(task: Task, with_h: bool) -> Callable[..., Any]:
    """The call of orthokern that is timed."""
    function, options = load_all()[task.kernel].function, dict(task.options)
    if not task.factors:
        return lambda *arrays: function(*arrays, **options)
    if task.kernel != "polar":
        return lambda x: (function(x, **options), None)
    if with_h:
        return lambda x: function(x, **options)[:2]
    return lambda x: (function(x, compute_h=False, **options).u, None)


def _given(arrays: Arrays, library: str) -> tuple[Any, ...]:
    return tuple(libraries.to_library(a, library) for a in arrays)


def _what_ran(task: Task, arrays: Arrays) -> dict[str, str]:
    with orthokern.explain() as report:
        our_call(task, True)(*_given(arrays, task.library))
    return {decision.op: decision.backend for decision in report}


def _bound(call: Callable[..., Any], given: tuple[Any, ...]) -> Callable[[], Any]:
    return lambda: call(*given)


def _entrants(task: Task, rivals: Sequence[Rival], arrays: Arrays) -> dict[str, Callable[[], Any]]:
    given = _given(arrays, task.library)
    entrants = {
        OURS[with_h]: _bound(our_call(task, with_h), given)
        for with_h in sorted({rival.peer.gives_h for rival in rivals}, reverse=True)
    }
    for rival in rivals:
        entrants[rival.peer.name] = _bound(rival.peer.load(), _given(arrays, rival.peer.library))
    if arrays[0].ndim == 2:
        entrants[PRODUCT] = _product(arrays[0])
    return entrants


def _product(x: np.ndarray) -> Callable[[], Any]:
    """``x`` times a square matrix: the unit of work that costs are compared in."""
    square = np.resize(x, (x.shape[-1], x.shape[-1])) + 1
    return lambda: x @ square


def measure(task: Task, *, seeds: Sequence[int], rounds: Rounds) -> Record:
    """Run a task on the inputs of all ``seeds``."""
    first = task.arrays(seeds[0])
    comparisons = [_comparison(rival, task, first[0]) for rival in task.rivals]
    rivals = [r for r, c in zip(task.rivals, comparisons, strict=True) if c.missing is None]
    record = Record(
        task.group,
        task.name,
        task.kernel,
        dict(task.options),
        task.library,
        task.dtype,
        first[0].shape,
        comparisons,
    )
    if not rivals:
        return record
    record.ran = _what_ran(task, first)
    for seed in seeds:
        arrays = task.arrays(seed)
        _add(record, task, arrays, race(_entrants(task, rivals, arrays), rounds))
    return record


def _comparison(rival: Rival, task: Task, x: np.ndarray) -> Comparison:
    missing = cannot_run(task.library, task.dtype) or rival.peer.missing(task.dtype, x.ndim)
    return Comparison(rival.peer.name, rival.peer.gives_h, rival.target, rival.better, missing)


def _add(record: Record, task: Task, arrays: Arrays, laps: dict[str, Laps]) -> None:
    """Enter what one seed gave."""
    record.rounds.append(min(len(lap.seconds) for lap in laps.values()))
    for name, lap in laps.items():
        record.seconds.setdefault(name, []).append(statistics.median(lap.seconds))
        record.processor_share.setdefault(name, []).append(lap.processor_share)
        if name in OURS.values():
            _enter_contract(record, contract(task, arrays, lap.result))
    for comparison in record.comparisons:
        if comparison.missing is None:
            ours, theirs = laps[OURS[comparison.h_included]], laps[comparison.peer]
            comparison.ratios.append(ratio(theirs, ours))
            comparison.products += [ratio(ours, laps[PRODUCT])] if PRODUCT in laps else []
            _worsen(comparison.our_errors, errors(task, arrays, ours.result))
            _worsen(comparison.peer_errors, errors(task, arrays, theirs.result))


def _enter_contract(record: Record, figures: dict[str, Residual]) -> None:
    record.contract_met = record.contract_met and kept(figures)
    for name, figure in figures.items():
        worst = max(figure.value, record.contract.get(name, (figure.value, 0.0))[0])
        record.contract[name] = (worst, figure.limit)


def _worsen(worst: dict[str, float], found: dict[str, float]) -> None:
    for name, value in found.items():
        worst[name] = max(value, worst.get(name, 0.0))
