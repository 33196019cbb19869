"""Sketch operators: known answers, the same matrix everywhere, laws, derivatives, what they keep, refusals."""

from __future__ import annotations

import importlib
import itertools
import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import orthokern
from orthokern._core.cases import exact_words
from orthokern.sketching import kronecker, operators
from orthokern.testing.libraries import MODULES, to_numpy

from ..helpers import outside
from .conftest import eps_of, made

BOUNDED = settings(derandomize=True, max_examples=40, deadline=None, database=None)
DIMS = (3, 5, 4)
N = math.prod(DIMS)
MAKERS = {
    "gaussian_sketch": lambda seed=3: orthokern.gaussian_sketch(7, N, seed=seed),
    "rademacher_sketch": lambda seed=3: orthokern.rademacher_sketch(7, N, seed=seed),
    "uniform_row_sketch": lambda seed=3: orthokern.uniform_row_sketch(7, N, seed=seed),
    "countsketch": lambda seed=3: orthokern.countsketch(7, N, seed=seed),
    "sjlt": lambda seed=3: orthokern.sjlt(15, N, nnz=5, seed=seed),
    "srht": lambda seed=3: orthokern.srht(7, N, seed=seed),
    "srht unpermuted": lambda seed=3: orthokern.srht(7, N, permute=False, seed=seed),
    "tensor_sketch": lambda seed=3: orthokern.tensor_sketch(7, DIMS, seed=seed),
    "kronecker_srht": lambda seed=3: orthokern.kronecker_srht(7, DIMS, seed=seed),
}
SPARSE = ("uniform_row_sketch", "countsketch", "sjlt", "tensor_sketch")
WHOLE = ("srht", "srht unpermuted", "kronecker_srht")
every_kind = pytest.mark.parametrize("kind", MAKERS)
# One of each way to compute.
some_kinds = pytest.mark.parametrize("kind", ["gaussian_sketch", "sjlt", "srht", "kronecker_srht"])


def applied(operator, a, place, method="apply", **options):
    with orthokern.use_backend(place.backend):
        return getattr(operator, method)(a, **options)


def assert_near(found, wanted, x, terms=N):
    scale = float(np.max(np.abs(wanted), initial=1.0))
    atol = 4 * terms**0.5 * eps_of(x) * scale
    np.testing.assert_allclose(to_numpy(found), wanted, rtol=0, atol=atol)


# Known answers


def test_known_sjlt(place):
    operator = orthokern.sjlt(16, 6, nnz=4, seed=7)
    rows = [
        [3, 5, 8, 12],
        [2, 6, 8, 14],
        [3, 4, 9, 15],
        [2, 6, 10, 14],
        [1, 6, 8, 15],
        [1, 7, 8, 13],
    ]
    signs = ["+---", "-+++", "+--+", "-+-+", "+-++", "---+"]
    wanted = np.zeros((16, 6))
    for i, (targets, text) in enumerate(zip(rows, signs, strict=True)):
        wanted[targets, i] = [0.5 if sign == "+" else -0.5 for sign in text]
    found = applied(operator, made(np.eye(6), place.library), place)
    np.testing.assert_array_equal(to_numpy(found), wanted)


def test_known_countsketch(place):
    operator = orthokern.countsketch(8, 6, seed=7)
    wanted = np.zeros((8, 6))
    wanted[[6, 5, 6, 5, 3, 3], range(6)] = [1, -1, 1, -1, 1, -1]
    found = applied(operator, made(np.eye(6), place.library), place)
    np.testing.assert_array_equal(to_numpy(found), wanted)


KNOWN_SRHT = [
    (False, [[5, 5], [-9, -11], [12, 13], [-10, -11]]),
    (True, [[-7, -7], [-18, -21], [10, 11], [5, 5]]),
]


@pytest.mark.parametrize(("permute", "wanted"), KNOWN_SRHT)
def test_known_srht(place, permute, wanted):
    a = made(np.arange(1.0, 13).reshape(6, 2), place.library)
    operator = orthokern.srht(4, 6, permute=permute, seed=7)
    np.testing.assert_array_equal(to_numpy(applied(operator, a, place)), wanted)


def test_known_gaussian(place):
    wanted = [
        [2.1668511997476596, 0.11901199628856776, 0.596775321385419],
        [0.3831794990872238, -0.3929161150663212, -2.2650215094483763],
    ]
    x = made(np.eye(3), place.library)
    found = applied(orthokern.gaussian_sketch(2, 3, seed=7), x, place)
    assert_near(found * 2**0.5, wanted, x, 1)


@pytest.mark.parametrize("n", [N, 128])
def test_signs_are_the_bits_of_their_flat_number(place, n):
    wanted = np.empty(3 * n)
    for e in range(3 * n):
        word = exact_words(e // 128, 11, 0, 7)[e // 32 % 4]
        wanted[e] = -1 if word >> e % 32 & 1 else 1
    found = applied(
        orthokern.rademacher_sketch(3, n, seed=11), made(np.eye(n), place.library), place
    )
    x = made(np.eye(1), place.library)
    assert_near(found * 3**0.5, wanted.reshape(3, n), x, 1)


def test_rows_are_chosen_by_the_first_word_of_their_number(place):
    keys = [exact_words(i, 11, 0, 5)[0] for i in range(N)]
    chosen = np.argsort(keys, kind="stable")[:15]
    x = made(np.eye(N), place.library)
    found = applied(orthokern.uniform_row_sketch(15, N, seed=11), x, place)
    assert_near(found, 2 * np.eye(N)[chosen], x, 1)


def test_a_tensor_sketch_is_the_countsketch_of_summed_hashes():
    s, seed = 7, 3
    target, sign = np.zeros(DIMS, int), np.ones(DIMS)
    for j, size in enumerate(DIMS):
        words = np.array([exact_words(i, seed, j, 6)[0] for i in range(size)])
        shape = [size if axis == j else 1 for axis in range(3)]
        target = target + ((words >> 1) * s >> 31).reshape(shape)
        sign = sign * np.where(words & 1, 1, -1).reshape(shape)
    wanted = np.zeros((s, N))
    wanted[target.ravel() % s, range(N)] = sign.ravel()
    np.testing.assert_array_equal(orthokern.tensor_sketch(s, DIMS, seed=seed).to_dense(), wanted)


def test_a_kronecker_sketch_is_rows_of_a_kronecker_product():
    s, seed = 7, 3
    wanted = np.ones((s, 1))
    for j, size in enumerate(DIMS):
        order = 1 << (size - 1).bit_length()
        signs = np.array([1 if exact_words(i, seed, j, 8)[0] & 1 else -1 for i in range(size)])
        rows = [exact_words(t, seed, j, 8)[1] * order >> 32 for t in range(s)]
        h = np.array([[(-1) ** (r & i).bit_count() for i in range(size)] for r in rows])
        wanted = (wanted[:, :, None] * (h * signs)[:, None, :]).reshape(s, -1)
    found = orthokern.kronecker_srht(s, DIMS, seed=seed).to_dense()
    np.testing.assert_allclose(found, wanted / s**0.5, rtol=1e-15, atol=1e-15)


# One matrix, however it is applied


@every_kind
def test_products_are_those_of_the_matrix(place, kind, rng):
    operator = MAKERS[kind]()
    s = operator.to_dense()
    assert s.shape == operator.shape
    a = rng.standard_normal((2, N, 3))
    y = rng.standard_normal((2, operator.shape[0], 3))
    x, z = made(a, place.library), made(y, place.library)
    found = applied(operator, x, place)
    assert type(found) is type(x)
    assert found.dtype == x.dtype
    assert_near(found, s @ a, x)
    assert_near(applied(operator, z, place, "adjoint"), s.T @ y, x)


@some_kinds
def test_complex_vectors_and_other_axes(place, kind, rng):
    operator = MAKERS[kind]()
    s = operator.to_dense()
    a = rng.standard_normal((3, N)) + 1j * rng.standard_normal((3, N))
    x = made(a, place.library, "complex128")
    assert_near(applied(operator, x, place, axis=-1), a @ s.T, x)
    assert_near(applied(operator, x[0, :], place), s @ a[0], x)
    assert_near(
        applied(operator, x[0, : operator.shape[0]], place, "adjoint"), a[0, : len(s)] @ s, x
    )


@every_kind
def test_results_of_blocks_add_up(place, kind, rng):
    operator = MAKERS[kind]()
    if kind in WHOLE:
        with pytest.raises(orthokern.UnsupportedError, match="expected whole columns"):
            operator.apply(np.ones((3, 2)), rows=(0, 3))
        return
    s, a = operator.to_dense(), rng.standard_normal((N, 2))
    cuts = [0, 20, 40, N]
    blocks = list(itertools.pairwise(cuts))
    x = made(a, place.library)
    total = sum(applied(operator, x[i:j, :], place, rows=(i, j)) for i, j in blocks)
    assert_near(total, s @ a, x)
    y = made(s @ a, place.library)
    for i, j in blocks:
        assert_near(applied(operator, y, place, "adjoint", rows=(i, j)), s.T[i:j] @ (s @ a), x)


@every_kind
def test_entries_are_those_of_the_dense_matrix(kind):
    operator = MAKERS[kind]()
    if kind not in SPARSE:
        with pytest.raises(orthokern.UnsupportedError, match="use to_dense"):
            operator.to_sparse()
        return
    rows, columns, values = operator.to_sparse()
    matrix = np.zeros(operator.shape)
    np.add.at(matrix, (rows, columns), values)
    np.testing.assert_allclose(matrix, operator.to_dense(), rtol=1e-15)


@pytest.mark.parametrize("kind", ["sjlt", "srht"])
def test_the_matrix_as_an_array_of_each_library(kind, library):
    operator = MAKERS[kind]()
    found = operator.to_dense(
        xp=importlib.import_module("jax.numpy" if library == "jax" else MODULES[library])
    )
    assert_near(found, operator.to_dense(), found)


@every_kind
def test_an_operator_is_a_value(kind):
    operator = MAKERS[kind]()
    again = pickle.loads(pickle.dumps(operator))
    assert again == operator
    assert hash(again) == hash(operator)
    assert operator != MAKERS[kind](4)
    assert operator.kind == kind.partition(" ")[0]
    with pytest.raises(AttributeError):
        operator.seed = 0
    assert operator.T.shape == operator.shape[::-1]
    assert operator.T.T is operator
    a = np.ones((N, 2))
    np.testing.assert_array_equal(operator.T @ (operator @ a), operator.adjoint(operator.apply(a)))


@every_kind
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_low_precision_is_summed_in_single(kind, dtype, rng):
    a = rng.standard_normal((N, 2)).astype(dtype)
    operator = MAKERS[kind]()
    found = operator @ a
    assert found.dtype == dtype
    wanted = operator.to_dense() @ a.astype(float)
    atol = 3 * np.finfo(dtype).eps * np.abs(wanted).max()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=atol)


@every_kind
def test_what_is_not_finite_stays_in_its_column(kind):
    a = np.ones((N, 3))
    a[4, 1] = np.nan
    a[5, 1] = np.inf
    found = MAKERS[kind]() @ a
    assert np.isfinite(found[:, [0, 2]]).all()
    expected = kind not in ("uniform_row_sketch",)
    assert np.isnan(found[:, 1]).any() == expected


@given(seed=st.integers(0, 2**64 - 1), s=st.integers(1, 20), n=st.integers(1, 40))
@BOUNDED
def test_adjoint_identity(seed, s, n):
    rng = np.random.default_rng(seed)
    nnz = 1 + seed % min(s, 9)
    for operator in (
        orthokern.sjlt(s, n, nnz=nnz, seed=seed),
        orthokern.srht(min(s, n), n, permute=bool(seed % 2), seed=seed),
        orthokern.rademacher_sketch(s, n, seed=seed),
    ):
        a, y = rng.standard_normal(n), rng.standard_normal(operator.shape[0])
        left, right = (operator @ a) @ y, a @ (operator.T @ y)
        scale = np.linalg.norm(a) * np.linalg.norm(y) * 10 * (n + s)
        assert abs(left - right) <= scale * np.finfo(float).eps


@given(seed=st.integers(0, 2**64 - 1), s=st.integers(1, 40), nnz=st.integers(1, 11))
@BOUNDED
def test_an_sjlt_has_one_entry_in_each_block(seed, s, nnz):
    nnz = min(nnz, s)
    operator = orthokern.sjlt(s, 30, nnz=nnz, seed=seed)
    block = operator.shape[0] // nnz
    assert operator.shape[0] == -(-s // nnz) * nnz
    matrix = operator.to_dense().reshape(nnz, block, 30)
    np.testing.assert_array_equal((matrix != 0).sum(axis=1), 1)
    np.testing.assert_allclose(np.abs(matrix).sum(axis=1), nnz**-0.5, rtol=1e-15)


# Kronecker products


@pytest.mark.parametrize("kind", ["tensor_sketch", "kronecker_srht"])
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_factors_give_what_their_product_gives(place, kind, dtype, rng):
    operator = MAKERS[kind]()
    x = [rng.standard_normal((2, size, 4)).astype(dtype) for size in DIMS]
    if dtype == "complex128":
        x[0] *= 1 + 2j
    whole = np.einsum("bik,bjk,blk->bijlk", *x).reshape(2, N, 4)
    factors = [made(f, place.library, dtype) for f in x]
    with orthokern.use_backend(place.backend):
        if place.library == "dask":
            with pytest.raises(orthokern.UnsupportedError, match="call compute"):
                operator.apply_factors(factors)
            return
        found = operator.apply_factors(factors)
    assert found.dtype == factors[0].dtype
    assert_near(found, operator.to_dense() @ whole, factors[0])


# What sketches keep


@every_kind
def test_the_mean_of_squares_is_the_identity(kind):
    """Entries of S^T S vary by at most about 1; 400 seeds bring their mean within 6 / 20."""
    count = 400 if kind != "uniform_row_sketch" else 1600
    if kind in ("gaussian_sketch", "rademacher_sketch", "tensor_sketch", "kronecker_srht"):
        count = 200
    total = np.zeros((N, N))
    for seed in range(count):
        s = MAKERS[kind](seed).to_dense()
        total += s.T @ s
    deviation = total / count - np.eye(N)
    bound = 6 * (np.max(np.abs(s.T @ s)) / count) ** 0.5
    assert np.max(np.abs(deviation)) < bound
    # A wrong scale moves all of the diagonal.
    assert abs(np.mean(np.diag(deviation))) < 0.05


def condition(operator, d):
    """Of S on the first d coordinates."""
    if isinstance(operator, operators.HadamardSketch):
        low, high = orthokern.sketch_distortion(operator, np.eye(operator.shape[1], d))
    else:
        values = np.linalg.svd(operator.apply(np.eye(d), rows=(0, d)), compute_uv=False)
        low, high = values[-1], values[0]
    return high / low if low > 0 else np.inf


def test_the_default_sketch_keeps_spiky_subspaces():
    d = 64
    worst = max(condition(orthokern.sjlt(2 * d, 8192, seed=seed), d) for seed in range(100))
    assert worst < 8


@pytest.mark.parametrize(
    ("multiple", "plain", "permuted"), [(2, (1e12, np.inf), (4, 7)), (8, (3, 6), (1.8, 2.3))]
)
def test_the_trap_of_the_plain_transform(multiple, plain, permuted):
    d = 64
    for permute, (low, high) in ((False, plain), (True, permuted)):
        sketches = [orthokern.srht(multiple * d, 8192, permute=permute, seed=i) for i in range(10)]
        worst = max(condition(operator, d) for operator in sketches)
        assert low < worst <= high, (permute, worst)


def test_one_entry_a_column_is_singular_on_spiky_subspaces():
    d = 64
    worst = max(condition(orthokern.countsketch(12 * d, 8192, seed=seed), d) for seed in range(10))
    assert worst > 1e12


def test_distortion_of_a_stack(place, rng):
    u = np.linalg.qr(rng.standard_normal((2, 50, 4)))[0]
    operator = orthokern.sjlt(24, 50, seed=1)
    x = made(u, place.library)
    if place.library == "dask":
        pytest.skip("its singular values are of single matrices")
    low, high = orthokern.sketch_distortion(operator, x)
    values = np.linalg.svd(operator.to_dense() @ u, compute_uv=False)
    assert_near(low, values[:, -1], x)
    assert_near(high, values[:, 0], x)


@pytest.mark.parametrize(
    ("kind", "purpose", "size"),
    [
        ("sjlt", "precondition", 200),
        ("srht", "embedding", math.ceil((10 + math.sqrt(2 * math.log(200))) ** 2 / 0.25)),
        ("srht", "linf", math.ceil(200 * math.log(20000) / 0.25)),
        ("countsketch", "embedding", 4040000),
    ],
)
def test_suggested_sizes(kind, purpose, size):
    assert orthokern.suggest_sketch_size(kind, 100, purpose=purpose) == size


# Derivatives and transforms


@every_kind
def test_gradients_of_torch_are_the_adjoint(kind, rng):
    torch = pytest.importorskip("torch")
    operator = MAKERS[kind]()
    x = torch.tensor(rng.standard_normal((2, N, 3)), requires_grad=True)
    y = operator @ x
    weight = torch.tensor(rng.standard_normal(tuple(y.shape)))
    (gradient,) = torch.autograd.grad((y * weight).sum(), x)
    np.testing.assert_allclose(gradient, operator.adjoint(weight), rtol=0, atol=1e-13)
    z = weight.clone().requires_grad_()
    (back,) = torch.autograd.grad((operator.adjoint(z) * x.detach()).sum(), z)
    np.testing.assert_allclose(back, y.detach(), rtol=0, atol=1e-13)
    mapped = torch.func.vmap(operator.apply)(x.detach())
    np.testing.assert_allclose(mapped, y.detach(), rtol=0, atol=1e-13)


@pytest.mark.parametrize("kind", ["gaussian_sketch", "sjlt", "srht"])
def test_gradients_and_transforms_of_jax(kind, rng):
    jax = pytest.importorskip("jax")
    operator = MAKERS[kind]()
    x = jax.numpy.asarray(rng.standard_normal((2, N, 3)))
    y = operator @ x
    weight = jax.numpy.asarray(rng.standard_normal(y.shape))
    gradient = jax.grad(lambda a: ((operator @ a) * weight).sum())(x)
    assert_near(gradient, np.asarray(operator.adjoint(weight)), x)
    back = jax.grad(lambda z: (operator.adjoint(z) * x).sum())(weight)
    assert_near(back, np.asarray(y), x)
    assert_near(jax.jit(jax.vmap(operator.apply))(x), np.asarray(y), x)


@some_kinds
def test_torch_compiles_the_product(kind, rng):
    torch = pytest.importorskip("torch")
    torch._dynamo.reset()
    operator = MAKERS[kind]()
    x = torch.tensor(rng.standard_normal((N, 3)))
    compiled = torch.compile(operator.apply, backend="eager", fullgraph=True)
    np.testing.assert_allclose(compiled(x), operator @ x, rtol=0, atol=1e-13)


JAX_WITHOUT_64_BITS = """
import numpy as np, jax, orthokern
assert not jax.config.jax_enable_x64
found = []
for operator in (
    orthokern.sjlt(16, 64, nnz=8, seed=2**63 + 5), orthokern.srht(8, 64, seed=3),
    orthokern.uniform_row_sketch(8, 64, seed=3), orthokern.rademacher_sketch(2, 64, seed=3),
    orthokern.kronecker_srht(4, (64,), seed=3), orthokern.gaussian_sketch(2, 64, seed=3),
):
    with orthokern.use_backend("array-api"):
        dense = np.asarray(operator.apply(jax.numpy.eye(64)))
    assert dense.dtype == np.float32
    with orthokern.use_backend("array-api"):
        wanted = operator.to_dense()
    if operator.kind != "gaussian_sketch":
        assert (np.sign(dense) == np.sign(wanted)).all(), operator.kind
    found.append(float(np.abs(dense - wanted).max()))
print(max(found) < 2e-6)
"""


def test_jax_without_64_bits_makes_the_same_sketches():
    pytest.importorskip("jax")
    assert outside.answer(JAX_WITHOUT_64_BITS, JAX_ENABLE_X64=None) == "True\n"


JAX_SHARDED = """
import numpy as np, jax, orthokern
from jax.sharding import Mesh, NamedSharding, PartitionSpec
assert len(jax.devices()) == 4
mesh = Mesh(np.array(jax.devices()), ("rows",))
a = np.random.default_rng(0).standard_normal((64, 3))
x = jax.device_put(a, NamedSharding(mesh, PartitionSpec("rows", None)))
errors = []
for operator in (
    orthokern.sjlt(16, 64, seed=5), orthokern.srht(8, 64, seed=3),
):
    for function in (operator.apply, jax.jit(operator.apply)):
        errors.append(float(np.abs(np.asarray(function(x)) - operator @ a).max()))
print(max(errors) < 1e-13)
"""


def test_rows_spread_over_devices():
    pytest.importorskip("jax")
    flags = "--xla_force_host_platform_device_count=4"
    found = outside.answer(JAX_SHARDED, JAX_ENABLE_X64="1", JAX_PLATFORMS="cpu", XLA_FLAGS=flags)
    assert found == "True\n"


@every_kind
def test_chunks_of_dask(kind, rng):
    da = pytest.importorskip("dask.array")
    operator = MAKERS[kind]()
    a = rng.standard_normal((2, N, 5))
    x = da.from_array(a, chunks=(1, 17, 2))
    found = operator @ x
    assert isinstance(found, da.Array)
    assert found.shape == (2, operator.shape[0], 5)
    np.testing.assert_allclose(found.compute(), operator @ a, rtol=0, atol=1e-12)
    back = operator.adjoint(found)
    np.testing.assert_allclose(back.compute(), operator.adjoint(operator @ a), rtol=0, atol=1e-11)


# Refusals

REFUSED = [
    (lambda: orthokern.sjlt(0, 5), orthokern.OptionError, "expected s to be an integer >= 1"),
    (lambda: orthokern.sjlt(8, 0), orthokern.OptionError, "expected n to be an integer >= 1"),
    (
        lambda: orthokern.sjlt(4, 5, nnz=5),
        orthokern.OptionError,
        "nnz to be an integer >= 1 and <= 4",
    ),
    (
        lambda: orthokern.sjlt(8, 5, seed=0.5),
        orthokern.OptionError,
        "expected seed to be an integer",
    ),
    (
        lambda: orthokern.sjlt(8, 5, seed=-1),
        orthokern.OptionError,
        "expected seed to be an integer",
    ),
    (lambda: orthokern.srht(6, 5), orthokern.OptionError, "s to be an integer >= 1 and <= 5"),
    (lambda: orthokern.srht(3, 5, permute=1), orthokern.OptionError, "permute to be True or False"),
    (lambda: orthokern.uniform_row_sketch(6, 5), orthokern.OptionError, ">= 1 and <= 5"),
    (lambda: orthokern.tensor_sketch(6, 5), orthokern.OptionError, "sequence of lengths"),
    (lambda: orthokern.tensor_sketch(6, ()), orthokern.OptionError, "sequence of lengths"),
    (lambda: orthokern.kronecker_srht(6, (2, 0)), orthokern.OptionError, "dims to be an integer"),
    (
        lambda: orthokern.sjlt(8, 5) @ np.ones((5, 2), int),
        orthokern.DTypeError,
        "cast to a floating",
    ),
    (lambda: orthokern.sjlt(8, 5) @ [1.0], orthokern.ArrayTypeError, "wrap it"),
    (lambda: orthokern.sjlt(8, 5) @ np.ones((4, 2)), orthokern.ShapeError, "expected 5 rows"),
    (lambda: orthokern.sjlt(8, 5).adjoint(np.ones(5)), orthokern.ShapeError, "expected 8 rows"),
    (
        lambda: orthokern.sjlt(8, 5).apply(np.ones((2, 2)), rows=(3, 3)),
        orthokern.OptionError,
        "0 <= start < stop <= 5",
    ),
    (
        lambda: orthokern.sjlt(8, 5).apply(np.ones((2, 2)), rows=(0, 3)),
        orthokern.ShapeError,
        "expected 3 rows",
    ),
    (
        lambda: orthokern.sjlt(8, 5).apply(np.ones((5, 2)), axis=2),
        orthokern.OptionError,
        "axis to be one of",
    ),
    (
        lambda: orthokern.tensor_sketch(4, (2, 3)).apply_factors([np.ones((2, 1))]),
        orthokern.ShapeError,
        r"expected factors with \(2, 3\) rows",
    ),
    (
        lambda: orthokern.suggest_sketch_size("sjlt", 5, purpose="linf"),
        orthokern.OptionError,
        "use 'srht'",
    ),
    (
        lambda: orthokern.suggest_sketch_size("countsketch", 5, purpose="precondition"),
        orthokern.OptionError,
        "use 'sjlt'",
    ),
    (
        lambda: orthokern.suggest_sketch_size("uniform_row_sketch", 5),
        orthokern.OptionError,
        "expected kind",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSED)
def test_refusals_are_one_sentence(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert not str(caught.value).endswith(".")


def test_factors_of_several_libraries_are_refused():
    torch = pytest.importorskip("torch")
    factors = [np.ones((2, 1)), torch.ones((3, 1))]
    with pytest.raises(orthokern.ArrayTypeError, match="mixture"):
        kronecker.tensor_sketch(4, (2, 3)).apply_factors(factors)
