"""Who may import whom: a walk over the imports of every file of the packages."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

# In their order: each may use the ones before it.
FAMILIES = (
    "spectral",
    "orthogonal",
    "rotation",
    "dictionary",
    "denoising",
    "spd",
    "sketching",
    "inverse",
    "transport",
    "probes",
    "measures",
    "penalties",
    "conv",
    "transforms",
    "symmetry",
)
TOOLS = ("adapters", "testing", "__main__")
# What tools may use of the core.
CORE_OF_TOOLS = frozenset(
    f"orthokern._core.{name}"
    for name in (
        "backends",
        "dispatch",
        "dtypes",
        "errors",
        "namespace",
        "registry",
    )
)
FRAMEWORKS = frozenset({"torch", "jax", "cupy", "dask"})
# Files of the core that may import a framework once an array of it has arrived.
BRIDGES = frozenset({"namespace", "autodiff", "_torch", "_cuda", "loop"})
THIRD_PARTY = {"testing": {"rich", "pytest"}, "__main__": {"rich"}}
# What backends may use of a family: numbers made on the host.
HOST_SIDE = frozenset(
    {"orthokern.spectral.plan", "orthokern.transport.codes", "orthokern.spectral.coefficients"}
)


# Packages that only register a backend.
REGISTRATIONS = frozenset({"orthokern_numba", "orthokern_numba.gpu", "orthokern_cupy"})


class Import(NamedTuple):
    """``from module import name``, or ``import module`` with an empty name."""

    module: str
    name: str
    late: bool
    line: int

    @property
    def target(self):
        return f"{self.module}.{self.name}".rstrip(".")


def imports(tree, package, *, late=False):
    """Every import statement below ``tree``; ``late`` ones wait for a call."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, "", late, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            origin = ".".join(filter(None, (above, node.module)))
            yield from (Import(origin, alias.name, late, node.lineno) for alias in node.names)
        else:
            deeper = late or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from imports(node, package, late=deeper)


def layer_of(module):
    """``_core``, a family, a tool, ``backend``, ``root``, or the package of a backend."""
    top, *rest = module.split(".")
    return (rest[0] if rest else "root") if top == "orthokern" else top


def is_public(found):
    """Whether a family or the package itself offers the name."""
    if found.target.startswith("orthokern.backend"):
        return True
    offered = getattr(importlib.import_module(found.module), "__all__", ())
    return found.name in (*offered, "__version__")


def own(module, layer, found):
    """What is wrong with an import from orthokern."""
    wanted = layer_of(found.target)
    if found.target.endswith(("._core._torch", "._core._cuda")) and not found.late:
        return "imports a bridge before an array for it arrived"
    if layer in FAMILIES and found.target == "orthokern._core.namespace.library":
        return "asks which library an array is of"
    if layer == wanted or (layer in (*FAMILIES, "backend", "root") and wanted == "_core"):
        return None
    if layer in FAMILIES and wanted in FAMILIES:
        if FAMILIES.index(wanted) > FAMILIES.index(layer):
            return "imports a later family"
        flat = found.module in ("orthokern", f"orthokern.{wanted}")
        return None if flat and is_public(found) else "imports what a family does not offer"
    if layer == "root" and wanted in FAMILIES:
        return None
    if layer in TOOLS:
        if found.module in CORE_OF_TOOLS or (layer, wanted) == ("__main__", "testing"):
            return None
        public = wanted not in ("_core", *TOOLS) and is_public(found)
        return None if public else "imports what is neither public nor the registry"
    if layer.startswith("orthokern_"):
        allowed = found.module == "orthokern.backend" or found.module in HOST_SIDE
        return None if allowed and not found.name.startswith("_") else "imports what is not its"
    return "imports another layer"


def foreign(module, layer, found):
    """What is wrong with an import from elsewhere."""
    top, stem = found.module.split(".")[0], module.rpartition(".")[2]
    if top in sys.stdlib_module_names:
        return None
    if layer.startswith("orthokern_"):
        early = module in REGISTRATIONS and not found.late
        return "loads when it is registered" if early else None
    if top in FRAMEWORKS and layer == "_core":
        late = found.late or stem == "_torch"
        return None if stem in BRIDGES and late else "imports a framework"
    if top == "array_api_compat":
        return None if module == "orthokern._core.namespace" else "is not the namespace's file"
    if top == "scipy":
        return None if found.late else "imports SciPy before it is needed"
    allowed = top == "numpy" or layer == "adapters" or top in THIRD_PARTY.get(layer, ())
    return None if allowed else "imports a third party"


def violations(module, source, *, package=None):
    """One line for each import of the file that the layers forbid."""
    layer, found = layer_of(module), []
    for item in imports(ast.parse(source), package or module.rpartition(".")[0]):
        top = item.module.split(".")[0]
        if top.startswith("orthokern_") and top != layer:
            reason = "imports a backend"
        elif top in ("orthokern", layer):
            reason = own(module, layer, item)
        else:
            reason = foreign(module, layer, item)
        if reason:
            found.append(f"{module}:{item.line} {reason}: {item.target}")
    return found


def files():
    """Name, package and path of every file that is installed."""
    for top in ("orthokern", "orthokern_numba", "orthokern_cupy"):
        spec = importlib.util.find_spec(top)
        if spec is None:
            continue
        root = Path(spec.origin).parent
        for path in sorted(root.rglob("*.py")):
            parts = (top, *path.relative_to(root).with_suffix("").parts)
            name = ".".join(parts).removesuffix(".__init__")
            yield name, ".".join(parts[:-1]), path


@pytest.mark.parametrize("file", [pytest.param(file, id=file[0]) for file in files()])
def test_layers(file):
    name, package, path = file
    found = violations(name, path.read_text(encoding="utf-8"), package=package)
    assert not found, "\n".join(found)


def test_every_folder_has_a_place():
    layers = {layer_of(name) for name, package, _ in files() if package.startswith("orthokern.")}
    assert {"_core", "spectral", "testing"} <= layers
    assert layers <= {"_core", *FAMILIES, *TOOLS}


PLANTED = [
    ("orthokern._core.check", "from ..spectral import polar"),
    ("orthokern._core.check", "import orthokern.spectral.plan"),
    ("orthokern._core.check", "from orthokern.testing import check"),
    ("orthokern._core.check", "import torch"),
    ("orthokern._core.check", "def f():\n    import torch"),
    ("orthokern._core.loop", "import jax.numpy as jnp"),
    ("orthokern._core.loop", "from . import _torch"),
    ("orthokern._core.views", "from . import _cuda"),
    ("orthokern._core._cuda", "import cupy"),
    ("orthokern._core.loop", "import array_api_compat"),
    ("orthokern._core.linalg", "from scipy import linalg"),
    ("orthokern._core.linalg", "import rich"),
    ("orthokern._core.dispatch", "def f():\n    import orthokern_numba"),
    ("orthokern.spectral.polar", "from ..orthogonal import orthonormalize"),
    ("orthokern.orthogonal.maps", "from ..spectral.plan import plan_polar"),
    ("orthokern.orthogonal.maps", "from ..spectral import plan"),
    ("orthokern.orthogonal.maps", "from ..spectral import factor"),
    ("orthokern.orthogonal.maps", "from ..testing import check"),
    ("orthokern.orthogonal.maps", "from .._core.namespace import library"),
    ("orthokern.orthogonal.maps", "import array_api_compat.numpy"),
    ("orthokern.orthogonal.maps", "def f():\n    import torch"),
    ("orthokern.orthogonal.maps", "class A:\n    import scipy.linalg"),
    ("orthokern.orthogonal.maps", "if True:\n    from orthokern_numba import backend"),
    ("orthokern.testing.checking", "from ..spectral.plan import Schedule"),
    ("orthokern.testing.checking", "from .._core.linalg import gram"),
    ("orthokern.testing.checking", "import torch"),
    ("orthokern.adapters.optax", "from .._core.scaling import balance"),
    ("orthokern.adapters.optax", "from ..testing import check"),
    ("orthokern.__main__", "from ._core.scaling import balance"),
    ("orthokern.backend", "from .spectral import polar"),
    ("orthokern_numba.newton", "from orthokern._core.linalg import gram"),
    ("orthokern_numba.newton", "from orthokern import polar"),
    ("orthokern_numba.newton", "from orthokern.spectral import polar"),
    ("orthokern_numba.newton", "from orthokern.spectral.factor import unitary_factor"),
    ("orthokern_numba.newton", "from orthokern.spectral.plan import _hidden"),
    ("orthokern_numba.newton", "from orthokern_cupy import backend"),
    ("orthokern_numba", "import numba"),
    ("orthokern_numba.gpu", "from numba import cuda"),
    ("orthokern_numba.gpu", "import numpy as np"),
    ("orthokern_numba.gpu.polar", "from orthokern.spectral.factor import unitary_factor"),
]


@pytest.mark.parametrize(("module", "source"), PLANTED)
def test_a_planted_violation_is_found(module, source):
    package = module if module in REGISTRATIONS else None
    (line,) = violations(module, source, package=package)
    assert line.startswith(f"{module}:{source.count(chr(10)) + 1} ")


ALLOWED = [
    ("orthokern._core.check", "import math\nimport numpy as np\nfrom .errors import ShapeError"),
    ("orthokern._core._torch", "import torch"),
    ("orthokern._core.loop", "def f():\n    import jax\n    from . import _torch"),
    ("orthokern._core._cuda", "def f():\n    import cupy"),
    ("orthokern._core.namespace", "import array_api_compat"),
    ("orthokern._core.linalg", "def f():\n    from scipy import linalg"),
    ("orthokern.orthogonal.maps", "from ..spectral import polar\nfrom .._core import check"),
    ("orthokern.orthogonal.maps", "from .alignment import procrustes"),
    ("orthokern.orthogonal.maps", "from .._core.namespace import namespace"),
    ("orthokern.testing.checking", "from .._core.registry import Case\nfrom .. import polar"),
    ("orthokern.testing.checking", "from rich.table import Table\nfrom . import libraries"),
    ("orthokern.adapters.optax", "import optax\nfrom ..spectral import orthogonalize"),
    ("orthokern.__main__", "from .testing.validation import run"),
    ("orthokern.backend", "from ._core.backends import Backend"),
    ("orthokern_numba.newton", "import numba\nimport scipy.linalg\nfrom . import layout"),
    ("orthokern_numba.newton", "from orthokern.spectral.plan import Schedule"),
    ("orthokern_numba", "from orthokern.backend import Backend\ndef f():\n    import numba"),
    ("orthokern_numba.gpu", "def f():\n    import cupy\n    from .polar import unitary_factor"),
    ("orthokern_numba.gpu.polar_kernels", "from numba import cuda\nimport numpy as np"),
]


@pytest.mark.parametrize(("module", "source"), ALLOWED)
def test_what_is_allowed_is_not_found(module, source):
    package = module if module in REGISTRATIONS else None
    assert violations(module, source, package=package) == []


CREATIONS = frozenset({"arange", "empty", "eye", "full", "linspace", "ones", "zeros"})


def undirected(tree: ast.AST) -> list[str]:
    """Calls that make an array of a namespace without saying on which device."""
    return [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in CREATIONS
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in {"xp", "space"}
        and not any(keyword.arg in {"device", None} for keyword in node.keywords)
    ]


def test_arrays_are_made_where_the_others_are() -> None:
    """Without a device they would be in host memory, which shows on a GPU alone."""
    package = Path(importlib.import_module("orthokern").__file__ or "").parent
    found = {str(path): undirected(ast.parse(path.read_text())) for path in package.rglob("*.py")}
    left = [call for calls in found.values() for call in calls]
    # Dask has no device; the last two are of a namespace and of no array.
    known = {"xp.arange(m)", "xp.arange(n)", "xp.arange(1)"}
    assert [call for call in left if call not in known and "self.shape[1]" not in call] == []
    assert undirected(ast.parse("xp.zeros((2, 3), dtype=x.dtype)"))
