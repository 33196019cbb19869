"""The C++ text of CuPy's kernels, compiled for the processor by g++ and called on NumPy arrays."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

C_NAMES = {
    "float32": "float",
    "float64": "double",
    "complex64": "complex<float>",
    "complex128": "complex<double>",
    "int32": "int",
}

# What the headers that CuPy includes offer, as far as the kernels use it; no header here, which keeps it fast.
PROLOGUE = """
#define __device__ static inline
static inline float frexp(float x, int* e) { return __builtin_frexpf(x, e); }
static inline double frexp(double x, int* e) { return __builtin_frexp(x, e); }
static inline float ldexp(float x, int e) { return __builtin_ldexpf(x, e); }
static inline double ldexp(double x, int e) { return __builtin_ldexp(x, e); }
template<typename R> struct complex {
    R re, im;
    complex(R re = 0, R im = 0) : re(re), im(im) {}
    R real() const { return re; }
    R imag() const { return im; }
    complex operator*(R s) const { return complex(re * s, im * s); }
    complex operator+(R s) const { return complex(re + s, im); }
    complex operator+(complex o) const { return complex(re + o.re, im + o.im); }
};
"""


class Parameter(NamedTuple):
    """``raw T g``: a name, its type or placeholder, and whether the kernel indexes it itself."""

    type: str
    name: str
    raw: bool


def parameters(text):
    """The declared arguments of a kernel."""
    found = []
    for part in text.split(","):
        *raw, kind, name = part.split()
        found.append(Parameter(kind, name, raw == ["raw"]))
    return tuple(found)


def types(kernel, declared, arguments):
    """The dtype of each placeholder, which arrays tell and numbers do not.

    An argument of another dtype than its neighbours, or without one, is refused.
    """
    bound = {}
    for parameter, argument in zip(declared, arguments, strict=False):
        if not isinstance(argument, np.ndarray | np.generic):
            message = f"{kernel}: {parameter.name} is a Python {type(argument).__name__}, handed on in 8 bytes"
            raise TypeError(message)
        name, wanted = argument.dtype.name, parameter.type
        if len(wanted) == 1:
            if isinstance(argument, np.generic):
                continue
            wanted = bound.setdefault(wanted, name)
        if name != wanted:
            message = f"{kernel}: {parameter.name} has dtype {name}, expected {wanted}"
            raise TypeError(message)
    for parameter in declared:
        if len(parameter.type) == 1 and parameter.type not in bound:
            message = f"{kernel}: no array tells what {parameter.type} is"
            raise KeyError(message)
    return bound | {name: name for name in C_NAMES}


@functools.cache
def folder():
    return Path(tempfile.mkdtemp(prefix="orthokern-kernels-"))


@functools.cache
def library(source):
    """The shared object made of ``source``."""
    compiler = shutil.which("g++")
    assert compiler, "the kernels are executed by compiling them for the processor: install g++"
    name = folder() / hashlib.sha256(source.encode()).hexdigest()[:16]
    name.with_suffix(".cpp").write_text(source)
    target = str(name.with_suffix(".so"))
    command = [compiler, "-std=c++17", "-O1", "-ffp-contract=off", "-shared", "-fPIC"]
    done = subprocess.run(
        [*command, str(name.with_suffix(".cpp")), "-o", target],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(target)


def typedefs(bound):
    return " ".join(f"typedef {C_NAMES[n]} {k};" for k, n in bound.items() if len(k) == 1)


def addresses(arrays):
    return (ctypes.c_void_p * len(arrays))(*(a.ctypes.data for a in arrays))


def elementwise(source, bound, given, results, shape, declared):
    """Fill ``results`` entry by entry."""
    out_params, operation, preamble = source
    lines = []
    for place, p in enumerate((*declared, *parameters(out_params))):
        c_type = p.type if len(p.type) == 1 else C_NAMES[p.type]
        is_output = place >= len(declared)
        pointer = f"(({'' if is_output else 'const '}{c_type}*)args[{place}])"
        if p.raw:
            lines.append(f"const {c_type}* {p.name} = {pointer};")
        elif is_output:
            lines.append(f"{c_type}& {p.name} = {pointer}[i];")
        else:
            lines.append(f"const {c_type} {p.name} = {pointer}[scalar[{place}] ? 0 : i];")
    body = "\n".join(lines)
    text = f"""{PROLOGUE}{preamble}
extern "C" void run(long long size, void** args, const int* scalar) {{
    {typedefs(bound)}
    for (long long i = 0; i < size; ++i) {{ {body} {operation}; }}
}}"""
    arrays, scalar = [], []
    for p, a in zip(declared, given, strict=True):
        single = np.ndim(a) == 0 and not p.raw
        scalar.append(int(single))
        arrays.append(np.array(a if single or p.raw else np.broadcast_to(a, shape), order="C"))
    arrays += results
    size = int(np.prod(shape, dtype=np.int64))
    flags = (ctypes.c_int * len(arrays))(*scalar)
    library(text).run(ctypes.c_longlong(size), addresses(arrays), flags)


def reduction(source, bound, x, out, axes):
    """Fill ``out``, in which the ``axes`` have length 1."""
    contribution, joined, post, identity, preamble = source
    axes = tuple(axis % x.ndim for axis in axes)
    kept = tuple(axis for axis in range(x.ndim) if axis not in axes)
    assert out.shape == tuple(1 if axis in axes else x.shape[axis] for axis in range(x.ndim))
    assert out.flags.c_contiguous
    data = np.ascontiguousarray(np.transpose(x, (*kept, *axes)))
    inner = int(np.prod([x.shape[axis] for axis in axes], dtype=np.int64))
    text = f"""{PROLOGUE}{preamble}
{typedefs(bound)} typedef {C_NAMES[out.dtype.name]} R;
static inline R contributed(const T x) {{ return {contribution}; }}
static inline R joined(R a, R b) {{ return {joined}; }}
extern "C" void run(long long outer, long long inner, const T* data, R* out) {{
    for (long long i = 0; i < outer; ++i) {{
        R a = {identity};
        for (long long j = 0; j < inner; ++j) a = joined(a, contributed(data[i * inner + j]));
        R& y = out[i];
        {post};
    }}
}}"""
    assert re.fullmatch(r"\w+", identity)
    library(text).run(
        ctypes.c_longlong(out.size),
        ctypes.c_longlong(inner),
        ctypes.c_void_p(data.ctypes.data),
        ctypes.c_void_p(out.ctypes.data),
    )
