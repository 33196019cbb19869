"""Newton-Schulz on the Gram matrix loses digits between restarts, and how many is known for each storage format."""

from __future__ import annotations

import numpy as np
import pytest

from orthokern.spectral import StepKind, polar_express_coefficients
from orthokern.spectral.cases.matrices import graded
from orthokern.spectral.factor import scheduled_factor
from orthokern.spectral.plan import Schedule, Step

torch = pytest.importorskip("torch")

POLYNOMIALS = polar_express_coefficients(1e-3, 5)
STEPS = tuple(Step(StepKind.QUINTIC, tuple(polynomial)) for polynomial in POLYNOMIALS)
# Restarts before these steps (None: no Gram form at all), and the distance to the exact polynomial of five steps.
DISTANCES = {
    "bfloat16": {None: 0.19, (): 3e3, (2,): 2.3, (2, 4): 0.21},
    "float16": {None: 0.024, (): 2.5, (2,): 0.25, (2, 4): 0.027},
    "float32": {None: 9e-6, (): 1.3e-3, (2,): 1.8e-4, (2, 4): 1.9e-5},
}
KAPPA = 1e5


def exact(x):
    p, s, qh = np.linalg.svd(x, full_matrices=False)
    s = s / np.linalg.norm(s)
    for a, b, c in POLYNOMIALS:
        s = s * (a + b * s**2 + c * s**4)
    return (p * s) @ qh


@pytest.mark.parametrize("dtype", DISTANCES)
def test_distances_by_storage_format(dtype):
    x = graded(np.random.default_rng(0), 768, 192, KAPPA)
    found = {}
    for restarts in DISTANCES[dtype]:
        schedule = Schedule("frobenius", STEPS, restarts, closing_tol=0.0)
        y = torch.tensor(x).to(getattr(torch, dtype))
        u, _ = scheduled_factor.body(y, schedule=schedule)
        found[restarts] = np.linalg.norm(u.double().numpy() - exact(x), 2)
    for restarts, distance in DISTANCES[dtype].items():
        assert distance / 10 < found[restarts] < 10 * distance, restarts
    # Restarts before every second step are as good as no Gram form; none at all costs a factor of 30 or more.
    assert found[2, 4] < 2 * found[None]
    assert found[()] > 20 * found[None]
