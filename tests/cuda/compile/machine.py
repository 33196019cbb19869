"""Machine code of kernels without a device: PTX from Numba's compiler, and what ptxas says of it for a real GPU."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import subprocess
import tempfile
import types
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from numba import cuda
from numba.cuda import compiler, dispatcher

DOUBLE = re.compile(r"^.*\.f64.*$", re.MULTILINE)


class Resources(NamedTuple):
    """What one thread, and one block, of a kernel takes."""

    registers: int
    stack: int
    spills: int
    shared: int


def assembler():
    """ptxas of the installed toolkit."""
    spec = importlib.util.find_spec("nvidia")
    roots = list(spec.submodule_search_locations) if spec else []
    found = sorted(path for root in roots for path in Path(root).rglob("bin/ptxas"))
    if not found:
        raise FileNotFoundError("ptxas is not installed; pip install 'cuda-toolkit[nvcc]'")
    return found[0]


@contextlib.contextmanager
def pretended(capability):
    """Let the compiler of device functions believe that a device of this capability is there."""
    device = types.SimpleNamespace(compute_capability=capability)
    with contextlib.ExitStack() as stack:
        for module in (compiler, dispatcher):
            stack.enter_context(
                mock.patch.object(module, "get_current_device", return_value=device)
            )
        yield


def ptx(kernel, arguments, capability):
    """PTX of ``kernel`` for arguments of these Numba types."""
    bounds = kernel.targetoptions.get("launch_bounds")
    options = {"device": False, "abi": "numba", "output": "ptx", "launch_bounds": bounds}
    with pretended(capability):
        text, _ = cuda.compile(kernel.py_func, arguments, cc=capability, **options)
    return text


def resources(text, capability):
    """What ptxas needs for PTX ``text`` on a real device of this capability."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "kernel.ptx")
        source.write_text(text)
        arch = f"-arch=sm_{capability[0]}{capability[1]}"
        command = [assembler(), "-v", arch, source, "-o", source.with_suffix(".cubin")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ptxas refuses the kernel: {done.stderr}")
    return read(done.stderr)


def read(said):
    """The figures in what ``ptxas -v`` says; the largest of its functions."""

    def most(pattern):
        return max(map(int, re.findall(pattern, said)), default=0)

    return Resources(
        most(r"Used (\d+) registers"),
        most(r"(\d+) bytes stack frame"),
        most(r"(\d+) bytes spill stores") + most(r"(\d+) bytes spill loads"),
        most(r"(\d+) bytes smem"),
    )


def doubles(text):
    """The instructions of PTX ``text`` on numbers of 64 bits."""
    return [line.strip() for line in DOUBLE.findall(text)]
