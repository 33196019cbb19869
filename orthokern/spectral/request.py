"""What the options of a polar factorization ask for: checked, and turned into a static schedule. Host side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from .._core import check
from .._core.dtypes import EPS
from .._core.errors import OptionError
from .._core.host import static
from .coefficients import (
    Polynomial,
    evaluate,
    polar_express_coefficients,
    polynomials,
    preset_or_sequence,
)
from .factor import POWER_MARGIN, UNFINISHED
from .plan import Schedule, Step, StepKind, plan_polar

METHODS = ("auto", "svd", "newton", "dwh", "newton_schulz", "polar_express", "gram")
COMPLETIONS = ("unitary", "partial")
POLYNOMIAL = frozenset({"newton_schulz", "polar_express", "gram"})
# Smallest relative singular value that a plan of limited accuracy takes care of unless told otherwise.
DEFAULT_LOWER_BOUND = 1e-3
MOST_STEPS = 100
# Steps of the plans that any library runs without an inverse, and of the methods that have one kind of step.
TRACEABLE = (StepKind.HALLEY, StepKind.CUBIC, StepKind.QUINTIC)
KINDS = {
    "newton": StepKind.NEWTON,
    "dwh": StepKind.HALLEY,
    "polar_express": StepKind.QUINTIC,
    "gram": StepKind.QUINTIC,
}

Coefficients = str | Sequence[Sequence[float]]


class Request(NamedTuple):
    """The checked options of one call."""

    kernel: str
    method: str
    tol: float | None = None
    lower_bound: float | None = None
    steps: int | None = None
    coefficients: tuple[Polynomial, ...] | None = None
    completion: str = "partial"
    rcond: float | None = None
    normalization: str | None = None

    @property
    def exact(self) -> bool:
        """Whether the caller fixed the steps, which then run as they are and promise no accuracy."""
        return self.steps is not None or self.coefficients is not None


def requested(
    name: str,
    *,
    method: str,
    tol: float | None,
    lower_bound: float | None,
    steps: int | None,
    coefficients: Coefficients | None,
    completion: str,
    rcond: float | None,
) -> Request:
    """The options of the kernel ``name``, or the refusal of one of them."""
    check.choice(method, METHODS, kernel=name, name="method")
    check.choice(completion, COMPLETIONS, kernel=name, name="completion")
    tol = None if tol is None else check.interval(tol, kernel=name, name="tol")
    rcond = None if rcond is None else check.interval(rcond, kernel=name, name="rcond")
    if lower_bound is not None:
        lower_bound = check.interval(
            lower_bound, kernel=name, name="lower_bound", high=1, closed=True
        )
    steps = None if steps is None else check.count(steps, kernel=name, name="steps")
    entries = None if coefficients is None else polynomials(coefficients, kernel=name)
    if steps is not None or entries is not None:
        method = "newton_schulz" if method == "auto" else method
        _refuse_unused(name, method, tol, with_coefficients=entries is not None)
    return Request(name, method, tol, lower_bound, steps, entries, completion, rcond)


def _refuse_unused(name: str, method: str, tol: float | None, *, with_coefficients: bool) -> None:
    allowed = POLYNOMIAL - {"polar_express"} if with_coefficients else POLYNOMIAL
    if method not in allowed:
        given = "coefficients" if with_coefficients else "steps"
        message = f"{name}: expected no {given} with method={method!r}; they belong to {', '.join(sorted(allowed))}"
        raise OptionError(message)
    if tol is not None:
        message = f"{name}: expected either tol or steps/coefficients, got both; tol chooses the steps itself"
        raise OptionError(message)


# Looked up, since Dynamo of some versions cannot make a member of an enumeration from its value.
_KINDS = {kind.value: kind for kind in StepKind}


def schedule_for(request: Request, dtype: str, *, measures: bool) -> Schedule | None:
    """The static schedule that the options select, or None for a factorization to full accuracy.

    ``dtype`` is the name of the one that is computed in; ``measures`` tells whether "auto" factorizes by measuring.
    """
    plain = _plain_schedule(tuple(request), dtype, measures)
    if plain is None:
        return None
    normalization, steps, *rest = plain
    return Schedule(normalization, tuple(Step(_KINDS[k], c) for k, c in steps), *rest)


@static
def _plain_schedule(options: tuple[Any, ...], dtype: str, measures: bool) -> tuple[Any, ...] | None:
    """``schedule_for`` in tuples of plain values, the only ones that torch.compile takes for constants."""
    schedule = _schedule(Request(*options), EPS[dtype], measures)
    if schedule is None:
        return None
    steps = tuple((int(kind), coefficients) for kind, coefficients in schedule.steps)
    return (schedule.normalization, steps, *schedule[2:])


def _schedule(request: Request, eps: float, measures: bool) -> Schedule | None:
    tol = eps / 2 if request.tol is None else request.tol
    finished = tol < UNFINISHED
    unbounded = request.lower_bound is None
    if request.method == "svd" or (
        request.method == "auto" and finished and unbounded and measures
    ):
        return None
    lower = request.lower_bound or (2 * eps if finished else DEFAULT_LOWER_BOUND)
    usual = "frobenius" if request.method == "newton_schulz" and request.exact else "spectral"
    # The norm that is divided by may exceed the true one by its margin.
    steps = _steps(request, lower if request.exact else lower / POWER_MARGIN, tol)
    return Schedule(
        request.normalization or usual,
        steps,
        tuple(range(2, len(steps), 2)) if request.method == "gram" else None,
        0.0 if request.exact else tol,
        request.completion,
        any_route=request.method == "auto",
    )


def _steps(request: Request, lower: float, tol: float) -> tuple[Step, ...]:
    if request.exact or request.method == "newton_schulz":
        return _polynomial_steps(_polynomials(request, lower, tol))
    if request.method == "auto":
        return plan_polar(lower, tol, allowed=TRACEABLE)
    return plan_polar(lower, tol, allowed=(KINDS[request.method],), c_max=float("inf"))


def _polynomial_steps(sequence: Sequence[Polynomial]) -> tuple[Step, ...]:
    kinds = {2: StepKind.CUBIC, 3: StepKind.QUINTIC}
    return tuple(Step(kinds.get(len(c), StepKind.QUINTIC), c) for c in sequence)


def _polynomials(request: Request, lower: float, tol: float) -> tuple[Polynomial, ...]:
    """As many as were asked for, or as many as bring [lower, 1] within ``tol`` of 1."""
    classic = request.method == "newton_schulz"
    if request.coefficients is not None or (classic and request.steps is not None):
        return preset_or_sequence(request.coefficients or "classic", request.steps)
    if request.steps is not None:
        return polar_express_coefficients(lower, request.steps)
    (classic_step,) = preset_or_sequence("classic")
    count = 0
    while 1 - lower > tol and count < MOST_STEPS:
        lower, count = evaluate(classic_step, lower), count + 1
    return (classic_step,) * count
