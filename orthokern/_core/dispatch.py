"""Ops and kernels: which implementation of a hot loop runs, and the record of it.

An op's body is array-API code and is the reference. A backend may replace it for concrete arrays that it
accepts; abstract arrays (jit, vmap, torch.compile) always run the body.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, ParamSpec, TypeVar

import numpy as np

from . import autodiff, views
from .backends import ARRAY_API, Entry, conclusions, load, priority
from .dtypes import dtype_name
from .errors import BackendError
from .namespace import compiling, device_kind, is_array, is_traced, is_viewable, library

P = ParamSpec("P")
R = TypeVar("R")

OPS: dict[str, Op] = {}


class Decision(NamedTuple):
    """One op call: what ran, on what, and why each other backend did not."""

    op: str
    backend: str
    library: str
    device: str
    dtype: str
    shape: tuple[int, ...]
    refused: dict[str, str]

    def __str__(self) -> str:
        arrays = f"{self.library}/{self.device}/{self.dtype}/{self.shape}"
        reasons = "; ".join(f"{name}: {why}" for name, why in self.refused.items())
        return f"{self.op} | {self.backend} | {arrays}" + (f" | {reasons}" if reasons else "")


class Report(list[Decision]):
    """The decisions taken inside one ``explain()`` block; print it, or iterate over it."""

    def __str__(self) -> str:
        if not self:
            return "no op ran (a cached jit call or torch.compile records nothing)"
        return "op | backend | library/device/dtype/shape | why others did not run\n" + "\n".join(
            map(str, self)
        )


class _Context(NamedTuple):
    """``caller`` is the library whose arrays a kernel sees as NumPy views."""

    choice: str | None
    report: Report | None
    caller: str | None = None


_context: ContextVar[_Context] = ContextVar("orthokern", default=_Context(None, None))


@contextmanager
def _entered(context: _Context) -> Iterator[None]:
    token = _context.set(context)
    try:
        yield
    finally:
        _context.reset(token)


@contextmanager
def use_backend(name: str | None) -> Iterator[None]:
    """Run every op inside the block on the backend ``name``; "array-api" forces the reference bodies.

    An op that the backend implements but refuses raises BackendError; one that it lacks runs the body.
    """
    if name not in (None, ARRAY_API):
        load(str(name))
    with _entered(_context.get()._replace(choice=name)):
        yield


@contextmanager
def explain() -> Iterator[Report]:
    """Record which implementation each op ran on inside the block.

    Traced JAX calls are recorded when they are traced; torch.compile records nothing.

    Examples
    --------
    >>> import numpy as np, orthokern
    >>> with orthokern.explain() as report:
    ...     u, h, *_ = orthokern.polar(np.eye(3), backend="array-api")
    >>> report[-1].op, report[-1].backend
    ('hermitian_factor', 'array-api')
    """
    report = Report()
    with _entered(_context.get()._replace(report=report)):
        yield report


def current_choice() -> str | None:
    """The backend that the surrounding code named, or None."""
    return _context.get().choice


class _Candidate(NamedTuple):
    name: str
    entry: Entry
    bridged: bool


class _Route(NamedTuple):
    """Backends that may serve one kind of array, in order, and why the others cannot.

    ``over_device`` says that some of them see arrays of another library on a CUDA device.
    """

    candidates: tuple[_Candidate, ...]
    refused: dict[str, str]
    over_device: bool = False


def _static_refusal(
    name: str, op: str, kind: tuple[str, str], *, viewable: bool, named: bool
) -> str | _Candidate:
    """What can be said of a backend before the arguments are seen."""
    try:
        backend = load(name)
    except BackendError as failure:
        return str(failure)
    entry = backend.entries.get(op)
    if entry is None:
        return "does not implement this op"
    native = kind in backend.serves
    bridged = viewable and (views.HOME.get(kind[1]), kind[1]) in backend.serves
    # To find out whether a device is there may load a framework: not for arrays that are on none.
    reason = backend.available() if native or bridged or named else None
    if reason is not None:
        return reason
    if native or bridged:
        return _Candidate(name, entry, bridged=not native)
    return f"does not accept {kind[0]} arrays on {kind[1]}"


_routes: dict[tuple[Any, ...], _Route] = conclusions()


class Op:
    """A whole factorization or sweep: a pure function of arrays (positional) and static options (keyword).

    The body of a ``fused`` op is a call of other ops, for which a backend may have one shorter way. Where none
    takes it, its body runs, and what the ops in there run on is their own affair.
    """

    def __init__(
        self,
        body: Callable[..., Any],
        jvp: Callable[..., Any] | None = None,
        *,
        converges: Callable[..., bool] | None = None,
        fused: bool = False,
    ) -> None:
        functools.update_wrapper(self, body)
        self.name = body.__name__
        self.body = body
        self.jvp = jvp
        self.converges = converges
        self.fused = fused
        OPS[self.name] = self

    def __repr__(self) -> str:
        return f"Op({self.name!r})"

    def rule(self, static: dict[str, Any]) -> Callable[..., Any] | None:
        """The tangent rule for these options; None where the body is to be differentiated step by step."""
        if self.converges is not None and not self.converges(**static):
            return None
        return self.jvp

    def __call__(self, *arrays: Any, **static: Any) -> Any:
        """Run on the backend in force, through the op's derivative rule where a derivative is asked for."""
        if library(arrays[0]) == "numpy":
            return self.run(arrays, static)
        return autodiff.call(self, arrays, static)

    def run(self, arrays: tuple[Any, ...], static: dict[str, Any]) -> Any:
        """Choose an implementation and run it; derivatives are the caller's business."""
        context = _context.get()
        lead = arrays[0]
        if any(map(is_traced, arrays)):
            return self.run_body(
                arrays, static, "abstract arrays (jit, vmap, an autodiff transform)"
            )
        route = self._known_route(context.choice, lead)
        if not route.candidates and context.report is None:
            return self.body(*arrays, **static)
        if route.over_device:
            with views.current(lead):
                return self._execute(route, context, arrays, static)
        return self._execute(route, context, arrays, static)

    def is_served(self, lead: Any) -> bool:
        """Whether a backend may take concrete arrays like ``lead``, as far as can be told without their values."""
        return not is_traced(lead) and bool(
            self._known_route(_context.get().choice, lead).candidates
        )

    def _known_route(self, choice: str | None, lead: Any) -> _Route:
        key = (self, choice, type(lead), _place(lead))
        route = _routes.get(key)
        if route is None:
            route = _routes[key] = self._route(choice, lead)
        return route

    def _execute(
        self, route: _Route, context: _Context, arrays: tuple[Any, ...], static: dict[str, Any]
    ) -> Any:
        refused: dict[str, str] = {}
        for name, entry, bridged in route.candidates:
            seen = views.at_home(arrays) if bridged else arrays
            reason = entry.when(*seen, **static) if entry.when is not None else None
            if reason is None:
                self._record(context, name, arrays, route.refused | refused)
                result = entry.implementation(*views.owned(seen), **static)
                return views.returned(result, arrays[0]) if bridged else result
            refused[name] = reason
        if context.choice in refused and not self.fused:
            self._fail(context.choice, refused[str(context.choice)])
        if not self.fused:
            self._record(context, ARRAY_API, arrays, route.refused | refused)
        return self.body(*arrays, **static)

    def run_body(self, arrays: tuple[Any, ...], static: dict[str, Any], reason: str) -> Any:
        """Run the reference because of ``reason``; an explicitly named backend refuses instead."""
        if self.fused:
            return self.body(*arrays, **static)
        context = _context.get()
        choice = context.choice
        if choice not in (None, ARRAY_API) and self.name in load(str(choice)).entries:
            self._fail(choice, reason)
        if context.report is not None:
            name = f"{ARRAY_API} (traced)" if any(map(is_traced, arrays)) else ARRAY_API
            self._record(context, name, arrays, dict.fromkeys(priority(), reason))
        return self.body(*arrays, **static)

    def _fail(self, choice: str | None, reason: str) -> None:
        message = f"backend {choice!r} refused {self.name}: {reason}; pass backend=None to let another one run it"
        raise BackendError(message)

    def _route(self, choice: str | None, lead: Any) -> _Route:
        if choice == ARRAY_API:
            return _Route((), {})
        kind = (library(lead), device_kind(lead))
        place = {"viewable": is_viewable(lead), "named": choice is not None}
        answers = {
            name: _static_refusal(name, self.name, kind, **place)
            for name in (priority() if choice is None else (choice,))
        }
        candidates = tuple(a for a in answers.values() if isinstance(a, _Candidate))
        refused = {name: a for name, a in answers.items() if isinstance(a, str)}
        named = choice is not None and self.name in load(choice).entries
        if named and not candidates and not self.fused:
            self._fail(choice, refused[str(choice)])
        over_device = kind[1] == "cuda" and any(c.bridged for c in candidates)
        return _Route(candidates, refused, over_device)

    def _record(
        self, context: _Context, name: str, arrays: tuple[Any, ...], refused: dict[str, str]
    ) -> None:
        if context.report is None:
            return
        lead = arrays[0]
        where = (
            context.caller or library(lead),
            device_kind(lead),
            dtype_name(lead),
            tuple(lead.shape),
        )
        context.report.append(Decision(self.name, name, *where, refused))


def op(
    *,
    jvp: Callable[..., Any] | None = None,
    converges: Callable[..., bool] | None = None,
    fused: bool = False,
) -> Callable[[Callable[..., Any]], Op]:
    """Declare the decorated array-API function as an op.

    ``jvp(arrays, tangents, out, **static)`` returns the tangent of the result, linear in the tangents and
    written in array-API code; every autodiff engine derives the rest from it. It is the derivative of a limit:
    where ``converges(**static)`` is False the steps of the body are differentiated instead. A ``fused`` op needs no
    rule: its body calls other ops.
    """
    return lambda body: Op(body, jvp, converges=converges, fused=fused)


def kernel(*, ops: tuple[str, ...] = ()) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Mark a public kernel: its ``backend=`` keyword holds for every op and kernel that it calls.

    ``ops`` names the ops that it runs on its first argument. Where one backend for NumPy arrays has them all, a
    concrete array of another library in host memory is viewed once, for the whole kernel, and not at each op.
    """

    def mark(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def public(*args: P.args, **kwargs: P.kwargs) -> R:
            choice = kwargs.get("backend")
            if compiling():
                _refuse_compiled(choice)
                return function(*args, **kwargs)
            if choice is None:
                return _call(function, ops, args, kwargs)
            with use_backend(str(choice)):
                return autodiff.uncompiled(_call)(function, ops, args, kwargs)  # type: ignore[no-any-return]

        return public

    return mark


def _call(
    function: Callable[..., R], ops: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> R:
    x = args[0] if args else None
    if type(x) is np.ndarray or not is_array(x):
        return function(*args, **kwargs)
    with autodiff.full_precision(x):
        alone = ops and _no_arrays((*args[1:], *kwargs.values()))
        if not alone or not autodiff.is_plain(x) or not _runs_at_home(ops, x):
            return function(*args, **kwargs)
        with _entered(_context.get()._replace(caller=library(x))):
            result = function(views.host_view(x), *args[1:], **kwargs)
    return views.returned(result, x)  # type: ignore[no-any-return]


def _no_arrays(options: tuple[Any, ...]) -> bool:
    return all(value is None or isinstance(value, _PLAIN_OPTIONS) for value in options)


_PLAIN_OPTIONS = (str, bool, int, float, tuple, list)
_homes: dict[tuple[Any, ...], bool] = conclusions()


def _place(x: Any) -> Any:
    """What tells the device of ``x`` from others in a dictionary: CuPy's objects for it cannot be hashed."""
    place = getattr(x, "device", None)
    return place if type(place).__hash__ is not None else str(place)


def _runs_at_home(ops: tuple[str, ...], x: Any) -> bool:
    """Whether the first backend that can serve ``x`` has all ``ops`` and is written for NumPy arrays."""
    choice = current_choice()
    key = (choice, ops, type(x), _place(x))
    if key not in _homes:
        _homes[key] = _finds_home(choice, ops, library(x), x)
    return _homes[key]


def _finds_home(choice: str | None, ops: tuple[str, ...], name: str, x: Any) -> bool:
    if choice == ARRAY_API or name == "numpy" or device_kind(x) != "cpu" or not is_viewable(x):
        return False
    for candidate in priority() if choice is None else (choice,):
        place = {"viewable": True, "named": choice is not None}
        answers = [_static_refusal(candidate, op, (name, "cpu"), **place) for op in ops]
        if any(isinstance(answer, _Candidate) for answer in answers):
            return all(isinstance(answer, _Candidate) and answer.bridged for answer in answers)
    return False


def _refuse_compiled(choice: Any) -> None:
    if choice not in (None, ARRAY_API):
        message = (
            f"backend {choice!r} cannot run inside torch.compile, which traces the array-API body; "
            "drop backend= there, or call the kernel outside the compiled function"
        )
        raise BackendError(message)
