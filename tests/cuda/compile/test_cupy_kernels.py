"""The C++ text of every fused kernel, compiled by NVRTC with CuPy's headers: it fits in registers and stays single.

The frame around an operation is written as CuPy writes it: for strided arrays of three dimensions, the most that a
kernel of the backend is called with, and for arrays without gaps, which count in 32 bits.
"""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import cupy
import numpy as np
import pytest
from cuda.bindings import nvrtc
from cuda.core import Program, ProgramOptions
from cuda.pathfinder import find_nvidia_header_directory
from orthokern_cupy.kernels import KERNELS, PREAMBLE, Elementwise, kernel, written_out

ARCHITECTURES = ("sm_80", "sm_90")
TYPES = {
    "float32": "float",
    "float64": "double",
    "complex64": "complex<float>",
    "complex128": "complex<double>",
}
# Few enough for full occupancy with blocks of 128 threads on these architectures.
MOST_REGISTERS = 64
DOUBLE = re.compile(r"^\s*(?:@\S+\s+)?(\w\S*\.f64\S*)", re.MULTILINE)
# Dimensions, whether there are no gaps, whether 32 bits are enough to count.
LAYOUTS = {"strided": "3, false, false", "contiguous": "1, true, true"}
# Arguments that are handed on as numbers, not as arrays.
NUMBERS = {"a", "b", "c", "limit", "width", "height"}
HEADERS = """
#include <cupy/complex.cuh>
#include <cupy/carray.cuh>
#include <cupy/math_constants.h>
"""


def bound(dtype, parameter):
    """C++ type of a declared argument."""
    plain = TYPES[dtype]
    real = "float" if "float>" in plain or plain == "float" else "double"
    return {"T": plain, "R": real, real_name(dtype): real, "int32": "int"}[parameter]


def real_name(dtype):
    """The dtype of real parts."""
    return np.zeros(1, dtype).real.dtype.name


def declared(text):
    return [part.split() for part in text.split(",")]


def elementwise(entry, dtype, name, layout="strided"):
    """The kernel around one operation."""
    arguments, reads = [], []
    outputs = declared(entry.outputs)
    for *raw, kind, variable in (*declared(entry.inputs), *outputs):
        c_type = bound(dtype, kind)
        if variable in NUMBERS:
            arguments.append(f"{c_type} {variable}")
            continue
        is_output = [kind, variable] in outputs
        constant = "" if is_output else "const "
        inner = variable if raw else f"_raw_{variable}"
        arguments.append(f"{constant}CArray<{c_type}, {LAYOUTS[layout]}> {inner}")
        if not raw:
            reads.append(f"{constant}{c_type}& {variable} = {inner}[_ind.get()];")
    indexer = {"strided": "3, false", "contiguous": "1, true"}[layout]
    return f"""{HEADERS}
typedef {bound(dtype, "T")} T; typedef {bound(dtype, "R")} R;
{PREAMBLE}
extern "C" __global__ void {name}({", ".join(arguments)}, CIndexer<{indexer}> _ind) {{
    CUPY_FOR(i, _ind.size()) {{
        _ind.set(i);
        {" ".join(reads)}
        {entry.operation};
    }}
}}"""


def reduction(entry, dtype, name):
    """Contributions of one block joined in shared memory."""
    return f"""{HEADERS}
typedef {bound(dtype, "T")} T; typedef {bound(dtype, "R")} R;
{PREAMBLE}
#define REDUCE(a, b) ({entry.joined})
extern "C" __global__ void {name}(const T* data, R* out, long long count) {{
    __shared__ R shared[128];
    R a = R({entry.nothing});
    for (long long j = threadIdx.x; j < count; j += 128) {{
        const T x = data[blockIdx.x * count + j];
        R _a = static_cast<R>({entry.contribution});
        a = REDUCE(a, _a);
    }}
    shared[threadIdx.x] = a;
    for (int half = 64; half > 0; half /= 2) {{
        __syncthreads();
        if (threadIdx.x < half) {{
            shared[threadIdx.x] = REDUCE(shared[threadIdx.x], shared[threadIdx.x + half]);
        }}
    }}
    R& y = out[blockIdx.x];
    a = shared[0];
    if (threadIdx.x == 0) y = a;
}}"""


@functools.cache
def folders():
    """Where CuPy's own headers are, and the ones of CUDA that they need."""
    own = Path(cupy.__file__).parent / "_core" / "include"
    parts = [own, *(own / "cupy" / "_cccl" / name for name in ("libcudacxx", "thrust", "cub"))]
    return [str(part) for part in (*parts, find_nvidia_header_directory("cudart")) if part]


@functools.cache
def cuobjdump():
    """The tool, from where pip puts it or from the path."""
    root = Path(sysconfig.get_path("purelib")) / "nvidia"
    (tool,) = [*map(str, root.rglob("cuobjdump")), *filter(None, [shutil.which("cuobjdump")])][:1]
    return tool


def resources(source, architecture, folder):
    """Registers a thread, and bytes that did not fit into them."""
    # As CuPy has it compiled: denormal numbers count as zero.
    options = ProgramOptions(arch=architecture, std="c++17", include_path=folders(), ftz=True)
    path = folder / f"{architecture}.cubin"
    path.write_bytes(bytes(Program(source, "c++", options).compile("cubin").code))
    command = [cuobjdump(), "--dump-resource-usage", str(path)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    figures = dict(re.findall(r"\b(REG|STACK|LOCAL):(\d+)", text))
    return int(figures["REG"]), int(figures["STACK"]) + int(figures["LOCAL"])


def doubles(source, architecture):
    """Instructions in double precision, in the assembly that the compiler hands on."""
    return sorted(set(DOUBLE.findall(assembly(source, architecture))))


def assembly(source, architecture):
    """By NVRTC itself: to make PTX, the wrapper around it asks the driver first."""
    options = [
        f"--gpu-architecture={architecture.replace('sm', 'compute')}",
        "--std=c++17",
        "--ftz=true",
    ]
    options += [f"--include-path={folder}" for folder in folders()]
    created, program = nvrtc.nvrtcCreateProgram(source.encode(), b"kernel.cu", 0, [], [])
    (done,) = nvrtc.nvrtcCompileProgram(program, len(options), [o.encode() for o in options])
    _, size = nvrtc.nvrtcGetPTXSize(program)
    text = b" " * size
    (got,) = nvrtc.nvrtcGetPTX(program, text)
    assert (created, done, got) == (nvrtc.nvrtcResult.NVRTC_SUCCESS,) * 3
    return text.decode()


def faults(source, dtype, architecture, folder):
    """What the gates hold against a kernel, and its registers."""
    registers, spilled = resources(source, architecture, folder)
    wide = doubles(source, architecture) if dtype in ("float32", "complex64") else []
    found = [f"double precision: {', '.join(wide)}"] if wide else []
    if spilled:
        found.append(f"{spilled} bytes spilled")
    if registers > MOST_REGISTERS:
        found.append(f"{registers} registers")
    return found, registers


def entry_of(name, dtype):
    """The text that CuPy sees."""
    return written_out(KERNELS[name], real_name(dtype))


def source_of(name, dtype):
    entry = entry_of(name, dtype)
    frame = elementwise if isinstance(entry, Elementwise) else reduction
    return frame(entry, dtype, f"orthokern_{name}")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_passes_the_gates(name, dtype, architecture, tmp_path, record_property):
    found, registers = faults(source_of(name, dtype), dtype, architecture, tmp_path)
    # For the table of all kernels; nothing is spilled, which is one of the gates.
    record_property("resources", (f"cupy {name} {dtype}", architecture, registers, "-", "-", 0))
    assert not found, f"{name} {dtype} {architecture}: {'; '.join(found)}"


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", [n for n, e in KERNELS.items() if isinstance(e, Elementwise)])
def test_arrays_without_gaps_too(name, dtype, tmp_path):
    source = elementwise(entry_of(name, dtype), dtype, "contiguous", "contiguous")
    assert not faults(source, dtype, "sm_90", tmp_path)[0]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", [n for n, e in KERNELS.items() if isinstance(e, Elementwise)])
def test_cupy_knows_every_type(name, dtype):
    """By its own rule, which learns placeholders from arrays alone."""
    made = kernel(name, np.zeros(1, dtype), cupy)
    entry = entry_of(name, dtype)
    real = real_name(dtype)
    kinds = {"T": np.dtype(dtype), real: np.dtype(real)}
    given = [
        None if variable in NUMBERS else kinds[kind]
        for *_, kind, variable in declared(entry.inputs)
    ]
    outputs = [kinds[kind] for kind, _ in declared(entry.outputs)]
    found, results, _ = made._decide_params_type(tuple(given), ())
    assert [np.dtype(t) for t in results] == outputs
    assert [np.dtype(t) for t, g in zip(found, given, strict=True) if g] == [g for g in given if g]
    assert made.name == f"orthokern_{name}_{real}"


# The gear


def planted(statement, dtype="float32"):
    entry = written_out(Elementwise("T x, R a, int32 width", "T z", statement), "float32")
    return elementwise(entry, dtype, "planted")


def test_a_type_that_only_numbers_have_is_found():
    made = cupy.ElementwiseKernel("T x, R a", "T y", "y = x * a", "planted")
    with pytest.raises(KeyError, match="R"):
        made._decide_params_type((np.dtype("float32"), None), ())


def test_a_literal_in_double_precision_is_found(tmp_path):
    found, _ = faults(planted("z = 0.3 * x + a"), "float32", "sm_90", tmp_path)
    assert found[0].startswith("double precision: ")
    assert "mul" in found[0] or "fma" in found[0]


def test_double_precision_is_seen_where_it_belongs():
    assert doubles(source_of("blend", "float64"), "sm_80")


def test_an_array_that_does_not_fit_is_found(tmp_path):
    statement = """
        float big[200];
        for (int k = 0; k < 200; ++k) big[k] = x * k;
        z = 0;
        for (int k = 0; k < 200; ++k) z += big[(k * width) % 200] + big[(width + k) % 200]
    """
    found, _ = faults(planted(statement), "float32", "sm_90", tmp_path)
    assert any("bytes spilled" in fault for fault in found)


def test_text_that_is_no_program_is_found(tmp_path):
    with pytest.raises(Exception, match="undeclared"):
        faults(planted("z = undeclared"), "float32", "sm_90", tmp_path)
