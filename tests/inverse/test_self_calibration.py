"""Self-calibration: exact recovery up to the counting rule, noise, masks, ambiguity, symmetries, refusals."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import orthokern
from orthokern import SelfCalModel, SelfCalStatus
from orthokern.inverse import elimination
from orthokern.testing import libraries

from .conftest import apart, assert_near, made

MODELS = ("shared", "diverse", "snapshots")


class Truth(NamedTuple):
    """Measurements, matrices, and the gains and signals behind them."""

    y: np.ndarray
    a: np.ndarray
    gains: np.ndarray
    x: np.ndarray


def measured(rng, model, m, n, p, *, snr=None, real=False):
    """Gaussian matrices and signals, gains of size 0.5 to 1.5 and any phase, noise of ``snr`` dB."""

    def draw(*shape):
        z = rng.standard_normal(shape)
        return z if real else (z + 1j * rng.standard_normal(shape)) / np.sqrt(2)

    turn = draw(m)
    gains = (0.5 + rng.random(m)) * turn / np.abs(turn)
    a = draw(m, n) if model == "snapshots" else draw(p, m, n)
    x = draw(n) if model == "shared" else draw(p, n)
    y = gains * (a @ x[..., None])[..., 0] if model != "snapshots" else gains * (x @ a.T)
    if snr is not None:
        noise = draw(*y.shape)
        y = y + noise * np.linalg.norm(y) / np.linalg.norm(noise) * 10 ** (-snr / 20)
    return Truth(y, a, gains, x)


def whole(truth, model):
    """The linear system in inverse gains and signals."""
    p, m = truth.y.shape
    n = truth.a.shape[-1]
    blocks = 1 if model == "shared" else p
    system = np.zeros((p * m, m + blocks * n), dtype=truth.y.dtype)
    for k in range(p):
        rows = slice(k * m, (k + 1) * m)
        system[rows, :m] = np.diag(truth.y[k])
        first = m + (0 if model == "shared" else k * n)
        system[rows, first : first + n] = -(truth.a if model == "snapshots" else truth.a[k])
    return system


def dense(truth, model):
    """Least squares with the sum of the inverse gains set."""
    p, m = truth.y.shape
    system = whole(truth, model)
    mean = np.where(np.arange(system.shape[1]) < m, 1.0, 0.0)
    right = np.where(np.arange(p * m + 1) < p * m, 0.0, 1.0)
    return np.linalg.lstsq(np.vstack([system, mean]), right, rcond=None)[0]


def calibrated(truth, model, **options):
    return orthokern.self_calibrate(truth.y, truth.a, model=model, **options)


# Recovery


@pytest.mark.parametrize(
    ("model", "method"), [("shared", "als"), ("diverse", "lstsq"), ("snapshots", "spectral")]
)
def test_every_library_recovers(model, method, solving_library, dtype):
    rng = np.random.default_rng(3)
    truth = measured(rng, model, 12, 4, 5, real=True)
    y, a = (made(part, solving_library, dtype) for part in (truth.y, truth.a))
    w = made(np.sign(truth.gains), solving_library, dtype)
    options = {"w": w} if method == "lstsq" else {}
    found = orthokern.self_calibrate(y, a, model=model, method=method, **options)
    gains = truth.gains * np.sqrt(12) / np.linalg.norm(truth.gains)
    gains = gains * np.sign(gains.mean())
    assert_near(found.gains, gains, 300)
    assert_near(found.inverse_gains, 1 / gains, 1000)
    assert_near(found.x, truth.x * truth.gains[0] / gains[0], 1000)
    assert bool(found.info.converged)
    assert int(found.info.status) == SelfCalStatus.IDENTIFIED
    assert int(found.info.model) == SelfCalModel[model.upper()]
    assert type(found.gains) is type(y)


# The largest n that the counting rule allows, for m = 32.
LIMITS = [
    *(("shared", p, 32 * p - 31) for p in (2, 3, 4)),
    *(("diverse", p, (32 * p - 31) // p) for p in (2, 4)),
    *(("snapshots", p, (32 * p - 31) // p) for p in (2, 3, 4, 6, 8)),
]


@pytest.mark.parametrize(("model", "p", "most"), LIMITS)
def test_the_phase_transition_is_where_the_equations_run_out(model, p, most):
    rng = np.random.default_rng(p)
    for _ in range(4):
        truth = measured(rng, model, 32, most, p)
        found = calibrated(truth, model)
        limit = 1e-14 * float(found.info.cond)
        assert bool(found.info.converged)
        assert apart(found.gains, truth.gains) < limit < 1e-8
        assert apart(found.x, truth.x) < 10 * limit
    with pytest.raises(orthokern.ShapeError, match="p m >= m"):
        calibrated(measured(rng, model, 32, most + 1, p), model)


@pytest.mark.parametrize("model", MODELS)
def test_what_is_refused_has_more_than_one_solution(model):
    """And what is not has one, up to a scalar: the count against ranks."""
    m = 7
    for p in (1, 2, 3, 5):
        for n in range(1, 3 * m if model == "shared" else m + 1):
            truth = measured(np.random.default_rng([p, n]), model, m, n, p)
            free = np.sum(np.linalg.svd(whole(truth, model))[1] < 1e-10)
            free += max(0, whole(truth, model).shape[1] - p * m)
            try:
                found = calibrated(truth, model)
            except orthokern.ShapeError:
                assert free > 1, (p, n)
            else:
                assert free == 1, (p, n)
                assert bool(found.info.converged)


@pytest.mark.parametrize("model", MODELS)
def test_the_equation_for_the_mean_is_that_of_the_dense_solve(model, rng):
    """With noise, where solutions of another problem would differ."""
    truth = measured(rng, model, 16, 5, 6, snr=20)
    z = dense(truth, model)
    found = calibrated(truth, model, method="lstsq", normalize=None)
    assert found.inverse_gains.sum() == pytest.approx(1, abs=1e-13)
    z = z / z[:16].sum()
    np.testing.assert_allclose(found.inverse_gains, z[:16], rtol=1e-11)
    np.testing.assert_allclose(np.ravel(found.x), z[16:], rtol=1e-10)


def test_the_smallest_singular_value_is_that_of_the_reduced_problem(rng):
    """The whole system projected, with columns in the metric of the noise."""
    truth = measured(rng, "snapshots", 14, 4, 5, snr=30)
    q = np.linalg.qr(truth.a)[0]
    w = np.eye(14) - q @ q.conj().T
    reduced = np.concatenate([w * row for row in truth.y])
    share = 5 * np.real(np.diag(w))
    for weighted in (True, False):
        units = share**-0.5 if weighted else np.ones(14)
        s = np.linalg.svd(reduced * units, compute_uv=False)
        info = calibrated(truth, "snapshots", noise_weight=weighted).info
        scale = info.sigma[0] / s[-1]
        np.testing.assert_allclose(info.sigma, scale * s[[-1, -2]], rtol=1e-10)
        np.testing.assert_allclose(info.gap, s[-2] / s[-1], rtol=1e-10)
        np.testing.assert_allclose(info.cond, s[0] / s[-2], rtol=1e-10)


def test_squaring_costs_no_digits(rng):
    """Gains over eight decades, the condition number 1e7: an eigenvector alone would lose fourteen digits."""
    a, x = rng.standard_normal((20, 5)), rng.standard_normal((8, 5))
    gains = 10 ** (6 * (rng.random(20) - 0.5))
    found = orthokern.self_calibrate(gains * (x @ a.T), a)
    assert float(found.info.cond) > 1e4
    ratio = found.gains / gains
    np.testing.assert_allclose(ratio, ratio.mean(), rtol=1e-13)


def test_corrections_are_needed(rng, monkeypatch):
    """The accuracy that other tests ask for is theirs."""
    truth = measured(np.random.default_rng(1), "snapshots", 32, 24, 4)
    fine = apart(calibrated(truth, "snapshots").gains, truth.gains)
    monkeypatch.setattr(elimination, "CORRECTIONS", 0)
    assert apart(calibrated(truth, "snapshots").gains, truth.gains) > 10 * fine


# Noise


@pytest.mark.parametrize(
    ("model", "m", "n", "p"),
    [("shared", 64, 64, 4), ("diverse", 64, 16, 8), ("snapshots", 64, 16, 8)],
)
def test_the_table_of_noise(model, m, n, p):
    """Proportional to the noise; least squares with the mean fails first, alternating steps gain a little."""
    rng = np.random.default_rng(11)
    medians = {}
    for snr in (80, 60, 40, 20, 10):
        errors = []
        for _ in range(7):
            truth = measured(rng, model, m, n, p, snr=snr)
            found = [calibrated(truth, model, method=k) for k in ("spectral", "lstsq", "als")]
            errors.append([apart(f.gains, truth.gains) for f in found])
            assert errors[-1][0] <= 2 * 10 ** (-snr / 20) * float(found[0].info.cond)
        medians[snr] = np.median(errors, axis=0)
    for snr in (80, 60, 40):
        low, high = (factor * 10 ** (-snr / 20) for factor in (0.3, 1.0))
        assert np.all((medians[snr] > low) & (medians[snr] < high)), (snr, medians[snr])
    spectral, linear, alternating = medians[20]
    assert 0.03 < spectral < 0.1
    assert 1.5 * spectral < linear < 0.25
    assert alternating < spectral
    spectral, linear, alternating = medians[10]
    assert spectral < 0.4
    assert linear > 0.7
    assert 0.1 < alternating < 0.25


def test_the_metric_of_the_noise_removes_a_bias():
    """Some sensors that the signals can imitate almost alone: noise raises all the others more."""
    rng = np.random.default_rng(5)
    errors = []
    for _ in range(20):
        a = rng.standard_normal((30, 6)) * np.where(np.arange(30) < 5, 5.0, 1.0)[:, None]
        gains, x = 0.5 + rng.random(30), rng.standard_normal((400, 6))
        y = gains * (x @ a.T)
        y = y + rng.standard_normal(y.shape)
        found = [orthokern.self_calibrate(y, a, noise_weight=on) for on in (True, False)]
        errors.append([apart(f.gains, gains) for f in found])
    weighted, plain = np.median(errors, axis=0)
    assert weighted < 0.8 * plain


def test_refining_lowers_the_residual(rng):
    truth = measured(rng, "snapshots", 24, 6, 6, snr=15)
    residuals = [
        float(calibrated(truth, "snapshots", refine=steps).info.residual) for steps in (1, 2, 5, 30)
    ]
    assert residuals == sorted(residuals, reverse=True)
    settled = calibrated(truth, "snapshots", method="als")
    assert float(settled.info.residual) <= residuals[-1] * (1 + 1e-5)
    assert 1 < int(settled.info.iterations) < 100
    image = settled.gains * (settled.x @ truth.a.T)
    expected = np.linalg.norm(truth.y - image) / np.linalg.norm(truth.y)
    np.testing.assert_allclose(settled.info.residual, expected, rtol=1e-12)


# What cannot be known


def test_a_silent_sensor_is_masked(rng):
    truth = measured(rng, "snapshots", 14, 4, 6)
    y = truth.y.copy()
    y[:, 3] = 0
    keep = np.arange(14) != 3
    for method in ("spectral", "lstsq", "als"):
        found = orthokern.self_calibrate(y, truth.a, method=method)
        assert found.info.masked.tolist() == (~keep).tolist()
        assert np.isnan(found.gains[3])
        assert np.isnan(found.inverse_gains[3])
        alone = orthokern.self_calibrate(y[:, keep], truth.a[keep], method=method)
        np.testing.assert_allclose(found.gains[keep], alone.gains, rtol=1e-11)
        np.testing.assert_allclose(found.x, alone.x, rtol=1e-11)
        np.testing.assert_allclose(found.info.cond, alone.info.cond, rtol=1e-9)
    with pytest.raises(orthokern.ValuesError, match="none in a member"):
        orthokern.self_calibrate(np.zeros((6, 14)), truth.a.real)


def test_a_sensor_that_signals_explain_alone_is_masked(rng):
    """It sees a coordinate of its own, which no other sensor sees."""
    truth = measured(rng, "snapshots", 14, 4, 8)
    a = np.zeros((15, 5), dtype=complex)
    a[:14, :4], a[14, 4] = truth.a, 1
    y = np.concatenate([truth.y, rng.standard_normal((8, 1))], axis=1)
    found = orthokern.self_calibrate(y, a)
    assert np.flatnonzero(found.info.masked).tolist() == [14]
    assert apart(found.gains[:14], truth.gains) < 1e-12


@pytest.mark.parametrize("seed", range(12))
def test_two_groups_of_sensors_are_ambiguous(seed):
    """Each may be scaled by itself. Both values are rounding errors, whose quotient says nothing."""
    rng = np.random.default_rng(seed)
    one, two = (measured(rng, "snapshots", 10, 3, 5) for _ in range(2))
    a = np.zeros((20, 6), dtype=complex)
    a[:10, :3], a[10:, 3:] = one.a, two.a
    found = orthokern.self_calibrate(np.concatenate([one.y, two.y], axis=1), a)
    assert int(found.info.status) == SelfCalStatus.AMBIGUOUS
    assert not bool(found.info.converged)


def test_columns_that_depend_on_others_give_the_shortest_signals(rng):
    truth = measured(rng, "snapshots", 16, 4, 6)
    found = orthokern.self_calibrate(truth.y, truth.a)
    twice = orthokern.self_calibrate(truth.y, np.concatenate([truth.a, truth.a[:, :1]], axis=1))
    np.testing.assert_allclose(twice.gains, found.gains, rtol=1e-11)
    np.testing.assert_allclose(twice.x[:, 0], found.x[:, 0] / 2, rtol=1e-11)
    np.testing.assert_allclose(twice.x[:, 0], twice.x[:, 4], rtol=1e-11)


def test_non_finite_members_stay_alone(rng):
    truth = measured(rng, "diverse", 12, 3, 4, real=True)
    y = np.stack([truth.y] * 3)
    y[1, 2, 2] = np.nan
    found = orthokern.self_calibrate(y, truth.a, model="diverse")
    assert found.info.status.tolist() == [0, 2, 0]
    assert np.all(np.isnan(found.gains[1]))
    assert np.all(np.isnan(found.x[1]))
    assert np.isnan(found.info.residual[1])
    for i in (0, 2):
        assert apart(found.gains[i], truth.gains) < 1e-13
    with pytest.raises(orthokern.ValuesError, match="finite values in y"):
        orthokern.self_calibrate(y, truth.a, model="diverse", check_finite=True)


# Symmetries


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(MODELS),
    st.integers(0, 2**32 - 1),
    st.complex_numbers(min_magnitude=1e-12, max_magnitude=1e12, allow_nan=False),
)
def test_a_factor_of_the_data_goes_to_the_signals(model, seed, c):
    truth = measured(np.random.default_rng(seed), model, 12, 3, 5, snr=40)
    found, other = calibrated(truth, model), calibrated(truth._replace(y=c * truth.y), model)
    assert apart(other.gains, found.gains) < 1e-11
    assert np.linalg.norm(other.gains) == pytest.approx(np.sqrt(12))
    assert other.gains.mean().real >= 0
    np.testing.assert_allclose(other.x, c * found.x, rtol=1e-8, atol=1e-10 * abs(c))


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(MODELS), st.integers(0, 2**32 - 1))
def test_the_order_of_sensors_does_not_matter(model, seed):
    rng = np.random.default_rng(seed)
    truth = measured(rng, model, 12, 3, 5, snr=40)
    order = rng.permutation(12)
    turned = Truth(truth.y[:, order], truth.a[..., order, :], truth.gains[order], truth.x)
    for method in ("spectral", "als"):
        found, other = (calibrated(t, model, method=method) for t in (truth, turned))
        np.testing.assert_allclose(other.gains, found.gains[order], rtol=1e-9)


STACKS = [
    *((model, "numpy") for model in MODELS),
    *(("snapshots", name) for name in libraries.available() if name not in ("numpy", "dask")),
]


@pytest.mark.parametrize(("model", "library"), STACKS)
def test_a_stack_is_its_members(model, library, rng):
    truths = [measured(rng, model, 10, 3, 4, real=True) for _ in range(3)]
    y, a = (np.stack([t[i] for t in truths]) for i in range(2))
    y[1] *= 2.0**30
    found = orthokern.self_calibrate(made(y, library), made(a, library), model=model)
    for i, truth in enumerate(truths):
        alone = calibrated(truth, model)
        factor = 2.0**30 if i == 1 else 1.0
        assert_near(found.gains[i, ...], alone.gains, 500)
        assert_near(found.x[i, ...], factor * alone.x, 2000, factor)


def test_normalizations(rng):
    truth = measured(rng, "snapshots", 12, 4, 6)
    by = {key: calibrated(truth, "snapshots", normalize=key) for key in ("norm", "mean", None)}
    assert np.linalg.norm(by["norm"].gains) == pytest.approx(np.sqrt(12), rel=1e-14)
    assert abs(by["norm"].gains.mean().imag) < 1e-15
    assert by["mean"].gains.mean() == pytest.approx(1, abs=1e-13)
    for found in by.values():
        np.testing.assert_allclose(found.gains * (found.x @ truth.a.T), truth.y, rtol=1e-11)
        np.testing.assert_allclose(found.gains * found.inverse_gains, 1, rtol=1e-14)


def test_low_precision_comes_back_as_it_was():
    torch = pytest.importorskip("torch")
    truth = measured(np.random.default_rng(0), "snapshots", 12, 3, 8, real=True)
    y, a = (torch.tensor(part, dtype=torch.bfloat16) for part in (truth.y, truth.a))
    found = orthokern.self_calibrate(y, a)
    assert found.gains.dtype == found.x.dtype == torch.bfloat16
    assert apart(found.gains.double().numpy(), truth.gains) < 0.02


# Refusals

Y, A = np.ones((4, 6)), np.ones((6, 2))
REFUSED = [
    ({"y": np.ones(6)}, orthokern.ShapeError, "at least 2 dimensions"),
    ({"y": np.ones((4, 6), dtype=int)}, orthokern.DTypeError, "cast to a floating dtype"),
    ({"a": np.ones((5, 2))}, orthokern.ShapeError, r"expected a \(..., 6, n\)"),
    ({"a": np.ones((4, 6, 2))}, orthokern.OptionError, "model='shared'"),
    (
        {"a": np.ones((3, 6, 2)), "model": "shared"},
        orthokern.ShapeError,
        r"expected a \(..., 4, 6, n\)",
    ),
    ({"a": np.ones((6, 6))}, orthokern.ShapeError, "m > n"),
    ({"model": "both"}, orthokern.OptionError, "'shared'"),
    ({"method": "svd"}, orthokern.OptionError, "'lstsq'"),
    ({"normalize": "max"}, orthokern.OptionError, "'mean'"),
    ({"w": np.ones(5)}, orthokern.ShapeError, "weight for each sensor"),
    ({"refine": -1}, orthokern.OptionError, ">= 0"),
    ({"refine": 2, "method": "als"}, orthokern.OptionError, "drop refine"),
    ({"noise_weight": 1}, orthokern.OptionError, "True or False"),
]


@pytest.mark.parametrize(("change", "kind", "words"), REFUSED)
def test_refusals(change, kind, words):
    options = {"y": Y, "a": A} | change
    y, a = options.pop("y"), options.pop("a")
    with pytest.raises(kind, match=words):
        orthokern.self_calibrate(y, a, **options)


@pytest.mark.skipif(libraries.missing("dask") is not None, reason="dask is not installed")
def test_dask_is_told_what_to_do():
    y, a = made(Y, "dask"), made(A, "dask")
    with pytest.raises(orthokern.UnsupportedError, match="compute"):
        orthokern.self_calibrate(y, a)


@pytest.mark.skipif(libraries.missing("jax") is not None, reason="jax is not installed")
def test_jax_transforms():
    import jax

    truth = measured(np.random.default_rng(2), "snapshots", 10, 3, 5, real=True)
    y, a = (jax.numpy.asarray(part) for part in (truth.y, truth.a))

    def gains(y):
        return orthokern.self_calibrate(y, a, method="als").gains

    expected = orthokern.self_calibrate(truth.y, truth.a).gains
    found = jax.jit(jax.vmap(gains))(y[None])[0]
    np.testing.assert_allclose(found, expected, rtol=1000 * float(jax.numpy.finfo(found.dtype).eps))


@pytest.mark.skipif(libraries.missing("torch") is not None, reason="torch is not installed")
def test_torch_compile():
    import torch

    truth = measured(np.random.default_rng(2), "snapshots", 10, 3, 5, real=True)
    y, a = (torch.tensor(part) for part in (truth.y, truth.a))
    compiled = torch.compile(orthokern.self_calibrate, fullgraph=True, backend="aot_eager")
    expected = orthokern.self_calibrate(y, a).gains
    torch.testing.assert_close(compiled(y, a).gains, expected, rtol=1e-12, atol=1e-13)
