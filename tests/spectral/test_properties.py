"""What holds for every matrix: equivariance, invariance, optimality, independence of stacks, truthful diagnostics."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import orthokern

from .conftest import (
    SPECTRA,
    adjoint,
    contract_errors,
    made,
    norm,
    singular_values,
    unitary,
    with_spectrum,
)

COMPLEX = {"float32": np.complex64, "float64": np.complex128}
BOUNDED = settings(derandomize=True, max_examples=40, deadline=None, database=None)
every_backend = pytest.mark.parametrize(
    "backend", [None, "array-api"], ids=["default", "reference"]
)
every_side = pytest.mark.parametrize("side", ["right", "left"])
METHODS = ("auto", "svd", "newton", "dwh", "newton_schulz", "polar_express", "gram")


class Problem(NamedTuple):
    """A matrix and what made it."""

    x: np.ndarray
    rng: np.random.Generator
    kappa: float

    @property
    def eps(self) -> float:
        return float(np.finfo(self.x.dtype).eps)

    @property
    def backward(self) -> float:
        """What the contract allows ``||A - U H||_F`` to be."""
        return max(60.0, 20 * min(self.x.shape) ** 0.5) * self.eps * norm(self.x)

    @property
    def forward(self) -> float:
        """How far two right unitary factors may be apart: both backward errors, over the smallest singular value."""
        return 2 * self.backward / singular_values(self.x)[-1]


@st.composite
def problems(draw, *, most: int = 40, kappa: float = 1e3, dtypes=("float64", "float32")):
    """Square, tall and wide, real and complex, both precisions, all spectra, up to this condition number."""
    n, extra = draw(st.integers(1, most)), draw(st.integers(1, 2 * most))
    m, n = draw(st.sampled_from([(n, n), (n + extra, n), (n, n + extra)]))
    kappa = 10 ** draw(st.floats(0, np.log10(kappa)))
    complex_, precision = draw(st.booleans()), draw(st.sampled_from(dtypes))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    spectrum = SPECTRA[draw(st.sampled_from(sorted(SPECTRA)))](min(m, n), kappa)
    x = with_spectrum(rng, m, n, spectrum, complex_=complex_)
    return Problem(x.astype(COMPLEX[precision] if complex_ else precision), rng, kappa)


@every_backend
@every_side
@BOUNDED
@given(problem=problems())
def test_contract(problem, backend, side):
    u, h, info = orthokern.polar(problem.x, side=side, backend=backend)
    assert u.dtype == h.dtype == problem.x.dtype
    assert u.shape == problem.x.shape
    errors = contract_errors(problem.x, u, h, side=side)
    assert errors.worst <= 1
    assert errors.asymmetry == 0
    assert info.converged


@every_backend
@BOUNDED
@given(problem=problems())
def test_unitary_equivariance(problem, backend):
    x, rng = problem.x, problem.rng
    left, right = (unitary(rng, size, size, complex_=np.iscomplexobj(x)) for size in x.shape)
    turned = (left @ x @ right).astype(x.dtype)
    expected = left @ orthokern.polar(x, backend=backend).u @ right
    assert norm(orthokern.polar(turned, backend=backend).u - expected) <= problem.forward


@every_backend
@BOUNDED
@given(problem=problems(), exponent=st.integers(-300, 300))
def test_powers_of_two_change_no_bit(problem, exponent, backend):
    # A float32 of this conditioning keeps all its bits between 2**-90 and 2**90.
    exponent = exponent if problem.eps < 1e-10 else exponent * 90 // 300
    t = problem.x.dtype.type(2.0**exponent)
    u, h, _ = orthokern.polar(problem.x, backend=backend)
    scaled_u, scaled_h, _ = orthokern.polar(t * problem.x, backend=backend)
    np.testing.assert_array_equal(scaled_u, u)
    np.testing.assert_array_equal(scaled_h, t * h)


@every_backend
@BOUNDED
@given(problem=problems(dtypes=("float64",)), exponent=st.floats(-300, 300))
def test_scale_invariance(problem, exponent, backend):
    scaled = 10.0**exponent * problem.x
    found = orthokern.polar(scaled, backend=backend).u
    assert norm(found - orthokern.polar(problem.x, backend=backend).u) <= problem.forward


@every_backend
@BOUNDED
@given(
    problem=problems(dtypes=("float64",)),
    exponents=st.lists(st.integers(-300, 300), min_size=2, max_size=5),
)
def test_each_member_has_its_own_scale(problem, exponents, backend):
    t = np.array([2.0**e for e in exponents])[:, None, None]
    u, h, _ = orthokern.polar(t * problem.x, backend=backend)
    alone = orthokern.polar(np.stack([problem.x] * len(exponents)), backend=backend)
    np.testing.assert_array_equal(u, alone.u)
    np.testing.assert_array_equal(h, t * alone.h)


@every_backend
@BOUNDED
@given(problem=problems())
def test_adjoint(problem, backend):
    u = orthokern.polar(problem.x, backend=backend).u
    assert (
        norm(orthokern.polar(adjoint(problem.x), backend=backend).u - adjoint(u)) <= problem.forward
    )


@every_backend
@BOUNDED
@given(problem=problems(dtypes=("float64",)))
def test_complex_arithmetic_gives_the_real_factor(problem, backend):
    x = problem.x.real.copy()
    s = singular_values(x)
    found = orthokern.polar(x + 0j, backend=backend).u
    difference = found - orthokern.polar(x, backend=backend).u
    assert norm(difference) <= problem.forward * singular_values(problem.x)[-1] / s[-1]


@every_backend
@BOUNDED
@given(problem=problems())
def test_idempotence(problem, backend):
    u = orthokern.polar(problem.x, backend=backend).u
    again, h, _ = orthokern.polar(u, backend=backend)
    n = min(u.shape)
    # Both are orthonormal to 10 sqrt(n) eps, and the nearest such matrix to u is half its error away.
    limit = 10 * max(n, 32) ** 0.5 * problem.eps * 2
    assert norm(again - u) <= limit
    k = u.shape[1]
    assert norm(h - (np.eye(k) if n == k else adjoint(u) @ u)) <= 2 * limit


@every_backend
@BOUNDED
@given(problem=problems())
def test_nearest_of_all(problem, backend):
    """``Re tr(V^H A)`` is largest at U, where it is the nuclear norm."""
    x = problem.x
    u = orthokern.polar(x, backend=backend).u
    nuclear, slack = singular_values(x).sum(), problem.backward * min(x.shape) ** 0.5
    reached = np.sum(u.conj() * x.astype(np.complex128)).real
    assert abs(reached - nuclear) <= slack
    for _ in range(5):
        v = unitary(problem.rng, max(x.shape), min(x.shape), complex_=np.iscomplexobj(x))
        v = v if x.shape[0] >= x.shape[1] else adjoint(v)
        assert np.sum(v.conj() * x).real <= reached + slack


@st.composite
def stacks(draw, *, most: int = 40):
    """A few matrices of one shape and dtype with different spectra."""
    first = draw(problems(most=most))
    m, n = first.x.shape
    spectra = [SPECTRA[name](min(m, n), 100.0) for name in sorted(SPECTRA)]
    complex_ = np.iscomplexobj(first.x)
    others = [with_spectrum(first.rng, m, n, s, complex_=complex_) for s in spectra]
    return np.stack([first.x, *others]).astype(first.x.dtype)


@pytest.mark.parametrize("method", ["auto", "svd"])
@pytest.mark.parametrize("completion", ["unitary", "partial"])
@BOUNDED
@given(x=stacks())
def test_a_stack_is_a_loop(x, method, completion):
    whole = orthokern.polar(x, method=method, completion=completion)
    for i, member in enumerate(x):
        alone = orthokern.polar(member, method=method, completion=completion)
        if np.iscomplexobj(x) and method == "auto" and min(member.shape) <= 8:
            # Compilers contract products of complex numbers in other ways in the last lanes of a vector.
            assert norm(whole.u[i] - alone.u) <= Problem(member, None, 1).forward
            continue
        np.testing.assert_array_equal(whole.u[i], alone.u)
        # A single factor may lie in memory the other way round, which changes the order of the sums in h.
        assert norm(whole.h[i] - alone.h) <= 4 * member.shape[0] ** 0.5 * Problem(
            member, None, 1
        ).eps * norm(member)
        for field in ("iterations", "residual", "converged", "lower_bound", "schedule"):
            np.testing.assert_array_equal(getattr(whole.info, field)[i], getattr(alone.info, field))


@pytest.mark.parametrize("method", METHODS)
@BOUNDED
@given(x=stacks(most=12))
def test_a_stack_is_a_loop_to_rounding(x, method):
    """Where a closing step is taken for the sake of one member, the others move by rounding alone."""
    whole = orthokern.polar(x, method=method)
    for i, member in enumerate(x):
        alone = orthokern.polar(member, method=method)
        assert norm(whole.u[i] - alone.u) <= Problem(member, None, 1).forward


@every_backend
@pytest.mark.parametrize("method", METHODS)
@settings(BOUNDED, max_examples=10)
@given(x=stacks(), data=st.data())
def test_order_of_a_stack(x, method, backend, data):
    order = data.draw(st.permutations(range(len(x))))
    u, h, info = orthokern.polar(x, method=method, backend=backend)
    v, k, shuffled = orthokern.polar(x[order], method=method, backend=backend)
    np.testing.assert_array_equal(v, u[order])
    np.testing.assert_array_equal(k, h[order])
    np.testing.assert_array_equal(shuffled.residual, info.residual[order])


def test_stacks_on_every_library(stacking_library, dtype, rng):
    x = np.stack([with_spectrum(rng, 17, 9, SPECTRA[name](9, 50.0)) for name in sorted(SPECTRA)])
    whole = orthokern.polar(made(x.reshape(5, 1, 17, 9), stacking_library, dtype)).u
    for i, member in enumerate(x):
        alone = orthokern.polar(made(member, stacking_library, dtype)).u
        limit = Problem(
            member.astype(np.float32 if "32" in str(alone.dtype) else np.float64), rng, 50.0
        ).forward
        assert norm(np.asarray(whole[i, 0, ...]) - np.asarray(alone)) <= limit


@every_backend
@BOUNDED
@given(problem=problems(kappa=10), share=st.floats(0, 1))
def test_partial_isometry(problem, share, backend):
    """The canonical factor has the rank and the null spaces of the matrix."""
    m, n = problem.x.shape
    rank = round(share * min(m, n))
    complex_ = np.iscomplexobj(problem.x)
    p, q = (unitary(problem.rng, size, rank, complex_=complex_) for size in (m, n))
    x = (p * np.linspace(1, 0.1, rank)) @ adjoint(q)
    u, h, info = orthokern.polar(x.astype(problem.x.dtype), completion="partial", backend=backend)
    # The smallest singular value, 0.1, amplifies what rounding to the dtype and the algorithm perturb.
    limit = 20 * max(60, 20 * min(m, n) ** 0.5) * problem.eps * max(norm(x), 1)
    assert norm(u - p @ adjoint(q)) <= limit
    assert norm(u @ adjoint(u) @ u - u) <= limit
    assert norm(x - u @ h) <= limit
    assert abs(norm(u) ** 2 - rank) <= 2 * limit * max(rank, 1) ** 0.5
    assert info.converged
    if rank == 0:
        assert not np.any(u)


@every_backend
@BOUNDED
@given(problem=problems())
def test_partial_is_unitary_at_full_rank(problem, backend):
    u = orthokern.polar(problem.x, completion="partial", backend=backend).u
    assert norm(u - orthokern.polar(problem.x, backend=backend).u) <= problem.forward


@every_backend
@pytest.mark.parametrize("method", METHODS)
@settings(BOUNDED, max_examples=25)
@given(problem=problems(kappa=900), exponent=st.floats(-5, -0.35))
def test_tol_bounds_the_singular_values(problem, exponent, method, backend):
    tol = 10**exponent
    u, _, info = orthokern.polar(problem.x, method=method, tol=tol, backend=backend)
    assert info.converged
    assert np.abs(singular_values(u) - 1).max() <= tol + 20 * min(u.shape) ** 0.5 * problem.eps


@every_backend
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("tol", [0.5, 0.1, 1e-3])
def test_converged_is_never_a_lie(tol, method, backend):
    """One singular value far below the rest, from where the plan does not care to where it does."""
    rng = np.random.default_rng(5)
    for tiny in np.logspace(-6, -1, 41):
        x = with_spectrum(rng, 9, 6, np.array([1, 1, 1, 1, 1, tiny]))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            u, _, info = orthokern.polar(x, method=method, tol=tol, backend=backend)
        missed = np.abs(singular_values(u) - 1).max()
        assert bool(info.converged) == (not caught)
        assert not info.converged or missed <= tol + 1e-13


@every_backend
@pytest.mark.parametrize(
    "method", ["auto", "newton", "dwh", "polar_express", "newton_schulz", "gram"]
)
@pytest.mark.parametrize("tol", [None, 1e-2])
@pytest.mark.parametrize("lower_bound", [1e-12, 1e-6, 1e-3, 0.05, 0.2, 0.5])
def test_a_wrong_lower_bound_costs_only_time(lower_bound, tol, method, backend, rng):
    """sigma_min / sigma_max is 0.1: bounds below and above it."""
    x = with_spectrum(rng, 30, 20, SPECTRA["logarithmic"](20, 10.0))
    u, h, info = orthokern.polar(
        x, method=method, lower_bound=lower_bound, tol=tol, backend=backend
    )
    assert info.converged
    if tol is None:
        errors = contract_errors(x, u, h)
        assert errors.worst <= 1
    else:
        assert np.abs(singular_values(u) - 1).max() <= tol * (1 + 1e-9)


@every_backend
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("tol", [None, 1e-3, 0.1, 0.5])
@settings(BOUNDED, max_examples=20)
@given(problem=problems(kappa=900))
def test_diagnostics_are_true(problem, tol, method, backend):
    u, _, info = orthokern.polar(problem.x, method=method, tol=tol, backend=backend)
    n = min(u.shape)
    rounding = 10 * max(n, 32) ** 0.5 * problem.eps
    s = singular_values(u)
    measured = np.abs(s * s - 1).max()
    assert measured <= info.residual + rounding
    assert info.residual <= rounding + 2 * n**0.5 * (2 * (tol or 0) + (tol or 0) ** 2)
    assert info.converged
    ran = int(np.count_nonzero(info.schedule))
    assert ran == min(info.iterations, 16)
    assert 0 <= info.extra_steps <= info.iterations
    assert np.all(info.schedule[:ran] > 0)
    assert (
        info.lower_bound
        <= (1 + 1e-3) * singular_values(problem.x)[-1] / singular_values(problem.x)[0]
    )


def test_repeated_calls_and_threads_agree(rng):
    matrices = [
        rng.standard_normal(s)
        for s in [(3, 3), (50, 2, 2), (33, 33), (90, 90), (200, 40), (8, 20, 20)] * 4
    ]
    alone = [orthokern.polar(x) for x in matrices]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(orthokern.polar, matrices))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.u, other.u)
        np.testing.assert_array_equal(one.h, other.h)
