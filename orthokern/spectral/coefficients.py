"""Coefficients of the polynomial steps: minimax odd polynomials, Polar Express sequences, named presets.

A polynomial is the tuple of its odd coefficients: ``(a, b, c)`` is ``a x + b x^3 + c x^5``. Host side, plain
Python floats: the results are static and may be used under any tracer.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

from .._core.errors import OptionError

Polynomial = tuple[float, ...]

# Taylor coefficients at 1: what a minimax polynomial becomes on a vanishing interval.
TAYLOR: dict[int, Polynomial] = {
    3: (1.5, -0.5),
    5: (15 / 8, -10 / 8, 3 / 8),
    7: (35 / 16, -35 / 16, 21 / 16, -5 / 16),
}
PRESETS: dict[str, tuple[Polynomial, ...]] = {
    "jordan": ((3.4445, -4.7750, 2.0315),) * 5,
    "you": (
        (4.0848, -6.8946, 2.9270),
        (3.9505, -6.3029, 2.6377),
        (3.7418, -5.5913, 2.3037),
        (2.8769, -3.1427, 1.2046),
        (2.8366, -3.0525, 1.2012),
    ),
    "classic": (TAYLOR[5],),
    # For columns scaled one by one (normalization "aol"), whose largest singular value is at most 1.
    "aol4": (
        (4.6051, -9.6552, 5.6769),
        (4.7505, -6.0861, 2.1790),
        (2.7763, -2.3190, 0.5523),
        (2.4231, -2.2861, 0.8193),
    ),
}
# Below this gap between the interval's ends the linear system of the exchange is singular.
_NARROW = 5e-6
_MOST_EXCHANGES = 100
# Relative position below which Polar Express does not follow the smallest singular values (its authors' choice).
CUSHION = 0.02407327424182761


def evaluate(polynomial: Polynomial, x: float) -> float:
    """Value of the odd polynomial at ``x``."""
    square = x * x
    total = 0.0
    for coefficient in reversed(polynomial):
        total = total * square + coefficient
    return total * x


def _solve(rows: list[list[float]]) -> list[float]:
    """Solution of a small linear system given as an augmented matrix, by elimination with pivoting."""
    size = len(rows)
    for k in range(size):
        pivot = max(range(k, size), key=lambda i: abs(rows[i][k]))
        rows[k], rows[pivot] = rows[pivot], rows[k]
        for i in range(k + 1, size):
            factor = rows[i][k] / rows[k][k]
            rows[i] = [a - factor * b for a, b in zip(rows[i], rows[k], strict=True)]
    solution = [0.0] * size
    for k in reversed(range(size)):
        known = sum(rows[k][j] * solution[j] for j in range(k + 1, size))
        solution[k] = (rows[k][size] - known) / rows[k][k]
    return solution


def _equioscillating(points: Sequence[float], terms: int) -> tuple[Polynomial, float]:
    """The odd polynomial with errors +E, -E, +E, ... from 1 at ``points``, and E."""
    rows = [
        [x ** (2 * i + 1) for i in range(terms)] + [(-1.0) ** k, 1.0] for k, x in enumerate(points)
    ]
    *polynomial, error = _solve(rows)
    return tuple(polynomial), error


def _extrema(polynomial: Polynomial, low: float, high: float) -> list[float]:
    """Positive stationary points, in increasing order."""
    slopes = [(2 * i + 1) * c for i, c in enumerate(polynomial)]
    if len(slopes) == 3:
        a, b, c = slopes
        root = math.sqrt(max(b * b - 4 * a * c, 0.0))
        squares = sorted([(-b - root) / (2 * c), (-b + root) / (2 * c)])
    else:
        squares = sorted(_cubic_roots(slopes, low * low, high * high))
    return [math.sqrt(max(square, 0.0)) for square in squares]


def _cubic_roots(slopes: Sequence[float], low: float, high: float) -> list[float]:
    """The three real roots of a cubic, by the trigonometric formula."""
    d, c, b, a = slopes
    shift = -b / (3 * a)
    p = (3 * a * c - b * b) / (3 * a * a)
    q = (2 * b**3 - 9 * a * b * c + 27 * a * a * d) / (27 * a**3)
    radius = 2 * math.sqrt(max(-p / 3, 0.0))
    ratio = 3 * q / (p * radius) if radius else 0.0
    angle = math.acos(min(1.0, max(-1.0, ratio))) / 3
    return [shift + radius * math.cos(angle - 2 * math.pi * k / 3) for k in range(3)]


@functools.lru_cache(maxsize=4096)
def minimax_polynomial(low: float, high: float, degree: int = 5) -> Polynomial:
    """The odd polynomial of ``degree`` (3, 5 or 7) nearest to 1 on [low, high] in the maximum norm.

    Remez exchange with explicit extrema (degree 3 in closed form).

    Examples
    --------
    >>> from orthokern.spectral.coefficients import minimax_polynomial
    >>> a, b = minimax_polynomial(0.1, 1.0, 3)
    >>> round(a, 12), round(b, 12)
    (3.963405079351, -3.570635206623)
    """
    if not 0 < low <= high or degree not in TAYLOR:
        message = f"expected 0 < low <= high and degree 3, 5 or 7, got low={low!r}, high={high!r}, degree={degree!r}"
        raise ValueError(message)
    if low / high >= 1 - _NARROW:
        return tuple(c / high ** (2 * i + 1) for i, c in enumerate(TAYLOR[degree]))
    if degree == 3:
        return _minimax_cubic(low, high)
    terms = (degree + 1) // 2
    inner = [low + (high - low) * k / terms for k in range(1, terms)]
    # Degree 5 starts as its authors do, which reproduces their published digits.
    if degree == 5:
        inner = [(3 * low + high) / 4, (low + 3 * high) / 4]
    polynomial, error = _equioscillating([low, *inner, high], terms)
    for _ in range(_MOST_EXCHANGES):
        previous, inner = error, _extrema(polynomial, low, high)
        polynomial, error = _equioscillating([low, *inner, high], terms)
        if abs(error - previous) <= 1e-15:
            break
    return polynomial


def _minimax_cubic(low: float, high: float) -> Polynomial:
    alpha = math.sqrt(3 / (high * high + low * high + low * low))
    beta = 4 / (2 + low * high * (low + high) * alpha**3)
    return 1.5 * beta * alpha, -0.5 * beta * alpha**3


def polar_express_coefficients(
    lower: float, steps: int, *, degree: int = 5, safety: float = 0.01, cushion: float = CUSHION
) -> tuple[Polynomial, ...]:
    """The composition of ``steps`` polynomials that is nearest to 1 on [lower, 1], greedily.

    Parameters
    ----------
    lower : float
        Smallest singular value to take care of, relative to the largest; 0 < lower <= 1.
    steps : int
        Number of polynomials.
    degree : {3, 5, 7}
        Degree of each.
    safety : float
        All but the last are flattened by 1 + safety, against rounding in low precision; 0 for float32 and float64.
    cushion : float
        Values below ``cushion`` times the upper end are raised as if they stood there, which keeps rounding of
        the large ones in bounds.

    Returns
    -------
    tuple of tuples
        Coefficients (a, b, c), first step first.

    References
    ----------
    N. Amsel, D. Persson, C. Musco, R. Gower, "The Polar Express", arXiv:2505.16932.

    Examples
    --------
    >>> from orthokern.spectral import polar_express_coefficients
    >>> [round(c, 6) for c in polar_express_coefficients(1e-3, 2, safety=0.0)[1]]
    [4.107059, -2.94785, 0.544843]
    """
    _check_sequence(lower, steps, safety, cushion)
    low, high, found = float(lower), 1.0, []
    for step in range(steps):
        cut = max(low, cushion * high)
        polynomial = minimax_polynomial(cut, high, degree)
        if cut > low:
            # The largest value is as far above 1 as that at the cut is below.
            largest = 2 - evaluate(polynomial, cut)
            centre = 2 / (evaluate(polynomial, low) + largest)
            polynomial = tuple(c * centre for c in polynomial)
        if step < steps - 1:
            polynomial = tuple(c / (1 + safety) ** (2 * i + 1) for i, c in enumerate(polynomial))
        found.append(polynomial)
        # Rounding may carry a converged value past 1.
        low = min(evaluate(polynomial, low), 1.0)
        high = 2 - low
    return tuple(found)


def _check_sequence(lower: float, steps: int, safety: float, cushion: float) -> None:
    if not 0 < lower <= 1 or steps < 1 or safety < 0 or not 0 <= cushion < 1:
        message = (
            "expected 0 < lower <= 1, steps >= 1, safety >= 0 and 0 <= cushion < 1, got "
            f"lower={lower!r}, steps={steps!r}, safety={safety!r}, cushion={cushion!r}"
        )
        raise ValueError(message)


def preset_or_sequence(
    coefficients: str | Sequence[Sequence[float]], steps: int | None = None
) -> tuple[Polynomial, ...]:
    """A named preset or given coefficients as exactly ``steps`` polynomials (None: as many as there are).

    With more steps than entries the last one repeats; with fewer the first ones are taken.
    """
    entries = polynomials(coefficients)
    count = len(entries) if steps is None else steps
    return tuple(entries[min(i, len(entries) - 1)] for i in range(count))


def polynomials(
    coefficients: str | Sequence[Sequence[float]], *, kernel: str = "preset_or_sequence"
) -> tuple[Polynomial, ...]:
    """The entries of a named preset, or given ones as tuples of floats."""
    if not isinstance(coefficients, str):
        return _given(coefficients, kernel)
    if coefficients not in PRESETS:
        names = ", ".join(map(repr, PRESETS))
        message = (
            f"{kernel}: expected coefficients to be one of {names} or a sequence of (a, b, c), "
            f"got {coefficients!r}"
        )
        raise OptionError(message)
    return PRESETS[coefficients]


def _given(coefficients: Sequence[Sequence[float]], kernel: str) -> tuple[Polynomial, ...]:
    try:
        # float() alone would read text.
        entries = tuple(tuple(float(0.0 + c) for c in entry) for entry in coefficients)
    except (TypeError, ValueError):
        entries = ()
    if not entries or not all(len(e) in (2, 3, 4) and all(map(math.isfinite, e)) for e in entries):
        message = (
            f"{kernel}: expected coefficients to be finite tuples (a, b), (a, b, c) or (a, b, c, d), got "
            f"{coefficients!r}; a single step is a sequence of one tuple"
        )
        raise OptionError(message)
    return entries
