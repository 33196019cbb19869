"""One declaration per kernel: it drives tests, conformance, ``validate``, benchmarks and the tables of the docs."""

from __future__ import annotations

import functools
import importlib
import importlib.resources
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

FAMILIES = ("spectral", "sketching", "inverse", "transport")
LAYOUTS = ("contiguous", "transposed", "strided", "reversed", "read-only")


class Residual(NamedTuple):
    """One figure of merit of a result and the limit it must keep, both in units of eps(dtype)."""

    value: float
    limit: float


@dataclass(frozen=True)
class Case:
    """An example input of a kernel.

    Parameters
    ----------
    name
        Unique among the cases of the kernel; the random seed derives from it.
    arrays
        Makes the input arrays in float64 or complex128 (or integers, which stay as they are) from a generator.
    options
        Keyword options of the call.
    forward
        Limit, in eps, of the relative distance to the reference; None where the problem is too ill-conditioned
        for the distance to mean anything.
    layout
        How the arrays lie in memory (one of LAYOUTS), for libraries that have memory layouts.
    real
        Whether the data was measured in the world and not drawn by a generator.
    bench
        Whether benchmarks time this case.
    """

    name: str
    arrays: Callable[[np.random.Generator], tuple[np.ndarray, ...]]
    options: Mapping[str, Any] = field(default_factory=dict)
    forward: float | None = None
    layout: str = "contiguous"
    real: bool = False
    bench: bool = False


Residuals = Callable[[tuple[np.ndarray, ...], Any, Mapping[str, Any], float], dict[str, Residual]]


@dataclass(frozen=True)
class Declaration:
    """A kernel or op, its examples, and how a result is judged.

    ``residuals(arrays, result, options, eps)`` receives NumPy float64/complex128 copies and returns the figures;
    ``flops(arrays, options)`` counts the operations of the reference algorithm. ``outputs`` names the fields of
    the result whose distance to the reference is meaningful.
    """

    name: str
    function: Callable[..., Any]
    cases: tuple[Case, ...]
    residuals: Residuals
    flops: Callable[[tuple[np.ndarray, ...], Mapping[str, Any]], float]
    outputs: tuple[int, ...]


DECLARATIONS: dict[str, Declaration] = {}


def declare(
    function: Callable[..., Any],
    *,
    cases: list[Case],
    residuals: Residuals,
    flops: Callable[[tuple[np.ndarray, ...], Mapping[str, Any]], float],
    outputs: tuple[int, ...] = (0,),
) -> None:
    """Register a kernel or an op together with its examples; names of cases must be unique."""
    name = str(getattr(function, "__name__", function))
    names = [case.name for case in cases]
    if len(set(names)) != len(names) or name in DECLARATIONS:
        message = (
            f"{name}: a kernel is declared once, with cases of distinct names; got {sorted(names)}"
        )
        raise ValueError(message)
    DECLARATIONS[name] = Declaration(name, function, tuple(cases), residuals, flops, outputs)


def load_all() -> dict[str, Declaration]:
    """Every declaration of the core and of every family, by name."""
    for package in ("_core", *FAMILIES):
        importlib.import_module(f"orthokern.{package}.cases")
    return DECLARATIONS


@functools.cache
def real_data(name: str) -> Mapping[str, np.ndarray]:
    """The arrays of one shipped data set (see orthokern/testing/data/README.md)."""
    file = importlib.resources.files("orthokern").joinpath("testing", "data", f"{name}.npz")
    with np.load(io.BytesIO(file.read_bytes())) as archive:
        return {key: archive[key] for key in archive.files}
