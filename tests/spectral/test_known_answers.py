"""Factors known to fifteen digits, on every library and in both precisions, alone and in stacks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import scipy.linalg

import orthokern
from orthokern.testing.libraries import to_numpy

from .conftest import adjoint, eps_of, made


class Known(NamedTuple):
    """A matrix with its unitary factor and its Hermitian factor on the right."""

    a: np.ndarray
    u: np.ndarray
    h: np.ndarray


KNOWN = {
    "reflection": Known(
        np.array([[1.0, 2], [3, 4]]),
        np.array([[-0.514495755427527, 0.857492925712544], [0.857492925712544, 0.514495755427527]]),
        np.array([[2.057983021710106, 2.400980191995124], [2.400980191995124, 3.772968873135194]]),
    ),
    "square": Known(
        np.array([[2.0, -1, 0], [1, 3, 1], [0, 2, 1]]),
        np.array(
            [
                [0.892775133748046, -0.385064623906842, 0.233832837678204],
                [0.428621406592925, 0.885828713480129, -0.177739078945631],
                [-0.138694810182143, 0.258906789771187, 0.955892788883208],
            ]
        ),
        np.array(
            [
                [2.214171674089019, 0.115699465666445, 0.289926596410777],
                [0.115699465666445, 3.560364343889605, 1.14473550325132],
                [0.289926596410777, 1.14473550325132, 0.778153709937578],
            ]
        ),
    ),
    "tall": Known(
        np.array([[1.0, 2], [3, 4], [5, 6], [7, 8]]),
        np.array(
            [
                [-0.533318514051207, 0.644648247162911],
                [-0.098828107710352, 0.538732777104187],
                [0.335662298630501, 0.432817307045465],
                [0.770152704971353, 0.326901836986744],
            ]
        ),
        np.array([[6.23957759076971, 6.713245972610006], [6.713245972610006, 8.656346140909319]]),
    ),
    "complex": Known(
        np.array([[1 + 1j, 2], [0, 3 - 1j]]),
        np.array(
            [
                [0.647936163294298 * (1 + 1j), 0.400446571456078],
                [
                    -0.358170302053007 - 0.179085151026504j,
                    0.869297583723873 - 0.289765861241291j,
                ],
            ]
        ),
        np.array(
            [
                [1.295872326588597, 0.400446571456078 * (1 - 1j)],
                [0.400446571456078 * (1 + 1j), 3.698551755325067],
            ]
        ),
    ),
    "number": Known(np.array([[-3 + 4j]]), np.array([[-0.6 + 0.8j]]), np.array([[5.0 + 0j]])),
    "vector": Known(
        np.array([[3.0], [0], [-4]]), np.array([[0.6], [0], [-0.8]]), np.array([[5.0]])
    ),
}
# The factors amplify rounding by 2 / (s_n + s_{n-1}) ||A||, at most 12 for these matrices.
FORWARD = 24


def assert_known(result, u, h):
    size = np.linalg.norm(h, 2, axis=(-2, -1)).max()
    tolerance = FORWARD * eps_of(result.u)
    np.testing.assert_allclose(to_numpy(result.u), u, rtol=0, atol=tolerance)
    np.testing.assert_allclose(to_numpy(result.h), h, rtol=0, atol=tolerance * size)


@pytest.fixture(params=KNOWN)
def known(request):
    return KNOWN[request.param]


def test_right(known, library, dtype, backend):
    result = orthokern.polar(made(known.a, library, dtype), backend=backend)
    assert_known(result, known.u, known.h)


def test_left(known, library, dtype, backend):
    result = orthokern.polar(made(known.a, library, dtype), side="left", backend=backend)
    assert_known(result, known.u, known.u @ known.h @ adjoint(known.u))


def test_left_of_the_reflection(library, dtype, backend):
    known = KNOWN["reflection"]
    left = [[1.200490095997562, 1.886484436567598], [1.886484436567598, 4.630461798847739]]
    result = orthokern.polar(made(known.a, library, dtype), side="left", backend=backend)
    assert_known(result, known.u, np.array(left))


@pytest.mark.parametrize("side", ["right", "left"])
def test_adjoint(known, library, dtype, backend, side):
    """``A^H = H U^H``: what stood on the right stands on the left."""
    result = orthokern.polar(made(adjoint(known.a), library, dtype), side=side, backend=backend)
    h = known.h if side == "left" else known.u @ known.h @ adjoint(known.u)
    assert_known(result, adjoint(known.u), h)


def test_stack(known, stacking_library, dtype, backend):
    factors = np.array([1.0, 4.0, -1.0, 0.5, -2.0, 1.0]).reshape(2, 3, 1, 1)
    result = orthokern.polar(made(factors * known.a, stacking_library, dtype), backend=backend)
    assert_known(result, np.sign(factors) * known.u, np.abs(factors) * known.h)
    assert tuple(result.info.converged.shape) == (2, 3)


@pytest.mark.parametrize(
    "method", ["svd", "newton", "dwh", "newton_schulz", "polar_express", "gram"]
)
def test_methods(known, stacking_library, dtype, method):
    result = orthokern.polar(made(known.a, stacking_library, dtype), method=method)
    assert_known(result, known.u, known.h)


@pytest.mark.parametrize(
    ("a", "u"),
    [
        (np.diag([3.0, -0.5, 0.0]), np.diag([1.0, -1.0, 0.0])),
        (np.array([[1.0, 2], [2, 4]]), np.array([[0.2, 0.4], [0.4, 0.8]])),
        (np.ones((3, 2)), np.ones((3, 2)) / 6**0.5),
        (np.array([[0, 2j], [0, 0]]), np.array([[0, 1j], [0, 0]])),
        (np.zeros((3, 5)), np.zeros((3, 5))),
    ],
)
def test_partial_factor(a, u, library, dtype, backend):
    found = orthokern.orthogonalize(made(a, library, dtype), backend=backend)
    np.testing.assert_allclose(to_numpy(found), u, rtol=0, atol=4 * eps_of(found))


@pytest.mark.parametrize(
    ("coefficients", "values"),
    [
        ("classic", (0.88416, 0.98288)),
        ("jordan", (1.19326944, 0.97648192)),
        (((1.5, -0.5),), (0.792, 0.944)),
        (((2.1875, -2.1875, 1.3125, -0.3125),), (0.933312, 0.994544)),
    ],
)
def test_one_polynomial_step(coefficients, values, library, dtype, backend):
    """Singular values 3 and 4 are 0.6 and 0.8 of the Frobenius norm; the polynomials of those are decimals."""
    turn = np.array([[0.28, -0.96], [0.96, 0.28]])
    given = made(turn * np.array([3.0, 4.0]), library, dtype)
    found = orthokern.newton_schulz(given, steps=1, coefficients=coefficients, backend=backend)
    expected = turn * np.array(values)
    np.testing.assert_allclose(to_numpy(found), expected, rtol=0, atol=16 * eps_of(found))


@pytest.mark.parametrize("shape", [(7, 7), (30, 30), (33, 12), (12, 33), (40, 1)])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("complex_", [False, True])
def test_scipy_agrees(shape, side, complex_, backend, rng):
    a = rng.standard_normal(shape) + (1j * rng.standard_normal(shape) if complex_ else 0)
    u, h, *_ = orthokern.polar(a, side=side, backend=backend)
    other_u, other_h = scipy.linalg.polar(a, side=side)
    s = np.linalg.svd(a, compute_uv=False)
    tolerance = 100 * np.finfo(float).eps * s[0]
    np.testing.assert_allclose(u, other_u, rtol=0, atol=tolerance / s[-1])
    np.testing.assert_allclose(h, other_h, rtol=0, atol=tolerance)
