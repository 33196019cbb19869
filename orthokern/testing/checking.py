"""Run one declared case somewhere and judge the result against NumPy float64."""

from __future__ import annotations

import importlib
import time
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .._core.dispatch import explain, use_backend
from .._core.dtypes import EPS
from .._core.errors import BackendError, UnsupportedError
from .._core.registry import Case, Declaration, Residual
from . import libraries

REFERENCE = "array-api"


class Outcome(NamedTuple):
    """One row of ``validate``: a kernel on a case, on a library, a dtype and a backend.

    ``residuals`` and ``forward`` (distance to the reference) are in eps of the dtype; ``ran`` names what really
    ran, op by op; ``reason`` says why a row failed or was refused.
    """

    kernel: str
    case: str
    real: bool
    backend: str
    ran: dict[str, str]
    library: str
    device: str
    dtype: str
    residuals: dict[str, Residual]
    forward: Residual | None
    seconds: float | None
    speedup: float | None
    verdict: str
    reason: str

    @property
    def worst(self) -> tuple[str, Residual] | None:
        """The figure that comes nearest to its limit, or passes it farthest."""
        figures = dict(self.residuals)
        if self.forward is not None:
            figures["distance"] = self.forward
        return max(figures.items(), key=lambda item: _strain(item[1]), default=None)


def _strain(figure: Residual) -> float:
    if not figure.value <= figure.limit:
        return (
            float("inf")
            if np.isnan(figure.value) or figure.limit == 0
            else figure.value / figure.limit
        )
    return figure.value / figure.limit if figure.limit else 0.0


class Setting(NamedTuple):
    """Where a case runs, and which draw of its random input: 0 is the one that every validation looks at."""

    library: str = "numpy"
    dtype: str = "float64"
    backend: str | None = None
    device: str = "cpu"
    seed: int = 0


def example(
    declaration: Declaration, case: Case, dtype: str, seed: int = 0
) -> tuple[np.ndarray, ...]:
    """The input arrays of ``case`` rounded to ``dtype``; drawn by a seed made of the names and ``seed``."""
    named = zlib.crc32(f"{declaration.name}/{case.name}".encode())
    arrays = case.arrays(np.random.default_rng([named, seed] if seed else named))
    return tuple(np.asarray(a).astype(libraries.dtype_for(a, dtype)) for a in arrays)


def _wide(array: np.ndarray) -> np.ndarray:
    return array.astype(np.complex128 if np.iscomplexobj(array) else np.float64)


def _fields(result: Any) -> tuple[Any, ...]:
    """The arrays of a result: the fields of a NamedTuple but the diagnostics, or the one array."""
    if not isinstance(result, tuple):
        return (result,)
    names = getattr(result, "_fields", None)
    kept = result if names is None else [getattr(result, n) for n in names if n != "info"]
    return tuple(kept)


def _read(result: Any) -> Any:
    parts = tuple(libraries.to_numpy(part) for part in _fields(result))
    return parts if isinstance(result, tuple) else parts[0]


def _distance(
    declaration: Declaration, out: Any, reference: Any, limit: float, eps: float
) -> Residual:
    pairs = [(_fields(out)[i], _fields(reference)[i]) for i in declaration.outputs]
    worst = max((_relative(a, b) for a, b in pairs if b.size), default=0.0)
    return Residual(worst / eps, limit)


def _relative(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(np.ravel(a - b))) / max(float(np.linalg.norm(np.ravel(b))), 1e-300)


def _timed(call: Callable[[], Any], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        _wait(call())
        times.append(time.perf_counter() - start)
    return min(times)


def _wait(result: Any) -> None:
    for part in _fields(result):
        if hasattr(part, "block_until_ready"):
            part.block_until_ready()
        elif hasattr(part, "is_cuda") and part.is_cuda:
            importlib.import_module("torch").cuda.synchronize()


def check(declaration: Declaration, case: Case, setting: Setting, *, repeats: int = 0) -> Outcome:
    """Run ``case`` in ``setting`` and judge it; ``repeats > 0`` also times it against the reference body."""
    inputs = example(declaration, case, setting.dtype, setting.seed)
    given = tuple(
        libraries.to_library(a, setting.library, device=setting.device, layout=case.layout)
        for a in inputs
    )

    def call() -> Any:
        return declaration.function(*given, **case.options)

    row = Outcome(
        declaration.name,
        case.name,
        case.real,
        setting.backend or "auto",
        {},
        setting.library,
        setting.device,
        setting.dtype,
        {},
        None,
        None,
        None,
        "pass",
        "",
    )
    try:
        with use_backend(setting.backend), explain() as report:
            out = _read(call())
    except (BackendError, UnsupportedError) as refusal:
        return row._replace(verdict="refused", reason=str(refusal))
    except Exception as failure:  # noqa: BLE001 - whatever a backend raises is a failed row, not a crash
        return row._replace(verdict="fail", reason=f"{type(failure).__name__}: {failure}")
    row = row._replace(ran={decision.op: decision.backend for decision in report})
    try:
        row = _judged(row, declaration, case, inputs, out)
    except Exception as failure:  # noqa: BLE001 - a result that cannot even be judged is a failed row as well
        return row._replace(verdict="fail", reason=f"cannot be judged: {failure}")
    return _with_times(row, call, setting, repeats) if repeats else row


def _judged(
    row: Outcome, declaration: Declaration, case: Case, inputs: tuple[np.ndarray, ...], out: Any
) -> Outcome:
    eps = EPS[row.dtype]
    wide = tuple(_wide(a) for a in inputs)
    residuals = declaration.residuals(wide, out, case.options, eps)
    forward = None
    if case.forward is not None:
        with use_backend(REFERENCE):
            reference = _read(declaration.function(*wide, **case.options))
        forward = _distance(declaration, out, reference, case.forward, eps)
    row = row._replace(residuals=residuals, forward=forward)
    bad = [
        (n, r)
        for n, r in (*residuals.items(), ("distance", forward))
        if r and not r.value <= r.limit
    ]
    if not bad:
        return row
    reason = "; ".join(f"{name} {r.value:.3g} eps exceeds {r.limit:.3g} eps" for name, r in bad)
    return row._replace(verdict="fail", reason=reason)


def _with_times(row: Outcome, call: Callable[[], Any], setting: Setting, repeats: int) -> Outcome:
    with use_backend(setting.backend):
        seconds = _timed(call, repeats)
    if setting.backend == REFERENCE or not set(row.ran.values()) - {REFERENCE}:
        return row._replace(seconds=seconds)
    with use_backend(REFERENCE):
        body = _timed(call, repeats)
    return row._replace(seconds=seconds, speedup=body / seconds)
