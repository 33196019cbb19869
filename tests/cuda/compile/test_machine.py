"""The gear that compiles finds what it is there for: each test plants a mistake."""

from __future__ import annotations

import numba as nb
import numpy as np
import pytest
from numba import cuda

from . import machine
from .specialisations import ARCHITECTURES

HALF = np.float32(0.5)


@cuda.jit
def right(x, out):
    i = cuda.grid(1)
    if i < x.size:
        out[i] = HALF * x[i]


@cuda.jit
def stray(x, out):
    i = cuda.grid(1)
    if i < x.size:
        out[i] = 0.5 * x[i] + HALF


@cuda.jit
def counting(x, out):
    i = cuda.grid(1)
    if i < x.size:
        out[i] = x[i] * i


@cuda.jit
def roomy(x, out):
    room = cuda.local.array(512, np.float32)
    for i in range(512):
        room[i] = x[i]
    out[0] = room[int(x[0])]


@cuda.jit(launch_bounds=(1024, 2))
def crowded(x, out):
    first = cuda.local.array(64, np.float32)
    for i in range(64):
        first[i] = x[i]
    for _ in range(int(x[64])):
        for i in range(64):
            first[i] = first[i] * first[63 - i] + x[i]
    for i in range(64):
        out[i] = first[i]


@cuda.jit
def sharing(x, out):
    room = cuda.shared.array(256, np.float32)
    room[cuda.threadIdx.x] = x[cuda.threadIdx.x]
    cuda.syncthreads()
    out[cuda.threadIdx.x] = room[255 - cuda.threadIdx.x]


@cuda.jit(device=True)
def twice(value):
    return value + value


@cuda.jit
def calling(x, out):
    out[0] = twice(x[0])


def compiled(kernel, architecture=(9, 0)):
    vector = nb.types.Array(nb.float32, 1, "C")
    text = machine.ptx(kernel, nb.void(vector, vector), architecture)
    return text, machine.resources(text, architecture)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kernel", [right, calling])
def test_a_right_kernel_has_nothing_to_hide(kernel, architecture):
    text, found = compiled(kernel, architecture)
    assert "sm_{}{}".format(*architecture) in text
    assert machine.doubles(text) == []
    assert (found.stack, found.spills, found.shared) == (0, 0, 0)
    assert 0 < found.registers <= 32


@pytest.mark.parametrize("kernel", [stray, counting])
def test_a_stray_double_is_found(kernel):
    """A literal, and an integer that meets a float, make float64 on a device."""
    text, _ = compiled(kernel)
    assert any(line.startswith(("add", "fma", "mul")) for line in machine.doubles(text))


def test_a_big_local_array_is_found():
    assert compiled(roomy)[1].stack >= 2048


def test_numbers_that_do_not_fit_into_registers_are_found():
    found = compiled(crowded)[1]
    assert found.registers <= 32
    assert found.spills > 0


def test_shared_memory_is_counted():
    assert compiled(sharing)[1].shared == 1024


def test_what_the_assembler_refuses_is_an_error():
    text, _ = compiled(right)
    with pytest.raises(RuntimeError, match="ptxas refuses"):
        machine.resources(text.replace("ret;", "return;"), (9, 0))


def test_an_assembler_that_is_missing_is_an_error(monkeypatch):
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="ptxas is not installed"):
        machine.assembler()
