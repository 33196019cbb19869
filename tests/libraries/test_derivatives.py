"""The closed forms that the libraries' derivatives are compared with agree with differences."""

from __future__ import annotations

import numpy as np
import pytest

from . import derivatives

SHAPES = [(3, 3), (5, 3), (2, 4), (1, 1)]
DTYPES = [np.float64, np.complex128]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("m", "n"), SHAPES)
def test_directional_derivatives(rng, m, n, dtype):
    x, d = derivatives.well_conditioned(rng, 2, m, n, dtype=dtype)
    for function, derivative in [
        (derivatives.unitary_factor, derivatives.unitary_derivative),
        (derivatives.hermitian_factor, derivatives.hermitian_derivative),
    ]:
        expected = derivatives.central_difference(function, x, d)
        np.testing.assert_allclose(derivative(x, d), expected, atol=2e-10)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("m", "n"), SHAPES)
def test_gradient_of_a_loss(rng, m, n, dtype):
    x, d = derivatives.well_conditioned(rng, 2, m, n, dtype=dtype)
    loss = derivatives.random_loss(rng, m, n, dtype)
    slope = np.sum(np.conj(loss.gradient(x)) * d).real
    np.testing.assert_allclose(slope, derivatives.central_difference(loss.value, x, d), rtol=1e-9)


@pytest.mark.parametrize(("m", "n"), [(3, 3), (5, 3), (3, 5)])
def test_derivative_along_matrices_of_a_rank(rng, m, n):
    left, dl = derivatives.well_conditioned(rng, 2, m, 2)
    right, dr = derivatives.well_conditioned(rng, 2, 2, n)

    def factor(t):
        return derivatives.unitary_factor((left + t * dl) @ (right + t * dr), rank=2)

    computed = derivatives.unitary_derivative(left @ right, left @ dr + dl @ right, rank=2)
    expected = derivatives.central_difference(factor, 0.0, 1.0)
    np.testing.assert_allclose(computed, expected, atol=1e-9)


@pytest.mark.parametrize("name", derivatives.REPEATED)
def test_hessian_is_symmetric_at_repeated_values(rng, name):
    x = derivatives.REPEATED[name]
    hessian = derivatives.random_loss(rng, *x.shape).hessian(x)
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-9 * np.abs(hessian).max())


def test_known_gradient_at_the_identity():
    gradient = derivatives.unitary_derivative(np.eye(3), np.arange(9.0).reshape(3, 3))
    np.testing.assert_allclose(gradient, [[0, -1, -2], [1, 0, -1], [2, 1, 0]], atol=1e-15)
