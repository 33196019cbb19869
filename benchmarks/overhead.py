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

# Short visits: most of them pass between two interruptions by other programs.
ROUNDS = Rounds(least=100, most=100, seconds=0.0, visit=0.001)
PARTS = 5
IMPORTS = 11
PROBE = "overhead_probe"
FRAMEWORKS = ("torch", "jax", "dask", "cupy", "numba")
# Names are imported on first use, so the first kernel is timed too; it brings NumPy.
FIRST_KERNEL = f"""
import sys, time
start = time.perf_counter()
import orthokern
orthokern.polar
print(time.perf_counter() - start, *sorted(set(sys.modules) & set({FRAMEWORKS!r})))
"""

Call = Callable[[], Any]


class Overhead(NamedTuple):
    """Microseconds that a call through the op takes longer than the implementation called directly.

    ``low`` and ``high`` bound what the parts of the run gave; ``bare`` is the implementation itself.
    """

    what: str
    extra: float
    low: float
    high: float
    bare: float

    def __str__(self) -> str:
        return f"{self.what:42} {self.extra:+6.2f} us ({self.low:+.2f}..{self.high:+.2f}) on {self.bare:.2f} us"


def compare(what: str, through: Call, bare: Call, *, rounds: Rounds = ROUNDS) -> Overhead:
    """Time both in turns; in each part of the run the fastest rounds are compared, as noise only adds."""
    parts = [race({"through": through, "bare": bare}, rounds) for _ in range(PARTS)]
    fastest = [(min(part["through"].seconds), min(part["bare"].seconds)) for part in parts]
    extra = [1e6 * (slow - fast) for slow, fast in fastest]
    direct = 1e6 * min(fast for _, fast in fastest)
    return Overhead(what, statistics.median(extra), min(extra), max(extra), direct)


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


def _fresh(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)


def import_seconds(runs: int = IMPORTS) -> list[float]:
    """Seconds that ``import orthokern`` takes in fresh interpreters, by ``-X importtime``."""
    return [
        cumulative(_fresh("-X", "importtime", "-c", "import orthokern").stderr) for _ in range(runs)
    ]


def first_kernel(runs: int = IMPORTS) -> tuple[list[float], set[str]]:
    """Seconds until ``orthokern.polar`` can be called, and the frameworks that were loaded."""
    printed = [_fresh("-c", FIRST_KERNEL).stdout.split() for _ in range(runs)]
    return [float(seconds) for seconds, *_ in printed], {
        name for _, *names in printed for name in names
    }


def cumulative(log: str) -> float:
    """Seconds that ``-X importtime`` gives for orthokern with everything it imports."""
    match = re.search(r"\|\s*(\d+) \| orthokern$", log, re.MULTILINE)
    if match is None:
        message = (
            f"expected a line for orthokern in the output of -X importtime, got {log[-200:]!r}"
        )
        raise ValueError(message)
    return int(match.group(1)) / 1e6


def _print_seconds(what: str, found: list[float]) -> None:
    spread = f"{min(found):.3f}..{max(found):.3f}"
    print(f"{what}: median {statistics.median(found):.3f} s of {len(found)} runs ({spread})")


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
    seconds, loaded = first_kernel()
    _print_seconds("import orthokern", import_seconds())
    _print_seconds("import orthokern; orthokern.polar", seconds)
    print(
        f"frameworks loaded by both: {', '.join(sorted(loaded)) or 'none'} (of {', '.join(FRAMEWORKS)})"
    )
    return 0


if __name__ == "__main__":
    status = restarted()
    sys.exit(main() if status is None else status)
