"""Backends that come as installed packages: found, left alone until they are named, reported when broken."""

from __future__ import annotations

import shutil

import pytest

from orthokern.backend import absence

from ..helpers import outside

ANSWER = """
import sys
import numpy as np
import orthokern
x = np.random.default_rng(5).standard_normal((7, 9, 6))
u, h, info = orthokern.polar(x)
print(b"".join(part.tobytes() for part in (u, h, *info)).hex())
print("outside" in sys.modules, file=sys.stderr)
"""

WRONG = """
from orthokern._core.dispatch import OPS
from orthokern.backend import Backend

backend = Backend("outside", serves={("numpy", "cpu")})


def wrong(op):
    def run(*arrays, **static):
        out = OPS[op].body(*arrays, **static)
        return tuple(2 * part for part in out) if isinstance(out, tuple) else 2 * out

    return run


import orthokern.spectral

for op in list(OPS):
    backend.implements(op)(wrong(op))
"""


@pytest.fixture
def installed(tmp_path):
    return outside.install(tmp_path, "outside", WRONG, outside="backend")


def test_installed_but_not_named_changes_nothing(installed):
    without = outside.answer(ANSWER)
    assert outside.answer(ANSWER, path=[installed]) == without
    named = outside.answer(ANSWER, path=[installed], ORTHOKERN_BACKENDS="outside")
    assert named != without


def test_an_installed_backend_is_not_even_imported(installed):
    done = outside.python("-c", ANSWER, path=[installed])
    assert done.stderr == "False\n"


@pytest.mark.parametrize(
    ("options", "environment"),
    [("backend='outside'", {}), ("", {"ORTHOKERN_BACKENDS": "outside"})],
)
def test_an_installed_backend_runs_when_it_is_named(installed, options, environment):
    code = f"""
import numpy as np, orthokern
from orthokern._core.backends import installed
x = np.random.default_rng(5).standard_normal((4, 3))
with orthokern.explain() as report:
    orthokern.polar(x, {options})
print("outside" in installed(), {{decision.backend for decision in report}})
"""
    answer = outside.answer(code, path=[installed], **environment)
    assert answer == "True {'outside'}\n"


def test_every_op_is_implemented_by_the_wrong_package(installed):
    code = """
from orthokern._core.backends import load
from orthokern._core.dispatch import OPS
from orthokern._core.registry import load_all
load_all()
print(set(load("outside").entries) == set(OPS))
"""
    assert outside.answer(code, path=[installed]) == "True\n"


BROKEN = {
    "raises": "raise OSError('a library is missing')",
    "lacks": "",
    "mistakes": "backend = object()",
}


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raises", "could not be loaded: a library is missing; reinstall it or name another"),
        ("lacks", "could not be loaded: module 'broken' has no attribute 'backend'"),
        ("mistakes", "expected broken:backend to be an orthokern.backend.Backend, got object"),
    ],
)
def test_a_broken_package_is_reported_when_it_is_named(tmp_path, source, reason):
    outside.install(tmp_path, "broken", BROKEN[source], broken="backend")
    code = """
import numpy as np, orthokern
print(np.array_equal(orthokern.polar(np.eye(2)).u, np.eye(2)))
try:
    orthokern.polar(np.eye(2), backend="broken")
except orthokern.BackendError as failure:
    print(failure)
"""
    unnamed, failure = outside.answer(code, path=[tmp_path]).splitlines()
    assert unnamed == "True"
    assert reason in failure
    assert "broken" in failure


def test_two_packages_with_one_name_warn(tmp_path):
    made = 'from orthokern.backend import Backend\nbackend = Backend("twin", serves=[("numpy", "cpu")])'
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        folder.mkdir()
        outside.install(folder, f"{folder.name}_twin", made, twin="backend")
    code = """
import warnings
from orthokern._core import backends
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    backends.installed()
    backends.installed()
print(len(caught), caught[0].category.__name__, caught[0].message)
backends.load("twin")
import sys
print("first_twin" in sys.modules, "second_twin" in sys.modules)
"""
    warned, loaded = outside.answer(code, path=folders).splitlines()
    assert warned == (
        "1 RuntimeWarning two installed packages offer an orthokern backend named 'twin' "
        "(first_twin:backend and second_twin:backend); the first is used, uninstall one of them"
    )
    assert loaded == "True False"


def test_two_packages_that_mean_the_same_do_not_warn(installed):
    fork = installed / "fork-1.0.dist-info"
    shutil.copytree(installed / "outside-1.0.dist-info", fork)
    fork.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: fork\nVersion: 1.0\n")
    code = "from orthokern._core import backends; print('outside' in backends.installed())"
    assert outside.answer(code, path=[installed]) == "True\n"


OWN = ("cupy", "numba", "numba_cuda")


def test_the_own_backends_are_found_without_package_metadata():
    code = f"""
import importlib.metadata
importlib.metadata.entry_points = lambda **selection: ()
from orthokern._core import backends
print(*backends.installed())
for name in {OWN}:
    print(backends.load(name))
"""
    names, *found = outside.answer(code).splitlines()
    assert names.split() == list(OWN)
    for name, backend in zip(OWN, found, strict=True):
        assert backend.startswith(f"Backend({name!r}, ops=[")


def test_registering_the_own_backends_imports_nothing_heavy():
    code = f"""
import sys
from orthokern._core import backends
for name in {OWN}:
    backends.load(name)
print({{"numba", "numba_cuda", "cupy", "scipy"}} & set(sys.modules))
"""
    assert outside.answer(code) == "set()\n"


def test_a_backend_may_ask_whether_another_can_run(stranger):
    stranger("acme", available=lambda: "no licence")
    assert absence("acme") == "no licence"
    stranger("able")
    assert absence("able") is None
    assert absence("nobody").startswith("expected the name of an installed backend (")
