"""Every name of CuPy that its backend writes exists in the CuPy that is installed: found without a device."""

from __future__ import annotations

import ast
import importlib
import importlib.util
from pathlib import Path

import orthokern_cupy
import pytest

import orthokern

ROOTS = {"cp": "cupy", "cupy": "cupy", "cupyx": "cupyx"}
BACKEND = sorted(Path(orthokern_cupy.__file__).parent.rglob("*.py"))
BRIDGE = Path(orthokern.__file__).parent / "_core" / "_cuda.py"


def chain(node):
    """``["cp", "linalg", "qr"]`` of ``cp.linalg.qr``; empty for what does not begin with a name."""
    names = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return [node.id, *reversed(names)] if isinstance(node, ast.Name) else []


def written(module):
    """Names that the text of a module binds at its top: what a module offers that needs libraries of CUDA."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return frozenset()
    names = set()
    for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return frozenset(names)


def offers(module, name):
    """Whether ``module`` has ``name``; one that cannot be imported here is read."""
    try:
        return hasattr(importlib.import_module(module), name) or name in written(module)
    except ImportError:
        return name in written(module)


def resolves(names):
    """Whether a chain of names leads to something in the installed CuPy."""
    module, rest = ROOTS[names[0]], names[1:]
    found = importlib.import_module(module)
    for name in rest:
        if not hasattr(found, name):
            return False
        found = getattr(found, name)
        if not isinstance(found, type(ast) | type):
            # The members of values are not CuPy's to offer.
            return True
    return True


def missing(source):
    """Chains and imports in ``source`` that the installed CuPy does not know."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            names = chain(node)
            if names and names[0] in ROOTS and not resolves(names):
                found.append(f"{node.lineno}: {'.'.join(names)}")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ROOTS:
            found += [
                f"{node.lineno}: {node.module}.{alias.name}"
                for alias in node.names
                if not offers(str(node.module), alias.name)
            ]
    return found


@pytest.mark.parametrize("path", [*BACKEND, BRIDGE], ids=lambda path: path.name)
def test_every_name_exists(path):
    assert missing(path.read_text(encoding="utf-8")) == []


def test_the_backend_uses_cupy():
    text = "\n".join(path.read_text(encoding="utf-8") for path in BACKEND)
    used = {tuple(chain(n)) for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Attribute)}
    assert {("cp", "linalg", "cholesky"), ("cp", "matmul"), ("cp", "ElementwiseKernel")} <= used


PLANTED = [
    ("def f(x, cp):\n    return cp.linalg.polar(x)", "2: cp.linalg.polar"),
    ("def f(x, cp):\n    return cp.linalg.vecdot(x, x)", "2: cp.linalg.vecdot"),
    ("import cupy\ncupy.cuda.ExternalStreams(0)", "2: cupy.cuda.ExternalStreams"),
    ("from cupy.cublas import syrkx", "1: cupy.cublas.syrkx"),
    ("from cupyx.scipy.linalg import solve_triangle", "1: cupyx.scipy.linalg.solve_triangle"),
]


@pytest.mark.parametrize(("source", "line"), PLANTED)
def test_a_planted_name_is_found(source, line):
    assert missing(source) == [line]


def test_what_exists_is_not_found():
    source = """
from cupy.cublas import syrk
from cupyx.scipy.linalg import solve_triangular
def f(x, cp):
    return cp.linalg.svd(x).anything, cp.cuda.Stream.null, x.cp.nothing
"""
    assert missing(source) == []
