"""Sketches of Kronecker products that never form them."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._core import check
from .._core.dtypes import compute_precision, is_complex
from .._core.errors import OptionError, ShapeError, UnsupportedError
from .._core.namespace import device, is_lazy, namespace, same_library
from .._core.random import integers, random_bits
from .._core.segments import add_rows
from .hadamard import hadamard, order_of, padded, signs_like
from .hashing import TENSOR, hashed, scattered_rows
from .operators import SketchOperator, sizes

# The stream of random words (a change changes every sketch).
KRONECKER = 8


@dataclass(frozen=True)
class FactoredSketch(SketchOperator):
    """A sketch of vectors ``x_1 (x) ... (x) x_p`` of lengths ``dims``, made from sketches of the factors."""

    dims: tuple[int, ...]

    def apply_factors(self, factors: Sequence[Any], /) -> Any:
        """``S a``, where column k of a is the Kronecker product of the columns k of the factors; a is not formed.

        ``factors``: arrays (..., n_j, d), one for each of ``dims``, of one library.
        """
        arrays = tuple(factors)
        for x in arrays:
            check.matrix(x, kernel=self.kind, name="factors")
        found = tuple(x.shape[-2] for x in arrays)
        if found != self.dims:
            message = f"{self.kind}: expected factors with {self.dims} rows, got {found}"
            raise ShapeError(message)
        if is_lazy(arrays[0]):
            message = f"{self.kind}: expected factors in memory, got arrays of Dask; call compute() on them"
            raise UnsupportedError(message)
        xp = same_library(*arrays)
        out = self._product([compute_precision(x) for x in arrays])
        return xp.astype(
            out, functools.reduce(operator.add, (x[..., :0, :0] for x in arrays)).dtype
        )

    def _product(self, factors: list[Any]) -> Any:
        raise NotImplementedError


def _digits(index: Any, dims: tuple[int, ...]) -> list[Any]:
    """The index into each factor that belongs to an index into their Kronecker product."""
    strides = [math.prod(dims[j + 1 :]) for j in range(len(dims))]
    return [(index // stride) % size for stride, size in zip(strides, dims, strict=True)]


@dataclass(frozen=True)
class TensorSketch(FactoredSketch):
    """The countsketch whose hash of a tuple is the sum of the hashes, and whose sign is the product."""

    @property
    def kind(self) -> str:
        """``tensor_sketch``."""
        return "tensor_sketch"

    def _places(self, start: int, stop: int, like: Any) -> tuple[Any, Any]:
        """Target and sign bit (1 is +) of the columns ``start`` to ``stop``."""
        xp = namespace(like)
        target, odd = 0, 1 + len(self.dims)
        for j, digit in enumerate(_digits(xp.arange(start, stop, device=device(like)), self.dims)):
            ((table, bit),) = self._mode(j, like)
            target = target + xp.take(table, digit)
            odd = odd + xp.astype(xp.take(bit, digit), table.dtype)
        return target % self.shape[0], odd % 2

    def _mode(self, j: int, like: Any) -> list[tuple[Any, Any]]:
        options = {"block": self.shape[0], "nnz": 1, "seed": self.seed, "stream": TENSOR}
        return hashed(0, self.dims[j], like, group=j, **options)

    def _apply(self, a: Any, start: int) -> Any:
        target, bit = self._places(start, start + a.shape[-2], a)
        return add_rows(a * signs_like(bit, a), target, self.shape[0])

    def _adjoint(self, y: Any, start: int, stop: int) -> Any:
        target, bit = self._places(start, stop, y)
        return namespace(y).take(y, target, axis=-2) * signs_like(bit, y)

    def _product(self, factors: list[Any]) -> Any:
        xp, s = namespace(factors[0]), self.shape[0]
        complex_ = any(is_complex(x) for x in factors)
        forward = xp.fft.fft if complex_ else xp.fft.rfft
        options = {"rows": s, "nnz": 1, "seed": self.seed, "stream": TENSOR}
        spectra = (
            forward(_complex(scattered_rows(x, group=j, **options), complex_), axis=-2)
            for j, x in enumerate(factors)
        )
        product = functools.reduce(operator.mul, spectra)
        return xp.fft.ifft(product, axis=-2) if complex_ else xp.fft.irfft(product, n=s, axis=-2)

    def to_sparse(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Row indices, column indices and values: one entry for each column."""
        target, bit = self._places(0, self.shape[1], np.empty(0))
        return target, np.arange(self.shape[1]), 2.0 * bit - 1


def _complex(x: Any, wanted: bool) -> Any:
    """``x`` in the complex dtype of its precision, which the transform of complex numbers takes alone."""
    xp = namespace(x)
    if not wanted or is_complex(x):
        return x
    return xp.astype(x, xp.complex64 if x.dtype == xp.float32 else xp.complex128)


@dataclass(frozen=True)
class KroneckerHadamardSketch(FactoredSketch):
    """Random rows of a Kronecker product of Walsh-Hadamard transforms, each behind random signs."""

    splits = False

    @property
    def kind(self) -> str:
        """``kronecker_srht``."""
        return "kronecker_srht"

    @property
    def _orders(self) -> tuple[int, ...]:
        return tuple(map(order_of, self.dims))

    def _signs(self, j: int, like: Any) -> Any:
        index = namespace(like).arange(self.dims[j], device=device(like))
        words = random_bits(index, seed=self.seed, stream=KRONECKER, group=j)
        return signs_like(words[:, 0], like)

    def _chosen(self, j: int, like: Any) -> Any:
        """The row of factor j that belongs to each row of the sketch."""
        xp = namespace(like)
        index = xp.arange(self.shape[0], device=device(like))
        words = random_bits(index, seed=self.seed, stream=KRONECKER, group=j)
        return xp.astype(integers(words[:, 1], self._orders[j]), index.dtype)

    def _rows(self, like: Any) -> Any:
        """The rows of the whole transform that are taken; Sylvester's matrices multiply to Sylvester's."""
        row = 0
        for j, order in enumerate(self._orders):
            row = row * order + self._chosen(j, like)
        return row

    def _whole_signs(self, like: Any) -> Any:
        """Signs of all n rows, as a column."""
        xp = namespace(like)
        signs = (self._signs(j, like)[:, 0] for j in range(len(self.dims)))
        outer = functools.reduce(lambda x, y: xp.reshape(x[:, None] * y, (-1,)), signs)
        return outer[:, None]

    def _apply(self, a: Any, start: int) -> Any:
        xp = namespace(a)
        batch, d = tuple(a.shape[:-2]), a.shape[-1]
        a = xp.reshape(a * self._whole_signs(a), (*batch, *self.dims, d))
        for j, order in enumerate(self._orders):
            a = padded(a, order, axis=j - len(self.dims) - 1)
        mixed = hadamard(xp.reshape(a, (*batch, math.prod(self._orders), d)))
        return xp.take(mixed, self._rows(a), axis=-2) * self.shape[0] ** -0.5

    def _adjoint(self, y: Any, start: int, stop: int) -> Any:
        xp = namespace(y)
        batch, d = tuple(y.shape[:-2]), y.shape[-1]
        x = hadamard(add_rows(y, self._rows(y), math.prod(self._orders)))
        x = xp.reshape(x, (*batch, *self._orders, d))
        x = x[(..., *(slice(0, size) for size in self.dims), slice(None))]
        x = xp.reshape(x, (*batch, self.shape[1], d))
        return x * self._whole_signs(y) * self.shape[0] ** -0.5

    def _product(self, factors: list[Any]) -> Any:
        parts = (
            namespace(x).take(
                hadamard(padded(x * self._signs(j, x), self._orders[j])),
                self._chosen(j, x),
                axis=-2,
            )
            for j, x in enumerate(factors)
        )
        return functools.reduce(operator.mul, parts) * self.shape[0] ** -0.5


def _checked(dims: Any, kernel: str) -> tuple[int, ...]:
    if not isinstance(dims, Sequence) or isinstance(dims, str) or not dims:
        message = f"{kernel}: expected dims to be a sequence of lengths, got {dims!r}; pass (n_1, ..., n_p)"
        raise OptionError(message)
    return tuple(check.count(size, kernel=kernel, name="dims") for size in dims)


def tensor_sketch(s: int, dims: Sequence[int], /, *, seed: int = 0) -> FactoredSketch:
    """Countsketch of Kronecker products of lengths ``dims`` by fast convolution of countsketches of the factors.

    flops of ``apply_factors``: (n_1 + ... + n_p + p s log2(s)) d.  memory: p sketches.

    References
    ----------
    Pham, Pagh, "Fast and scalable polynomial kernels via explicit feature maps" (KDD 2013).
    """
    lengths = _checked(dims, "tensor_sketch")
    s, n, seed = sizes(s, math.prod(lengths), seed, kernel="tensor_sketch")
    return TensorSketch((s, n), seed, lengths)


def kronecker_srht(s: int, dims: Sequence[int], /, *, seed: int = 0) -> FactoredSketch:
    """Dense sketch of Kronecker products: rows, taken with replacement, of ``H D_1 (x) ... (x) H D_p``, over sqrt(s).

    flops of ``apply_factors``: (n_1 log2(n_1) + ... + n_p log2(n_p) + p s) d.  memory: one copy of the factors.

    References
    ----------
    Song, Ye, Yin, Zhang, "A nearly-optimal bound for fast regression with l_inf guarantee" (ICML 2023).
    """
    lengths = _checked(dims, "kronecker_srht")
    s, n, seed = sizes(s, math.prod(lengths), seed, kernel="kronecker_srht")
    return KroneckerHadamardSketch((s, n), seed, lengths)
