"""Every kernel compiles for real devices, keeps its numbers in registers, and float32 stays float32."""

from __future__ import annotations

import inspect

import pytest
from numba.cuda.dispatcher import CUDADispatcher
from orthokern_numba.gpu import (
    columns_kernels,
    elementwise_kernels,
    hadamard_kernels,
    hashing_kernels,
    polar_kernels,
    random_kernels,
    sweep_kernels,
)

from .machine import Resources, doubles, ptx, resources
from .specialisations import ARCHITECTURES, EVERY

MODULES = (
    columns_kernels,
    elementwise_kernels,
    hadamard_kernels,
    hashing_kernels,
    polar_kernels,
    random_kernels,
    sweep_kernels,
)


def complaints(specialisation, text, found):
    """What a kernel does that it must not."""
    wrong = []
    if specialisation.single and doubles(text):
        wrong.append(f"computes in float64: {doubles(text)[0]}")
    if found.spills or found.stack:
        wrong.append(f"keeps {found.stack} bytes of stack and spills {found.spills}")
    if found.registers > specialisation.registers:
        wrong.append(f"takes {found.registers} registers, more than {specialisation.registers}")
    if found.shared > specialisation.shared:
        wrong.append(f"takes {found.shared} bytes a block, more than {specialisation.shared}")
    return wrong


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda cc: f"sm_{cc[0]}{cc[1]}")
@pytest.mark.parametrize("specialisation", EVERY, ids=lambda s: s.name)
def test_kernel(specialisation, architecture, record_property):
    text = ptx(specialisation.kernel, specialisation.arguments, architecture)
    found = resources(text, architecture)
    arch = "sm_{}{}".format(*architecture)
    row = (found.registers, found.shared, found.stack, found.spills)
    record_property("resources", (specialisation.name, arch, *row))
    assert complaints(specialisation, text, found) == []


def test_no_kernel_is_left_out():
    """Kernels and makers of kernels by module, against those that are compiled above."""
    compiled = {s.kernel.py_func.__code__ for s in EVERY}
    made = {code for code in compiled if "<locals>" in code.co_qualname}
    named = {
        value.py_func.__code__
        for module in MODULES
        for value in vars(module).values()
        if isinstance(value, CUDADispatcher) and not value.targetoptions.get("device")
    }
    assert named == compiled - made
    makers = {
        name
        for module in MODULES
        for name, value in vars(module).items()
        if hasattr(value, "cache_clear") and inspect.unwrap(value).__module__ == module.__name__
    }
    assert makers == {code.co_qualname.partition(".")[0] for code in made}


LIGHT = Resources(registers=16, stack=0, spills=0, shared=0)


@pytest.mark.parametrize(
    ("found", "text", "complaint"),
    [
        (LIGHT._replace(registers=999), "", "takes 999 registers"),
        (LIGHT._replace(spills=4), "", "spills 4"),
        (LIGHT._replace(stack=8), "", "8 bytes of stack"),
        (LIGHT._replace(shared=10**6), "", "takes 1000000 bytes a block"),
        (LIGHT, "\tmul.f64 \t%fd3, %fd1, %fd2;\n", "computes in float64: mul.f64"),
    ],
)
def test_each_gate_closes(found, text, complaint):
    specialisation = next(s for s in EVERY if s.name == "shrink float32")
    assert complaints(specialisation, "\tmul.f32 %f3;\n", LIGHT) == []
    (wrong,) = complaints(specialisation, text, found)
    assert complaint in wrong


def test_float64_kernels_may_compute_in_float64():
    specialisation = next(s for s in EVERY if s.name == "shrink float64")
    assert complaints(specialisation, "\tmul.f64 %fd3;\n", LIGHT) == []
