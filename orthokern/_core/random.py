"""Counter-based random numbers: Philox4x32-10 in array-API integer code.

Element k of a stream depends on (seed, stream, group, k) alone: not on the library, the device, or how the
work is cut into pieces. There is no global state. Source: Salmon, Moraes, Dror, Shaw, "Parallel random
numbers: as easy as 1, 2, 3" (SC 2011).
"""

from __future__ import annotations

import math
from typing import Any

from . import check
from .dispatch import op
from .dtypes import dtype_name, eps, real_dtype
from .namespace import device, namespace

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
MASK = 0xFFFFFFFF
GAUSSIAN, RADEMACHER, NORMALS = 4, 7, 9


def _wide(words: Any) -> bool:
    """Whether words are held in 64-bit integers (JAX has none by default)."""
    return dtype_name(words).endswith("64")


def _product_wide(a: Any, m: int) -> tuple[Any, Any]:
    """High and low word of a * m in int64, which wraps modulo 2**64."""
    product = a * m
    return (product >> 32) & MASK, product & MASK


def _product_narrow(a: Any, m: int) -> tuple[Any, Any]:
    """High and low word of a * m in uint32, by 16-bit halves."""
    half = 0xFFFF
    al, ah = a & half, a >> 16
    ml, mh = m & half, m >> 16
    ll, lh, hl, hh = al * ml, al * mh, ah * ml, ah * mh
    t = (ll >> 16) + (lh & half) + (hl & half)
    return hh + (lh >> 16) + (hl >> 16) + (t >> 16), (ll & half) | (t << 16)


def _rounds(counter: list[Any], seed: int, product: Any, word: Any) -> list[Any]:
    c0, c1, c2, c3 = counter
    k0, k1 = seed & MASK, (seed >> 32) & MASK
    for _ in range(ROUNDS):
        hi0, lo0 = product(c0, MULTIPLIERS[0])
        hi1, lo1 = product(c2, MULTIPLIERS[1])
        c0, c1, c2, c3 = hi1 ^ c1 ^ word(k0), lo1, hi0 ^ c3 ^ word(k1), lo0
        k0, k1 = (k0 + KEY_STEPS[0]) & MASK, (k1 + KEY_STEPS[1]) & MASK
    return [c0, c1, c2, c3]


@op()
def random_bits(index: Any, /, *, seed: int, stream: int, group: int = 0) -> Any:
    """Four 32-bit words for each counter in ``index``; shape (..., 4).

    The words are held in int64, or in uint32 for counters of 32 bits (JAX has no others by default): the same
    numbers. About 60 integer operations a word.
    """
    xp = namespace(index)
    if index.ndim == 0:
        # NumPy warns where scalars wrap, as they must here.
        counter = xp.reshape(index, (1,))
        return random_bits.body(counter, seed=seed, stream=stream, group=group)[0, :]
    if _wide(index):
        low = xp.astype(index, xp.int64)
        counter = [
            low & MASK,
            (low >> 32) & MASK,
            xp.full_like(low, group),
            xp.full_like(low, stream),
        ]
        return xp.stack(_rounds(counter, seed, _product_wide, int), axis=-1)
    low = xp.astype(index, xp.uint32)
    counter = [low, xp.zeros_like(low), xp.full_like(low, group), xp.full_like(low, stream)]
    return xp.stack(_rounds(counter, seed, _product_narrow, xp.uint32), axis=-1)


def _words(count: int, like: Any, seed: int, stream: int, group: int, start: int = 0) -> Any:
    xp = namespace(like)
    check.count(seed, kernel="random", name="seed", least=0, most=2**64 - 1)
    index = xp.arange(start, start + count, device=device(like))
    return random_bits(index, seed=seed, stream=stream, group=group)


def signs(count: int, *, like: Any, seed: int, stream: int = RADEMACHER, group: int = 0) -> Any:
    """``count`` random signs in the dtype and on the device of ``like``; bit 0 means +1, bit 1 means -1."""
    counters = max(-(-count // 128), 1)
    words = _words(counters, like, seed, stream, group)
    return signs_of(namespace(like).reshape(words, (1, -1)), like)[0, :count]


def signs_of(words: Any, like: Any) -> Any:
    """The 32 signs in each word of (m, w), (m, 32 w), in the dtype of ``like``: first the one in bit 0."""
    xp = namespace(words)
    shifts = xp.arange(32, dtype=words.dtype, device=device(words))
    bits = xp.reshape((words[..., None] >> shifts) & 1, (words.shape[0], -1))
    return 1 - 2 * xp.astype(bits, like.dtype)


def integers(words: Any, bound: int) -> Any:
    """Integers in [0, bound) from 32-bit words by multiply-high; the bias is at most bound / 2**32."""
    check.count(bound, kernel="random.integers", name="bound", most=2**32)
    if bound == 2**32:
        return words
    product = _product_wide if _wide(words) else _product_narrow
    return product(words, bound)[0]


def uniform(words: Any, dtype: Any) -> Any:
    """Numbers in [0, 1), as fine as ``dtype`` tells them apart, from the last axis (two words) of ``words``."""
    xp = namespace(words)
    number = xp.astype(words[..., 0], dtype) * 2.0**-32
    number = number + xp.astype(words[..., 1], dtype) * 2.0**-64
    # The sum may round to 1.
    return xp.minimum(number, xp.full_like(number, 1 - eps(number) / 2))


def normal(count: int, *, like: Any, seed: int, stream: int = NORMALS, group: int = 0) -> Any:
    """``count`` standard normal numbers (Box-Muller) in the real dtype of ``like``.

    Computed in float64 where the library has it; libraries then agree to a few ulp (log and cos differ).
    """
    words = _words(-(-count // 2), like, seed, stream, group)
    return namespace(like).reshape(normals_of(words, like), (-1,))[:count]


def normals_of(words: Any, like: Any) -> Any:
    """Two independent normal numbers (..., 2) in the real dtype of ``like`` from each four words (..., 4)."""
    xp = namespace(words)
    work = xp.float64 if _wide(words) else xp.float32
    w0, w1, w2, w3 = (xp.astype(words[..., i], work) for i in range(4))
    u1 = w0 * 2.0**-32 + (w1 + 0.5) * 2.0**-64
    u2 = (w2 + w3 * 2.0**-32) * 2.0**-32
    radius = xp.sqrt(-2 * xp.log(u1))
    pair = xp.stack([radius * xp.cos(2 * math.pi * u2), radius * xp.sin(2 * math.pi * u2)], axis=-1)
    return xp.astype(pair, real_dtype(like))
