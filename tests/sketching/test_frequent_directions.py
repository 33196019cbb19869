"""Frequent directions: the certificate, merging, hard streams."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import orthokern
from orthokern.testing.libraries import to_numpy

from .conftest import PLACES, eps_of, made

BOUNDED = settings(derandomize=True, max_examples=40, deadline=None, database=None)
eager = pytest.mark.parametrize("place", [p for p in PLACES if p.library != "dask"], ids=str)


def assert_certificate(a, stream):
    b = to_numpy(stream.sketch)
    size = np.linalg.norm(a) ** 2
    values = np.linalg.eigvalsh(a.conj().T @ a - b.conj().T @ b)
    assert b.shape[0] <= stream.l
    assert values[0] >= -1e-13 * size
    assert values[-1] <= stream.shed + 1e-13 * size
    s2 = np.linalg.svd(a, compute_uv=False) ** 2
    for k in range(stream.l):
        assert stream.shed <= s2[k:].sum() / (stream.l - k) + 1e-13 * size


@eager
def test_known_sketch(place):
    stream = orthokern.FrequentDirections(2, 3).update(
        made(np.diag([3.0, 2.0, 1.0]), place.library)
    )
    b = to_numpy(stream.sketch)
    np.testing.assert_allclose(b.T @ b, np.diag([8.0, 3, 0]), atol=32 * eps_of(stream.sketch))
    np.testing.assert_allclose(stream.shed, 1, rtol=8 * eps_of(stream.sketch))


@BOUNDED
@given(st.integers(1, 12), st.integers(1, 9), st.integers(1, 60), st.integers(0, 99), st.booleans())
def test_certificate(l, d, n, seed, imaginary):  # noqa: E741
    g = np.random.default_rng(seed)
    a = g.standard_normal((n, d)) * 0.7 ** np.arange(d)
    a = a + 1j * g.standard_normal((n, d)) if imaginary else a
    stream = orthokern.FrequentDirections(l, d)
    for block in np.split(a, [n // 3, n // 2]):
        stream.update(block)
    assert_certificate(a, stream)


@BOUNDED
@given(st.integers(1, 6), st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
def test_merged(l, n, m, seed):  # noqa: E741
    g = np.random.default_rng(seed)
    a, b = g.standard_normal((n, 5)), 3 * g.standard_normal((m, 5))
    one, two = (orthokern.FrequentDirections(l, 5).update(x) for x in (a, b))
    assert_certificate(np.concatenate([a, b]), one.merge(two))


def test_decay_of_the_paper():
    g = np.random.default_rng(0)
    a = g.standard_normal((3000, 60)) * 0.9 ** np.arange(60)
    for l in (10, 20, 30):  # noqa: E741
        stream = orthokern.FrequentDirections(l, 60).update(a)
        assert_certificate(a, stream)


def test_low_rank_streams_lose_nothing():
    a = np.random.default_rng(0).standard_normal((200, 3)) @ np.ones((3, 7))
    stream = orthokern.FrequentDirections(4, 7).update(a)
    np.testing.assert_allclose(stream.sketch.T @ stream.sketch, a.T @ a, rtol=1e-12)
    assert stream.shed <= 1e-13 * np.linalg.norm(a) ** 2
    zero = orthokern.FrequentDirections(2, 3).update(np.zeros((9, 3)))
    assert zero.shed == 0
    assert not zero.sketch.any()


def test_nothing_seen_rows_and_single_precision():
    stream = orthokern.FrequentDirections(2, 3)
    assert stream.sketch is None
    assert stream.merge(orthokern.FrequentDirections(5, 3)).shed == 0
    assert stream.update(np.ones((0, 3))).sketch is None
    stream.update(np.ones(3, np.float32)).update(np.ones(3))
    assert stream.sketch.dtype == float
    np.testing.assert_allclose(stream.sketch.T @ stream.sketch, 2, rtol=1e-14)


def test_refusals():
    stream = orthokern.FrequentDirections(2, 3)
    with pytest.raises(orthokern.ShapeError):
        stream.update(np.ones((2, 4)))
    with pytest.raises(orthokern.ValuesError, match="finite"):
        stream.update(np.full((1, 3), np.nan))
    with pytest.raises(orthokern.ShapeError, match="merge"):
        stream.merge(orthokern.FrequentDirections(2, 4))
    with pytest.raises(orthokern.OptionError):
        orthokern.FrequentDirections(0, 4)
