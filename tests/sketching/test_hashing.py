"""Hashes and sums of many rows: the same with any backend, over blocks of rows and tiles of columns."""

from __future__ import annotations

import numpy as np
import pytest

from orthokern._core.random import random_bits
from orthokern.sketching.hashing import gathered_rows, hashed, scattered_rows


@pytest.mark.parametrize("dtype", ["float64", "float32", "complex128"])
@pytest.mark.parametrize(
    ("n", "d", "rows", "nnz"), [(2500, 3, 16, 8), (2500, 300, 4096, 1), (1024, 70, 33, 11)]
)
def test_many_rows_are_those_of_the_reference(n, d, rows, nnz, dtype, rng):
    a = rng.standard_normal((n, d)).astype(dtype)
    hashes = {"nnz": nnz, "seed": 2**63 + 1, "start": 77}
    found = scattered_rows(a, rows=rows, **hashes)
    wanted = scattered_rows.body(a.astype(np.result_type(dtype, float)), rows=rows, **hashes)
    atol = 100 * np.finfo(dtype).eps * np.abs(wanted).max()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=atol)
    back = gathered_rows(found, stop=77 + n, **hashes)
    wanted = gathered_rows.body(found, stop=77 + n, **hashes)
    atol = 20 * np.finfo(dtype).eps * np.abs(wanted).max()
    np.testing.assert_allclose(back, wanted, rtol=0, atol=atol)


def test_the_sign_bit_has_no_part_in_the_target():
    """Among so many targets, a word and its neighbour often go to different ones."""
    n, block = 20000, 3 * 2**20 + 7
    words = random_bits(np.arange(n), seed=5, stream=1)[:, 0]
    wanted = (words >> 1) * block >> 31
    assert (wanted != words * block >> 32).any()
    (found,) = hashed(0, n, words, block=block, nnz=1, seed=5, stream=1, group=0)
    np.testing.assert_array_equal(found[0], wanted)
    numbers = np.arange(1.0, block + 1)[:, None]
    gathered = gathered_rows(numbers, stop=n, nnz=1, seed=5)
    np.testing.assert_array_equal(np.abs(gathered[:, 0]), wanted + 1)
