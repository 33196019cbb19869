"""What is timed on a GPU: the tasks, the entrants of each library, and the clock that its arrays need."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from peers import MUON_COEFFICIENTS, MUON_EPS, MUON_STEPS

import orthokern
from orthokern.testing import libraries

Call = Callable[[], Any]
DTYPES = ("float64", "float32", "bfloat16")
SIZES = (512, 1024, 2048, 4096, 8192)
STACKS = ((64, 1024, 1024), (4096, 16, 16))
LOOSE = 0.1
# The singular value decomposition of a matrix beyond this size takes longer than all the rest.
LARGEST_SVD = 2048


@dataclass(frozen=True)
class Task:
    """A Gaussian stack or matrix in one dtype; ``flops`` are those of a polar factorization."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def name(self) -> str:
        """``1024x1024 float32``."""
        return f"{'x'.join(map(str, self.shape))} {self.dtype}"

    @property
    def flops(self) -> float:
        """Those of the reference algorithm: 22 n^3 for each square matrix."""
        return float(np.prod(self.shape[:-2])) * 22.0 * self.shape[-1] ** 3

    def array(self) -> np.ndarray:
        """The input, bfloat16 still in float32."""
        wide = "float32" if self.dtype == "bfloat16" else self.dtype
        return np.random.default_rng(0).standard_normal(self.shape).astype(wide)


def tasks(*, dry: bool) -> list[Task]:
    """In the order of their weight: what matters most is measured first."""
    sizes, stacks = ((32,), ((4, 8, 8),)) if dry else (SIZES, STACKS)
    matrices = [Task((n, n), dtype) for n in sizes for dtype in DTYPES]
    return [*matrices, *(Task(stack, dtype) for stack in stacks for dtype in DTYPES[:2])]


class Clock:
    """Seconds of one call by the processor's clock, until the result is there."""

    def measure(self, call: Call) -> float:
        """Run once."""
        start = time.perf_counter()
        for part in _parts(call()):
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


def _parts(result: Any) -> tuple[Any, ...]:
    if isinstance(result, tuple):
        return tuple(leaf for part in result for leaf in _parts(part))
    return (result,)


def _tensor(task: Task, device: str) -> Any:
    torch = importlib.import_module("torch")
    return torch.tensor(task.array(), device=device).to(getattr(torch, task.dtype))


def _cupy_array(task: Task, device: str) -> Any:
    return importlib.import_module("cupy").asarray(task.array())


def _jax_array(task: Task, device: str) -> Any:
    jax = importlib.import_module("jax")
    place = jax.devices("gpu" if device == "cuda" else device)[0]
    return jax.device_put(jax.numpy.asarray(task.array(), dtype=task.dtype), place)


def _ours(x: Any) -> dict[str, Call]:
    return {
        "orthokern.polar": lambda: orthokern.polar(x)[:2],
        f"orthokern.orthogonalize, tol={LOOSE}": lambda: orthokern.orthogonalize(x, tol=LOOSE),
    }


def _newton_schulz(x: Any) -> Any:
    """Muon's five steps with plain products, which every library has."""
    a, b, c = MUON_COEFFICIENTS
    y = x / ((x * x).sum() ** 0.5 + MUON_EPS)
    for _ in range(MUON_STEPS):
        gram = y @ y.T
        y = a * y + (b * gram + c * (gram @ gram)) @ y
    return y


def _of_torch(task: Task, device: str) -> dict[str, Call]:
    torch = importlib.import_module("torch")
    x = _tensor(task, device)
    found = _ours(x)
    if task.dtype != "bfloat16" and task.shape[-1] <= LARGEST_SVD:
        found["torch.linalg.svd"] = lambda: torch.linalg.svd(x, full_matrices=False)
    if x.ndim == 2:
        found["Newton-Schulz, plain products"] = lambda: _newton_schulz(x)
        if task.dtype != "float64" and device != "cpu":
            muon = importlib.import_module("torch.optim._muon")
            routine = torch.compile(muon._zeropower_via_newtonschulz)  # noqa: SLF001 - private in torch
            found["torch.optim.Muon, compiled"] = lambda: routine(
                x, MUON_COEFFICIENTS, MUON_STEPS, MUON_EPS
            )
    return found


def _of_cupy(task: Task, device: str) -> dict[str, Call]:
    cupy = importlib.import_module("cupy")
    x = _cupy_array(task, device)
    found = _ours(x)
    if task.shape[-1] <= LARGEST_SVD:
        found["cupy.linalg.svd"] = lambda: cupy.linalg.svd(x, full_matrices=False)
    if x.ndim == 2:
        found["Newton-Schulz, plain products"] = lambda: _newton_schulz(x)
    return found


def _of_jax(task: Task, device: str) -> dict[str, Call]:
    jax = importlib.import_module("jax")
    polar = importlib.import_module("jax.scipy.linalg").polar
    x = _jax_array(task, device)
    found = _ours(x)
    if x.ndim == 2 and task.dtype != "bfloat16":
        qdwh = jax.jit(lambda x: polar(x, method="qdwh"))
        found["jax.scipy.linalg.polar (qdwh), compiled"] = lambda: qdwh(x)
    if x.ndim == 2:
        steps = jax.jit(_newton_schulz)
        found["Newton-Schulz, plain products, compiled"] = lambda: steps(x)
    return found


_ENTRANTS: dict[str, Callable[[Task, str], dict[str, Call]]] = {
    "torch": _of_torch,
    "cupy": _of_cupy,
    "jax": _of_jax,
}
_ARRAYS: dict[str, Callable[[Task, str], Any]] = {
    "torch": _tensor,
    "cupy": _cupy_array,
    "jax": _jax_array,
}


def computes(library: str, dtype: str) -> bool:
    """Whether ``library`` computes in ``dtype`` here; CuPy has no bfloat16, JAX float64 only where it is on."""
    if dtype == "bfloat16":
        return library != "cupy"
    return dtype in libraries.dtypes_of(library)


def entrants(library: str, task: Task, device: str) -> dict[str, Call]:
    """Ours and the peers, on arrays that are there before the clock starts."""
    return _ENTRANTS[library](task, device)


def peak_of(library: str, task: Task, device: str, clock: Clock) -> float:
    """Flops per second of one product of the same arrays; the best of five."""
    x = _ARRAYS[library](task, device)
    product = min(clock.measure(lambda: x @ x) for _ in range(5))
    return float(np.prod(task.shape[:-2])) * 2.0 * task.shape[-1] ** 3 / max(product, 1e-9)
