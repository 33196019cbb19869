"""``orthokern validate``: every kernel, case, backend, library and dtype that this machine can run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .._core.backends import ARRAY_API, absence, installed, load
from .._core.registry import Case, Declaration, load_all
from . import libraries
from .checking import Outcome, Setting, check


class Selection(NamedTuple):
    """What to run; empty means everything available."""

    kernels: Sequence[str] = ()
    backends: Sequence[str] = ()
    libraries: Sequence[str] = ()
    dtypes: Sequence[str] = ()
    device: str = "cpu"
    quick: bool = False
    seed: int = 0


class Job(NamedTuple):
    """One row to be: a case and where it runs."""

    declaration: Declaration
    case: Case
    setting: Setting


def available_backends(device: str = "cpu") -> tuple[str, ...]:
    """The reference and every installed backend that can run on ``device`` here."""
    return (ARRAY_API, *(name for name in installed() if _absence(name, device) is None))


def _absence(name: str, device: str) -> str | None:
    """Why an installed backend takes no part in a validation on ``device``."""
    reason = absence(name)
    if reason is not None or any(kind == device.partition(":")[0] for _, kind in load(name).serves):
        return reason
    return f"it serves no arrays on {device}"


def not_run(device: str = "cpu") -> list[str]:
    """Why array libraries and backends that orthokern knows take no part in a validation here."""
    reasons = [libraries.missing(name, device) for name in libraries.MODULES]
    absent = {name: _absence(name, device) for name in installed()}
    return [r for r in reasons if r] + [f"backend {n}: {r}" for n, r in absent.items() if r]


def _chosen(asked: Sequence[str], known: Sequence[str], what: str) -> tuple[str, ...]:
    for name in asked:
        if name not in known:
            message = f"expected {what} to be one of {', '.join(known)}, got {name!r}"
            raise ValueError(message)
    return tuple(asked) or tuple(known)


def _chosen_backends(asked: Sequence[str], device: str) -> tuple[str, ...]:
    for name in asked:
        reason = _absence(name, device) if name in installed() else None
        if reason is not None:
            message = f"expected a backend that can run here, got {name!r}: {reason}"
            raise ValueError(message)
    return _chosen(asked, available_backends(device), "backend")


def _chosen_libraries(asked: Sequence[str], device: str) -> tuple[str, ...]:
    found = libraries.available(device)
    if not found:
        message = f"expected a device that an array library has here, got {device!r}"
        raise ValueError(message)
    for name in asked:
        reason = libraries.missing(name, device)
        if reason is not None:
            message = f"expected an array library that can be used here, got {name!r}: {reason}"
            raise ValueError(message)
    return tuple(asked) or found


def jobs(selection: Selection) -> list[Job]:
    """The rows of a validation, in the order they run."""
    declarations = load_all()
    kernels = _chosen(selection.kernels, tuple(declarations), "kernel")
    backends = _chosen_backends(selection.backends, selection.device)
    names = _chosen_libraries(selection.libraries, selection.device)
    _chosen(selection.dtypes, ("float64", "float32"), "dtype")
    return [
        Job(
            declarations[kernel],
            case,
            Setting(library, dtype, backend, selection.device, selection.seed),
        )
        for kernel in kernels
        for case in declarations[kernel].cases
        for library in names
        for dtype in libraries.dtypes_of(library)
        for backend in backends
        if wanted(selection, declarations[kernel], case, library, dtype, backend)
    ]


def wanted(
    selection: Selection,
    declaration: Declaration,
    case: Case,
    library: str,
    dtype: str,
    backend: str,
) -> bool:
    """Whether a selection has this row: backends serve arrays in memory, layouts exist where memory has strides."""
    if selection.dtypes and dtype not in selection.dtypes:
        return False
    if selection.quick and not (library == "numpy" and case.layout == "contiguous"):
        return False
    if library in ("dask", "array_api_strict") and backend != ARRAY_API:
        return False
    strided = library in ("numpy", "torch")
    return case.layout == "contiguous" or strided


def validate(selection: Selection = Selection(), *, repeats: int = 3) -> Iterator[Outcome]:
    """Run every job of ``selection``, yielding the rows as they are done.

    Examples
    --------
    >>> from orthokern.testing import Selection, validate
    >>> rows = list(validate(Selection(kernels=["hermitian_factor"], backends=["array-api"], libraries=["numpy"])))
    >>> {row.verdict for row in rows}
    {'pass'}
    """
    for job in jobs(selection):
        yield run(job, repeats=repeats)


def run(job: Job, *, repeats: int) -> Outcome:
    """One row; the timings take the least of ``repeats`` runs."""
    return check(job.declaration, job.case, job.setting, repeats=repeats)
