"""Philox4x32-10: known answers, the same bits on every library and backend, exact signs and integers."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest

from orthokern import OptionError, explain, use_backend
from orthokern._core import random
from orthokern._core.dtypes import dtype_name
from orthokern._core.namespace import namespace
from orthokern.testing import libraries
from orthokern.testing.validation import available_backends

from ..helpers import outside

WORD = 2**32


def philox(counter, key):
    """The ten rounds in Python's integers, from the paper."""
    c, k = list(counter), list(key)
    for _ in range(10):
        (high0, low0), (high1, low1) = (
            divmod(0xD2511F53 * c[0], WORD),
            divmod(0xCD9E8D57 * c[2], WORD),
        )
        c = [high1 ^ c[1] ^ k[0], low1, high0 ^ c[3] ^ k[1], low0]
        k = [(k[0] + 0x9E3779B9) % WORD, (k[1] + 0xBB67AE85) % WORD]
    return c


def words_of(index, *, seed, stream, group=0):
    key = seed % WORD, seed // WORD
    return [philox((i % WORD, i // WORD, group, stream), key) for i in index]


KNOWN = [
    (
        "00000000 00000000 00000000 00000000",
        "00000000 00000000",
        "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
    ),
    (
        "ffffffff ffffffff ffffffff ffffffff",
        "ffffffff ffffffff",
        "408f276d 41c83b0e a20bc7c6 6d5451fd",
    ),
    (
        "243f6a88 85a308d3 13198a2e 03707344",
        "a4093822 299f31d0",
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


def numbers(text):
    return [int(word, 16) for word in text.split()]


def counters(start, count, library="numpy"):
    """Counters in the integers that the library counts with."""
    flat = libraries.to_library(np.ones(count, dtype=np.float32), library)
    return namespace(flat).arange(start, start + count)


def read(x):
    return np.asarray(libraries.to_numpy(x)).astype(np.int64)


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_known_answers_of_the_independent_rounds(counter, key, answer):
    assert philox(numbers(counter), numbers(key)) == numbers(answer)


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_known_answers(counter, key, answer, backend):
    low, high, group, stream = numbers(counter)
    k0, k1 = numbers(key)
    index = np.array([low + WORD * high], dtype=np.uint64).astype(np.int64)
    with use_backend(backend):
        words = random.random_bits(index, seed=k0 + WORD * k1, stream=stream, group=group)
    assert words.tolist() == [numbers(answer)]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
@pytest.mark.parametrize("form", ["wide", "narrow"])
def test_known_answers_of_both_word_sizes(counter, key, answer, form):
    kind, product = {
        "wide": (np.int64, random._product_wide),
        "narrow": (np.uint32, random._product_narrow),
    }[form]
    k0, k1 = numbers(key)
    arrays = [np.array([word], dtype=kind) for word in numbers(counter)]
    out = random._rounds(arrays, k0 + WORD * k1, product, kind)
    assert [int(word[0]) for word in out] == numbers(answer)


@pytest.mark.parametrize("bound", [1, 2, 3, 2**16 - 1, 2**16, 2**16 + 1, 2**31, 2**32 - 1])
def test_the_products_of_both_word_sizes_agree(bound, rng):
    words = np.concatenate([rng.integers(0, WORD, 500), [0, 1, 2**16 - 1, 2**16, 2**31, WORD - 1]])
    exact = [divmod(int(word) * bound, WORD) for word in words]
    for kind, product in ((np.int64, random._product_wide), (np.uint32, random._product_narrow)):
        high, low = product(words.astype(kind), bound)
        assert list(zip(high.tolist(), low.tolist(), strict=True)) == exact


# The same bits everywhere

STREAMS = [
    {"seed": 7, "stream": 4},
    {"seed": 2**64 - 1, "stream": 9, "group": 3},
    {"seed": 2**40 + 5, "stream": WORD - 1, "group": WORD - 1},
]


@pytest.mark.parametrize("options", STREAMS)
@pytest.mark.parametrize("start", [0, 2**31 - 3])
def test_bits_of_every_library(library, options, start):
    index = counters(start, 3, library)
    words = random.random_bits(index, **options)
    assert tuple(words.shape) == (3, 4)
    assert type(words) is type(index)
    assert read(words).tolist() == words_of(range(start, start + 3), **options)


@pytest.mark.parametrize("start", [WORD - 2, 2**40 + 7, 2**62])
def test_counters_beyond_one_word(backend, start):
    with use_backend(backend):
        words = random.random_bits(np.arange(start, start + 4), seed=3, stream=2)
    assert words.tolist() == words_of(range(start, start + 4), seed=3, stream=2)


@pytest.mark.parametrize("name", [name for name in libraries.available() if name != "dask"])
def test_backends_give_the_bits_of_the_body(name, backend):
    index = counters(5, 40, name)
    with use_backend(backend), explain() as report:
        words = random.random_bits(index, seed=11, stream=1)
    with use_backend("array-api"):
        reference = random.random_bits(index, seed=11, stream=1)
    assert report[0].backend == backend
    assert words.dtype == reference.dtype
    assert read(words).tolist() == read(reference).tolist()


@pytest.mark.parametrize("kind", ["int32", "uint32", "int64", "uint64"])
def test_backends_give_the_dtype_of_the_body(kind, backend):
    index = np.arange(6, dtype=kind)
    with use_backend("array-api"):
        reference = random.random_bits(index, seed=11, stream=1)
    with use_backend(backend):
        words = random.random_bits(index, seed=11, stream=1)
    assert words.dtype == reference.dtype
    assert words.tolist() == words_of(range(6), seed=11, stream=1)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 3), (2, 0, 4), (1, 1, 5)])
def test_counters_of_every_shape(shape, backend):
    count = math.prod(shape)
    index = np.arange(100, 100 + count).reshape(shape)
    with use_backend(backend):
        words = random.random_bits(index, seed=1, stream=1)
    assert words.shape == (*shape, 4)
    assert words.reshape(-1, 4).tolist() == words_of(range(100, 100 + count), seed=1, stream=1)


@pytest.mark.parametrize(
    "layout", [lambda i: i[::-1], lambda i: i[::2], lambda i: i.reshape(4, 5).T]
)
def test_counters_of_every_layout(layout, backend):
    index = layout(np.arange(20))
    with use_backend(backend):
        words = random.random_bits(index, seed=1, stream=1)
    assert words.reshape(-1, 4).tolist() == words_of(index.ravel().tolist(), seed=1, stream=1)


def test_bits_do_not_depend_on_how_the_work_is_cut(backend):
    with use_backend(backend):
        whole = random.random_bits(np.arange(1000), seed=5, stream=7)
        cuts = [0, 1, 13, 500, 999, 1000]
        pieces = [
            random.random_bits(np.arange(a, b), seed=5, stream=7)
            for a, b in itertools.pairwise(cuts)
        ]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


@pytest.mark.parametrize(
    "other", [{"seed": 6}, {"seed": 5 + WORD}, {"stream": 8}, {"group": 1}], ids=str
)
def test_streams_differ(other):
    options = {"seed": 5, "stream": 7, "group": 0}
    words = random.random_bits(np.arange(64), **options)
    others = random.random_bits(np.arange(64), **options | other)
    # 256 words of 32 bits each, of which one pair in 2**32 agrees by chance.
    assert not np.any(words == others)


def test_the_global_state_is_neither_read_nor_changed():
    np.random.seed(1)  # noqa: NPY002 - the state in question
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    first = random.normal(8, like=np.ones(1), seed=3)
    np.random.seed(2)  # noqa: NPY002
    np.testing.assert_array_equal(first, random.normal(8, like=np.ones(1), seed=3))
    np.random.seed(1)  # noqa: NPY002
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


JAX = """
import json
import jax
import numpy as np

jax.config.update("jax_enable_x64", {wide})
from orthokern import use_backend
from orthokern._core import random
from orthokern.testing.validation import available_backends

like = jax.numpy.ones(1)
answers = {{}}
for backend in available_backends():
    with use_backend(backend):
        words = random.random_bits(jax.numpy.arange(50), seed={seed}, stream=4, group=2)
        answers[backend] = [
            str(like.dtype),
            np.asarray(words).tolist(),
            np.asarray(random.signs(300, like=like, seed=3)).tolist(),
            np.asarray(random.integers(words, 1000003)).tolist(),
            np.asarray(random.normal(100, like=like, seed=3)).tolist(),
        ]
jitted = jax.jit(lambda i: random.random_bits(i, seed={seed}, stream=4, group=2))
answers["jit"] = np.asarray(jitted(jax.numpy.arange(50))).tolist()
print(json.dumps(answers))
"""


@pytest.mark.slow
@pytest.mark.parametrize("wide", [False, True])
def test_jax_with_and_without_64_bits(jax, wide):
    seed = 2**63 + 12345
    answers = json.loads(outside.answer(JAX.format(wide=wide, seed=seed)))
    words = random.random_bits(np.arange(50), seed=seed, stream=4, group=2)
    normal = random.normal(100, like=np.ones(1), seed=3)
    dtype = "float64" if wide else "float32"
    assert answers.pop("jit") == words.tolist()
    assert list(answers) == list(available_backends())
    for kind, *found in answers.values():
        assert kind == dtype
        assert found[0] == words.tolist()
        assert found[1] == random.signs(300, like=np.ones(1), seed=3).tolist()
        assert found[2] == random.integers(words, 1000003).tolist()
        assert np.all(np.abs(found[3] - normal) <= spread(normal, dtype))


def spread(normal, dtype):
    """How far apart two libraries may compute the pairs ``r cos t``, ``r sin t`` with ``r^2 = -2 log u``.

    A rounded u moves the logarithm by up to eps, and r by eps / r; a rounded t <= 2 pi moves the pair by 2 pi r
    eps. Each elementary function may err by another few eps.
    """
    pairs = normal.reshape(-1, 2)
    r = np.hypot(pairs[:, 0], pairs[:, 1])[:, None]
    return np.broadcast_to(
        (2 / r + (2 * math.pi + 4) * r) * np.finfo(dtype).eps, pairs.shape
    ).ravel()


# What is made of the bits


def signs_of(count, *, seed, stream):
    words = words_of(range(-(-count // 128)), seed=seed, stream=stream)
    return [1 - 2 * (words[e // 128][e // 32 % 4] >> e % 32 & 1) for e in range(count)]


@pytest.mark.parametrize("count", [0, 1, 127, 128, 129, 300])
def test_signs_are_bits(library, dtype, count):
    like = libraries.to_library(np.ones(1, dtype=dtype), library)
    signs = random.signs(count, like=like, seed=7)
    assert tuple(signs.shape) == (count,)
    assert signs.dtype == like.dtype
    assert read(signs).tolist() == signs_of(count, seed=7, stream=7)


def test_signs_in_a_stream_of_their_own():
    like = np.ones(1, dtype=np.complex64)
    signs = random.signs(70, like=like, seed=2**50, stream=3)
    assert signs.dtype == np.complex64
    assert signs.real.tolist() == signs_of(70, seed=2**50, stream=3)


@pytest.mark.parametrize("bound", [1, 2, 7, 1000003, 2**31 + 11, WORD - 1, WORD])
def test_integers_are_high_words(library, bound):
    words = random.random_bits(counters(0, 40, library), seed=3, stream=1)
    found = random.integers(words, bound)
    assert tuple(found.shape) == (40, 4)
    assert read(found).tolist() == [
        [word * bound // WORD for word in row] for row in words_of(range(40), seed=3, stream=1)
    ]


@pytest.mark.parametrize("bound", [2, 10, 1000])
def test_integers_take_every_value_alike(bound):
    found = random.integers(random.random_bits(np.arange(25 * bound), seed=3, stream=1), bound)
    counts = np.bincount(found.ravel(), minlength=bound)
    assert counts.size == bound
    # Chi-square of bound - 1 degrees of freedom: five standard deviations above its mean.
    chi_square = float(((counts - 100) ** 2 / 100).sum())
    assert chi_square < bound - 1 + 5 * (2 * (bound - 1)) ** 0.5


EXTREME = [[0, 0], [0, 1], [1, 0], [WORD - 1, WORD - 1], [WORD - 1, 0], [2**31, 5], [12345, 678901]]


def test_uniform_numbers_are_binary_fractions(library, dtype):
    like = libraries.to_library(np.array(EXTREME, dtype=np.float64).astype(dtype), library)
    kind = dtype_name(random.random_bits(counters(0, 1, library), seed=0, stream=0))
    words = libraries.to_library(np.array(EXTREME, dtype=kind), library)
    found = libraries.to_numpy(random.uniform(words, like.dtype))
    exact = np.array([a / WORD + b / WORD**2 for a, b in EXTREME])
    eps = float(np.finfo(np.float64 if "64" in str(like.dtype) else np.float32).eps)
    assert np.all(np.abs(found - exact) <= eps * exact)


@pytest.mark.parametrize("kind", [np.float64, np.float32])
def test_uniform_numbers_stay_below_one(kind):
    words = np.array(EXTREME, dtype=np.int64)
    found = random.uniform(words, kind)
    assert found.dtype == kind
    assert found.min() == 0
    assert found.max() < 1


def moments(x, order):
    return float(np.mean(np.asarray(x, dtype=np.float64) ** order))


COUNT = 2**16


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_moments_of_uniform_numbers(order):
    words = random.random_bits(np.arange(COUNT), seed=1, stream=5)
    exact, square = 1 / (order + 1), 1 / (2 * order + 1)
    error = abs(moments(random.uniform(words, np.float64), order) - exact)
    assert error < 5 * ((square - exact**2) / COUNT) ** 0.5


# E x^k of a standard normal number, k = 0 ... 8
NORMAL_MOMENTS = (1, 0, 1, 0, 3, 0, 15, 0, 105)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_moments_of_normal_numbers(order, seed):
    x = random.normal(COUNT, like=np.ones(1), seed=seed)
    variance = NORMAL_MOMENTS[2 * order] - NORMAL_MOMENTS[order] ** 2
    assert abs(moments(x, order) - NORMAL_MOMENTS[order]) < 5 * (variance / COUNT) ** 0.5


def test_neighbours_are_not_correlated():
    x = random.normal(COUNT, like=np.ones(1), seed=4)
    signs = random.signs(COUNT, like=np.ones(1), seed=4)
    for numbers in (x, signs):
        for lag in (1, 2, 31, 32, 128):
            assert abs(np.mean(numbers[lag:] * numbers[:-lag])) < 5 * COUNT**-0.5


def test_known_normal_numbers(backend):
    with use_backend(backend):
        found = random.normal(6, like=np.ones(1), seed=7, stream=random.GAUSSIAN)
    known = [2.1668511997476596, 0.11901199628856776, 0.596775321385419]
    known += [0.3831794990872238, -0.3929161150663212, -2.2650215094483763]
    np.testing.assert_allclose(found, known, rtol=1e-13)


def test_normal_numbers_of_every_library(library, dtype):
    like = libraries.to_library(np.ones(1, dtype=dtype), library)
    found = random.normal(100, like=like, seed=3)
    reference = random.normal(100, like=np.ones(1), seed=3)
    assert found.dtype == like.dtype
    eps = "float64" if "64" in str(like.dtype) else "float32"
    assert np.all(np.abs(libraries.to_numpy(found) - reference) <= spread(reference, eps))


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_a_shorter_stream_of_normal_numbers_is_the_beginning_of_a_longer_one(count):
    long = random.normal(8, like=np.ones(1), seed=3)
    np.testing.assert_array_equal(random.normal(count, like=np.ones(1), seed=3), long[:count])


@pytest.mark.parametrize(("kind", "real"), [("complex128", "float64"), ("complex64", "float32")])
def test_normal_numbers_are_real(kind, real):
    found = random.normal(8, like=np.ones(1, dtype=kind), seed=3)
    np.testing.assert_array_equal(found, random.normal(8, like=np.ones(1, dtype=real), seed=3))
    assert found.dtype == real


@pytest.mark.parametrize("kind", [np.int64, np.uint32])
@pytest.mark.parametrize("word", [0, WORD - 1])
def test_the_ends_of_the_words_give_finite_normal_numbers(monkeypatch, kind, word):
    monkeypatch.setattr(random, "_words", lambda *arguments: np.full((3, 4), word, dtype=kind))
    assert np.all(np.isfinite(random.normal(6, like=np.ones(1), seed=0)))


# Errors


@pytest.mark.parametrize("draw", [random.normal, random.signs])
@pytest.mark.parametrize("seed", [-1, 1.0, "1", None, True, 2**64])
def test_seeds_that_are_no_words_of_64_bits(draw, seed):
    with pytest.raises(OptionError, match="expected seed to be an integer") as caught:
        draw(3, like=np.ones(1), seed=seed)
    assert f"got {seed!r}" in str(caught.value)


@pytest.mark.parametrize("seed", [0, 2**64 - 1, np.int64(5), np.uint64(2**64 - 1)])
def test_seeds_of_64_bits(seed):
    found = random.signs(40, like=np.ones(1), seed=seed)
    assert found.tolist() == signs_of(40, seed=int(seed), stream=7)


@pytest.mark.parametrize("bound", [0, -1, 2.5, "3", None, True, WORD + 1])
def test_bounds_that_have_no_integers(bound):
    words = random.random_bits(np.arange(2), seed=0, stream=0)
    with pytest.raises(OptionError, match=r"random\.integers: expected bound to be an integer"):
        random.integers(words, bound)
