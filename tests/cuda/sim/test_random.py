"""Random words on the device: the bits of the reference."""

from __future__ import annotations

import numpy as np
import pytest
from orthokern_numba.gpu.random import random_bits

from orthokern._core.random import random_bits as reference

from .fibers import Place

COUNTERS = {
    "int64": np.arange(300),
    "uint64": np.array([0, 1, 2**32 - 1, 2**32, 2**63, 2**64 - 1], dtype=np.uint64),
    "int32": np.arange(100, dtype=np.int32),
    "uint32": np.array([0, 7, 2**31, 2**32 - 1], dtype=np.uint32),
    "int16": np.arange(5, dtype=np.int16),
    "far": np.array([2**40, 2**52 + 1, 2**62 - 3]),
    "two axes": np.arange(12).reshape(3, 4),
    "reversed": np.arange(9)[::-1],
    "single": np.asarray(5),
    "none": np.arange(0),
}
KEYS = ({"seed": 0, "stream": 4}, {"seed": 2**64 - 3, "stream": 2**32 - 1, "group": 5})


@pytest.mark.parametrize("options", KEYS)
@pytest.mark.parametrize("name", COUNTERS)
def test_words_are_those_of_the_reference(everywhere, name, options):
    index = COUNTERS[name]
    words = everywhere(lambda place: random_bits(place, index, **{"group": 0} | options))
    wanted = reference.body(index, **options)
    assert words.shape == (*index.shape, 4)
    assert words.dtype == wanted.dtype
    np.testing.assert_array_equal(words, wanted)


def test_known_answer():
    """Random123's example for a counter and a key of zeros."""
    words = random_bits(Place(), np.arange(1), seed=0, stream=0, group=0)
    assert [f"{word:08x}" for word in words[0]] == ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]
