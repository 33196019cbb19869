"""Empty, tiny, singular, huge and non-finite matrices; memory layouts; nothing written to, nothing shared."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import orthokern
from orthokern.testing import libraries
from orthokern.testing.libraries import to_numpy

from .conftest import (
    SPECTRA,
    adjoint,
    contract_errors,
    eps_of,
    largest_condition,
    made,
    norm,
    orthogonality,
    unitary,
    with_spectrum,
)

EMPTY = [
    (0, 4),
    (4, 0),
    (0, 0),
    (0, 3, 5),
    (0, 3, 3),
    (0, 5, 2),
    (2, 0, 3, 3),
    (3, 0, 2),
    (2, 4, 0),
]
METHODS = ("svd", "newton", "dwh", "newton_schulz", "polar_express", "gram")


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("shape", EMPTY)
def test_empty(shape, side, stacking_library, dtype):
    x = made(np.zeros(shape), stacking_library, dtype)
    u, h, info = orthokern.polar(x, side=side)
    k = shape[-1] if side == "right" else shape[-2]
    assert tuple(u.shape) == shape
    assert tuple(h.shape) == (*shape[:-2], k, k)
    assert u.dtype == h.dtype == x.dtype
    assert not np.any(to_numpy(h))
    assert np.all(to_numpy(info.converged))
    assert tuple(info.residual.shape) == shape[:-2]
    assert tuple(orthokern.orthogonalize(x).shape) == shape
    assert tuple(orthokern.newton_schulz(x).shape) == shape


@pytest.mark.parametrize(
    "options",
    [
        {"tol": 0.1},
        {"steps": 3},
        {"coefficients": "jordan"},
        {"lower_bound": 0.1},
        {"completion": "partial"},
        *({"method": method} for method in METHODS),
    ],
)
@pytest.mark.parametrize("shape", [(2, 0, 3), (2, 3, 0), (0, 3, 3), (0, 5, 2), (0, 40, 40)])
def test_empty_with_options(shape, options, backend):
    u, h, info = orthokern.polar(np.zeros(shape), backend=backend, **options)
    assert u.shape == shape
    assert h.shape == (*shape[:-2], shape[-1], shape[-1])
    assert info.converged.shape == info.iterations.shape == shape[:-2]
    assert info.schedule.shape == (*shape[:-2], 16)


def in_precision_of(u, x) -> np.ndarray:
    """The numbers of ``x`` as a NumPy array of the dtype that ``u`` has."""
    return to_numpy(x).astype(str(u.dtype).rpartition(".")[2])


@pytest.mark.parametrize("n", [1, 2, 3, 8, 40, 70])
def test_orthogonal_input_is_its_own_factor(n, place, dtype, rng):
    q = unitary(rng, n, n)
    for a in (
        np.eye(n),
        -np.eye(n),
        np.eye(n)[rng.permutation(n)],
        np.diag((-1.0) ** np.arange(n)),
        q,
    ):
        x = made(a, place.library, dtype)
        u, h, info = orthokern.polar(x, backend=place.backend)
        exact = a is not q
        limit = (4 if exact else 10 * max(n, 32) ** 0.5) * eps_of(u)
        assert norm(to_numpy(u) - to_numpy(x)) <= limit
        assert norm(to_numpy(h) - np.eye(n)) <= 2 * limit
        assert bool(info.converged)


@pytest.mark.parametrize("n", [1, 2, 3, 8, 40])
def test_negative_definite(n, place, dtype, rng):
    """Signs that a determinant does not show: U = -I and H = -A."""
    q = unitary(rng, n, n)
    a = -(q * np.linspace(1, 3, n)) @ q.T
    x = made((a + a.T) / 2, place.library, dtype)
    u, h, _ = orthokern.polar(x, backend=place.backend)
    limit = 2 * max(60, 20 * n**0.5) * eps_of(u) * norm(a)
    assert norm(to_numpy(u) + np.eye(n)) <= limit
    assert norm(to_numpy(h) + to_numpy(x)) <= limit


SINGULAR = {
    "zero": lambda rng, m, n: np.zeros((m, n)),
    "ones": lambda rng, m, n: np.ones((m, n)),
    "rank one": lambda rng, m, n: np.outer(rng.standard_normal(m), rng.standard_normal(n)),
    "one entry": lambda rng, m, n: 5.0 * (np.arange(m * n).reshape(m, n) == m * n // 2),
    "half rank": lambda rng, m, n: (
        rng.standard_normal((m, min(m, n) // 2)) @ rng.standard_normal((min(m, n) // 2, n))
    ),
    "zero row and column": lambda rng, m, n: (
        rng.standard_normal((m, n)) * (np.arange(m) != m // 2)[:, None] * (np.arange(n) != n // 3)
    ),
    "equal columns": lambda rng, m, n: np.repeat(rng.standard_normal((m, 1)), n, axis=1),
    "nilpotent": lambda rng, m, n: np.eye(m, n, k=1),
}
SHAPES = [
    (1, 1),
    (2, 2),
    (3, 3),
    (8, 8),
    (33, 33),
    (64, 64),
    (3, 1),
    (1, 3),
    (9, 4),
    (4, 9),
    (150, 40),
    (40, 150),
]


@pytest.mark.parametrize("shape", SHAPES)
def test_singular_input_is_completed(shape, place, dtype, rng):
    for kind, make in SINGULAR.items():
        x = made(make(rng, *shape), place.library, dtype)
        u, h, info = orthokern.polar(x, backend=place.backend)
        errors = contract_errors(in_precision_of(u, x), u, h)
        assert errors.worst <= 1, kind
        assert errors.asymmetry == 0, kind
        assert bool(info.converged), kind


@pytest.mark.parametrize("shape", SHAPES)
def test_singular_input_without_completion(shape, place, dtype, rng):
    for kind, make in SINGULAR.items():
        x = made(make(rng, *shape), place.library, dtype)
        u, h, info = orthokern.polar(x, completion="partial", backend=place.backend)
        a, v, k = to_numpy(x), to_numpy(u), to_numpy(h)
        s = np.linalg.svd(a, compute_uv=False)
        rank = np.count_nonzero(s > 1e-5 * s[0])
        # Two backward errors, amplified by the smallest singular value that counts.
        amplified = s[0] / s[rank - 1] if rank else 1
        limit = 2 * max(60, 20 * min(shape) ** 0.5) * eps_of(u) * min(shape) ** 0.5 * amplified
        assert norm(v @ adjoint(v) @ v - v) <= limit, kind
        assert abs(norm(v) ** 2 - rank) <= 2 * limit * max(rank, 1) ** 0.5, kind
        assert norm(a - v @ k) <= limit * norm(a), kind
        assert bool(info.converged), kind
        if rank == 0:
            assert not np.any(v)
            assert not np.any(k)


@pytest.mark.parametrize("method", ["auto", *METHODS])
@pytest.mark.parametrize("options", [{}, {"tol": 0.1}, {"tol": 1e-3}])
@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (5, 5), (40, 40), (7, 3), (3, 7), (3, 4, 4)])
def test_a_zero_gradient_gives_exactly_zero(shape, options, method, backend):
    u = orthokern.orthogonalize(np.zeros(shape), method=method, backend=backend, **options)
    np.testing.assert_array_equal(u, np.zeros(shape))


@pytest.mark.parametrize("n", [1, 2, 24, 100])
@pytest.mark.parametrize("completion", ["unitary", "partial"])
def test_vectors(n, completion, place, rng):
    dtype = "float32" if n == 24 else "float64"
    v = rng.standard_normal((n, 1)) + 1j * rng.standard_normal((n, 1))
    for a in (v, v.real, adjoint(v), 1e-25 * v, 1e25 * v.real.T):
        x = made(a, place.library, dtype)
        u, h, info = orthokern.polar(x, completion=completion, backend=place.backend)
        expected = a / np.linalg.norm(a)
        assert norm(to_numpy(u) - expected) <= 5 * eps_of(u)
        assert norm(to_numpy(u) @ to_numpy(h) - to_numpy(x)) <= 10 * eps_of(u) * norm(a)
        assert bool(info.converged)


@pytest.mark.parametrize(
    ("scale", "precision"),
    [(1e300, "float64"), (1e-300, "float64"), (1e35, "float32"), (1e-35, "float32")],
)
@pytest.mark.parametrize(
    "shape", [(1, 1), (2, 2), (3, 3), (20, 20), (60, 60), (90, 30), (5, 50), (4, 3, 3)]
)
def test_extreme_scales(shape, scale, precision, stacking_place, rng):
    if precision not in libraries.dtypes_of(stacking_place.library):
        precision, scale = "float32", scale ** (35 / 300)
    if stacking_place.library == "jax":
        # XLA flushes subnormal entries of h to zero: keep away from them.
        scale = scale**0.85
    spectrum = SPECTRA["logarithmic"](min(shape[-2:]), 100.0)
    a = scale * np.stack(
        [with_spectrum(rng, *shape[-2:], spectrum) for _ in range(int(np.prod(shape[:-2])))]
    )
    x = made(a.reshape(shape), stacking_place.library, precision)
    u, h, _ = orthokern.polar(x, backend=stacking_place.backend)
    given = to_numpy(x).astype(precision).reshape(-1, *shape[-2:])
    for one, v, k in zip(
        given,
        to_numpy(u).reshape(given.shape),
        to_numpy(h).reshape(len(given), *h.shape[-2:]),
        strict=True,
    ):
        assert contract_errors(one, v, k).worst <= 1


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (3, 3), (20, 20), (60, 60), (90, 30), (5, 50)])
@pytest.mark.parametrize("complex_", [False, True])
def test_subnormal_matrices_lose_nothing(shape, precision, complex_, backend, rng):
    """Each entry a small integer times the smallest number: the same factor as of the integers."""
    a = 1.0 * rng.integers(-40, 41, shape) + (1j * rng.integers(-40, 41, shape) if complex_ else 0)
    a = a.astype(libraries.dtype_for(a, precision))
    a.flat[0] = 50
    least = np.finfo(precision).smallest_subnormal
    u = orthokern.polar(a * least, backend=backend).u
    s = np.linalg.svd(a, compute_uv=False)
    limit = 2 * max(60, 20 * min(shape) ** 0.5) * np.finfo(precision).eps * norm(a) / s[-1]
    assert norm(u - orthokern.polar(a, backend=backend).u) <= limit
    assert orthogonality(u, np.finfo(precision).eps) <= 1


@pytest.mark.parametrize(
    "d", [(1e200, 1.0, 1e-200), (1.0, 1e-150, 1e-300), (1e-300, 1.0, 1e300), (1e30, 1.0, 1e-30)]
)
def test_a_huge_range_in_one_matrix_is_completed(d, backend):
    x = np.diag(d)
    u, h, info = orthokern.polar(x, backend=backend)
    assert contract_errors(x, u, h).worst <= 1
    assert info.converged


@pytest.mark.parametrize("count", [1, 500])
def test_3_by_3_at_condition_1e13(count, stacking_place, rng):
    a = np.stack(
        [
            with_spectrum(rng, 3, 3, np.array([1, 10 ** -rng.uniform(0, 13), 1e-13]))
            for _ in range(count)
        ]
    )
    # In single precision the same difficulty lies at 1e4.
    precision = libraries.dtypes_of(stacking_place.library)[0]
    x = made(a, stacking_place.library, precision)
    result = orthokern.polar(x, backend=stacking_place.backend)
    u, h = to_numpy(result.u), to_numpy(result.h)
    for one, v, k in zip(to_numpy(x).astype(precision), u, h, strict=True):
        assert contract_errors(one, v, k).worst <= 1


ROUTES = {
    "1x1": ((6, 1, 1), {}),
    "2x2": ((6, 2, 2), {}),
    "3x3": ((6, 3, 3), {}),
    "small": ((6, 7, 7), {}),
    "largest small": ((5, 32, 32), {}),
    "square": ((4, 40, 40), {}),
    "square of many rows": ((3, 70, 70), {}),
    "tall": ((4, 90, 30), {}),
    "short tall": ((4, 9, 4), {}),
    "wide": ((4, 30, 90), {}),
    "short wide": ((4, 3, 8), {}),
    "vectors": ((5, 6, 1), {}),
    "svd": ((4, 30, 30), {"method": "svd"}),
    "newton": ((4, 30, 30), {"method": "newton"}),
    "tall newton": ((4, 60, 30), {"method": "newton"}),
    "dwh": ((4, 30, 30), {"method": "dwh"}),
    "newton_schulz": ((4, 30, 30), {"method": "newton_schulz"}),
    "polar_express": ((4, 30, 30), {"method": "polar_express"}),
    "gram": ((4, 90, 30), {"method": "gram"}),
    "steps": ((4, 30, 30), {"steps": 4, "coefficients": "jordan"}),
    "tol": ((4, 40, 40), {"tol": 0.1}),
    "small tol": ((4, 7, 7), {"tol": 0.1}),
    "tall tol": ((4, 90, 40), {"tol": 1e-2}),
    "bound": ((4, 40, 40), {"lower_bound": 0.01}),
    "partial": ((4, 40, 40), {"completion": "partial"}),
    "small partial": ((4, 5, 5), {"completion": "partial"}),
    "partial tol": ((4, 40, 40), {"completion": "partial", "tol": 0.1}),
    "batch of batches": ((2, 3, 5, 5), {}),
}
BAD = {
    "nan": lambda a: _with(a, np.nan),
    "inf": lambda a: _with(a, np.inf),
    "-inf": lambda a: _with(a, -np.inf),
    "all nan": lambda a: np.full_like(a, np.nan),
    "all inf": lambda a: np.full_like(a, np.inf),
}


def _with(a, value):
    a = a.copy()
    a[-1, 0] = value
    return a


def _members(rng, shape, complex_):
    m, n = shape[-2:]
    count = int(np.prod(shape[:-2]))
    spectrum = SPECTRA["logarithmic"](min(m, n), 10.0)
    return np.stack(
        [with_spectrum(rng, m, n, spectrum, complex_=complex_) for _ in range(count)]
    ).reshape(shape)


@pytest.mark.parametrize("route", ROUTES)
def test_a_bad_member_stays_alone(route, stacking_place, rng):
    """The others equal the stack with the identity in its place, bit for bit; no warning says anything."""
    shape, options = ROUTES[route]
    a = _members(rng, shape, complex_=False)
    sick = (*(0 for _ in shape[:-3]), shape[-3] // 2)
    others = np.ones(shape[:-2], dtype=bool)
    others[sick] = False
    a[sick] = np.eye(*shape[-2:])
    expected = orthokern.polar(
        made(a, stacking_place.library, "float64"), backend=stacking_place.backend, **options
    )
    for bad, spoil in BAD.items():
        a[sick] = spoil(np.eye(*shape[-2:]))
        found = orthokern.polar(
            made(a, stacking_place.library, "float64"), backend=stacking_place.backend, **options
        )
        for one, other in zip(found[:2], expected[:2], strict=True):
            np.testing.assert_array_equal(to_numpy(one)[others], to_numpy(other)[others], bad)
            assert np.all(np.isnan(to_numpy(one)[sick])), bad
        converged = to_numpy(found.info.converged)
        assert not converged[sick], bad
        np.testing.assert_array_equal(
            converged[others], to_numpy(expected.info.converged)[others], bad
        )


@pytest.mark.parametrize("n", [2, 5, 40, 100])
def test_a_bad_matrix_alone(n, place, dtype, rng):
    """Wherever in it the bad entry stands."""
    for spot in [(0, 0), (n - 1, 0), (n // 2, n // 2), (n - 1, n - 1)]:
        for value in (np.nan, np.inf, -np.inf):
            a = rng.standard_normal((n, n))
            a[spot] = value
            u, h, info = orthokern.polar(made(a, place.library, dtype), backend=place.backend)
            assert np.all(np.isnan(to_numpy(u)))
            assert np.all(np.isnan(to_numpy(h)))
            assert not bool(info.converged)


@pytest.mark.parametrize(
    "value", [complex(np.nan, 0), complex(0, np.nan), complex(np.inf, 0), complex(1, -np.inf)]
)
@pytest.mark.parametrize(
    "route", ["1x1", "2x2", "small", "square", "tall", "wide", "newton", "tol"]
)
def test_a_bad_complex_member_stays_alone(route, value, stacking_place, rng):
    shape, options = ROUTES[route]
    a = _members(rng, shape, complex_=True)
    healthy, sick = a.copy(), a.copy()
    healthy[0] = np.eye(*shape[-2:])
    sick[0, 0, 0] = value
    expected = orthokern.polar(
        made(healthy, stacking_place.library, "float64"), backend=stacking_place.backend, **options
    )
    found = orthokern.polar(
        made(sick, stacking_place.library, "float64"), backend=stacking_place.backend, **options
    )
    for one, other in zip(found[:2], expected[:2], strict=True):
        np.testing.assert_array_equal(to_numpy(one)[1:], to_numpy(other)[1:])
        assert np.all(np.isnan(to_numpy(one)[0]))
    assert not to_numpy(found.info.converged)[0]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_input_of_the_other_kernels(value, stacking_place, rng):
    a = rng.standard_normal((3, 8, 5))
    a[1, 2, 2] = value
    x = made(a, stacking_place.library, "float64")
    for found in (
        orthokern.orthogonalize(x, backend=stacking_place.backend),
        orthokern.newton_schulz(x, backend=stacking_place.backend),
    ):
        nan = np.isnan(to_numpy(found))
        np.testing.assert_array_equal(nan.all(axis=(1, 2)), [False, True, False])
        np.testing.assert_array_equal(nan.any(axis=(1, 2)), [False, True, False])


@pytest.mark.parametrize("kernel", [orthokern.polar, orthokern.orthogonalize])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_check_finite(kernel, value, place, rng):
    a = rng.standard_normal((6, 5))
    good = kernel(made(a, place.library, "float64"), check_finite=True, backend=place.backend)
    same = kernel(made(a, place.library, "float64"), backend=place.backend)
    first = (lambda r: r.u) if kernel is orthokern.polar else (lambda r: r)
    np.testing.assert_array_equal(to_numpy(first(good)), to_numpy(first(same)))
    a[3, 1] = value
    with pytest.raises(
        ValueError, match=rf"{kernel.__name__}: expected finite values in x, got NaN or infinity"
    ):
        kernel(made(a, place.library, "float64"), check_finite=True, backend=place.backend)


CALLS = {
    "polar": orthokern.polar,
    "left": lambda x, **k: orthokern.polar(x, side="left", **k),
    "no h": lambda x, **k: orthokern.polar(x, compute_h=False, **k),
    "svd": lambda x, **k: orthokern.polar(x, method="svd", **k),
    "newton": lambda x, **k: orthokern.polar(x, method="newton", completion="partial", **k),
    "gram": lambda x, **k: orthokern.polar(x, method="gram", completion="partial", **k),
    "tol": lambda x, **k: orthokern.polar(x, tol=0.1, completion="partial", **k),
    "exact steps": lambda x, **k: orthokern.polar(x, steps=1, coefficients=((1.0, 0.0),), **k),
    "orthogonalize": orthokern.orthogonalize,
    "newton_schulz": orthokern.newton_schulz,
}
INPUTS = {
    "generic": lambda rng: rng.standard_normal((6, 4)),
    "wide": lambda rng: rng.standard_normal((4, 6)),
    "balanced": lambda rng: 0.5 * np.eye(5),
    "identity": lambda rng: np.eye(5),
    "row": lambda rng: rng.standard_normal((1, 4)),
    "number": lambda rng: np.array([[0.75]]),
    "zero": lambda rng: np.zeros((3, 3)),
    "square": lambda rng: rng.standard_normal((40, 40)),
    "fortran": lambda rng: np.asfortranarray(rng.standard_normal((40, 40))),
    "stack": lambda rng: rng.standard_normal((3, 5, 5)),
    "symmetric positive": lambda rng: np.diag([0.5, 0.25]),
}


def _arrays(result):
    if not isinstance(result, tuple):
        return [result]
    return [leaf for part in result for leaf in _arrays(part)]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", INPUTS)
def test_nothing_is_written_to_or_shared(call, kind, backend, rng):
    x = INPUTS[kind](rng)
    before = x.copy()
    arrays = _arrays(CALLS[call](x, backend=backend))
    np.testing.assert_array_equal(x, before)
    for i, array in enumerate(arrays):
        assert not np.shares_memory(array, x)
        assert not any(np.shares_memory(array, other) for other in arrays[:i] if array.size)
    kept = [np.array(a) for a in arrays]
    x *= -3
    CALLS[call](x, backend=backend)
    for array, copy in zip(arrays, kept, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("kind", ["generic", "wide", "balanced", "number", "square", "stack"])
def test_torch_and_jax_arrays_are_not_written_to(kind, stacking_library, dtype, rng):
    x = made(INPUTS[kind](rng), stacking_library, dtype)
    before = to_numpy(x).copy()
    first = [to_numpy(a).copy() for a in _arrays(orthokern.polar(x))[:2]]
    np.testing.assert_array_equal(to_numpy(x), before)
    again = [to_numpy(a) for a in _arrays(orthokern.polar(x))[:2]]
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)


def _byte_swapped(a):
    return a.astype(a.dtype.newbyteorder())


def _unaligned(a):
    raw = np.zeros(a.nbytes + 1, dtype=np.uint8)[1:].view(np.uint8)
    out = np.ndarray(a.shape, a.dtype, raw.data)
    out[...] = a
    return out


LAYOUTS = {
    **{
        name: (lambda a, name=name: libraries.with_layout(a, name))
        for name in ("transposed", "strided", "reversed", "read-only")
    },
    "byte-swapped": _byte_swapped,
    "unaligned": _unaligned,
    "read-only transposed": lambda a: libraries.with_layout(
        a.swapaxes(-1, -2).copy(), "read-only"
    ).swapaxes(-1, -2),
    "broadcast": lambda a: np.broadcast_to(a, (2, *a.shape))[1],
    "view of rows": lambda a: np.repeat(a, 3, axis=-2)[..., ::3, :],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "shape",
    [
        (1, 1),
        (2, 2),
        (6, 6),
        (40, 40),
        (100, 100),
        (90, 30),
        (30, 90),
        (9, 4),
        (4, 5, 5),
        (2, 40, 30),
    ],
)
@pytest.mark.parametrize("precision", ["float64", "complex64"])
def test_memory_layouts_agree(layout, shape, precision, backend, rng):
    spectrum = SPECTRA["logarithmic"](min(shape[-2:]), 10.0)
    count = int(np.prod(shape[:-2]))
    members = [
        with_spectrum(rng, *shape[-2:], spectrum, complex_=precision == "complex64")
        for _ in range(count)
    ]
    a = np.stack(members).reshape(shape).astype(precision)
    x = LAYOUTS[layout](a)
    before = x.copy()
    u, h, _ = orthokern.polar(x, backend=backend)
    expected_u, expected_h, _ = orthokern.polar(a, backend=backend)
    assert u.dtype == h.dtype == x.dtype
    # kappa = 10 amplifies two backward errors.
    limit = 20 * max(60, 20 * min(shape[-2:]) ** 0.5) * np.finfo(precision).eps * norm(a)
    assert norm(u - expected_u) <= limit
    assert norm(h - expected_h) <= limit
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("n", [3, 20, 50, 120])
def test_beyond_the_condition_of_single_precision(n, stacking_place, rng):
    """Only completion and finiteness are promised there."""
    for name in sorted(SPECTRA):
        a = with_spectrum(rng, n, n, SPECTRA[name](n, 1e12))
        assert largest_condition(a.astype(np.float32)) < 1e12
        u, h, info = orthokern.polar(
            made(a, stacking_place.library, "float32"), backend=stacking_place.backend
        )
        assert orthogonality(to_numpy(u), 2.0**-23) <= 1
        assert np.all(np.isfinite(to_numpy(h)))
        assert bool(info.converged)


def test_no_warning_for_any_singular_or_non_finite_stack(backend):
    x = np.zeros((5, 4, 4))
    x[1], x[2, 0, 0], x[3], x[4] = np.eye(4), np.nan, 1.0, np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for method in ("auto", "svd"):
            orthokern.polar(x, method=method, backend=backend)
            found = orthokern.polar(x, method=method, completion="partial", backend=backend)
            assert np.isfinite(found.u).all(axis=(-2, -1)).tolist() == [
                True,
                True,
                False,
                True,
                False,
            ]
        orthokern.newton_schulz(x, backend=backend)
