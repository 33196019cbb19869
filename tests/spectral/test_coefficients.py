"""Coefficients of the polynomial steps: published lists, equioscillation, half-widths, presets, refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest

from orthokern.spectral import polar_express_coefficients
from orthokern.spectral.coefficients import (
    CUSHION,
    PRESETS,
    TAYLOR,
    evaluate,
    minimax_polynomial,
    preset_or_sequence,
)

# N. Amsel et al., arXiv:2505.16932: lower = 1e-3, without their safety factor.
PUBLISHED = [
    (8.287212018145626, -23.59588651909882, 17.30038731253092),
    (4.107059111542198, -2.947849916737908, 0.5448431082926598),
    (3.948690853482296, -2.908902115962949, 0.5518191394370134),
    (3.3184196573706, -2.4884880243148744, 0.5100489401237202),
    (2.3006520199548173, -1.66890398457475, 0.4188073119525674),
    (1.891301407787402, -1.267995827194594, 0.3768040894852514),
]
INTERVALS = [
    (0.1, 1.0),
    (0.5, 1.0),
    (0.9, 1.1),
    (1e-2, 1.0),
    (1e-4, 1.0),
    (0.3, 2.0),
    (0.99, 1.0),
    (2e-3, 50.0),
]


def images(polynomials, x):
    for polynomial in polynomials:
        x = sum(c * x ** (2 * i + 1) for i, c in enumerate(polynomial))
    return x


def half_widths(lower, steps, **options):
    """Half-width of the image of [lower, 1] about its middle, relative to the middle, after each step."""
    x = np.geomspace(lower, 1, 200001)
    found = []
    for polynomial in polar_express_coefficients(lower, steps, safety=0.0, **options):
        x = images([polynomial], x)
        found.append((x.max() - x.min()) / (x.max() + x.min()))
    return found


def test_published_list():
    found = polar_express_coefficients(1e-3, len(PUBLISHED), safety=0.0)
    np.testing.assert_allclose(found, PUBLISHED, rtol=1e-13)


def test_the_list_ends_in_the_taylor_coefficients():
    """The system of the seventh exchange has a condition number of 1e12: its digits end at 1e-10."""
    *_, seventh, eighth = polar_express_coefficients(1e-3, 8, safety=0.0)
    assert abs(seventh[0] - 1.8750014808326703) <= 2e-10
    np.testing.assert_allclose(seventh, (15 / 8, -10 / 8, 3 / 8), rtol=2e-6)
    np.testing.assert_allclose(eighth, (15 / 8, -10 / 8, 3 / 8), rtol=2e-8)


def test_published_safety_factor():
    """Flattened by 1.01 at every step but the last, as the authors publish it."""
    plain = polar_express_coefficients(1e-3, 5, safety=0.0)
    safe = polar_express_coefficients(1e-3, 5)
    for polynomial, flattened in zip(plain[:-1], safe[:-1], strict=True):
        np.testing.assert_allclose(
            flattened, [c / 1.01 ** (2 * i + 1) for i, c in enumerate(polynomial)], rtol=2e-2
        )
    first = [c / 1.01**k for c, k in zip(PUBLISHED[0], (1, 3, 5), strict=True)]
    np.testing.assert_allclose(safe[0], first, rtol=1e-13)


@pytest.mark.parametrize(
    ("lower", "cushion", "expected"),
    [
        (1e-3, CUSHION, [0.9917, 0.9660, 0.8657, 0.5604, 0.1236, 1.18e-3, 1.04e-9]),
        (1e-3, 0.0, [0.992, 0.965, 0.860, 0.546, 0.113, 9.16e-4, 4.8e-10]),
        (0.1, 0.0, [0.453, 0.0627, 1.54e-4, 2.3e-12]),
    ],
)
def test_half_widths(lower, cushion, expected):
    found = half_widths(lower, len(expected), cushion=cushion)
    # What the tables show is rounded to three digits.
    for one, other in zip(found, expected, strict=True):
        assert abs(one - other) <= max(6e-3 * other, 5e-16)


@pytest.mark.parametrize("degree", [3, 5, 7])
@pytest.mark.parametrize("lower", [1e-12, 1e-6, 1e-3, 0.02, 0.05, 0.3, 0.9, 1.0])
def test_long_sequences_end_at_one(degree, lower):
    """However many steps: every polynomial after convergence keeps 1."""
    found = polar_express_coefficients(lower, 60, degree=degree, safety=0.0)
    x = images(found, np.geomspace(lower, 1, 2001))
    assert np.abs(x - 1).max() <= 1e-13
    assert np.abs(images(found[-5:], np.array([1.0])) - 1).max() <= 1e-14


@pytest.mark.parametrize("degree", [3, 5, 7])
@pytest.mark.parametrize("lower", [1e-3, 0.05, 0.5])
@pytest.mark.parametrize("cushion", [0.0, CUSHION])
def test_images_stay_below_the_next_interval(degree, lower, cushion):
    """Each polynomial maps [l, u] into [l', 2 - l'], and l' is the image of l."""
    low, x = lower, np.geomspace(lower, 1, 20001)
    sequence = polar_express_coefficients(lower, 6, degree=degree, safety=0.0, cushion=cushion)
    for polynomial in sequence:
        x, low = images([polynomial], x), evaluate(polynomial, low)
        # At the upper end each polynomial multiplies errors of rounding by up to 24.
        assert x.min() >= low - 1e-10
        assert x.max() <= 2 - low + 1e-10


@pytest.mark.parametrize("degree", [3, 5, 7])
@pytest.mark.parametrize(("low", "high"), INTERVALS)
def test_equioscillation(degree, low, high):
    """Chebyshev's theorem: best means that the error takes its extreme value, with signs in turn, at enough points."""
    polynomial = minimax_polynomial(low, high, degree)
    terms = (degree + 1) // 2
    assert len(polynomial) == terms
    # Cosine spacing in log(x) puts many points near both ends.
    t = (1 - np.cos(np.linspace(0, np.pi, 400001))) / 2
    x = low * (high / low) ** t
    error = 1 - images([polynomial], x)
    largest = np.abs(error).max()
    near = np.flatnonzero(np.abs(error) >= largest * (1 - 1e-6) - 1e-14)
    signs = np.sign(error[near])
    assert 1 + np.count_nonzero(np.diff(signs)) >= terms + 1


@pytest.mark.parametrize("degree", [3, 5, 7])
def test_no_polynomial_is_better(degree, rng):
    for low, high in INTERVALS[:4]:
        polynomial = np.array(minimax_polynomial(low, high, degree))
        x = np.linspace(low, high, 20001)
        best = np.abs(1 - images([polynomial], x)).max()
        for _ in range(200):
            other = polynomial * (1 + 1e-3 * rng.standard_normal(len(polynomial)))
            assert np.abs(1 - images([other], x)).max() >= best


def test_minimax_cubic_known_answer():
    a, b = minimax_polynomial(0.1, 1.0, 3)
    assert abs(a - 3.9634050793513875) <= 4e-15
    assert abs(b + 3.5706352066228724) <= 4e-15
    assert abs(1 - evaluate((a, b), 0.1) - 0.6072301272714846) <= 1e-15
    assert abs(1 - evaluate((a, b), 1.0) - 0.6072301272714846) <= 1e-14


def test_higher_degrees_are_better():
    for low, high in INTERVALS:
        errors = [
            abs(1 - evaluate(minimax_polynomial(low, high, degree), low)) for degree in (3, 5, 7)
        ]
        assert errors[0] > errors[1] > errors[2] or errors[0] < 1e-4


@pytest.mark.parametrize("degree", [3, 5, 7])
@pytest.mark.parametrize("scale", [1e-3, 0.5, 3.0, 1e4])
def test_scaled_intervals(degree, scale):
    """The best polynomial on [s l, s u] is p(x / s)."""
    plain = minimax_polynomial(0.2, 1.0, degree)
    scaled = minimax_polynomial(0.2 * scale, scale, degree)
    np.testing.assert_allclose(
        [c * scale ** (2 * i + 1) for i, c in enumerate(scaled)], plain, rtol=1e-10
    )


@pytest.mark.parametrize("degree", [3, 5, 7])
def test_vanishing_intervals(degree):
    """As the interval vanishes the best polynomial becomes Taylor's, and never a worse one."""
    assert minimax_polynomial(1.0, 1.0, degree) == TAYLOR[degree]
    for width in np.logspace(-1, -12, 45):
        x = np.linspace(1 - width, 1, 2001, dtype=np.longdouble)
        found = minimax_polynomial(1 - width, 1.0, degree)
        middle = 1 - width / 2
        taylor = [c / middle ** (2 * i + 1) for i, c in enumerate(TAYLOR[degree])]
        errors = [np.abs(1 - images([p], x)).max() for p in (found, taylor)]
        # Below 5e-6 the expansion about the upper end is used: 2^((degree + 1) / 2) times the error.
        allowed = 1.01 if width > 6e-6 else 1.01 * 2 ** ((degree + 1) // 2)
        assert errors[0] <= allowed * errors[1] + 1e-15


@pytest.mark.parametrize("degree", [3, 5, 7])
def test_taylor_coefficients_are_flat_at_one(degree):
    c = TAYLOR[degree]
    powers = [2 * i + 1 for i in range(len(c))]
    assert sum(c) == 1
    for order in range(1, len(c)):
        assert abs(sum(a * math.perm(p, order) for a, p in zip(c, powers, strict=True))) <= 1e-14


def test_evaluate():
    assert evaluate((1.5, -0.5), 0.5) == 0.6875
    assert evaluate((15 / 8, -10 / 8, 3 / 8), 2.0) == 5.75
    assert evaluate((0.0, 0.0, 0.0, 1.0), 2.0) == 128.0


def test_presets():
    assert PRESETS["jordan"] == ((3.4445, -4.7750, 2.0315),) * 5
    assert PRESETS["classic"] == ((1.875, -1.25, 0.375),)
    assert PRESETS["you"] == (
        (4.0848, -6.8946, 2.9270),
        (3.9505, -6.3029, 2.6377),
        (3.7418, -5.5913, 2.3037),
        (2.8769, -3.1427, 1.2046),
        (2.8366, -3.0525, 1.2012),
    )
    assert PRESETS["aol4"] == (
        (4.6051, -9.6552, 5.6769),
        (4.7505, -6.0861, 2.1790),
        (2.7763, -2.3190, 0.5523),
        (2.4231, -2.2861, 0.8193),
    )


def test_the_last_entry_repeats_and_the_first_are_taken():
    you = PRESETS["you"]
    assert preset_or_sequence("you") == you
    assert preset_or_sequence("you", 2) == you[:2]
    assert preset_or_sequence("you", 7) == (*you, you[-1], you[-1])
    given = [(1.5, -0.5), [2, -1, 0.5]]
    assert preset_or_sequence(given) == ((1.5, -0.5), (2.0, -1.0, 0.5))
    assert preset_or_sequence(given, 1) == ((1.5, -0.5),)
    assert preset_or_sequence(given, 3) == ((1.5, -0.5), (2.0, -1.0, 0.5), (2.0, -1.0, 0.5))
    assert preset_or_sequence(np.array(given[:1]), 2) == ((1.5, -0.5),) * 2


@pytest.mark.parametrize(
    "arguments",
    [
        (0.0, 1.0),
        (-0.1, 1.0),
        (2.0, 1.0),
        (float("nan"), 1.0),
        (0.1, float("nan")),
        (0.1, 1.0, 4),
        (0.1, 1.0, 9),
        (0.1, 1.0, 1),
    ],
)
def test_minimax_refusals(arguments):
    with pytest.raises(ValueError, match="expected 0 < low <= high and degree 3, 5 or 7, got low="):
        minimax_polynomial(*arguments)


@pytest.mark.parametrize(
    ("lower", "steps", "options"),
    [
        (0.0, 3, {}),
        (-1e-3, 3, {}),
        (1.5, 3, {}),
        (float("nan"), 3, {}),
        (1e-3, 0, {}),
        (1e-3, -2, {}),
        (1e-3, 3, {"safety": -0.1}),
        (1e-3, 3, {"cushion": -0.1}),
        (1e-3, 3, {"cushion": 1.0}),
        (1e-3, 3, {"degree": 4}),
    ],
)
def test_polar_express_refusals(lower, steps, options):
    with pytest.raises(ValueError, match="expected 0 < low"):
        polar_express_coefficients(lower, steps, **options)
