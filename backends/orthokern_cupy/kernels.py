"""The fused elementwise and reduction kernels: their C++ text in one table, CuPy's objects made of it on first use.

``T`` is the dtype of a matrix and ``R`` that of its real parts. Numbers come in as ``R`` arguments, never as literals
with a decimal point: those are double precision, at a sixty-fourth of the speed on many devices. CuPy learns the type
of a placeholder from arrays only, never from numbers: so ``R`` is written out before it sees the text.
"""

from __future__ import annotations

import functools
import re
from typing import Any, NamedTuple


class Elementwise(NamedTuple):
    """Arguments and statements for one entry; ``i`` is its place in row-major order."""

    inputs: str
    outputs: str
    operation: str


class Reduction(NamedTuple):
    """What an entry contributes, how two contributions ``a`` and ``b`` join, and the contribution of nothing."""

    inputs: str
    outputs: str
    contribution: str
    joined: str
    nothing: str


PREAMBLE = """
template<typename T> __device__ T conjugate(T x) { return x; }
template<typename T> __device__ complex<T> conjugate(complex<T> x) {
    return complex<T>(x.real(), -x.imag());
}
template<typename T> __device__ T halved(T x) { return x / T(2); }
template<typename T> __device__ complex<T> halved(complex<T> x) {
    return complex<T>(x.real() / T(2), x.imag() / T(2));
}
template<typename T> __device__ T square(T x) { return x * x; }
template<typename T> __device__ T square(complex<T> x) {
    return x.real() * x.real() + x.imag() * x.imag();
}
template<typename T> __device__ T modulus(T x) {
    T size = x < T(0) ? -x : x;
    return size == size ? size : T(1) / T(0);
}
template<typename T> __device__ T modulus(complex<T> x) {
    T first = modulus(x.real()), second = modulus(x.imag());
    return first > second ? first : second;
}
"""

KERNELS: dict[str, Elementwise | Reduction] = {
    # Largest modulus of a real or imaginary part; infinity stands for NaN too.
    "largest": Reduction("T x", "R y", "modulus(x)", "a > b ? a : b", "0"),
    # Sum of the squares of the moduli.
    "square_norm": Reduction("T x", "R y", "square(x)", "a + b", "0"),
    # Power of two that brings a bound into [0.5, 1), and its reciprocal; NaN for an infinite bound.
    "powers": Elementwise(
        "R bound, int32 limit",
        "R scale, R undo",
        """
        int e = 0;
        bool finite = bound - bound == R(0);
        if (finite && bound > R(0)) {
            frexp(bound, &e);
            e = e < -limit ? -limit : (e > limit ? limit : e);
        }
        scale = finite ? ldexp(R(1), -e) : bound - bound;
        undo = finite ? ldexp(R(1), e) : bound - bound
        """,
    ),
    # A matrix times a power of two; the identity where that is NaN.
    "rescale": Elementwise(
        "T x, R scale, int32 height, int32 width",
        "T y",
        """
        if (scale == scale) { y = x * scale; }
        else {
            long long place = i % ((long long)height * width);
            y = T(R(place / width == place % width));
        }
        """,
    ),
    "blend": Elementwise("T x, T y, R a, R b", "T z", "z = x * a + y * b"),
    "newton": Elementwise("T x, T y, R a, R b", "T z", "z = x * a + conjugate(y) * b"),
    # a I + b G
    "affine": Elementwise(
        "T g, R a, R b, int32 width",
        "T z",
        "z = g * b; if ((i / width) % width == i % width) { z = z + a; }",
    ),
    # a I + b G + c H
    "quadratic": Elementwise(
        "T g, T h, R a, R b, R c, int32 width",
        "T z",
        "z = g * b + h * c; if ((i / width) % width == i % width) { z = z + a; }",
    ),
    # Symmetric matrix from its upper triangle.
    "mirror": Elementwise(
        "raw T g, int32 width",
        "T z",
        """
        long long row = i / width, column = i % width;
        z = row <= column ? g[row * width + column] : g[column * width + row]
        """,
    ),
    # Exactly Hermitian: both sums round alike.
    "hermitian": Elementwise("T x, T y", "T z", "z = halved(x + conjugate(y))"),
}


_C_NAMES = {"float32": "float", "float64": "double"}
_REAL_PARTS = re.compile(r"\bR\b")


def written_out(entry: Elementwise | Reduction, real: str) -> Elementwise | Reduction:
    """``entry`` with ``real``, a dtype in parameters and its C++ name in statements, in the place of ``R``."""
    parameters = [_REAL_PARTS.sub(real, text) for text in entry[:2]]
    statements = [_REAL_PARTS.sub(_C_NAMES[real], text) for text in entry[2:]]
    return type(entry)(*parameters, *statements)


def kernel(name: str, like: Any, cp: Any) -> Any:
    """The kernel ``name`` of the table, as an object of CuPy, for matrices in the precision of ``like``."""
    return _kernel(name, "float32" if like.dtype.char in "fF" else "float64", cp)


@functools.cache
def _kernel(name: str, real: str, cp: Any) -> Any:
    """It is compiled when it is called."""
    entry = written_out(KERNELS[name], real)
    label = f"orthokern_{name}_{real}"
    if isinstance(entry, Elementwise):
        return cp.ElementwiseKernel(*entry, label, preamble=PREAMBLE)
    inputs, outputs, contribution, joined, nothing = entry
    return cp.ReductionKernel(
        inputs, outputs, contribution, joined, "y = a", nothing, label, preamble=PREAMBLE
    )
