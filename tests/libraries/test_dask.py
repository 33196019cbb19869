"""Dask arrays: chunks of every kind, graphs that are only built, stacks, and what Dask cannot do."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from orthokern import BackendError, UnsupportedError, explain, newton_schulz, orthogonalize, polar

from . import derivatives

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")
distributed = pytest.importorskip("distributed")
# What Dask says of products of small chunks is true, and small chunks are wanted here.
pytestmark = pytest.mark.filterwarnings("ignore:Increasing number of chunks")

CHUNKS = {
    "one chunk": (40, 6),
    "rows": (10, 6),
    "uneven rows": ((15, 3, 22), 6),
    "columns": (40, 3),
    "blocks": (10, 3),
    "short blocks": (4, (1, 2, 3)),
}
CALLS = {
    "polar": lambda x: polar(x)[:2],
    "left": lambda x: polar(x, side="left")[:2],
    "no h": lambda x: (polar(x, compute_h=False).u,),
    "partial": lambda x: polar(x, completion="partial")[:2],
    "orthogonalize": lambda x: (orthogonalize(x),),
    "svd": lambda x: polar(x, method="svd")[:2],
    "newton": lambda x: polar(x, method="newton", lower_bound=0.3)[:2],
    "dwh": lambda x: polar(x, method="dwh", lower_bound=0.3)[:2],
    "newton_schulz, full": lambda x: polar(x, method="newton_schulz", lower_bound=0.5)[:2],
    "polar_express": lambda x: polar(x, method="polar_express", lower_bound=0.4)[:2],
    "gram": lambda x: polar(x, method="gram", lower_bound=0.4)[:2],
    "tol": lambda x: (orthogonalize(x, tol=0.1, lower_bound=0.3),),
    "steps": lambda x: (orthogonalize(x, steps=3),),
    "newton_schulz": lambda x: (newton_schulz(x),),
}
# Two accuracies of 0.1 may lie that far apart; other differences are those of sums in another order.
TOLERANCE = {"tol": 0.2}


def refuse(*args, **kwargs):
    """A scheduler that shows where a graph is computed."""
    message = "the graph was computed inside the kernel"
    raise AssertionError(message)


def lazily(call, x):
    """Call without leave to compute anything."""
    with dask.config.set(scheduler=refuse):
        return call(x)


def computed(parts):
    with dask.config.set(scheduler="synchronous"):
        return dask.compute(*parts)


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("name", CALLS)
def test_chunks_do_not_change_the_answer(rng, name, chunks):
    a = derivatives.well_conditioned(rng, 40, 6)
    results = lazily(CALLS[name], da.from_array(a, chunks=CHUNKS[chunks]))
    expected = CALLS[name](a)
    for part, result, other in zip(computed(results), results, expected, strict=True):
        assert isinstance(result, da.Array)
        assert result.shape == part.shape == other.shape
        assert result.dtype == part.dtype == other.dtype
        np.testing.assert_allclose(part, other, rtol=0, atol=TOLERANCE.get(name, 1e-14))


@pytest.mark.parametrize("shape", [(6, 6), (6, 40), (1, 7), (7, 1), (1, 1)])
@pytest.mark.parametrize("dtype", ["float64", "float32", "complex128"])
def test_shapes_and_dtypes(rng, shape, dtype):
    kind = np.complex128 if dtype == "complex128" else np.float64
    a = derivatives.well_conditioned(rng, *shape, dtype=kind).astype(dtype)
    results = lazily(lambda x: polar(x)[:2], da.from_array(a, chunks=3))
    for part, other in zip(computed(results), polar(a)[:2], strict=True):
        assert part.dtype == a.dtype
        np.testing.assert_allclose(part, other, rtol=0, atol=16 * np.finfo(dtype).eps)


def test_half_precision_comes_back(rng):
    a = derivatives.well_conditioned(rng, 8, 3).astype(np.float16)
    (u,) = computed([orthogonalize(da.from_array(a, chunks=4))])
    assert u.dtype == np.float16
    np.testing.assert_allclose(u, polar(a.astype(float)).u, rtol=0, atol=2.0**-10)


def test_tall_results_stay_in_chunks_of_rows(rng):
    x = da.from_array(derivatives.well_conditioned(rng, 40, 6), chunks=(10, 6))
    assert orthogonalize(x).chunks == x.chunks
    assert newton_schulz(x).chunks == x.chunks
    assert polar(x.T).u.chunks == x.T.chunks


@pytest.mark.parametrize("options", [{}, {"lower_bound": 0.3}, {"method": "dwh"}])
def test_a_tolerance_holds(rng, options):
    x = da.from_array(derivatives.well_conditioned(rng, 20, 4), chunks=(5, 4))
    (u,) = computed([lazily(functools.partial(orthogonalize, tol=0.1, **options), x)])
    assert np.abs(np.linalg.svd(u, compute_uv=False) - 1).max() <= 0.1


def test_diagnostics_are_lazy(rng):
    a = derivatives.well_conditioned(rng, 12, 4)
    info = lazily(lambda x: polar(x).info, da.from_array(a, chunks=(3, 4)))
    assert all(isinstance(figure, da.Array) for figure in info)
    iterations, residual, converged, *_ = computed(info)
    assert iterations == 1
    assert 0 <= residual <= 20 * np.finfo(float).eps
    assert converged


def test_unconverged_members_are_told_in_the_result_alone(rng):
    """A warning would need the values."""
    a = np.where(np.eye(12, 4) == 1, np.nan, 1.0)
    result = lazily(polar, da.from_array(a, chunks=(3, 4)))
    u, converged = computed([result.u, result.info.converged])
    assert np.isnan(u).all()
    assert not converged


def test_stacks_are_mapped_over_blocks(rng):
    a = derivatives.well_conditioned(rng, 4, 5, 3)
    x = da.from_array(a, chunks=(1, 5, 3))
    mapped = lazily(lambda x: x.map_blocks(lambda block: polar(block).u, dtype=x.dtype), x)
    np.testing.assert_allclose(computed([mapped])[0], polar(a).u, rtol=0, atol=4e-15)


@pytest.mark.parametrize(
    "options", [{}, {"method": "svd"}, {"method": "newton"}, {"method": "dwh"}]
)
def test_a_stack_is_refused_with_the_way_out(rng, options):
    x = da.from_array(derivatives.well_conditioned(rng, 2, 5, 3), chunks=(1, 5, 3))
    with pytest.raises(UnsupportedError, match="map_blocks") as caught:
        lazily(functools.partial(polar, **options), x)
    assert "\n" not in str(caught.value)
    assert "(2, 5, 3)" in str(caught.value)


def test_products_alone_serve_stacks(rng):
    a = derivatives.well_conditioned(rng, 2, 5, 3)
    (u,) = computed([lazily(newton_schulz, da.from_array(a, chunks=(1, 2, 3)))])
    np.testing.assert_allclose(u, newton_schulz(a), rtol=0, atol=1e-14)


def test_unknown_sizes_are_refused_with_the_way_out(rng):
    x = da.from_array(derivatives.well_conditioned(rng, 12, 3), chunks=(4, 3))
    x = x[x[:, 0] > 0]
    with pytest.raises(UnsupportedError, match=r"compute_chunk_sizes\(\)"):
        lazily(polar, x)
    known = x.compute_chunk_sizes()
    assert known.shape == computed([polar(known).u])[0].shape


def test_empty_and_zero_matrices():
    assert computed([polar(da.zeros((0, 3))).u])[0].shape == (0, 3)
    assert not computed([orthogonalize(da.zeros((5, 3), chunks=2))])[0].any()


def test_check_finite_computes_because_it_is_asked_to(rng):
    x = da.from_array(derivatives.well_conditioned(rng, 6, 3), chunks=3)
    assert computed([polar(x, check_finite=True).u])[0].shape == (6, 3)
    with pytest.raises(ValueError, match="finite values in x"):
        polar(da.where(x > 0, np.inf, x), check_finite=True)


def test_the_reference_runs_and_a_named_backend_is_refused(rng, named_backend):
    x = da.from_array(derivatives.well_conditioned(rng, 6, 3), chunks=3)
    with explain() as report:
        polar(x)
    assert {(d.backend, d.library) for d in report} == {("array-api", "dask")}
    with pytest.raises(BackendError, match="does not accept dask arrays"):
        polar(x, backend=named_backend)


def test_threads_and_a_cluster_agree(rng):
    x = da.from_array(derivatives.well_conditioned(rng, 40, 6), chunks=(10, 6))
    u = polar(x).u
    expected = u.compute(scheduler="synchronous")
    np.testing.assert_array_equal(u.compute(scheduler="threads"), expected)
    with distributed.Client(processes=False, n_workers=1, dashboard_address=None):
        np.testing.assert_array_equal(polar(x.persist()).u.compute(), expected)
