"""The planner: costs that it must not exceed, simulated plans, monotonicity, bounds, refusals."""

from __future__ import annotations

import contextlib
import math

import numpy as np
import pytest

from orthokern.spectral import Step, StepKind, plan_polar
from orthokern.spectral.plan import (
    ALL_KINDS,
    COSTS,
    advance,
    half_width,
    halley_weights,
    plan_cost,
)

N, H, K, Q = StepKind.NEWTON, StepKind.HALLEY, StepKind.CUBIC, StepKind.QUINTIC
# Plans on the costs of one processor core for tol = 1e-16, 3e-8 and 1e-3.
EXPECTED = {
    0.5: ("NHQ", "HQ", "NK"),
    0.1: ("NHKQ", "NHQ", "HQ"),
    1e-2: ("NHHQ", "NNNH", "NHK"),
    1e-3: ("NNNHQ", "NNHQ", "NHQ"),
    1e-4: ("NNHQQ", "NNNNQ", "NNNQ"),
    1e-6: ("NNNHKQ", "NNNHQ", "NNHQ"),
    1e-10: ("NNNHHQ", "NNNNNH", "NNNHK"),
    1e-15: ("NNNHHNN", "NNNHHN", "NNNHH"),
}
TOLERANCES = (1e-16, 3e-8, 1e-3)
MOST = dict(zip(EXPECTED, (6.05, 7.6, 8.4, 9.25, 9.75, 10.8, 11.6, 12.7), strict=True))
PRICE = {"N": 1.6, "H": 2.35, "K": 1.55, "Q": 2.1}
LOWER = [1.0, 0.9, 0.5, 0.3, 0.1, 0.03, 1e-2, 1e-3, 1e-4, 1e-6, 1e-8, 1e-10, 1e-12, 1e-15, 1e-16]
ONLY_POLYNOMIALS = (K, Q)


def simulated(steps, s):
    """What the steps do to singular values."""
    for kind, weights in steps:
        if kind is N:
            a, b = weights
            s = a * s + b / s
        elif kind is H:
            a, b, c, scale = (*weights, 1.0)[:4]
            s = scale * s * (a + b * s * s) / (1 + c * s * s)
        else:
            s = s * sum(w * s ** (2 * i) for i, w in enumerate(weights))
    return s


def grid(lower):
    """Singular values from ``lower`` to 1, dense at both ends, in extended precision."""
    t = np.linspace(0, 1, 4001, dtype=np.longdouble)
    low = np.longdouble(lower)
    return np.unique(np.concatenate([low ** (1 - t), low + (1 - low) * t]))


def assert_lands(steps, lower, tol):
    s = simulated(steps, grid(lower))
    # Weights are doubles; each step may add a rounding of theirs.
    assert np.abs(s - 1).max() <= tol * (1 + 1e-6) + 2e-16 * (len(steps) + 1)


@pytest.mark.parametrize("tol", [1e-16, 3e-8, 1e-5, 1e-3, 1e-2, 0.1, 0.3, 0.5])
@pytest.mark.parametrize("costs", sorted(COSTS))
def test_plans_land_within_the_tolerance(tol, costs):
    for lower in LOWER:
        steps = plan_polar(lower, tol, costs=costs)
        assert all(isinstance(step, Step) for step in steps)
        assert_lands(steps, lower, tol)


@pytest.mark.parametrize("tol", [1e-16, 1e-5, 0.3])
@pytest.mark.parametrize("lower", LOWER)
@pytest.mark.parametrize("allowed", [(N,), (H,), (Q,), (N, Q), (H, K, Q), ONLY_POLYNOMIALS])
def test_plans_of_some_steps_land_too(lower, tol, allowed):
    steps = plan_polar(lower, tol, allowed=allowed, c_max=math.inf)
    assert {step.kind for step in steps} <= set(allowed)
    # In double precision a quintic for [1e-16, 1] is zero to rounding at its inner minimum.
    assert_lands(steps, lower if N in allowed or H in allowed else max(lower, 1e-15), tol)


@pytest.mark.parametrize("tol", [1e-16, 0.3])
@pytest.mark.parametrize("lower", LOWER)
def test_cubics_alone_land_or_are_refused(lower, tol):
    """Far from 1 a cubic can flip signs, so that the planner may refuse."""
    refused = contextlib.suppress(ValueError) if lower < 0.5 else contextlib.nullcontext()
    with refused:
        steps = plan_polar(lower, tol, allowed=(K,))
        assert {step.kind for step in steps} <= {K}
        assert_lands(steps, lower, tol)


@pytest.mark.parametrize("lower", EXPECTED)
def test_costs_at_full_accuracy(lower):
    steps = plan_polar(lower, 1e-16)
    assert plan_cost(steps) <= MOST[lower] + 1e-9


@pytest.mark.parametrize("lower", EXPECTED)
@pytest.mark.parametrize("place", range(3))
def test_no_plan_costs_more_than_the_known_one(lower, place):
    known = sum(PRICE[kind] for kind in EXPECTED[lower][place])
    assert plan_cost(plan_polar(lower, TOLERANCES[place])) <= known + 1e-9


@pytest.mark.parametrize(
    ("lower", "tol", "names"),
    [
        (0.1, 1e-3, "HQ"),
        (0.1, 3e-8, "NHQ"),
        (1e-3, 3e-8, "NNHQ"),
        (1e-15, 1e-3, "NNNHH"),
        (0.5, 1e-3, "NK"),
    ],
)
def test_expected_plans(lower, tol, names):
    """Where the known plan is the only one of its cost up to order."""
    kinds = {"N": N, "H": H, "K": K, "Q": Q}
    found = [step.kind for step in plan_polar(lower, tol)]
    assert sorted(found) == sorted(kinds[name] for name in names)


@pytest.mark.parametrize(("tol", "slack"), [(1e-16, 0.8), (3e-8, 0), (1e-3, 0), (0.1, 0)])
def test_costs_grow_as_the_bound_falls(tol, slack):
    """A plan for a smaller bound would do: none costs less than one for a larger bound.

    At the last bit rounding decides whether one more step is taken: less than a cubic step of slack.
    """
    costs = [plan_cost(plan_polar(10.0**-e, tol)) for e in np.linspace(0, 16, 161)]
    assert np.all(costs >= np.maximum.accumulate(costs) - slack - 1e-9)


def test_costs_grow_as_the_tolerance_falls():
    for lower in LOWER:
        costs = [
            plan_cost(plan_polar(lower, tol))
            for tol in (0.5, 0.1, 1e-2, 1e-3, 1e-5, 1e-8, 1e-12, 1e-16)
        ]
        assert costs == sorted(costs)


def test_a_choice_never_costs_more():
    """More kinds to choose from, cheaper plans."""
    for lower in LOWER:
        for tol in (1e-16, 1e-3):
            everything = plan_cost(plan_polar(lower, tol))
            for allowed in ((N,), (H,), (N, H), (N, Q), (H, K, Q)):
                assert (
                    everything
                    <= plan_cost(plan_polar(lower, tol, allowed=allowed, c_max=math.inf)) + 0.85
                )


def test_other_costs_make_other_plans():
    """Where products are cheap the plan is made of products."""
    assert plan_cost(plan_polar(1e-2, 1e-8, costs="products"), "products") <= plan_cost(
        plan_polar(1e-2, 1e-8), "products"
    )
    assert N not in {step.kind for step in plan_polar(0.05, 1e-8, costs="products")}


@pytest.mark.parametrize("lower", LOWER)
def test_lengths(lower):
    """Newton squares the distance to 1 in the end, after a few steps for any l; so do the others, faster."""
    for tol, most in ((1e-16, 8), (1e-3, 6), (0.1, 5)):
        assert len(plan_polar(lower, tol)) <= most
    assert len(plan_polar(lower, 1e-16, allowed=(N,))) <= 10
    assert len(plan_polar(lower, 1e-16, allowed=(H,), c_max=math.inf)) <= 7


@pytest.mark.parametrize("lower", [1e-30, 1e-60, 1e-90, 1e-160, 1e-300, 5e-324])
@pytest.mark.parametrize("allowed", [ALL_KINDS, (N,), (H,), (N, Q)])
def test_tiny_bounds(lower, allowed):
    steps = plan_polar(lower, 1e-8, allowed=allowed, c_max=math.inf)
    assert 1 <= len(steps) <= 20
    # 1e-16 of the largest is all that a matrix in double precision shows.
    assert_lands(steps, max(lower, 1e-16), 1e-8)


@pytest.mark.parametrize("lower", [1e-20, 1e-30, 1e-60, 1e-300])
def test_polynomials_alone_below_the_last_bit(lower):
    """Refused, or as good as double precision allows: never a plan that was cut off."""
    with contextlib.suppress(ValueError):
        steps = plan_polar(lower, 1e-3, allowed=(Q,))
        assert_lands(steps, 1e-15, 1e-3)


@pytest.mark.parametrize("tol", [1e-17, 1e-18, 1e-20, 1e-100, 1e-320])
def test_tiny_tolerances(tol):
    for lower in (1.0, 0.5, 1e-3, 1e-12):
        steps = plan_polar(lower, tol)
        assert len(steps) <= 16
        assert_lands(steps, lower, 1e-16)


def test_nothing_to_do():
    assert plan_polar(1.0, 1e-16) == ()
    assert plan_polar(1, 0.5) == ()
    assert plan_polar(0.9, 0.1) == ()
    assert plan_cost(()) == 0


def test_the_same_plan_twice():
    assert plan_polar(0.0123, 1e-7) is plan_polar(0.0123, 1e-7)
    assert plan_polar(np.float64(0.0123), 1e-7) == plan_polar(0.0123, 1e-7)


@pytest.mark.parametrize(
    ("lower", "c", "missing"),
    [
        (0.5, 6.18, 5.04e-3),
        (0.28, 11.8, 2.89e-2),
        (0.1, 40.3, 1.34e-1),
        (1e-2, 764, 4.95e-1),
        (1e-3, 1.6e4, 7.52e-1),
    ],
)
def test_halley_weights(lower, c, missing):
    found = halley_weights(lower)
    a, b, _ = found
    assert abs(found[2] - c) <= 6e-3 * c
    after = lower * (a + b * lower**2) / (1 + found[2] * lower**2)
    assert abs(1 - after - missing) <= 6e-3 * missing
    # The best weights: 1 stays fixed, and the image has its minimum at the lower end and once more inside.
    assert abs((a + b) / (1 + found[2]) - 1) <= 1e-14
    s = np.geomspace(lower, 1, 200001)
    image = s * (a + b * s * s) / (1 + found[2] * s * s)
    assert abs(image[1:-1].min() - image[0]) <= 1e-6 * image[0]
    assert image.max() <= 1 + 1e-12


def test_halley_weights_at_the_ends():
    assert halley_weights(1.0) == (3.0, 1.0, 3.0)
    np.testing.assert_allclose(halley_weights(1 - 1e-6), (3, 1, 3), rtol=1e-3)
    for lower in (1e-16, 1e-30, 1e-60, 1e-90, 1e-150, 1e-300, 5e-324):
        assert all(math.isfinite(weight) and weight > 0 for weight in halley_weights(lower))
    for lower in (1e-10, 1e-16, 1e-30):
        # As l goes to 0, a grows as l^(-2/3).
        a = halley_weights(lower)[0]
        assert 1 <= a * lower ** (2 / 3) <= 4


def test_five_halley_steps_from_the_last_bit():
    """From l = 1e-16 five steps after the first reach 1e-13."""
    lower = 1e-16
    for _ in range(6):
        a, b, c = halley_weights(lower)
        lower = lower * (a + b * lower**2) / (1 + c * lower**2)
    assert 1 - lower <= 1e-13


@pytest.mark.parametrize("kind", ALL_KINDS)
@pytest.mark.parametrize("lower", [0.999, 0.9, 0.5, 0.31])
def test_advance_predicts_its_step(kind, lower):
    depth, step = advance(kind, -math.log(lower))
    s = simulated([step], grid(lower))
    assert s.max() <= 1 + 1e-12
    assert abs(-math.log(s.min()) - depth) <= 1e-9 + 1e-6 * depth
    assert (
        abs((s.max() - s.min()) / (s.max() + s.min()) - half_width(depth))
        <= 1e-6 * half_width(depth) + 1e-12
    )


@pytest.mark.parametrize(
    ("kind", "factor", "power"), [(N, 0.5, 2), (H, 0.25, 3), (K, 1.5, 2), (Q, 2.5, 3)]
)
def test_contraction_near_one(kind, factor, power):
    """e becomes factor e^power with the coefficients that are used close to 1."""
    width = 5e-6
    depth, step = advance(kind, 2 * math.atanh(width))
    assert abs(half_width(depth) / (factor * width**power) - 1) <= 1e-3
    s = simulated(
        [step], np.longdouble(1) + np.longdouble(width) * np.array([-1, 1], dtype=np.longdouble)
    )
    assert np.abs(s - 1).max() <= 1.01 * factor * width**power + 1e-19


@pytest.mark.parametrize(
    ("lower", "tol", "options"),
    [
        (0.0, 1e-3, {}),
        (-0.1, 1e-3, {}),
        (1.1, 1e-3, {}),
        (float("nan"), 1e-3, {}),
        (float("inf"), 1e-3, {}),
        (0.1, 0.0, {}),
        (0.1, 1.0, {}),
        (0.1, -1e-3, {}),
        (0.1, float("nan"), {}),
        (0.1, 1e-3, {"costs": "abacus"}),
        (0.1, 1e-3, {"allowed": ()}),
        (0.1, 1e-3, {"allowed": (StepKind.NONE,)}),
        (0.1, 1e-3, {"allowed": (99,)}),
    ],
)
def test_refusals(lower, tol, options):
    with pytest.raises(ValueError, match="expected 0 < lower <= 1, 0 < tol < 1"):
        plan_polar(lower, tol, **options)


def test_no_plan_without_a_way():
    """A limit on c that no Halley step keeps, and nothing else to choose from."""
    with pytest.raises(ValueError, match="expected"):
        plan_polar(1e-8, 1e-3, allowed=(H,), c_max=200.0)
