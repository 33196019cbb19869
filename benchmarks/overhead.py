"""What orthokern itself costs: microseconds per op call on NumPy arrays, and the time of its import.

::

    python benchmarks/overhead.py
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from interleave import Rounds, one_thread, race, restarted

import orthokern
from orthokern import use_backend
from orthokern.__main__ import machine
from orthokern._core.backends import ARRAY_API, Backend, _registered, load, register
from orthokern._core.dispatch import OPS, Op
from orthokern._core.registry import load_all
from orthokern.testing.checking import example
from orthokern.testing.validation import available_backends

ROUNDS = Rounds(least=51, most=51, seconds=0.0)
IMPORTS = 11
PROBE = "overhead_probe"
FRAMEWORKS = ("torch", "jax", "dask", "cupy", "numba")
IMPORT = f"import sys, orthokern; print(*sorted(set(sys.modules) & set({FRAMEWORKS!r})))"

Call = Callable[[], Any]


class Overhead(NamedTuple):
    """Microseconds that a call through the op takes longer than the implementation called directly."""

    what: str
    extra: float
    low: float
    high: float
    bare: float

    def __str__(self) -> str:
        return (
            f"{self.what:52} {self.extra:+7.2f} us (quartiles {self.low:+.2f}..{self.high:+.2f}; "
            f"the implementation itself {self.bare:.2f} us)"
        )


def compare(what: str, through: Call, bare: Call, *, rounds: Rounds = ROUNDS) -> Overhead:
    """Time both in turns; median and quartiles of the difference within a round."""
    laps = race({"through": through, "bare": bare}, rounds)
    pairs = zip(laps["through"].seconds, laps["bare"].seconds, strict=True)
    low, extra, high = statistics.quantiles([1e6 * (a - b) for a, b in pairs], n=4)
    return Overhead(what, extra, low, high, 1e6 * statistics.median(laps["bare"].seconds))


def _probe(x: Any, /, *, option: int) -> Any:
    """An op that does nothing, so that only dispatch is timed."""
    del option
    return x


def probes(rounds: Rounds = ROUNDS) -> list[Overhead]:
    """Dispatch of an op that does nothing: without a backend for it, with one, and with one that is named."""
    op, x = Op(_probe, None), np.ones((3, 3))
    backend = Backend(PROBE, serves=[("numpy", "cpu")])
    implementation = backend.implements(op.name, when=lambda *_, **__: None)(_probe)
    register(backend)
    try:
        with use_backend(PROBE):
            served = compare(
                "do-nothing op, a backend takes it", *_pair(op, implementation, x), rounds=rounds
            )
        return [compare("do-nothing op, body", *_pair(op, op.body, x), rounds=rounds), served]
    finally:
        # A process that goes on, as that of the tests does, knows no backend more than before.
        del OPS[op.name], _registered[PROBE]
        load.cache_clear()


def _pair(op: Op, implementation: Callable[..., Any], x: np.ndarray) -> tuple[Call, Call]:
    return lambda: op(x, option=1), lambda: implementation(x, option=1)


def declared_ops(rounds: Rounds = ROUNDS) -> list[Overhead]:
    """Every declared op on its smallest example, on the reference and on each backend that takes it."""
    found = []
    for name in sorted(set(load_all()) & set(OPS)):
        arrays, options = _smallest(name)
        for backend in available_backends():
            implementation = _implementation(backend, name, arrays, options)
            if implementation is not None:
                found.append(_through_op(name, backend, implementation, arrays, options, rounds))
    return found


def _smallest(name: str) -> tuple[tuple[np.ndarray, ...], Mapping[str, Any]]:
    declaration = load_all()[name]
    examples = [(example(declaration, case, "float64"), case.options) for case in declaration.cases]
    return min(examples, key=lambda pair: sum(a.size for a in pair[0]))


def _implementation(
    backend: str, op: str, arrays: tuple[np.ndarray, ...], options: Mapping[str, Any]
) -> Callable[..., Any] | None:
    if backend == ARRAY_API:
        return OPS[op].body
    entry = load(backend).entries.get(op)
    if entry is None or (entry.when is not None and entry.when(*arrays, **options)):
        return None
    return entry.implementation


def _through_op(
    name: str,
    backend: str,
    implementation: Callable[..., Any],
    arrays: tuple[np.ndarray, ...],
    options: Mapping[str, Any],
    rounds: Rounds,
) -> Overhead:
    op = OPS[name]
    with use_backend(backend):
        return compare(
            f"{name}, {backend}, {'x'.join(map(str, arrays[0].shape))}",
            lambda: op(*arrays, **options),
            lambda: implementation(*arrays, **options),
            rounds=rounds,
        )


def import_seconds(runs: int = IMPORTS) -> tuple[list[float], str]:
    """Seconds that ``import orthokern`` takes in fresh interpreters, and the frameworks it loaded."""
    seconds, loaded = [], ""
    for _ in range(runs):
        command = [sys.executable, "-X", "importtime", "-c", IMPORT]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds.append(cumulative(done.stderr))
        loaded = done.stdout.strip()
    return seconds, loaded


def cumulative(log: str) -> float:
    """Seconds that ``-X importtime`` gives for orthokern with everything it imports."""
    match = re.search(r"\|\s*(\d+) \| orthokern$", log, re.MULTILINE)
    if match is None:
        message = (
            f"expected a line for orthokern in the output of -X importtime, got {log[-200:]!r}"
        )
        raise ValueError(message)
    return int(match.group(1)) / 1e6


def main() -> int:
    """Print both tables."""
    about = machine()
    print(
        f"orthokern {orthokern.__version__}, Python {about['python']}, NumPy {about['numpy']}, {about['processor']}"
    )
    print("Op call minus implementation, NumPy arrays, no report open, one thread:")
    with one_thread():
        for line in (*probes(), *declared_ops()):
            print(" ", line)
    seconds, loaded = import_seconds()
    spread = f"{min(seconds):.3f}..{max(seconds):.3f}"
    print(
        f"import orthokern: median {statistics.median(seconds):.3f} s of {len(seconds)} runs ({spread})"
    )
    print(f"frameworks loaded by the import: {loaded or 'none'}")
    return 0


if __name__ == "__main__":
    status = restarted()
    sys.exit(main() if status is None else status)
