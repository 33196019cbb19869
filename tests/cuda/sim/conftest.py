"""What the tests in the simulator share."""

from __future__ import annotations

import numpy as np
import pytest

from .fibers import ORDERS, Place

MOST_THREADS = 2000


@pytest.fixture
def everywhere():
    """Run a launch with the threads in every order: the results must be the same bits."""

    def call(run):
        places = [Place(order) for order in ORDERS]
        results = [run(place) for place in places]
        assert sum(place.threads for place in places) < MOST_THREADS
        for other in results[1:]:
            for first, second in zip(parts(results[0]), parts(other), strict=True):
                np.testing.assert_array_equal(bits(first), bits(second))
        return results[0]

    return call


def parts(result):
    return [part for part in result if part is not None] if isinstance(result, tuple) else [result]


def bits(array):
    return np.ascontiguousarray(array).view(np.uint8)
