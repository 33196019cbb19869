"""Streams: the same answer as in memory, in bounded passes; sketches that are merged; lazy and sharded arrays."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import orthokern
from orthokern import LstsqMethod, LstsqStatus, StreamingSketch, lstsq_stream
from orthokern.sketching.cases.lstsq import backward_error
from orthokern.testing import libraries

BOUNDED = settings(derandomize=True, max_examples=25, deadline=None, database=None)


def problem(n=3000, d=20, kappa=1.0, k=0, seed=0):
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((n, d))
    if kappa > 1:
        v, _ = np.linalg.qr(rng.standard_normal((d, d)))
        a = (a * np.geomspace(1, 1 / kappa, d)) @ v
    return a, rng.standard_normal((n, k) if k else n)


def cut(a, b, size):
    return [(a[i : i + size], b[i : i + size]) for i in range(0, len(a), size)]


def relative(found, exact):
    return np.linalg.norm(found - exact) / np.linalg.norm(exact)


@pytest.mark.parametrize("size", [1, 700, 3000])
@pytest.mark.parametrize("k", [0, 3])
def test_a_stream_is_the_problem_in_memory(size, k):
    a, b = problem(k=k, n=300 if size == 1 else 3000)
    b = 0.1 * b + (a @ np.ones((20, k)) if k else a @ np.ones(20))
    found, whole = lstsq_stream(cut(a, b, size)), orthokern.lstsq(a, b)
    assert found.x.shape == whole.x.shape
    assert relative(found.x, whole.x) <= 1e-15
    assert int(found.info.passes) == 3
    np.testing.assert_allclose(found.residuals, whole.residuals, rtol=1e-13)


@pytest.mark.parametrize("kappa", [1e9, 1e13])
def test_an_ill_conditioned_stream_is_as_stable(kappa):
    a, b = problem(kappa=kappa)
    found = lstsq_stream(cut(a, b, 700), rcond=0.0)
    assert backward_error(a, b[:, None], found.x[:, None]) <= 1e-15
    assert int(found.info.method) == LstsqMethod.PGRAM
    assert bool(found.info.converged)


def test_how_rows_are_cut_does_not_matter():
    a, b = problem(kappa=1e9)
    one, other = (lstsq_stream(cut(a, b, size), rcond=0.0).x for size in (100, 999))
    assert relative(one, other) <= 1e-6


@pytest.mark.parametrize("scale", [2.0**-560, 2.0**530])
def test_scales_of_a_stream(scale):
    a, b = problem(500, 6)
    plain = orthokern.lstsq(a, b).x
    np.testing.assert_allclose(lstsq_stream(cut(a * scale, b, 90)).x * scale, plain, rtol=1e-12)
    np.testing.assert_allclose(lstsq_stream(cut(a, b * scale, 90)).x / scale, plain, rtol=1e-12)


def test_ranks_of_a_stream():
    a, b = problem(900, 8)
    a[:, 3], a[:, 5] = 0, a[:, 1]
    found, exact = lstsq_stream(cut(a, b, 128)), np.linalg.lstsq(a, b, rcond=None)
    assert int(found.rank) == exact[2] == 6
    np.testing.assert_allclose(found.x, exact[0], rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("shape", [(5, 9), (30, 12), (60, 12)])
def test_few_rows(shape):
    a, b = problem(*shape)
    np.testing.assert_allclose(
        lstsq_stream(cut(a, b, 4)).x, orthokern.lstsq(a, b).x, rtol=1e-11, atol=1e-13
    )


def test_damped_single_and_not_finite_streams():
    a, b = problem(400, 5)
    np.testing.assert_allclose(
        lstsq_stream(cut(a, b, 99), damp=0.7).x, orthokern.lstsq(a, b, damp=0.7).x, rtol=1e-13
    )
    single = lstsq_stream(cut(a.astype(np.float32), b.astype(np.float32), 99)).x
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, orthokern.lstsq(a, b).x, rtol=1e-4, atol=1e-5)
    a[7, 2] = np.nan
    found = lstsq_stream(cut(a, b, 99))
    assert np.isnan(found.x).all()
    assert int(found.info.status) == LstsqStatus.NOT_FINITE


def test_progress_and_functions():
    a, b = problem(1000, 5)
    b = 0.1 * b + a @ np.ones(5)
    seen = []
    found = lstsq_stream(lambda: iter(cut(a, b, 400)), progress=lambda *step: seen.append(step))
    assert relative(found.x, orthokern.lstsq(a, b).x) <= 1e-15
    assert seen == [(p, rows) for p in (1, 2, 3) for rows in (400, 800, 1000)]


def test_one_pass():
    a, b = problem(1000, 5)
    found = lstsq_stream(iter(cut(a, b, 300)), passes=1)
    assert relative(found.x, orthokern.lstsq(a, b).x) <= 1e-13
    assert int(found.info.status) == LstsqStatus.ONE_PASS
    assert int(found.info.passes) == 1
    assert float(found.info.backward_error) <= 1e-14
    np.testing.assert_allclose(found.residuals, orthokern.lstsq(a, b).residuals, rtol=1e-10)


def test_refusals_of_streams():
    a, b = problem(20, 3)
    with pytest.raises(orthokern.OptionError, match="several times"):
        lstsq_stream(iter(cut(a, b, 5)))
    with pytest.raises(orthokern.OptionError, match="at least one block"):
        lstsq_stream([])
    with pytest.raises(orthokern.OptionError, match="passes"):
        lstsq_stream(cut(a, b, 5), passes=2)
    with pytest.raises(orthokern.ShapeError, match="leave out empty blocks"):
        lstsq_stream([(a[:0], b[:0])])
    with pytest.raises(orthokern.ShapeError, match="expected b of shape"):
        lstsq_stream([(a, b[:7])])
    with pytest.raises(orthokern.OptionError, match="call update first"):
        StreamingSketch().solve()
    with pytest.raises(orthokern.OptionError, match="with the options"):
        StreamingSketch().merge(StreamingSketch(seed=1))


@given(
    seed=st.integers(0, 2**32 - 1),
    cuts=st.lists(st.integers(1, 199), min_size=1, max_size=4, unique=True),
    kind=st.sampled_from(["sjlt", "gaussian", None]),
)
@BOUNDED
def test_merged_parts_are_the_whole(seed, cuts, kind):
    a, b = problem(200, 4, seed=seed)
    whole = StreamingSketch(sketch=kind).update(a, b)
    merged = StreamingSketch(sketch=kind)
    edges = [0, *sorted(cuts), 200]
    for start, stop in pairwise(edges):
        part = StreamingSketch(sketch=kind, first_row=start).update(a[start:stop], b[start:stop])
        merged.merge(part)
    assert merged.rows == 200
    for one, other in zip(merged._sums, whole._sums, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(merged.solve().x, whole.solve().x, rtol=1e-10)


def test_a_sketch_helps_where_the_normal_equations_fail():
    a, b = problem(3000, 10, kappa=1e10)
    x = np.linalg.lstsq(a, b, rcond=None)[0]
    sketch = StreamingSketch(sketch_size=400)
    for block in cut(a, b, 500):
        sketch.update(*block)
    found = sketch.solve()
    assert int(found.info.method) == LstsqMethod.SKETCH
    smallest = np.linalg.norm(b - a @ x)
    assert np.linalg.norm(b - a @ found.x) <= 1.1 * smallest


# Arrays in pieces


@pytest.mark.parametrize("kappa", [1.0, 1e9])
@pytest.mark.parametrize("chunks", [(400, 20), (3000, 7), (999, 11)])
def test_dask(kappa, chunks):
    da = pytest.importorskip("dask.array")
    a, b = problem(kappa=kappa)
    found = orthokern.lstsq(
        da.from_array(a, chunks=chunks), da.from_array(b, chunks=chunks[0]), rcond=0.0
    )
    whole = orthokern.lstsq(a, b, rcond=0.0)
    assert isinstance(found.x, da.Array)
    assert relative(found.x.compute(), whole.x) <= (1e-14 if kappa == 1 else 1e-5)
    assert backward_error(a, b[:, None], found.x.compute()[:, None]) <= 1e-15
    assert int(found.info.method) == (LstsqMethod.GRAM if kappa == 1 else LstsqMethod.PGRAM)


@pytest.mark.parametrize("kappa", [1.0, 1e9])
def test_workers_of_a_cluster(kappa):
    """Two processes hold the rows; what comes back is the answer in memory."""
    da, distributed = pytest.importorskip("dask.array"), pytest.importorskip("distributed")
    a, b = problem(kappa=kappa)
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster):
        rows = da.from_array(a, chunks=(500, 20)), da.from_array(b, chunks=500)
        found = orthokern.lstsq(*(v.persist() for v in rows), rcond=0.0)
        x = found.x.compute()
    assert relative(x, orthokern.lstsq(a, b, rcond=0.0).x) <= (1e-14 if kappa == 1 else 1e-5)
    assert backward_error(a, b[:, None], x[:, None]) <= 1e-15


@pytest.mark.skipif("jax" not in libraries.available(), reason="JAX is not installed")
def test_rows_spread_over_devices():
    import jax
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    a, b = (v.astype(np.float32) for v in problem(240, 6))
    mesh = Mesh(np.array(jax.devices()), ("rows",))
    rows = NamedSharding(mesh, PartitionSpec("rows"))
    left, right = (jax.device_put(v, rows) for v in (a, b))
    found = orthokern.lstsq(left, right).x
    np.testing.assert_allclose(found, orthokern.lstsq(a, b).x, rtol=1e-4, atol=1e-6)
