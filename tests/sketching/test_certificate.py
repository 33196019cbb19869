"""The certificate of sketch-and-solve: known variances, coverage, and the case that sparse sketches fail."""

from __future__ import annotations

import numpy as np
import pytest

import orthokern
from orthokern import sketched_lstsq
from orthokern.testing.libraries import to_numpy

from .conftest import made


def spiky(n, d, s, seed):
    """Columns of the identity, and a right-hand side of a few equal entries below them: x* is zero."""
    rng = np.random.default_rng(seed)
    a = np.eye(n, d)
    count = max(1, 2 * s // d)
    b = np.zeros(n)
    b[d + rng.permutation(n - d)[:count]] = count**-0.5
    return a, b


def generic(n, d, seed):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)), rng.standard_normal(n)


def test_known_deviations(place):
    """Of orthonormal columns: the deviation of every entry is about ``||r|| / sqrt(s)``."""
    a, b = spiky(64, 2, 40, 0)
    found = sketched_lstsq(
        made(a, place.library), made(b, place.library), sketch_size=40, backend=place.backend
    )
    assert type(found.x) is type(made(a, place.library))
    np.testing.assert_allclose(to_numpy(found.error_sd), 40**-0.5, rtol=0.5)
    np.testing.assert_allclose(
        to_numpy(found.error_bound / found.error_sd), np.sqrt(2 * np.log(4 / 0.05)), rtol=1e-5
    )
    np.testing.assert_allclose(to_numpy(found.info.residual), 1.0, rtol=0.4)
    assert int(found.info.sketch_rows) == 40
    np.testing.assert_allclose(float(found.info.inflation), 1 + 2 / 38, rtol=1e-6)


def test_deviations_are_those_of_many_sketches():
    a, b = generic(300, 4, 1)
    exact = np.linalg.lstsq(a, b, rcond=None)[0]
    found = [sketched_lstsq(a, b, sketch="gaussian", sketch_size=60, seed=s) for s in range(300)]
    errors = np.array([f.x for f in found]) - exact
    sd = np.sqrt(np.mean([f.error_sd**2 for f in found], axis=0))
    np.testing.assert_allclose(np.sqrt(np.mean(errors**2, axis=0)), sd, rtol=0.15)


@pytest.mark.parametrize("sketch", ["gaussian", "srht", "rademacher"])
@pytest.mark.parametrize("kind", ["generic", "spiky"])
def test_coverage(sketch, kind):
    """At most a share delta of 500 trials, and four standard deviations of that number."""
    n, d, s, delta, trials = 256, 8, 64, 0.1, 500
    misses = 0
    for seed in range(trials):
        a, b = generic(n, d, seed % 5) if kind == "generic" else spiky(n, d, s, seed % 5)
        exact = np.linalg.lstsq(a, b, rcond=None)[0] if seed < 5 else EXACT[kind, seed % 5]
        EXACT[kind, seed % 5] = exact
        found = sketched_lstsq(a, b, sketch=sketch, sketch_size=s, delta=delta, seed=seed)
        misses += bool(np.any(np.abs(found.x - exact) > found.error_bound))
    assert misses <= delta * trials


EXACT: dict[tuple[str, int], np.ndarray] = {}


def test_the_bound_is_not_idle():
    """Half of it is passed in some trials: a bound that never comes near would pass the test of coverage."""
    a, b = generic(256, 8, 0)
    exact = np.linalg.lstsq(a, b, rcond=None)[0]
    near = 0
    for seed in range(100):
        found = sketched_lstsq(a, b, sketch="gaussian", sketch_size=64, seed=seed)
        near += bool(np.any(np.abs(found.x - exact) > 0.6 * found.error_bound))
    assert near >= 5


def errors_of(sketch, make, trials=40):
    n, d, s = 2048, 64, 1024
    found = []
    for seed in range(trials):
        a, b = make(n, d, s, seed)
        exact = np.linalg.lstsq(a, b, rcond=None)[0] if make is not spiky else np.zeros(d)
        x = sketched_lstsq(a, b, sketch=sketch, sketch_size=s, seed=seed, force=True).x
        found.append(np.abs(x - exact).max())
    return float(np.median(found))


def test_errors_of_sparse_sketches_gather_in_single_entries():
    dense, sparse = errors_of("srht", spiky), errors_of("countsketch", spiky)
    assert sparse >= 2 * dense
    # What a bucket holds that a column of the identity shares with one entry of b.
    assert sparse == pytest.approx((64 / 2048) ** 0.5, rel=0.05)


def test_without_spikes_they_do_not():
    def incoherent(n, d, s, seed):
        return generic(n, d, seed)

    ratio = errors_of("countsketch", incoherent, 5) / errors_of("srht", incoherent, 5)
    assert ratio <= 1.6


def test_columns_and_batches():
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((2, 100, 5)), rng.standard_normal((2, 100, 3))
    found = sketched_lstsq(a, b, sketch_size=50)
    assert found.x.shape == found.error_bound.shape == (2, 5, 3)
    for i in range(2):
        for j in range(3):
            alone = sketched_lstsq(a[i], b[i, :, j], sketch_size=50)
            np.testing.assert_allclose(found.x[i, :, j], alone.x, rtol=1e-12)
            np.testing.assert_allclose(found.error_sd[i, :, j], alone.error_sd, rtol=1e-12)


def test_no_full_rank_no_bound():
    a, b = generic(100, 4, 0)
    a[:, 2] = a[:, 1]
    found = sketched_lstsq(a, b)
    assert int(found.info.rank) == 3
    assert np.isnan(found.error_bound).all()


def test_sizes():
    a, b = generic(4096, 4, 0)
    assert int(sketched_lstsq(a, b).info.sketch_rows) == 64
    wanted = orthokern.suggest_sketch_size("srht", 4, eps=0.3, delta=0.05, purpose="linf")
    assert int(sketched_lstsq(a, b, eps=0.3).info.sketch_rows) == wanted


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"sketch": "sjlt"}, orthokern.OptionError, "pass force=True"),
        ({"sketch": "countsketch"}, orthokern.OptionError, "pass force=True"),
        ({"sketch": "dct"}, orthokern.OptionError, "sketch to be one of"),
        ({"sketch_size": 3}, orthokern.OptionError, "sketch_size"),
        ({"sketch_size": 9, "eps": 0.1}, orthokern.OptionError, "got both"),
        ({"delta": 0.0}, orthokern.OptionError, "delta"),
        ({"eps": 2.0}, orthokern.OptionError, "eps"),
    ],
)
def test_refusals(options, error, match):
    with pytest.raises(error, match=match):
        sketched_lstsq(np.ones((9, 3)), np.ones(9), **options)


def test_wide_matrices_are_refused():
    with pytest.raises(orthokern.ShapeError, match="use lstsq"):
        sketched_lstsq(np.ones((2, 3)), np.ones(2))
