"""What is measured: the one list that the report, its tables and its test are generated from.

A task is an input and a call of orthokern; its rivals are the peers on the same input, each with the ratio
peer time / orthokern time that is aimed at, or None where the peer is there for information.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from function_peers import (
    NUMPY_COLUMNS,
    NUMPY_COSH,
    NUMPY_EIGH,
    NUMPY_NORM,
    NUMPY_PROX,
    NUMPY_QUANTILE,
    NUMPY_SIMPLEX,
    NUMPY_SPARSE,
    POT_SLICED,
    SCIPY_LBFGS,
    SCIPY_POWER,
    SCIPY_SIGN,
    SVD_CLIP,
    SVD_PRESS,
)
from peers import (
    JAX_QDWH,
    JAX_SVD,
    MUON_BF16,
    MUON_FP32,
    NUMPY_CALLER,
    NUMPY_SVD,
    REFERENCE,
    SCIPY,
    Peer,
)

from orthokern._core.registry import Case, Declaration, load_all

Arrays = tuple[np.ndarray, ...]
# Kernels whose results are judged as factors, beside every peer by the same two figures.
FACTORS = frozenset({"polar", "orthogonalize", "newton_schulz"})

DTYPES = ("float64", "float32")
SIZES = (128, 256, 512, 1024)
SQUARE_TARGETS = {"float64": (1.3, 1.15, 1.15, 1.1), "float32": (1.3, 1.2, 1.3, 1.35)}
TALL_SIZES = (128, 256, 512)
TALL_TARGET = 2.5
LOOSE = 0.1
LOOSE_SIZES = (512, 1024)
LOOSE_TARGETS: dict[int, float] = {1024: 2.0}
# (matrices, n) -> ratio to the SVD.
STACKS = {(1000, 3): 6.0, (64, 32): 1.5}
# Smallest n from which callers of the library get the speed of NumPy callers to 10 %.
CALLERS = {"torch": (128, 256, 512), "jax": (256, 512)}
CALLER_TARGET = 1 / 1.1


class Rival(NamedTuple):
    """A peer in a task: the ratio aimed at, and whether orthokern must also be the more orthogonal."""

    peer: Peer
    target: float | None = None
    better: bool = False


@dataclass(frozen=True)
class Task:
    """One input, one call of orthokern, and the peers on the same input.

    Parameters
    ----------
    group
        Title of the table that it is a row of.
    name
        Unique; what ``--only`` matches.
    make
        The input arrays in float64 from a generator.
    dtype
        The precision it is rounded to.
    rivals
        The peers.
    kernel
        Name of the declaration that is called and that judges the result.
    options
        Keyword options of the call, ``compute_h`` aside: that follows the rival.
    library
        Whose arrays the caller of orthokern has.
    """

    group: str
    name: str
    make: Callable[[np.random.Generator], Arrays]
    dtype: str
    rivals: tuple[Rival, ...]
    kernel: str = "polar"
    options: Mapping[str, Any] = field(default_factory=dict)
    library: str = "numpy"

    def arrays(self, seed: int) -> Arrays:
        """The input for one seed."""
        return tuple(a.astype(self.dtype) for a in self.make(np.random.default_rng(seed)))

    @property
    def factors(self) -> bool:
        """Whether the result is a factor, with or without ``H``."""
        return self.kernel in FACTORS

    @property
    def family(self) -> str:
        """Name of the report."""
        return "polar" if self.factors else "functions"


def gaussian(*shape: int) -> Callable[[np.random.Generator], Arrays]:
    """Maker of standard normal input."""
    return lambda g: (g.standard_normal(shape),)


def _square(dtype: str) -> list[Task]:
    return [
        Task(
            f"Square, {dtype}, full accuracy",
            f"square {dtype} n={n}",
            gaussian(n, n),
            dtype,
            (Rival(SCIPY, target), Rival(NUMPY_SVD), Rival(JAX_QDWH), Rival(JAX_SVD)),
        )
        for n, target in zip(SIZES, SQUARE_TARGETS[dtype], strict=True)
    ]


def _tall(dtype: str) -> list[Task]:
    return [
        Task(
            f"Tall 8:1, {dtype}, full accuracy",
            f"tall {dtype} n={n}",
            gaussian(8 * n, n),
            dtype,
            (Rival(SCIPY, TALL_TARGET), Rival(NUMPY_SVD), Rival(JAX_QDWH)),
        )
        for n in TALL_SIZES
    ]


def _stacks(dtype: str) -> list[Task]:
    return [
        Task(
            f"Stacks, {dtype}, full accuracy",
            f"stack {dtype} {count}x{n}x{n}",
            gaussian(count, n, n),
            dtype,
            (Rival(NUMPY_SVD, target), Rival(SCIPY), Rival(JAX_SVD)),
        )
        for (count, n), target in STACKS.items()
    ]


def _loose() -> list[Task]:
    return [
        Task(
            f"Optimizer use: orthogonalize(tol={LOOSE}), float32",
            f"loose float32 n={n}",
            gaussian(n, n),
            "float32",
            (Rival(MUON_FP32, LOOSE_TARGETS.get(n), better=True), Rival(MUON_BF16)),
            kernel="orthogonalize",
            options={"tol": LOOSE},
        )
        for n in LOOSE_SIZES
    ]


def _callers(library: str, dtype: str) -> list[Task]:
    return [
        Task(
            f"Callers of other libraries, {dtype}",
            f"{library} caller {dtype} n={n}",
            gaussian(n, n),
            dtype,
            (Rival(NUMPY_CALLER, CALLER_TARGET),),
            library=library,
        )
        for n in CALLERS[library]
    ]


# Peers of the benchmark cases of each kernel in the registry.
REGISTRY_RIVALS: dict[str, tuple[Rival, ...]] = {
    "polar": (Rival(REFERENCE), Rival(SCIPY)),
    "spectral_clip": (Rival(SVD_CLIP, 1.5),),
    "soft_spectral_clip": (Rival(SVD_PRESS, 1.5),),
    "inverse_pth_root": (Rival(SCIPY_POWER, 4.0), Rival(NUMPY_EIGH)),
    "matrix_sign": (Rival(SCIPY_SIGN, 2.0),),
    "outlier_split": (Rival(NUMPY_QUANTILE, 1.0),),
    "cosh_rms_scale": (Rival(NUMPY_COSH, 1.2),),
    "project_simplex": (Rival(NUMPY_SIMPLEX),),
    "project_sparse_simplex": (Rival(NUMPY_SPARSE),),
    "ksupport_norm_squared": (Rival(NUMPY_NORM),),
    "prox_ksupport": (Rival(NUMPY_PROX),),
    "sliced_wasserstein": (Rival(POT_SLICED, 7.0), Rival(NUMPY_COLUMNS)),
    "functional_map": (Rival(SCIPY_LBFGS, 40.0),),
}


def _declared(declaration: Declaration, case: Case, dtype: str) -> Task:
    return Task(
        f"Benchmark cases of the registry, {dtype}",
        f"registry {declaration.name}/{case.name} {dtype}",
        case.arrays,
        dtype,
        REGISTRY_RIVALS[declaration.name],
        kernel=declaration.name,
        options={key: value for key, value in case.options.items() if key != "compute_h"},
    )


def registry_tasks() -> list[Task]:
    """A task for each benchmark case of the registry and each precision."""
    return [
        _declared(declaration, case, dtype)
        for dtype in DTYPES
        for declaration in load_all().values()
        for case in declaration.cases
        if case.bench
    ]


def all_tasks() -> list[Task]:
    """Every task, in the order of the report."""
    full = [task for make in (_square, _tall, _stacks) for dtype in DTYPES for task in make(dtype)]
    callers = [task for dtype in DTYPES for library in CALLERS for task in _callers(library, dtype)]
    return [*full, *_loose(), *callers, *registry_tasks()]


def chosen(patterns: list[str]) -> list[Task]:
    """The tasks whose name contains one of ``patterns``; all of them if there is none."""
    tasks = all_tasks()
    for pattern in patterns:
        if not any(pattern in task.name for task in tasks):
            message = f"no task is called {pattern!r}; there are: {', '.join(task.name for task in tasks)}"
            raise ValueError(message)
    return [
        task for task in tasks if not patterns or any(pattern in task.name for pattern in patterns)
    ]
