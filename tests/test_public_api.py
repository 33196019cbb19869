"""What is public: where it lives, that it is documented, that its examples run, and what importing it costs."""

from __future__ import annotations

import contextlib
import doctest
import importlib
import importlib.metadata
import inspect
import re
from pathlib import Path

import pytest

import orthokern
from orthokern._core.errors import OrthokernError
from orthokern._core.registry import FAMILIES

from .helpers import outside

MANUAL = Path(__file__).parents[1] / "docs" / "api.md"
HOMES = ("orthokern", *(f"orthokern.{family}" for family in FAMILIES))
MODULES = (*HOMES, "orthokern.backend", "orthokern.testing", "orthokern.testing.data")
# What only the caller can know.
CHOSEN_BY_CALLERS = frozenset({"capacity", "epsilon", "k", "mu", "n_iter", "regularizer"})
FRAMEWORKS = (
    "torch",
    "jax",
    "cupy",
    "dask",
    "numba",
    "scipy",
    "array_api_strict",
    "rich",
    "pytest",
)


def public(module):
    """Names and values that a module offers."""
    loaded = importlib.import_module(module)
    return {name: getattr(loaded, name) for name in loaded.__all__}


def callables(modules):
    """Each public function and class once, by the name under which users find it first."""
    found = {}
    for module in modules:
        for name, value in public(module).items():
            if callable(value):
                found.setdefault(id(value), (f"{module}.{name}", value))
    return dict(found.values())


CALLABLES = callables(MODULES)
KERNELS = {
    name: value
    for name, value in callables(HOMES).items()
    if inspect.isfunction(value) and "backend" in inspect.signature(value).parameters
}


def documented():
    """Names that the manual's page documents, by module."""
    found = {module: set() for module in MODULES}
    module = None
    for line in MANUAL.read_text(encoding="utf-8").splitlines():
        if match := re.match(r"\.\. (?:py:|current)module:: (\S+)", line):
            module = match[1]
        elif match := re.match(r"\.\. auto(?:function|class|exception):: (\S+)", line):
            found[module].add(match[1])
    return found


# Names


@pytest.mark.parametrize("module", MODULES)
def test_all_is_sorted_and_complete(module):
    loaded = importlib.import_module(module)
    assert list(loaded.__all__) == sorted(set(loaded.__all__))
    assert set(loaded.__all__) <= set(dir(loaded))
    assert all(hasattr(loaded, name) for name in loaded.__all__)


def test_the_table_of_homes_is_all():
    names = [name for names in orthokern._HOMES.values() for name in names]
    assert sorted([*names, *orthokern._FAMILIES]) == orthokern.__all__
    assert orthokern._FAMILIES == FAMILIES


@pytest.mark.parametrize(("home", "names"), orthokern._HOMES.items())
def test_names_are_those_of_their_homes(home, names):
    loaded = importlib.import_module(f"orthokern.{home}")
    for name in names:
        assert getattr(orthokern, name) is getattr(loaded, name)
        assert home.startswith("_core") or name in loaded.__all__


@pytest.mark.parametrize("module", MODULES)
def test_the_manual_documents_what_is_public(module):
    pages = documented()
    names = set(importlib.import_module(module).__all__) - set(FAMILIES)
    elsewhere = {
        name
        for name, value in public(module).items()
        if module != "orthokern"
        and name in pages["orthokern"]
        and value is public("orthokern")[name]
    }
    assert pages[module] == names - elsewhere


def test_every_error_class_that_users_meet_is_public():
    kinds = {kind.__name__ for kind in OrthokernError.__subclasses__()}
    assert kinds <= set(orthokern.__all__)


def test_no_kernel_bears_the_name_of_a_package():
    folder = Path(orthokern.__file__).parent
    packages = {path.parent.name for path in folder.rglob("__init__.py")}
    assert not packages & {name.rpartition(".")[2] for name in KERNELS}


# Documentation


@pytest.mark.parametrize("name", CALLABLES)
def test_everything_public_says_what_it_is(name):
    value = CALLABLES[name]
    text = value.__doc__
    assert text
    assert text.splitlines()[0].endswith(".")
    if inspect.isclass(value) and issubclass(value, tuple):
        # What NamedTuple writes by itself is no documentation.
        assert not text.startswith(f"{value.__name__}(")


SECTIONS = ("Parameters", "Returns", "References", "Examples")


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("section", SECTIONS)
def test_kernels_document_every_section(name, section):
    text = inspect.cleandoc(KERNELS[name].__doc__)
    assert re.search(rf"^{section}\n-{{{len(section)}}}$", text, re.MULTILINE)


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_name_their_cost_and_their_shapes(name):
    text = KERNELS[name].__doc__
    assert re.search(r"flops", text, re.IGNORECASE)
    assert "(..., " in text


def documented_parameters(text):
    block = re.search(
        r"^Parameters\n-+\n(.*?)\n\n", inspect.cleandoc(text), re.MULTILINE | re.DOTALL
    )
    lines = [line for line in block[1].splitlines() if not line.startswith(" ")]
    return [name.strip() for line in lines for name in line.partition(" :")[0].split(",")]


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_document_every_parameter(name):
    kernel = KERNELS[name]
    wanted = list(inspect.signature(kernel).parameters)
    found = documented_parameters(kernel.__doc__)
    refers = re.search(r"Parameters are those of :func:`(\w+)`", kernel.__doc__)
    if refers:
        found += documented_parameters(getattr(orthokern, refers[1]).__doc__)
    assert set(wanted) <= set(found)


def examples():
    find = doctest.DocTestFinder(recurse=False).find
    found = [test for name, value in CALLABLES.items() for test in find(value, name)]
    return [test for test in found if test.examples]


@pytest.mark.parametrize("example", examples(), ids=lambda test: test.name)
def test_examples_run(example):
    output = []
    runner = doctest.DocTestRunner(verbose=False)
    result = runner.run(example, out=output.append)
    assert result.failed == 0, "".join(output)
    assert result.attempted > 0


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_have_an_example(name):
    assert ">>> " in KERNELS[name].__doc__
    assert name.rpartition(".")[2] in KERNELS[name].__doc__.partition(">>> ")[2]


# Signatures


@pytest.mark.parametrize("name", KERNELS)
def test_arrays_are_positional_and_options_are_keywords(name):
    first, *options = inspect.signature(KERNELS[name]).parameters.values()
    assert first.kind is inspect.Parameter.POSITIONAL_ONLY
    assert first.default is inspect.Parameter.empty
    arrays = [p for p in options if p.kind is inspect.Parameter.POSITIONAL_ONLY]
    keywords = options[len(arrays) :]
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in keywords)
    without = {p.name for p in keywords if p.default is inspect.Parameter.empty}
    assert without <= CHOSEN_BY_CALLERS
    assert keywords[-1].name == "backend"
    assert keywords[-1].default is None


@pytest.mark.parametrize("name", CALLABLES)
def test_every_public_signature_is_annotated(name):
    value = CALLABLES[name]
    if inspect.isclass(value):
        return
    signature = inspect.signature(value)
    assert signature.return_annotation is not inspect.Signature.empty
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty, parameter.name


# Import


def test_importing_loads_no_framework():
    code = f"""
import sys
before = set(sys.modules)
import orthokern
dir(orthokern)
print([name for name in {FRAMEWORKS!r} if name in set(sys.modules) - before])
"""
    assert outside.answer(code) == "[]\n"


def test_using_it_on_numpy_loads_no_other_framework():
    others = [name for name in FRAMEWORKS if name not in ("numba", "scipy")]
    code = f"""
import sys
import numpy as np
import orthokern
orthokern.polar(np.eye(3))
print([name for name in {others!r} if name in sys.modules])
"""
    assert outside.answer(code) == "[]\n"


def test_nothing_is_loaded_before_it_is_used():
    code = """
import sys
import orthokern
print([name for name in sys.modules if name.startswith("orthokern.")])
orthokern.polar
print("orthokern.spectral.polar" in sys.modules)
"""
    assert outside.answer(code) == "[]\nTrue\n"


def test_every_name_can_be_imported_by_a_star():
    code = "from orthokern import *; print(polar.__name__, spectral.__name__)"
    assert outside.answer(code) == "polar orthokern.spectral\n"


def test_dir_lists_what_is_public_before_it_is_loaded():
    code = """
import orthokern
names = dir(orthokern)
print(names == sorted(names), {*orthokern.__all__, "__version__"} <= set(names))
"""
    assert outside.answer(code) == "True True\n"


@pytest.mark.parametrize("module", ["orthokern", "orthokern.testing"])
@pytest.mark.parametrize("name", ["polarr", "__wrapped__"])
def test_an_unknown_attribute_is_an_attribute_error(module, name):
    with pytest.raises(AttributeError, match=f"module '{module}' has no attribute '{name}'"):
        getattr(importlib.import_module(module), name)


def test_the_version_is_that_of_the_package():
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", orthokern.__version__)
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        assert importlib.metadata.version("orthokern") == orthokern.__version__
